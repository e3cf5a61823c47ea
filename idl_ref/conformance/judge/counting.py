"""How iterations are counted: the numbers that an answer reports, and the rules by which wrong ones are counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

INTERVALS = 2, 3, 4, 5, 8, 10, 16, 20, 25, 32, 50, 64, 100  # at which a backend may look at its step


class Reported(NamedTuple):
    """The numbers of iterations that an answer reports, and the least and the largest that are right.   (m,) each"""

    counts: np.ndarray
    least: np.ndarray
    most: np.ndarray
    done: np.ndarray  # whether the column is reported as converged, or the case says that it converges
    judged: np.ndarray  # whether its number is judged
    max_iter: int

    def outside(self, rule: Rule | None = None) -> np.ndarray:
        """Which columns have a number that is not right, or not what a rule gives for a right one.   -> (m,) bool"""
        low, high = (self.least, self.most) if rule is None else rule(self.least, self.most, self.max_iter)
        above, below = self.counts >= low, self.counts <= high
        return self.judged & ~np.where(low <= high, above & below, above | below)


# From the least and the largest right numbers of the columns, and max_iter, to those of the numbers that are reported;
# the least is above the largest where all are meant but those between.
Rule = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]


def _each(of: Callable[[np.ndarray], np.ndarray], capped: bool = True) -> Rule:
    """An increasing function of the numbers, by default at most max_iter."""

    def rule(least: np.ndarray, most: np.ndarray, cap: int) -> tuple[np.ndarray, np.ndarray]:
        return (np.minimum(of(least), cap), np.minimum(of(most), cap)) if capped else (of(least), of(most))

    return rule


def _every(interval: int, capped: bool) -> Rule:
    """Rounded up to a multiple of the interval."""
    return _each(lambda k: -(-k // interval) * interval, capped)


def _in_bits(least: np.ndarray, most: np.ndarray, cap: int) -> tuple[np.ndarray, np.ndarray]:
    """The remainders of all numbers between the two, when they are divided by 256."""
    whole = most - least >= 255
    return np.where(whole, 0, least % 256), np.where(whole, 255, most % 256)


RULES: dict[str, Rule] = {
    "always 0": _each(lambda k: 0 * k),
    "max_iter, whatever is needed": lambda least, most, cap: (np.full_like(least, cap), np.full_like(most, cap)),
    "one too many": _each(lambda k: k + 1),
    "one too few": _each(lambda k: np.maximum(k - 1, 0)),
    "each twice": _each(lambda k: 2 * k),
    "two as one": _each(lambda k: k // 2),
    "two as one, and a single one, too": _each(lambda k: -(-k // 2)),
    "those that are left of max_iter": lambda least, most, cap: (cap - most, cap - least),
    "in 8 bits": _in_bits,
    "those of all samples added up": _each(lambda k: np.full_like(k, k.sum())),
    "those of all samples before added": _each(np.cumsum),
    "multiplied by the number of samples": _each(lambda k: k * len(k)),
    **{f"rounded up to a multiple of {e}, at most max_iter": _every(e, True) for e in INTERVALS},
    **{f"rounded up to a multiple of {e}, also above max_iter": _every(e, False) for e in INTERVALS},
}


def rule(answers: Sequence[Reported]) -> str:
    """How a whole run counts, if some numbers are wrong and one rule gives all of them, right or wrong; or empty."""
    if not any(answer.outside().any() for answer in answers):
        return ""
    return next((name for name, each in RULES.items() if not any(a.outside(each).any() for a in answers)), "")
