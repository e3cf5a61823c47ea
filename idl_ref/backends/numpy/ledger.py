"""This module keeps the results of the columns of an equation, and decides which columns are done."""

from __future__ import annotations

import numpy as np

from idl_ref.backends import methods
from idl_ref.backends.equation import Application, Equation
from idl_ref.certificate import ROUNDED, Certifier, asked_step, column_max, largest_term, limits
from idl_ref.solution import Solution, SolveOptions, Status

# Plain integers, because NumPy takes a hundred times as long for the members of an enum.
CONVERGED, PRECISION_LIMIT, MAX_ITER, NONFINITE = (int(status) for status in Status)


class Ledger:
    """The results of all columns. `index` holds the columns that still run, in the order of the running arrays."""

    def __init__(self, equation: Equation, options: SolveOptions, certifier: Certifier) -> None:
        n, m = equation.Z.shape
        self.options = options
        self.eps, self.tiny = limits(equation.Z.dtype)
        self.certifier = certifier
        self.X = np.full((n, m), np.nan, equation.Z.dtype)
        self.status = np.full(m, NONFINITE, np.int8)
        self.iterations = np.zeros(m, np.intp)
        self.step = np.full(m, np.nan)
        self.error_bound = np.full(m, np.inf)
        self.index = np.arange(m)
        self.z_norm = column_max(equation.Z)
        self.asked = asked_step(options.tol, self.z_norm)  # the step at which each column is converged
        self.lowest = np.full(m, np.inf)  # the smallest step so far
        self.stale = np.zeros(m, np.intp)  # the number of applications since the smallest step
        self.earlier = np.full((n, m), np.nan, equation.Z.dtype)  # an iterate to which Picard's iteration may return

    def start(self, equation: Equation, X: np.ndarray) -> tuple[Equation, np.ndarray]:
        """Return the equation and the start without columns that are not finite, whose status remains NONFINITE."""
        finite = np.isfinite(equation.Z).all(axis=0) & np.isfinite(X).all(axis=0)
        if equation.S is not None:
            finite &= np.isfinite(equation.S).all(axis=0)
        self.index = self.index[finite]
        return (equation, X) if finite.all() else (equation.take(finite), X[:, finite])

    def begin(self, X: np.ndarray) -> Leavers:
        """Start an iteration for the running columns, in which no step has been seen yet."""
        self.lowest[self.index], self.stale[self.index] = np.inf, 0
        return Leavers(self, X)

    def settle(self, application: Application, trial: np.ndarray | None = None, another: bool = False) -> np.ndarray:
        """Count one application G = g(X), close the columns that end, and tell which continue.   -> (k,) bool

        `trial` tells in which columns X is a trial point; None means Picard's iteration, in which no X is one. A trial
        point whose G overflows does not end its column, and no overflow does if `another` method can continue with it.
        """
        index, step, lowest = self.index, application.step, self.lowest[self.index]
        iterations, stale = self.iterations[index] + 1, self.stale[index] + 1
        lower = step < lowest
        stale[lower] = 0
        self.iterations[index], self.stale[index] = iterations, stale
        self.lowest[index] = np.where(lower, step, lowest)
        finite = np.isfinite(step)
        converged = finite & (step <= self.asked[index])
        done = converged | self._rounded(application, finite & ~converged, stale, trial is None)
        broken, last = ~finite if trial is None else ~finite & ~trial, iterations >= self.options.max_iter
        ends = not another or not self.certifier.rounding.norm < np.inf  # Where A is not finite, no method continues.
        leaving = done | last | (broken & ends)
        if np.count_nonzero(leaving):
            # At the iteration limit, a step below the smallest normal number counts as none.
            status = np.where(done | (step < self.tiny), PRECISION_LIMIT, MAX_ITER)
            status[converged], status[broken] = CONVERGED, NONFINITE
            self.close(application.take(leaving), leaving, status[leaving])
        return ~leaving

    def noise(self, G: np.ndarray) -> np.ndarray:
        """Return ROUNDED·eps·max(‖z‖∞, ‖g‖∞, ‖A‖∞‖g‖∞), about what rounding may add to an entry.   -> (k,)"""
        size = largest_term(self.z_norm[self.index], column_max(G), self.certifier.rounding.norm)
        return ROUNDED * self.eps * size

    def contracts(self, equation: Equation) -> np.ndarray:
        """Tell in which columns of an equation g is known to be a contraction.   -> (k,) bool"""
        return self.certifier.kappa(equation.S, equation.Z.shape[1]) < 1

    def _rounded(self, application: Application, running: np.ndarray, stale: np.ndarray, picard: bool) -> np.ndarray:
        """Tell which of the running columns rounding keeps from getting better.   -> (k,) bool

        In such a column, rounding explains the change of every row. The change is judged where the step is small
        against the largest entry of the column, and where no step has been smaller in the last STALE applications. In
        Picard's iteration, the change since an earlier iterate is judged as well: if g is a contraction, an iteration
        x ← g(x) + ρ that comes back to where it was is at most (I − Lip(φ)|A|)⁻¹ρ away from x*, and remains so.
        """
        equation, X, _, G, step = application
        stalled = stale >= methods.STALE
        limit, some_stalled = self.noise(G), np.count_nonzero(stalled) > 0
        if some_stalled:
            wide = np.maximum(limit * np.sqrt(self.eps) / (ROUNDED * self.eps), self.tiny)
            limit = np.where(stalled, wide, limit)
        rounded = self._explained(application, X, running & (step <= limit), stalled)
        if picard and some_stalled:
            earlier = self.earlier[:, self.index]
            back = (stale > methods.STALE) & self.contracts(equation) & (column_max(G - earlier) <= limit)
            rounded |= self._explained(application, earlier, running & back, stalled)
            store = stalled & (stale & (stale - 1) == 0)  # A longer and longer time ago, as the period is not known.
            self.earlier[:, self.index[store]] = G[:, store]
        return rounded

    def _explained(
        self, application: Application, earlier: np.ndarray, columns: np.ndarray, stalled: np.ndarray
    ) -> np.ndarray:
        """Tell in which of the given columns tol or rounding explains the change from `earlier` to G.   -> (k,) bool"""
        explained = np.zeros(columns.size, bool)
        if np.count_nonzero(columns):
            part = application.take(columns)
            allowed = np.maximum(part.allowance(self.certifier, stalled[columns]), self.asked[self.index[columns]])
            explained[columns] = (np.abs(part.G - earlier[:, columns]) <= allowed).all(axis=0)
        return explained

    def close(self, application: Application, leaving: np.ndarray, status: np.ndarray, swept: bool = False) -> None:
        """Record the results of the columns that leave; `application` and `status` hold only those columns.

        `swept` tells that x̂ comes from substitution, which computed every entry from those that g reads too. Then g is
        as good an answer as x̂, whatever the norm of A is, so that it does not depend on the units of the states.
        """
        (equation, X, _, G, step), columns = application, self.index[leaving]
        # Where g is no contraction, it may enlarge the error of x̂, so that x̂ is the answer.
        answer = np.where(swept | self.contracts(equation), G, X)
        self.X[:, columns] = np.where(status == NONFINITE, np.nan, answer)
        self.status[columns] = status
        self.step[columns] = step
        self.error_bound[columns] = self.certifier.bound(X, G, equation.S, equation.Z)
        self.index = self.index[~leaving]

    def solution(self) -> Solution:
        """Return the recorded results."""
        return Solution(self.X, self.status, self.iterations, self.step, self.error_bound)


class Leavers:
    """The columns that leave an iteration before they end, because another method shall continue with them.

    Where g is a contraction, that method continues from g of the last good point. Elsewhere g may lead away, so that it
    continues from the point itself, and from where the column began if the step is longer there or not known.

    Where it continues from X = g(x), and x is the last point, it also gets F = X − x, so that it knows one more point.
    """

    def __init__(self, ledger: Ledger, X: np.ndarray) -> None:
        self.ledger = ledger
        # the starts of the columns that still run, and their first steps
        self.begin, self.first = X, np.full(X.shape[1], np.nan)
        self.index, self.X, self.F = [ledger.index[:0]], [X[:, :0]], [X[:, :0]]

    def add(
        self,
        application: Application,
        base: np.ndarray,
        step: np.ndarray,
        good: np.ndarray,
        alive: np.ndarray,
        leaving: np.ndarray,
    ) -> np.ndarray:
        """Let columns leave that are alive, and are slow or near the iteration limit.   -> (k,) bool: which stay

        `base` holds g of the last good points, `step` the steps there, and `good` tells which X is such a point.
        """
        ledger = self.ledger
        self.first = np.where(np.isnan(self.first), step, self.first)
        gone = leaving[alive] | (ledger.iterations[ledger.index] >= methods.enough(ledger.options.max_iter))
        if np.count_nonzero(gone):
            leaving = np.zeros_like(alive)
            leaving[alive] = gone
            self.index.append(ledger.index[gone])
            left, step = application.take(leaving), step[leaving]
            contracts = ledger.contracts(left.equation)
            nearer = (contracts | good[leaving]) & (step <= self.first[leaving])
            X = np.where(contracts, base[:, leaving], left.X)
            self.X.append(np.where(nearer, X, self.begin[:, leaving]))
            known = contracts & good[leaving] & nearer
            self.F.append(np.where(known, left.G - left.X, X.dtype.type(np.nan)))
            ledger.index = ledger.index[~gone]
            alive = alive & ~leaving
        if np.count_nonzero(alive) < alive.size:
            self.begin, self.first = self.begin[:, alive], self.first[alive]
        return alive

    def slower(
        self, application: Application, best: np.ndarray, mark: np.ndarray, alive: np.ndarray, other: float
    ) -> np.ndarray:
        """Tell which columns are expected to need more time than another method of the cost `other`.   -> (k,) bool

        `best` is the smallest step of each column, and `mark` that of one window of applications before.
        """
        ledger, (equation, _, _, G, _) = self.ledger, application
        limit, kappa = np.empty(best.size), ledger.certifier.kappa(equation.S, best.size)
        limit[alive] = np.maximum(ledger.asked[ledger.index], ledger.noise(G[:, alive]))
        count, slower = methods.window(ledger.options.max_iter), np.zeros(best.size, bool)
        for j in np.flatnonzero(alive):
            anderson = count * methods.steps_left(best[j], mark[j], limit[j])
            slower[j] = methods.slower(anderson, methods.steps_left(best[j], best[j] / kappa[j], limit[j]), other)
        return slower

    def join(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the indices of all columns that left, the points X from which they continue, and F, NaN if unknown."""
        return np.concatenate(self.index), np.concatenate(self.X, axis=1), np.concatenate(self.F, axis=1)
