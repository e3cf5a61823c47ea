"""Planted bugs in φ′: the slope of another function, at another point, or under another convention at a kink."""

from __future__ import annotations

import numpy as np

from idl_ref.conformance.bugs.plain import Plain, registered_in
from idl_ref.conformance.bugs.values import Of

BUGS: dict[str, type[Plain]] = {}
planted = registered_in(BUGS)


@planted
class SigmoidSlope(Of):
    """φ′ of sigmoid taken at φ(p) in place of p"""

    activation = "sigmoid"

    def wrong_slope(self, P):
        s = 1 / (1 + np.exp(-1 / (1 + np.exp(-P))))
        return s * (1 - s)


@planted
class SoftplusSlope(Of):
    """φ′ of softplus as 1 − exp(−p)"""

    activation = "softplus"

    def wrong_slope(self, P):
        return 1 - np.exp(-np.abs(P))


@planted
class EluSlope(Of):
    """φ′ of elu as 1 for negative arguments as well"""

    activation = "elu"

    def wrong_slope(self, P):
        return np.ones_like(P)


@planted
class EluSlopeOfValue(Of):
    """φ′ of elu as φ in place of φ + 1 for negative arguments"""

    activation = "elu"

    def wrong_slope(self, P):
        return np.where(P > 0, 1, np.expm1(np.minimum(P, 0)))


@planted
class SoftsignSlope(Of):
    """φ′ of softsign as 1/(1 + |p|), not squared"""

    activation = "softsign"

    def wrong_slope(self, P):
        return 1 / (1 + np.abs(P))


@planted
class IdentitySlope(Of):
    """φ′ of the identity as 0 for negative arguments"""

    activation = "identity"

    def wrong_slope(self, P):
        return P > 0


@planted
class ReluSlopeAtOne(Of):
    """φ′ of relu as a step at 10⁻⁸"""

    activation = "relu"

    def wrong_slope(self, P):
        return P > 1e-8


@planted
class ReluSlopeOfHalf(Of):
    """relu with φ′(0) = 1/2 where 0 was declared"""

    activation = "relu"

    def wrong_slope(self, P):
        return np.where(P == 0, 0.5, P > 0)


@planted
class HardtanhKink(Of):
    """hardtanh with φ′ = 1 at ±1 where 0 was declared"""

    activation = "hardtanh"

    def wrong_slope(self, P):
        return np.abs(P) <= 1


@planted
class LeakyKink(Of):
    """leaky_relu with φ′(0) = 1 where 0.01 was declared"""

    activation = "leaky_relu"

    def wrong_slope(self, P):
        return np.where(P >= 0, 1, 0.01)
