"""This module defines every method by which equations are solved, in NumPy and for whole batches of columns.

All equations, forward and adjoint, dense and low rank, have the same form:

    X = S ∘ f(F₁ F₂ … X + Z)         forward:  S = 1, f = φ
                                     adjoint:  S = φ′(A X + Z), f = identity, F reversed and transposed, Z = G

No operation combines entries of two columns. Each column stops separately and then leaves the batch, so that no work is
done for columns that have converged while others continue.
"""

from __future__ import annotations

import math

import numpy as np

from idl_ref import factors as fac
from idl_ref.backends import methods
from idl_ref.backends.equation import Equation
from idl_ref.backends.numpy import trials
from idl_ref.backends.numpy.ledger import Ledger
from idl_ref.backends.numpy.trials import Proposal
from idl_ref.certificate import Certifier
from idl_ref.solution import Solution, SolveOptions, Status, join

# So many columns are solved together if A is sparse, as more of them take more memory than A, and fall out of caches.
SPARSE_TILE = 16


def picard(
    equation: Equation, X: np.ndarray, ledger: Ledger, leave_slow: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Iterate X ← g(X) until each column ends.

    If `leave_slow` is true, columns that converge slowly or overflow leave the iteration before they end. The function
    returns what `Leavers.join` tells another method about these columns.
    """
    leavers = ledger.begin(X)
    before = np.full(X.shape[1], np.inf)
    slow = np.zeros(X.shape[1], np.intp)
    while ledger.index.size:
        application = equation.at(X)
        alive = ledger.settle(application, another=leave_slow)
        slow = np.where(application.step > methods.SLOW * before, slow + 1, 0)
        before, X = application.step, application.G
        if leave_slow:
            finite = np.isfinite(before)
            alive = leavers.add(application, X, before, finite, alive, (slow >= methods.SLOW_STEPS) | ~finite)
        if np.count_nonzero(alive) < alive.size:
            equation, X, before, slow = equation.take(alive), X[:, alive], before[alive], slow[alive]
    return leavers.join()


def safeguarded(
    equation: Equation, X: np.ndarray, ledger: Ledger, proposal: Proposal, other: float = math.inf
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Iterate with trial points from `proposal`, and return to Picard's iteration where they do not reduce the step.

    Trial points may increase the step for a while, as Newton's do between two active sets. They are rejected if LEASH
    consecutive ones do not reduce the step below DECREASE times the smallest step so far, nor below DECREASE times the
    smallest step since the last good point. The column then continues with Picard's iteration from its last good point,
    and takes 1, 4, 16, … Picard steps before its next trial point. Only finitely many trial points can reduce the step
    by this factor before it is below a given bound, and all other steps are Picard's. Therefore this iteration
    converges where Picard's iteration converges from every start, and where trial points do not reduce the step at all,
    it spends at most LEASH · log₄(max_iter) applications on them.

    `other` is the cost of another method, in applications. Columns that are expected to need more than that, or whose
    Picard steps overflow, leave the iteration, as in `picard`.
    """
    m, max_iter = X.shape[1], ledger.options.max_iter
    leavers, window, count = ledger.begin(X), methods.window(max_iter), 0
    base = X  # Picard's iteration continues from this point, which is g of the last good point.
    best, mark, latest = np.full(m, np.inf), np.full(m, np.inf), np.full(m, np.inf)  # `latest` is the last good step.
    nearest, trial = np.full(m, np.inf), np.zeros(m, bool)  # The former is the smallest step since the last good point.
    tried, patience, wait = np.zeros(m, np.intp), np.ones(m, np.intp), np.zeros(m, np.intp)
    while ledger.index.size:
        application = equation.at(X)
        _, _, P, G, step = application
        alive = ledger.settle(application, trial, another=other < math.inf)
        finite = np.isfinite(step)
        good = finite & (~trial | (step <= methods.DECREASE * best))
        tried = np.where(good | (step <= methods.DECREASE * nearest), 0, tried + 1)
        refused = ~good & ((tried >= methods.LEASH) | ~finite)
        nearest = np.where(good | refused, np.inf, np.fmin(nearest, step))
        best = np.where(good, np.minimum(best, step), best)
        base, latest = np.where(good, G, base), np.where(good, step, latest)
        wait = np.where(refused, patience, np.maximum(wait - 1, 0))
        patience = np.where(refused, methods.RESPITE * patience, patience)
        if other < math.inf:
            slower = np.zeros(step.size, bool)
            if count > 0 and count % window == 0:
                slower = leavers.slower(application, best, mark, alive, other)
            alive = leavers.add(application, base, latest, good, alive, slower | ~(trial | finite))
        if count % window == 0:
            mark = best
        count += 1
        if np.count_nonzero(alive) < alive.size:
            equation, X, P, G, base = equation.take(alive), X[:, alive], P[:, alive], G[:, alive], base[:, alive]
            best, mark, latest, refused = best[alive], mark[alive], latest[alive], refused[alive]
            tried, patience, wait, nearest = tried[alive], patience[alive], wait[alive], nearest[alive]
            proposal.keep(alive)
        candidate, ready = proposal.propose(equation, X, P, G, ~refused)
        # The last iteration takes no trial point, because a trial point may be far from the solution.
        last = ledger.iterations[ledger.index] >= max_iter - 1
        trial = ready & ~refused & (wait == 0) & ~last
        tried = np.where(trial, tried, 0)
        X = np.where(trial, candidate, base)
    return leavers.join()


def substitution(equation: Equation, ledger: Ledger) -> None:
    """Solve in one sweep: if A is strictly triangular, xᵢ = sᵢ f(Σⱼ A_ij xⱼ + zᵢ) needs only entries known before."""
    (A,) = equation.factors
    n = A.shape[0]
    upper = fac.triangle(equation.factors) == "upper"
    X = np.zeros_like(equation.Z)
    for i in range(n - 1, -1, -1) if upper else range(n):
        F, known = fac.row(A, i, slice(i + 1, n) if upper else slice(0, i))
        row = slice(i, i + 1)
        S = None if equation.S is None else equation.S[row]
        X[i] = Equation((F,), equation.activation.take(row), S, equation.Z[row]).apply(X[known])[1]
    application = equation.at(X)
    step = application.step
    ledger.iterations[ledger.index] = 1
    # The solution is exact up to rounding, so that a step above tol is due to rounding.
    status = np.where(step <= ledger.asked[ledger.index], Status.CONVERGED, Status.PRECISION_LIMIT)
    status[~np.isfinite(step)] = Status.NONFINITE
    ledger.close(application, np.ones(step.size, bool), status, swept=True)


def solve(equation: Equation, X0: np.ndarray | None, options: SolveOptions, certifier: Certifier) -> Solution:
    """Solve X = S ∘ f(F₁ F₂ … X + Z), where each column stops separately.

    Parameters
    ----------
    equation : Equation
        The equation to solve.
    X0 : (n, m) array or None
        The start of the iteration; None means 0. Substitution ignores the start.
    options : SolveOptions
        Tolerance, iteration limit, method and tile.
    certifier : Certifier
        The object that bounds the errors, made for the factors of this equation.

    Notes
    -----
    Cost of one application: 2 n² m flops for a dense A, 4 n r m flops for rank r.
    """
    X = np.zeros_like(equation.Z) if X0 is None else certifier.start(X0, equation.S, equation.Z)
    m, tile = X.shape[1], options.tile or (SPARSE_TILE if fac.is_sparse(equation.factors) else None)
    if tile is not None and m > tile:
        parts = [slice(j, j + tile) for j in range(0, m, tile)]
        return join([solve(equation.take(c), X[:, c], options, certifier) for c in parts])
    method = methods.choose(options.method, equation.factors, equation.S is not None)
    with np.errstate(over="ignore", invalid="ignore"):  # The status of a column reports overflow, not a warning.
        ledger = Ledger(equation, options, certifier)
        running, X = ledger.start(equation, X)
        if method == "substitution":
            substitution(running, ledger)
        elif method == "picard":
            picard(running, X, ledger)
        elif method == "newton":
            safeguarded(running, X, ledger, trials.Newton())
        elif method == "anderson":
            safeguarded(running, X, ledger, trials.Anderson(X))
        else:
            ledger.index, X, F = picard(running, X, ledger, leave_slow=True)
            if ledger.index.size:
                other = methods.newton_cost(equation.factors)
                ledger.index, X, _ = safeguarded(equation.take(ledger.index), X, ledger, trials.Anderson(X, F), other)
            if ledger.index.size:
                safeguarded(equation.take(ledger.index), X, ledger, trials.Newton())
        return ledger.solution()
