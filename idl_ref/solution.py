"""This module defines the options of a solver (SolveOptions), the outcome of a column (Status) and the Solution."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Any

import numpy as np

from idl_ref import checks, device
from idl_ref import factors as fac
from idl_ref.choices import CERTIFICATES, METHODS, ON_FAILURE, Certificate, Method, OnFailure

__all__ = ["ConvergenceWarning", "NotConvergedError", "Solution", "SolveOptions", "Status"]


class Status(IntEnum):
    """How the solve of one column (one sample) ended.

    Examples
    --------
    >>> Status.PRECISION_LIMIT.success
    True
    >>> print(Status.MAX_ITER.sentence)
    the iteration limit was reached before the step was small enough
    """

    CONVERGED = 0
    PRECISION_LIMIT = 1
    MAX_ITER = 2
    NONFINITE = 3

    @property
    def success(self) -> bool:
        """True if the column holds a solution, that is, for CONVERGED and PRECISION_LIMIT."""
        return self <= Status.PRECISION_LIMIT

    @property
    def sentence(self) -> str:
        """The status in words."""
        return _SENTENCES[self]


_SENTENCES = {
    Status.CONVERGED: "the last step is at most tol",
    Status.PRECISION_LIMIT: "the last step is above tol, but in every row as small as rounding in this dtype allows",
    Status.MAX_ITER: "the iteration limit was reached before the step was small enough",
    Status.NONFINITE: "an input is not finite, or the iteration overflowed; the column is NaN",
}
_LAST_SUCCESS = int(Status.PRECISION_LIMIT)  # An int, because NumPy compares with an enum a hundred times slower.


class ConvergenceWarning(RuntimeWarning):
    """This warning means that some columns did not converge; the returned solution has their status and error bound."""


class NotConvergedError(RuntimeError):
    """This error means that some columns did not converge, or not to the accuracy that was required.

    Attributes
    ----------
    solution : Solution
        Everything that was computed, with the status and the error bound of every column.
    """

    def __init__(self, message: str, solution: Solution) -> None:
        super().__init__(message)
        self.solution = solution

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.solution)


def warn(message: str, category: type[Warning] = ConvergenceWarning) -> None:
    """Issue a warning whose source line is in the code that called this library."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("idl_ref."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


@checks.renamed(mitr="max_iter", maxiter="max_iter")
@dataclass(frozen=True)
class SolveOptions:
    """How to solve a fixed-point equation.

    Parameters
    ----------
    tol : float
        Tolerance for the step, which is the largest change of an entry of a column in one iteration. A column is
        CONVERGED when step ≤ tol·min(1, ‖z‖∞), which is smaller for small inputs. It stops as well, as PRECISION_LIMIT,
        when in every row the rounding of |A||x| + |z| explains the change, so that it can get no better.
    max_iter : int
        Largest number of applications of the map for each column.
    method : {"auto", "picard", "anderson", "newton", "substitution", "blocks"}
        "blocks" solves blocks of units one by one, of which only cycles are iterated; see `idl_ref.blocks`. "auto" does
        so for large A with many zeros (n ≥ 128) where blocks read at most half of the entries; otherwise it is
        substitution for a strictly triangular A. For other A, it is Picard's iteration, which is replaced by
        Anderson acceleration in the columns that converge slowly, and by Newton's method where that is expected to need
        less time than Anderson acceleration. In the adjoint equation of a low-rank A, "auto" is an exact solve of an
        r × r system for each column.
    tile : int, optional
        Number of columns that are solved together; None lets the backend choose. The tile changes memory and speed, and
        does not change the answer.
    on_failure : {"warn", "raise", "ignore"}
        What happens if a column does not converge.
    stream : optional
        The stream on which backend="cuda" queues copies and kernels: a stream of numba.cuda, any object with
        `__cuda_stream__`, or a number as in `__cuda_array_interface__`; None is the default stream. A solve waits for
        the stream, because it returns statuses to the host. Other backends refuse a stream.
    certificate : {"fast", "sharp"}
        How `error_bound` is computed. "fast" uses norms that the solver knows, and costs almost nothing. "sharp" is the
        largest entry of the bounds of `certify`, or their sum in the adjoint equation. It can be 10⁵ times smaller in
        float32, and costs about as much as ten iterations and one LU decomposition of I − Lip(φ)|A|.

    Raises
    ------
    ValueError, TypeError
        A number outside its range, or an unknown method or on_failure.

    Examples
    --------
    >>> SolveOptions(tol=1e-9, method="anderson")
    SolveOptions(tol=1e-09, max_iter=300, method='anderson', tile=None, on_failure='warn', certificate='fast')
    """

    tol: float = 3e-6
    max_iter: int = 300
    method: Method = "auto"
    tile: int | None = None
    on_failure: OnFailure = "warn"
    stream: Any = field(default=None, repr=False)
    certificate: Certificate = "fast"

    def __post_init__(self) -> None:
        checks.number("tol", self.tol, 0)
        checks.integer("max_iter", self.max_iter, 1)
        checks.choice("method", self.method, METHODS)
        if self.tile is not None:
            checks.integer("tile", self.tile, 1)
        checks.choice("on_failure", self.on_failure, ON_FAILURE)
        device.stream(self.stream)
        checks.choice("certificate", self.certificate, CERTIFICATES)


@dataclass(frozen=True, eq=False)
class Solution:
    """The result of a solve, with a status and an error bound for every column.

    Attributes
    ----------
    X : (n, m) array
        The result of the last application of the map g, one column per sample. Where g is not known to be a
        contraction, this is the argument x̂ of the last application, whose change was judged. A NONFINITE column holds
        NaN.
    status : (m,) int8 array
        The `Status` of each column.
    iterations : (m,) int array
        Number of applications of the map for each column, including rejected trial points.
    step : (m,) float64 array
        Largest change of an entry in the last application, ‖g(x̂) − x̂‖∞, for each column.
    error_bound : (m,) float64 array
        A bound of the error ‖x* − x‖ of each column, including rounding: in the ∞-norm for the forward equation, in the
        1-norm for the adjoint equation. It is inf where the map could not be shown to be a contraction.

    Examples
    --------
    >>> from idl_ref import solve_equilibrium
    >>> solution = solve_equilibrium([[0.5]], [[1.0, 2.0]], options=SolveOptions(tol=1e-9))
    >>> print(solution.X.round(6), [Status(s).name for s in solution.status])
    [[2. 4.]] ['CONVERGED', 'CONVERGED']
    >>> bool((abs(solution.X - [[2, 4]]) <= solution.error_bound).all())
    True
    """

    X: np.ndarray
    status: np.ndarray
    iterations: np.ndarray
    step: np.ndarray
    error_bound: np.ndarray

    @property
    def succeeded(self) -> np.ndarray:
        """A bool array (m,) that is True where the column converged."""
        return self.status <= _LAST_SUCCESS

    @property
    def converged(self) -> bool:
        """True if every column converged."""
        worst = self.status.argmax() if self.status.size else None  # a third of the time of max
        return worst is None or self.status.item(worst) <= _LAST_SUCCESS

    def require(self, error: float | None = None) -> Solution:
        """Return this solution if every column converged and no error bound exceeds `error`, else raise an exception.

        Parameters
        ----------
        error : float, optional
            Largest `error_bound` that a column may have, in the norm of `error_bound`.

        Raises
        ------
        NotConvergedError
            A column did not converge, or its error bound is too large. The exception holds this solution.
        """
        if not self.converged:
            j = int(np.argmin(self.succeeded))
            raise NotConvergedError(
                f"{int((~self.succeeded).sum())} of {self.status.size} columns did not converge; the first is column "
                f"{j}: {Status(int(self.status[j])).sentence}.",
                self,
            )
        if error is not None:
            checks.number("error", error, 0)
            if self.error_bound.max(initial=0.0) > error:
                j = int(np.argmax(self.error_bound))
                raise NotConvergedError(
                    f"every error bound must be at most {error:g}; got {self.error_bound[j]:.2g} for column {j}: "
                    "lower tol, or use float64.",
                    self,
                )
        return self


def join(parts: list[Solution]) -> Solution:
    """Join the solutions of consecutive groups of columns into one solution."""
    names = [entry.name for entry in fields(Solution)]
    return Solution(*(np.concatenate([getattr(s, name) for s in parts], axis=-1) for name in names))


def report(solution: Solution, factors: fac.Factors, options: SolveOptions, equation: str, limit_name: str) -> Solution:
    """Return the solution; if a column failed, first warn or raise an exception as `options.on_failure` says.

    In the message, `equation` names the direction, and `limit_name` is the argument that limits the iterations.
    """
    if options.on_failure == "ignore" or solution.converged:
        return solution
    m, parts = solution.status.size, []
    late = np.flatnonzero(solution.status == Status.MAX_ITER)
    if late.size:
        on_host = not any(isinstance(F, checks.OnDevice) for F in factors)
        worst = late[np.argmax(solution.step[late])]
        norm = f" {'=' if len(factors) == 1 else '≤'} {fac.norm_inf(factors):.4f}" if on_host else ""
        step = solution.step[worst]
        limit = "tol" if step > options.tol else "tol·‖z‖∞ with tol ="
        other = {"auto": ', try method="newton",', "newton": ""}.get(options.method, ', try method="auto",')
        parts.append(
            f"{late.size} of {m} samples not converged after {options.max_iter} iterations (worst: sample {worst}, "
            f"step {step:.1e} > {limit} {options.tol:.0e}). Raise {limit_name}{other} or check ‖A‖∞{norm}."
        )
    broken = np.flatnonzero(solution.status == Status.NONFINITE)
    if broken.size:
        parts.append(
            f"{broken.size} of {m} samples not finite (first: sample {broken[0]}): {Status.NONFINITE.sentence}. "
            "Look for NaN, inf or very large numbers in the input and in the weights."
        )
    message = f"{equation}: " + " ".join(parts)
    if options.on_failure == "raise":
        raise NotConvergedError(message, solution)
    warn(message)
    return solution
