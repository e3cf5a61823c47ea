"""Mistakes that are recognised by a property of the wrong numbers, because no formula gives the numbers themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from idl_ref.conformance.judge.evidence import Evidence, Known, columns, worst
from idl_ref.conformance.judge.quantities import shown
from idl_ref.conformance.judge.transformations import Transformation
from idl_ref.conformance.truth.bounds import bounds
from idl_ref.conformance.truth.problem import Arrays, Case

Again = Callable[[Evidence], list[str]]  # the gradients that a second call adds to those of the first one


@dataclass(frozen=True, eq=False)
class Pattern(Transformation):
    """A mistake that says of every failure whether it explains it.

    It is a cause if it explains at least `least` failures, and this `share` of all.
    """

    least: int = 1
    share: float = 0.0

    def explains(self, case: Case, known: dict[str, Known]) -> bool:
        """Whether the numbers of a failure have the property."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Accuracy(Pattern):
    """Errors as large as rounding to a coarser dtype makes them, wherever that happens: no more, and hardly less."""

    dtype: np.dtype = field(default_factory=lambda: np.dtype(np.float32))

    def explains(self, case: Case, known: dict[str, Known]) -> bool:
        """Whether the largest error is within the bounds for the coarser dtype, and above a small part of them."""
        if case.problem.dtype.itemsize <= self.dtype.itemsize:
            return False
        coarse = coarser(case, self.dtype)
        ratios = [worst(k.got - k.truth, columns(case, name, coarse[name])) for name, k in known.items()]
        return 3e-5 < max(ratios) <= 1


@lru_cache(maxsize=4096)
def coarser(case: Case, dtype: np.dtype) -> Arrays:
    """The bounds of the errors of a backend that computes in a coarser dtype."""
    return bounds(replace(case, problem=replace(case.problem, dtype=dtype)), case.truths[0])


@dataclass(frozen=True, eq=False)
class Exchanged(Pattern):
    """Columns of X that are right for other samples; some may have been left where the iteration starts."""

    def explains(self, case: Case, known: dict[str, Known]) -> bool:
        """Whether every wrong column of X is that of another sample, or the start, and Y is that of X."""
        if "X" not in known or len(case.problem.B) < 2:
            return False
        X, samples, exchanged = known["X"], range(known["X"].got.shape[1]), False
        start = np.zeros(X.got.shape) if case.problem.X0 is None else case.problem.X0[:, case.good]
        for j in samples:
            near = [k for k in samples if worst(X.got[:, j] - X.truth[:, k], X.bound[:, k]) <= 1]
            exchanged |= bool(near) and j not in near
            if not near and (X.got[:, j] != start[:, j]).any():
                return False
        return exchanged and _follows(case, known)


def _follows(case: Case, known: dict[str, Known]) -> bool:
    """Whether Y is computed from X as it was answered and from U, or has its columns exchanged, too."""
    if "Y" not in known:
        return True
    Y, X, p = known["Y"], known["X"].got, case.problem
    bound = 4 * Y.bound.max(axis=1, keepdims=True)
    own = p.C @ X + (0 if p.D is None else p.D @ p.U[:, case.good])
    near = (np.abs(Y.got[:, :, None] - Y.truth[:, None, :]) <= bound[:, :, None]).all(axis=0).any(axis=1)
    return bool((near | (np.abs(Y.got - own) <= bound).all(axis=0)).all())


@dataclass(frozen=True, eq=False)
class Unset(Pattern):
    """Gradients of the weights for no samples that are not 0."""

    def explains(self, case: Case, known: dict[str, Known]) -> bool:
        """Whether there are no samples, and a gradient is wrong."""
        return case.problem.sizes[3] == 0 and "X" not in known and any(k.ratio > 1 for k in known.values())


@dataclass(frozen=True, eq=False)
class Accumulated(Pattern):
    """Gradients that are added to those of earlier calls, as a second call has shown."""

    names: frozenset[str] = frozenset()

    def explains(self, case: Case, known: dict[str, Known]) -> bool:
        """Whether no other gradient is wrong."""
        return "X" not in known and {name for name, k in known.items() if k.ratio > 1} <= self.names


def accumulated(names: list[str]) -> Accumulated:
    """The cause that a second call gives the first answer and the right one added."""
    verb = "is" if len(names) == 1 else "are"
    text = f"{shown(names)} {verb} added to what an earlier call has left, which is not set to zero"
    return Accumulated(text, names=frozenset(names))


PATTERNS: tuple[Pattern, ...] = (
    Unset("gradients of the weights for a batch without samples left as they are in memory, and not set to 0"),
    Exchanged("columns of X exchanged: they are right for other samples than those where they stand"),
    Accuracy("something computed in float32: the errors are as large as rounding to float32 makes them",
             least=3, share=0.7),
)  # fmt: skip
