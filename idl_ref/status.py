"""How a column ended, and what is raised or warned when it did not end well."""

from __future__ import annotations

import sys
import warnings
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from idl_ref.solution import Solution


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
        """True where the column holds a solution: CONVERGED and PRECISION_LIMIT."""
        return self <= Status.PRECISION_LIMIT

    @property
    def sentence(self) -> str:
        """The status in words."""
        return _SENTENCES[self]


_SENTENCES = {
    Status.CONVERGED: "the last step is at most tol",
    Status.PRECISION_LIMIT: "the last step is above tol, but as small as rounding in this dtype allows",
    Status.MAX_ITER: "the iteration limit was reached before the step was small enough",
    Status.NONFINITE: "an input is not finite, or the iteration overflowed; the column is NaN",
}


class ConvergenceWarning(RuntimeWarning):
    """Some columns did not converge; the numbers that come back carry their error bounds."""


def warn(message: str) -> None:
    """A ConvergenceWarning that points at the caller of this library, not into it."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("idl_ref."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, ConvergenceWarning, stacklevel=level)


class NotConvergedError(RuntimeError):
    """Some columns did not converge, or not to the accuracy that was asked for.

    Attributes
    ----------
    solution : Solution
        Everything that was computed, per column.
    """

    def __init__(self, message: str, solution: Solution) -> None:
        super().__init__(message)
        self.solution = solution

    def __reduce__(self) -> tuple:
        return type(self), (self.args[0], self.solution)
