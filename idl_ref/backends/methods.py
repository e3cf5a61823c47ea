"""What the twins share: which method "auto" stands for, and every number that steers an iteration."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from idl_ref import certificate
from idl_ref import factors as fac

COMPILED = ("auto", "picard", "anderson", "newton", "substitution")  # a compiled twin leaves others to the NumPy twin
NEWTON_LIMIT = 256  # dense Newton solves an n × n system per column and step
DIRECT_RANK = 64  # up to this rank, the adjoint of A = L Rᵀ is solved exactly by default
SLOW = 0.5  # a step longer than this times the one before is slow …
SLOW_STEPS = 2  # … and this many of them in a row turn "auto" from Picard to Anderson
STEPS_LEFT = 40  # a single sample stays with slow Picard steps if it needs no more than this many: they are cheap
DEPTH = 5  # differences that Anderson remembers
DAMPING = 64  # times eps: added to the diagonal of Anderson's normal equations, relative to it
DECREASE = 0.9  # a trial point is good if the step there is below this times the smallest one so far
LEASH = 16  # after this many trials in a row that are not good, Picard takes over …
RESPITE = 4  # … for 1, 4, 16, … steps: this many times as many after each failure


def choose(
    method: str, factors: fac.Factors, adjoint: bool, triangle: Callable[[fac.Factors], str | None] = fac.triangle
) -> str:
    """The method that `method` stands for; a method that does not fit A is refused.

    `triangle` tells which strict triangle holds all of A. It is called only where substitution is possible.
    """
    n, low_rank = factors[0].shape[0], len(factors) > 1
    if method == "auto":
        if triangle(factors):
            return "substitution"
        return "newton" if low_rank and adjoint and factors[0].shape[1] <= DIRECT_RANK else "auto"
    if method == "substitution" and not triangle(factors):
        got = "a product of factors" if low_rank else "entries on or on both sides of the diagonal"
        raise ValueError(f'method "substitution" needs a strictly triangular A; got {got}: use method="auto".')
    if method == "newton" and not low_rank and n > NEWTON_LIMIT:
        raise ValueError(
            f'method "newton" solves an n × n system per sample and needs n ≤ {NEWTON_LIMIT}, or a low-rank A; '
            f'got n = {n}: use method="anderson".'
        )
    return method


def steps_left(step: float, before: float, limit: float) -> float:
    """How many more steps it takes until the step is at most `limit`, if steps go on to shrink by the last ratio.

    It is asked for slow steps only: `step` is then a good part of `before`.
    """
    if not 0 < step < before:
        return math.inf
    return math.log(limit / step) / math.log(step / before) if limit > 0 else math.inf


def filled(entries: int, unit: int) -> int:
    """`entries` rounded up to a multiple of `unit`, a power of two."""
    return (entries + unit - 1) & -unit


def norm_bound(largest: float, terms: int, dtype: np.dtype, product: bool) -> float:
    """An upper bound of ‖A‖∞ from `largest`, the largest absolute row sum as a kernel computed it in `dtype`.

    Each of its at most `terms` additions and multiplications was rounded; for a product of two factors, terms may also
    have underflowed.
    """
    eps, tiny = certificate.limits(dtype)
    return largest * (1 + terms * eps) + (terms * tiny if product else 0)
