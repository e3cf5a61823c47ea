"""What the twins share: which method "auto" stands for, and the numbers that steer the iterations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from idl_ref import factors as fac

Memory = dict[Any, Any]
NEWTON_LIMIT = 256  # dense Newton solves an n × n system per column and step
DIRECT_RANK = 64  # up to this rank the adjoint of A = L Rᵀ is solved exactly by default
SLOW = 0.5  # a step longer than this times the one before is slow …
SLOW_STEPS = 2  # … and this many of them in a row turn "auto" from Picard to Anderson
STEPS_LEFT = (
    40  # one sample alone goes on with slow steps of Picard, if it needs no more than so many: they cost little
)
DECREASE = 0.9  # trial points must bring the step below this times the smallest one so far …
LEASH = 16  # … within this many trials in a row, or Picard takes over …
RESPITE = 4  # … for 1, 4, 16, … steps: this many times as many after each failure


def choose(
    method: str, factors: fac.Factors, adjoint: bool, triangle: Callable[[fac.Factors], str | None] = fac.triangle
) -> str:
    """The method that "auto" stands for, and a refusal of methods that do not fit A. Only what may be one is looked at
    by `triangle`."""
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
    """How many more steps it takes to the limit, if steps go on to shrink by the ratio of the last two."""
    if not 0 < step < before:
        return math.inf
    return math.log(limit / step) / math.log(step / before) if limit > 0 else math.inf
