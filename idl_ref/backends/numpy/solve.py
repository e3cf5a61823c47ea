"""This module defines every method by which equations are solved, in NumPy and for whole batches of columns.

All equations, forward and adjoint, dense and low rank, have the same form:

    X = S ∘ f(F₁ F₂ … X + Z)         forward:  S = 1, f = φ
                                     adjoint:  S = φ′(A X + Z), f = identity, F reversed and transposed, Z = G

No operation combines entries of two columns. Each column stops separately and then leaves the batch, so that no work is
done for columns that have converged while others continue.
"""

from __future__ import annotations

import numpy as np

from idl_ref import factors as fac
from idl_ref.backends import methods
from idl_ref.backends.equation import Equation
from idl_ref.backends.numpy import trials
from idl_ref.backends.numpy.trials import Proposal
from idl_ref.certificate import Certifier, column_max, stopping_step
from idl_ref.solution import Solution, SolveOptions, Status, join


class Ledger:
    """The results of all columns. `index` holds the columns that still run, in the order of the running arrays."""

    def __init__(self, equation: Equation, options: SolveOptions, certifier: Certifier) -> None:
        n, m = equation.Z.shape
        self.options = options
        self.eps = float(np.finfo(equation.Z.dtype).eps)
        self.certifier = certifier
        self.X = np.full((n, m), np.nan, equation.Z.dtype)
        self.status = np.full(m, Status.NONFINITE, np.int8)
        self.iterations = np.zeros(m, np.intp)
        self.step = np.full(m, np.nan)
        self.error_bound = np.full(m, np.inf)
        self.index = np.arange(m)

    def start(self, equation: Equation, X: np.ndarray) -> tuple[Equation, np.ndarray]:
        """Return the equation and the start without columns that are not finite, whose status remains NONFINITE."""
        finite = np.isfinite(equation.Z).all(axis=0) & np.isfinite(X).all(axis=0)
        if equation.S is not None:
            finite &= np.isfinite(equation.S).all(axis=0)
        self.index = self.index[finite]
        return (equation, X) if finite.all() else (equation.take(finite), X[:, finite])

    def settle(
        self, equation: Equation, X: np.ndarray, G: np.ndarray, step: np.ndarray, trial: np.ndarray | bool = False
    ) -> np.ndarray:
        """Count one application G = g(X), close the columns that end, and tell which continue.   -> (k,) bool

        `trial` tells in which columns X is a trial point. A trial point whose G overflows does not end its column.
        """
        self.iterations[self.index] += 1
        limit = stopping_step(self.options.tol, column_max(equation.Z), column_max(G), self.eps)
        done = (step <= limit) & np.isfinite(step)  # If a trial point overflows, both step and limit are inf.
        broken = ~np.isfinite(step) & ~np.asarray(trial)
        spent = self.iterations[self.index] >= self.options.max_iter
        leaving = done | broken | spent
        if leaving.any():
            status = np.where(spent, Status.MAX_ITER, Status.CONVERGED)
            status[done] = np.where(step[done] <= self.options.tol, Status.CONVERGED, Status.PRECISION_LIMIT)
            status[broken] = Status.NONFINITE
            self.close(equation.take(leaving), leaving, X[:, leaving], G[:, leaving], step[leaving], status[leaving])
        return ~leaving

    def close(
        self,
        equation: Equation,
        leaving: np.ndarray,
        X: np.ndarray,
        G: np.ndarray,
        step: np.ndarray,
        status: np.ndarray,
    ) -> None:
        """Record the results of the columns that leave; `equation`, X, G, step and status hold only those columns."""
        columns = self.index[leaving]
        self.X[:, columns] = np.where(status == Status.NONFINITE, np.nan, G)
        self.status[columns] = status
        self.step[columns] = step
        self.error_bound[columns] = self.certifier.bound(X, G, equation.S, equation.Z)
        self.index = self.index[~leaving]

    def solution(self) -> Solution:
        """Return the recorded results."""
        return Solution(self.X, self.status, self.iterations, self.step, self.error_bound)


def picard(
    equation: Equation, X: np.ndarray, ledger: Ledger, leave_slow: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Iterate X ← g(X) until each column ends.

    If `leave_slow` is true, columns that converge slowly leave the iteration before they end. The function returns the
    indices of these columns and their last iterates.
    """
    slow_index, slow_X = [ledger.index[:0]], [X[:, :0]]
    before = np.full(X.shape[1], np.inf)
    slow = np.zeros(X.shape[1], np.intp)
    while ledger.index.size:
        _, G = equation.apply(X)
        step = column_max(G - X)
        alive = ledger.settle(equation, X, G, step)
        slow = np.where(step > methods.SLOW * before, slow + 1, 0)
        before, X = step, G
        letting_go = alive & (slow >= methods.SLOW_STEPS) & leave_slow
        if letting_go.any():
            slow_index.append(ledger.index[letting_go[alive]])
            slow_X.append(X[:, letting_go])
            ledger.index = ledger.index[~letting_go[alive]]
            alive &= ~letting_go
        if not alive.all():
            equation, X, before, slow = equation.take(alive), X[:, alive], before[alive], slow[alive]
    return np.concatenate(slow_index), np.concatenate(slow_X, axis=1)


def safeguarded(equation: Equation, X: np.ndarray, ledger: Ledger, proposal: Proposal) -> None:
    """Iterate with trial points from `proposal`, and return to Picard's iteration where they do not reduce the step.

    Trial points may increase the step for a while, as Newton's do between two active sets. If LEASH consecutive trial
    points do not reduce the step below DECREASE times the smallest step so far, they are rejected. The column then
    continues with Picard's iteration from its last good point, and takes 1, 4, 16, … Picard steps before its next trial
    point. Only finitely many trial points can be good before the step is below a given bound, and all other steps are
    Picard's. Therefore this iteration converges where Picard's iteration converges from every start, and it spends at
    most LEASH · log₄(max_iter) applications on rejected trial points.
    """
    m = X.shape[1]
    base = X  # Picard's iteration continues from this point, which is g of the last good point.
    best = np.full(m, np.inf)
    trial = np.zeros(m, bool)
    tried, patience, wait = np.zeros(m, np.intp), np.ones(m, np.intp), np.zeros(m, np.intp)
    while ledger.index.size:
        P, G = equation.apply(X)
        step = column_max(G - X)
        alive = ledger.settle(equation, X, G, step, trial)
        if not alive.all():
            equation, X, P, G, base = equation.take(alive), X[:, alive], P[:, alive], G[:, alive], base[:, alive]
            step, best, trial, tried, patience, wait = (a[alive] for a in (step, best, trial, tried, patience, wait))
            proposal.keep(alive)
        good = ~trial | (step <= methods.DECREASE * best)
        tried = np.where(good, 0, tried + 1)
        refused = ~good & ((tried >= methods.LEASH) | ~np.isfinite(step))
        best = np.where(good, np.minimum(best, step), best)
        base = np.where(good, G, base)
        wait = np.where(refused, patience, np.maximum(wait - 1, 0))
        patience = np.where(refused, methods.RESPITE * patience, patience)
        candidate, ready = proposal.propose(equation, X, P, G, ~refused)
        # The last iteration takes no trial point, because a trial point may be far from the solution.
        last = ledger.iterations[ledger.index] >= ledger.options.max_iter - 1
        trial = ready & ~refused & (wait == 0) & ~last
        tried = np.where(trial, tried, 0)
        X = np.where(trial, candidate, base)


def substitution(equation: Equation, ledger: Ledger) -> None:
    """Solve in one sweep: if A is strictly triangular, xᵢ = sᵢ f(Σⱼ A_ij xⱼ + zᵢ) needs only entries known before."""
    (A,) = equation.factors
    n = A.shape[0]
    upper = fac.triangle(equation.factors) == "upper"
    X = np.zeros_like(equation.Z)
    for i in range(n - 1, -1, -1) if upper else range(n):
        known = slice(i + 1, n) if upper else slice(0, i)
        S = None if equation.S is None else equation.S[i : i + 1]
        X[i] = Equation((A[i : i + 1, known],), equation.activation, S, equation.Z[i : i + 1]).apply(X[known])[1]
    _, G = equation.apply(X)
    step = column_max(G - X)
    ledger.iterations[ledger.index] = 1
    # The solution is exact up to rounding, so that a step above tol is due to rounding.
    status = np.where(step <= ledger.options.tol, Status.CONVERGED, Status.PRECISION_LIMIT)
    status[~np.isfinite(step)] = Status.NONFINITE
    ledger.close(equation, np.ones(step.size, bool), X, G, step, status)


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
    X = np.zeros_like(equation.Z) if X0 is None else X0
    m, tile = X.shape[1], options.tile
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
            ledger.index, X = picard(running, X, ledger, leave_slow=True)
            safeguarded(equation.take(ledger.index), X, ledger, trials.Anderson(X))
        return ledger.solution()
