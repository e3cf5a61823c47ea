"""Functions of one vector, compiled for the Numba twin: exp and its relatives, φ, φ′, and reductions to one number."""

from __future__ import annotations

import math

from idl_ref.activations import (
    ELU,
    HARDTANH,
    LEAK,
    LEAKY_RELU,
    RELU,
    SIGMOID,
    SOFTPLUS,
    SOFTSIGN,
    TANH,
)
from idl_ref.backends.numba.compiling import compiled, vec

# --- reductions -------------------------------------------------------------------------------------------------------


@compiled
def total(a):
    """The sum of the lanes: the upper half is added to the lower one until one lane is left."""
    lanes = vec.lanes(a)
    if lanes > 8:
        a = vec.add(a, vec.down(a, 8))
    if lanes > 4:
        a = vec.add(a, vec.down(a, 4))
    if lanes > 2:
        a = vec.add(a, vec.down(a, 2))
    return vec.first(vec.add(a, vec.down(a, 1)))


@compiled
def largest_two(a, b):
    """The largest of the lanes of a, and those of b, which must be magnitudes; NaN where there is one."""
    lanes = vec.lanes(a)
    c = vec.larger(vec.halves(a, b, 1, 0), vec.halves(a, b, 1, 1))
    if lanes > 2:
        c = vec.larger(vec.halves(c, c, 2, 0), vec.halves(c, c, 2, 1))
    if lanes > 4:
        c = vec.larger(vec.halves(c, c, 4, 0), vec.halves(c, c, 4, 1))
    if lanes > 8:
        c = vec.larger(vec.halves(c, c, 8, 0), vec.halves(c, c, 8, 1))
    return vec.first(c), vec.first(vec.down(c, 1))


@compiled
def largest(a):
    """The largest of the lanes, which must be magnitudes; NaN if there is one."""
    lanes = vec.lanes(a)
    if lanes > 8:
        a = vec.larger(a, vec.down(a, 8))
    if lanes > 4:
        a = vec.larger(a, vec.down(a, 4))
    if lanes > 2:
        a = vec.larger(a, vec.down(a, 2))
    return vec.first(vec.larger(a, vec.down(a, 1)))


@compiled
def fold_1(a, b):
    """The upper half of a, added to the lower one, and beside it the same for b."""
    return vec.add(vec.halves(a, b, 1, 0), vec.halves(a, b, 1, 1))


@compiled
def fold_2(a, b):
    """The same as `fold_1` for each of 2 parts of a, and then of b."""
    return vec.add(vec.halves(a, b, 2, 0), vec.halves(a, b, 2, 1))


@compiled
def fold_4(a, b):
    """The same as `fold_1` for each of 4 parts of a, and then of b."""
    return vec.add(vec.halves(a, b, 4, 0), vec.halves(a, b, 4, 1))


@compiled
def fold_8(a, b):
    """The same as `fold_1` for each of 8 parts of a, and then of b."""
    return vec.add(vec.halves(a, b, 8, 0), vec.halves(a, b, 8, 1))


# --- exp, expm1, log1p ------------------------------------------------------------------------------------------------

LOG2_E = 1.4426950408889634
EXPM1_SERIES = tuple(1 / math.factorial(i + 1) for i in range(14))  # of (eʳ − 1)/r
ARTANH_SERIES = tuple(2 / (2 * i + 1) for i in range(18))  # of 2 artanh(y)/y, in y²


@compiled
def horner(x, coefficients):
    """c₀ + x (c₁ + x (c₂ + …))"""
    result = vec.splat(x, coefficients[-1])
    for i in range(len(coefficients) - 2, -1, -1):
        result = vec.fma(result, x, vec.splat(x, coefficients[i]))
    return result


@compiled
def least_exponent(x):
    """Below this x, eˣ is not a normal number of the dtype."""
    return vec.splat(x, -87.3365 if vec.lanes(x) == vec.VECTOR_BYTES // 4 else -708.3964)


@compiled
def exponential(x):
    """2ᵏ and eʳ − 1 for x = k ln 2 + r, |r| ≤ ln 2 / 2, x ≥ least_exponent(x).

    x / ln 2 is rounded to k by adding a number so large that no digits are left for fractions; k is in the lowest bits
    then. ln 2 is subtracted in two parts, the first with so few digits that k times it is exact. The series of eʳ − 1
    ends where its terms are below a tenth of the last digit of float64.
    """
    if vec.lanes(x) == vec.VECTOR_BYTES // 4:
        whole, high, low, bias, digits = 1.5 * 2.0**23, 0.693359375, -2.12194440054690583e-4, 127, 23
    else:
        whole, high, low, bias, digits = 1.5 * 2.0**52, 0.693147180369123816490, 1.90821492927058770e-10, 1023, 52
    shifted = vec.fma(x, vec.splat(x, LOG2_E), vec.splat(x, whole))
    k = vec.subtract(shifted, vec.splat(x, whole))
    r = vec.fma(k, vec.splat(x, -low), vec.fma(k, vec.splat(x, -high), x))
    power = vec.shift_bits(vec.add_to_bits(shifted, bias), digits)
    return power, vec.multiply(r, horner(r, EXPM1_SERIES))


@compiled
def exp(x):
    """eˣ for x ≤ 0; 0 where that is not a normal number."""
    least = least_exponent(x)
    tiny = vec.below(x, least)
    power, rest = exponential(vec.select(tiny, least, x))
    return vec.select(tiny, vec.splat(x, 0.0), vec.fma(power, rest, power))


@compiled
def expm1(x):
    """eˣ − 1 for x ≤ 0."""
    least = least_exponent(x)
    power, rest = exponential(vec.select(vec.below(x, least), least, x))
    return vec.fma(power, rest, vec.subtract(power, vec.splat(x, 1.0)))


@compiled
def log1p(x):
    """log(1 + x) = 2 artanh(y) for 0 ≤ x ≤ 1, with y = x/(2 + x) ≤ 1/3."""
    y = vec.divide(x, vec.add(vec.splat(x, 2.0), x))
    return vec.multiply(y, horner(vec.multiply(y, y), ARTANH_SERIES))


# --- activations ------------------------------------------------------------------------------------------------------


@compiled
def sigmoid(p):
    """1/(1 + e⁻ᵖ), with the exponential of −|p|, which does not overflow."""
    one = vec.splat(p, 1.0)
    e = exp(vec.negate(vec.magnitude(p)))
    return vec.divide(vec.select(vec.at_most(p, vec.splat(p, 0.0)), e, one), vec.add(one, e))


@compiled
def phi(p, code):
    """φ of a vector; `code` is that of the activation table. NaN is not ≤ 0, and stays NaN in every branch."""
    vec.separate()
    zero, one = vec.splat(p, 0.0), vec.splat(p, 1.0)
    nonpositive, minus = vec.at_most(p, zero), vec.negate(vec.magnitude(p))
    if code == RELU:
        return vec.select(nonpositive, zero, p)
    if code == LEAKY_RELU:
        return vec.select(nonpositive, vec.multiply(vec.splat(p, LEAK), p), p)
    if code == TANH:
        e = expm1(vec.add(minus, minus))
        t = vec.divide(e, vec.add(vec.splat(p, 2.0), e))  # −tanh |p|
        return vec.select(nonpositive, t, vec.subtract(zero, t))
    if code == SIGMOID:
        return sigmoid(p)
    if code == SOFTPLUS:
        return vec.add(vec.select(nonpositive, zero, p), log1p(exp(minus)))
    if code == ELU:
        return vec.select(nonpositive, expm1(minus), p)
    if code == HARDTANH:
        clipped = vec.select(vec.at_most(vec.subtract(one, p), zero), one, p)
        return vec.select(vec.at_most(vec.add(p, one), zero), vec.subtract(zero, one), clipped)
    if code == SOFTSIGN:
        return vec.divide(p, vec.add(one, vec.magnitude(p)))
    return p


@compiled
def slope(p, code):
    """φ′ of a vector, the smaller one-sided slope at a kink. For p = NaN, it is what the definition gives."""
    vec.separate()
    zero, one = vec.splat(p, 0.0), vec.splat(p, 1.0)
    positive, minus = vec.below(zero, p), vec.negate(vec.magnitude(p))
    if code == RELU:
        return vec.select(positive, one, zero)
    if code == LEAKY_RELU:
        return vec.select(positive, one, vec.splat(p, LEAK))
    if code == TANH:
        e = exp(vec.add(minus, minus))  # 1/cosh² p = 4e/(1 + e)²
        size = vec.add(one, e)
        return vec.divide(vec.multiply(vec.splat(p, 4.0), e), vec.multiply(size, size))
    if code == SIGMOID:
        e = exp(minus)
        return vec.divide(e, vec.multiply(vec.add(one, e), vec.add(one, e)))
    if code == SOFTPLUS:
        return sigmoid(p)
    if code == ELU:
        return vec.select(positive, one, exp(minus))
    if code == HARDTANH:
        return vec.select(vec.below(vec.magnitude(p), one), one, zero)
    if code == SOFTSIGN:
        size = vec.add(one, vec.magnitude(p))
        return vec.divide(one, vec.multiply(size, size))
    return one
