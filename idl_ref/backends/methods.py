"""All twins share this module: the choice of the method for "auto", and every constant that steers an iteration."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import numpy as np

from idl_ref import certificate
from idl_ref import factors as fac
from idl_ref.choices import Method

# A compiled twin solves by these methods itself, and leaves all others to the NumPy twin.
COMPILED = ("auto", "picard", "anderson", "newton", "substitution")
# Dense Newton solves an n × n system per column and step, and is refused for larger n.
NEWTON_LIMIT = 2048
# The cost of Newton's method is estimated by NEWTON_STEPS steps, whose flops take NEWTON_RATE times as long as those of
# the product of a tile. An application with Anderson's trial point costs ANDERSON_RATE times as much as Picard's.
NEWTON_STEPS = 4
NEWTON_RATE = 12
# The last half of the applications that a column may take, and at most RESERVE of them, is for Newton's method.
RESERVE = 64
ANDERSON_RATE = 4
# Up to this rank, "auto" solves the adjoint equation of A = L Rᵀ exactly, by an r × r system per column.
DIRECT_RANK = 64
# This is more than the steps of any column: plain Picard never gives a slow column up.
ENDLESS = 1 << 62
# A Picard step that is longer than SLOW times the step before it is slow. SLOW_STEPS slow steps in a row turn "auto"
# from Picard to Anderson.
SLOW = 0.6
SLOW_STEPS = 3
# Ratios of steps are kept above LEAST, because the logarithm of zero is an error in Python. The ratio of a step to an
# infinite one is zero, and so is a ratio too small for a double.
LEAST = sys.float_info.min
# A single sample stays with slow Picard steps if at most this many more are expected, because they are cheap.
STEPS_LEFT = 40
# Anderson uses this many differences of earlier iterates.
DEPTH = 5
# DAMPING times eps, relative to the diagonal, is added to the diagonal of Anderson's normal equations.
DAMPING = 64
# A trial point is good if the step there is at most DECREASE times the smallest step so far.
DECREASE = 0.9
# After LEASH consecutive trial points that are neither good nor nearer, which means that the step is at most DECREASE
# times the smallest one since the last good point, Picard takes over, first for 1 step, and after each further
# failure for RESPITE times as many: 1, 4, 16, … steps.
LEASH = 16
RESPITE = 4
# An iteration is stale if no step was smaller than the smallest one in this many applications.
STALE = 16


def choose(
    method: Method, factors: fac.Factors, adjoint: bool, triangle: Callable[[fac.Factors], str | None] = fac.triangle
) -> Method:
    """Return the method that `method` stands for, and refuse a method that does not fit A.

    `triangle` tells which strict triangle holds all nonzero entries of A. It is called only if the answer matters, that
    is, for "auto" and "substitution".
    """
    n, low_rank = factors[0].shape[0], len(factors) > 1
    if method == "auto":
        if triangle(factors):
            return "substitution"
        return "newton" if low_rank and adjoint and factors[0].shape[1] <= DIRECT_RANK else "auto"
    if method == "substitution" and not triangle(factors):
        got = "a product of factors" if low_rank else "entries on the diagonal or on both sides of it"
        raise ValueError(f'method "substitution" needs a strictly triangular A; got {got}: use method="auto".')
    if method == "blocks" and low_rank:
        raise ValueError(
            'method "blocks" needs a dense A, because the zeros of L Rᵀ are not known; got a product of factors: '
            'use method="auto".'
        )
    if method == "blocks" and fac.is_sparse(factors):
        raise ValueError(
            'method "blocks" needs a dense A; got a sparse one: use method="auto", or pass A.toarray() where it fits.'
        )
    if method == "newton" and not low_rank and n > NEWTON_LIMIT:
        raise ValueError(
            f'method "newton" solves an n × n system per sample and needs n ≤ {NEWTON_LIMIT}, or a low-rank A; '
            f'got n = {n}: use method="auto".'
        )
    return method


def steps_left(step: float, before: float, limit: float) -> float:
    """Estimate how many more steps are needed until the step is at most `limit`.

    The estimate assumes that steps continue to shrink by the last ratio, step / before. Callers use it only after slow
    steps, where this ratio is above SLOW.
    """
    if not 0 < step < before or limit <= 0:
        return math.inf
    return math.log(max(limit / step, LEAST)) / math.log(max(step / before, LEAST))


def window(max_iter: int) -> int:
    """Return after how many applications of Anderson's method "auto" judges again whether Newton's method is better."""
    return max(1, min(LEASH, max_iter // 4))


def enough(max_iter: int) -> int:
    """Return after how many applications "auto" turns to the next method in any case, so that Newton's has a chance."""
    return max_iter - min(RESERVE, max_iter // 2)


def newton_cost(factors: fac.Factors) -> float:
    """Estimate the cost of Newton's method for one column, in applications of the map; inf if the method is refused.

    An application takes 2 n² flops for a dense A, 4 n r for rank r. A step takes n² flops for the matrix and n w² for
    its elimination, where w is the mean number of nonzero entries of a row of A; for rank r, it takes 2 n r² + 2/3 r³.
    """
    n, r = factors[0].shape
    if len(factors) > 1:
        return NEWTON_STEPS * NEWTON_RATE * (r / 2 + r * r / (6 * max(n, 1)))
    if n > NEWTON_LIMIT:
        return math.inf
    if fac.is_sparse(factors):  # An application takes 2 flops per entry, but a step of Newton's fills A up with zeros.
        return NEWTON_STEPS * NEWTON_RATE * (n * n + n**3) / (2 * max(factors[0].entries, 1))
    width = np.count_nonzero(factors[0] != 0) / max(n, 1)  # NumPy counts truth values faster than numbers.
    return NEWTON_STEPS * NEWTON_RATE * (1 + width * width / max(n, 1)) / 2


def slower(anderson: float, picard: float, other: float) -> bool:
    """Tell whether a column is expected to need more time than another method of the cost `other`.

    `anderson` and `picard` are the applications that these methods are expected to need, by `steps_left`: Anderson's if
    its steps go on to shrink as in the last window, Picard's if its steps shrink by κ.
    """
    return min(ANDERSON_RATE * anderson, picard) > other


def filled(entries: int, unit: int) -> int:
    """Round `entries` up to a multiple of `unit`, which must be a power of two."""
    return (entries + unit - 1) & -unit


def norm_bound(largest: float, terms: int, dtype: np.dtype, product: bool) -> float:
    """Return an upper bound of ‖A‖∞ from `largest`, the largest absolute row sum that a kernel computed in `dtype`.

    The bound covers the rounding of at most `terms` additions and multiplications. For a product of two factors it
    also covers the underflow of every term.
    """
    eps, tiny, _ = certificate.numbers(dtype)
    return largest * (1 + terms * eps) + (terms * tiny if product else 0)
