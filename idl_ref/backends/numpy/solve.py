"""The NumPy twin: the definition of every method, whole batches at a time.

One equation serves forward and adjoint, dense and low rank:

    X = S ∘ f(F₁ F₂ … X + Z)         forward:  S = 1, f = φ
                                     adjoint:  S = φ′(A X + Z), f = identity, F reversed and transposed, Z = G

Columns never meet. Each stops on its own and then leaves the batch, so that slow columns do not make fast ones work.
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
    """What is known of every column. `index` are the columns still running, in the order of the running arrays."""

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
        """Leave out the columns whose Z, S or start is not finite: they stay NONFINITE."""
        finite = np.isfinite(equation.Z).all(axis=0) & np.isfinite(X).all(axis=0)
        if equation.S is not None:
            finite &= np.isfinite(equation.S).all(axis=0)
        self.index = self.index[finite]
        return (equation, X) if finite.all() else (equation.take(finite), X[:, finite])

    def settle(
        self, equation: Equation, X: np.ndarray, G: np.ndarray, step: np.ndarray, trial: np.ndarray | bool = False
    ) -> np.ndarray:
        """Count one application G = g(X), close the columns that are done, and tell which go on.   -> (k,) bool"""
        self.iterations[self.index] += 1
        limit = stopping_step(self.options.tol, column_max(equation.Z), column_max(G), self.eps)
        done = (step <= limit) & np.isfinite(step)  # both are inf where a trial overflows
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
        """Write down the columns that leave; `equation`, X, G, step and status hold only those."""
        columns = self.index[leaving]
        self.X[:, columns] = np.where(status == Status.NONFINITE, np.nan, G)
        self.status[columns] = status
        self.step[columns] = step
        self.error_bound[columns] = self.certifier.bound(X, G, equation.S, equation.Z)
        self.index = self.index[~leaving]

    def solution(self) -> Solution:
        return Solution(self.X, self.status, self.iterations, self.step, self.error_bound)


def picard(
    equation: Equation, X: np.ndarray, ledger: Ledger, leave_slow: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """X ← g(X) until each column is done.

    With `leave_slow`, columns that contract slowly are let go: their indices and their last points come back.
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
    """Trial points from `proposal`, kept only if they shorten the step; Picard otherwise.

    Trials may lead uphill for a while, as Newton's do between two active sets. If LEASH of them in a row do not bring
    the step below DECREASE times the smallest one so far, they are dropped: the column goes on with Picard from its
    last good point, and takes 1, 4, 16, … Picard steps before its next trial. Only finitely many trials can be kept
    before the step is below any given bound, and all other steps are Picard's: where Picard converges from every
    start, this converges, and at most LEASH · log₄(max_iter) applications are spent on dropped trials.
    """
    m = X.shape[1]
    base = X  # g(last good point): where Picard goes on
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
        last = ledger.iterations[ledger.index] >= ledger.options.max_iter - 1  # the answer must not be a mere trial
        trial = ready & ~refused & (wait == 0) & ~last
        tried = np.where(trial, tried, 0)
        X = np.where(trial, candidate, base)


def substitution(equation: Equation, ledger: Ledger) -> None:
    """One sweep: with A strictly triangular, xᵢ = sᵢ f(Σⱼ A_ij xⱼ + zᵢ) needs only entries that are already known."""
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
    # Exact but for rounding, which is all that `step` can show.
    status = np.where(step <= ledger.options.tol, Status.CONVERGED, Status.PRECISION_LIMIT)
    status[~np.isfinite(step)] = Status.NONFINITE
    ledger.close(equation, np.ones(step.size, bool), X, G, step, status)


def solve(equation: Equation, X0: np.ndarray | None, options: SolveOptions, certifier: Certifier) -> Solution:
    """Solve X = S ∘ f(F₁ F₂ … X + Z), column by column.

    Parameters
    ----------
    equation : Equation
    X0 : (n, m) array or None
        Where to start; None is 0. Substitution needs no start.
    options : SolveOptions
    certifier : Certifier
        Bounds the errors; it knows the factors of this equation.

    Notes
    -----
    Cost of one application: 2 n² m flops, low rank 4 n r m.
    """
    X = np.zeros_like(equation.Z) if X0 is None else X0
    m, tile = X.shape[1], options.tile
    if tile is not None and m > tile:
        parts = [slice(j, j + tile) for j in range(0, m, tile)]
        return join([solve(equation.take(c), X[:, c], options, certifier) for c in parts])
    method = methods.choose(options.method, equation.factors, equation.S is not None)
    with np.errstate(over="ignore", invalid="ignore"):  # overflow is a status, not a warning
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
