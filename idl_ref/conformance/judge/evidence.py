"""What a check of numbers found, and whether a wrong answer explains it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from idl_ref.conformance.judge.counting import Reported
from idl_ref.conformance.truth.problem import COLUMNS, Arrays, Case

CLOSE = 0.02  # an answer matches a wrong one if it differs from it by at most this fraction of its own error
APART = 0.1  # the wrong answer must itself be wrong, by so much more than the answer differs from it


class Evidence(NamedTuple):
    """The answer to one check of one case, with what it was compared with; `got` is None for a check that passed.

    `reported` has the iterations that the answer reports, where nothing but these may be wrong.
    """

    case: Case
    check: str
    got: Arrays | None
    truth: Arrays
    bounds: Arrays
    reported: Reported | None = None

    @property
    def key(self) -> tuple[str, str]:
        """The id of the case and the check."""
        return self.case.id, self.check


class Known(NamedTuple):
    """An array where its truth is known: the answer, the truth, and the bound of the error."""

    got: np.ndarray
    truth: np.ndarray
    bound: np.ndarray

    @property
    def ratio(self) -> float:
        """The largest error in units of the bound."""
        return worst(self.got - self.truth, self.bound)


def worst(error: np.ndarray, bound: np.ndarray) -> float:
    """The largest ratio of the size of an error to its bound; inf where it is not finite."""
    size = np.abs(error)
    if not np.isfinite(size).all():
        return np.inf
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return float(np.where(size == 0, 0.0, size / bound).max(initial=0.0))


def columns(case: Case, name: str, M: np.ndarray) -> np.ndarray:
    """The columns of an array that have an answer."""
    return M[:, case.good] if name in COLUMNS else M


def compared(e: Evidence) -> dict[str, Known]:
    """The arrays that were compared, in the columns that have an answer.

    Where every error is within its bound, only the residual of X was too large: the errors are then measured in units
    of a small part of the largest one.
    """
    assert e.got is not None
    known = {}
    for name, M in e.got.items():
        if name in e.truth:
            known[name] = Known(*(columns(e.case, name, N) for N in (M, e.truth[name], e.bounds[name])))
    if known and all(k.ratio <= 1 for k in known.values()):
        largest = {name: float(np.abs(k.got - k.truth).max(initial=0.0)) for name, k in known.items()}
        known = {
            name: k._replace(bound=np.full(k.bound.shape, CLOSE * largest[name] + 1e-300)) for name, k in known.items()
        }
    return known


def judged_numbers(known: dict[str, Known]) -> int:
    """How many entries the largest of the wrong arrays has, all of which a cause must give."""
    return max((k.got.size for k in known.values() if not k.ratio <= 1), default=0)


def explains(answer: Arrays, known: dict[str, Known], close: float = CLOSE) -> bool:
    """Whether a wrong answer has the errors of the answer that was compared.

    Every array must be near that of the wrong answer, and one must be wrong in both, by much more than they differ.
    """
    wrong = False
    for name, k in known.items():
        if name not in answer or answer[name].shape != k.got.shape:
            return False
        if not np.isfinite(k.got).all():
            if not _lost_alike(name, k.got, answer[name]):
                return False
            wrong = True
            continue
        apart = worst(k.got - answer[name], k.bound)
        error, theirs = k.ratio, worst(answer[name] - k.truth, k.bound)
        if not apart <= max(1.0, close * min(error, theirs)):
            return False
        wrong |= error > 1 and theirs > 1 and apart <= max(APART, close) * theirs
    return wrong


def _lost_alike(name: str, got: np.ndarray, answer: np.ndarray) -> bool:
    """Whether the same entries are not finite, or in arrays of samples some entries of the same columns.

    How many entries of a column are not finite depends on when the iteration was ended.
    """
    ours, theirs = np.isfinite(got), np.isfinite(answer)
    return bool((ours == theirs).all() or (name in COLUMNS and (ours.all(axis=0) == theirs.all(axis=0)).all()))


def is_wrong(answer: Arrays, e: Evidence) -> bool:
    """Whether a check would have failed a wrong answer beyond doubt."""
    for name, M in answer.items():
        if name in e.truth:
            bound, truth = (columns(e.case, name, N) for N in (e.bounds[name], e.truth[name]))
            if truth.shape == M.shape and worst(M - truth, bound) > 2:
                return True
    return False
