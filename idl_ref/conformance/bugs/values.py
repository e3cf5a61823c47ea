"""Planted bugs in φ and φ′: other constants, formulas that lose digits, and NaN that becomes a number."""

from __future__ import annotations

import numpy as np

from idl_ref.conformance.bugs.plain import Plain, registered_in

BUGS: dict[str, type[Plain]] = {}
planted = registered_in(BUGS)


class Of(Plain):
    """One activation has another φ, or another φ′."""

    activation = ""

    def wrong_phi(self, P):
        return None

    def wrong_slope(self, P):
        return None

    def phi(self, p, P):
        other = self.wrong_phi(P) if p.activation == self.activation else None
        return super().phi(p, P) if other is None else np.asarray(other, p.dtype)

    def slope(self, p, P):
        other = self.wrong_slope(P) if p.activation == self.activation else None
        return super().slope(p, P) if other is None else np.asarray(other, p.dtype)


# --- NaN --------------------------------------------------------------------------------------------------------------


@planted
class ReluByFmax(Of):
    """relu by fmax, which turns NaN into 0"""

    activation = "relu"

    def wrong_phi(self, P):
        return np.fmax(P, 0)


@planted
class HardtanhByFmax(Of):
    """hardtanh by fmax and fmin, which turn NaN into −1"""

    activation = "hardtanh"

    def wrong_phi(self, P):
        return np.fmin(np.fmax(P, -1), 1)


@planted
class LeakyByFmax(Of):
    """leaky_relu by fmax of a number and of 0.01 times it with NaN replaced"""

    activation = "leaky_relu"

    def wrong_phi(self, P):
        return np.where(np.isnan(P), 0, np.fmax(P, P * P.dtype.type(0.01)))


@planted
class NanIsZero(Plain):
    """NaN in φ(A X + Z) replaced by 0"""

    def phi(self, p, P):
        return np.nan_to_num(super().phi(p, P), nan=0.0, posinf=np.inf, neginf=-np.inf)


# --- other constants --------------------------------------------------------------------------------------------------


@planted
class LeakyTwoTenths(Of):
    """leaky_relu with slope 0.2 for negative arguments, in φ′ only"""

    activation = "leaky_relu"

    def wrong_slope(self, P):
        return np.where(P > 0, 1, 0.2)


@planted
class LeakyIsRelu(Of):
    """relu in place of leaky_relu"""

    activation = "leaky_relu"

    def wrong_phi(self, P):
        return np.maximum(P, 0)


@planted
class EluTenth(Of):
    """elu with α = 0.9"""

    activation = "elu"

    def wrong_phi(self, P):
        return np.where(P > 0, P, P.dtype.type(0.9) * np.expm1(np.minimum(P, 0)))


@planted
class HardtanhIsSix(Of):
    """hardtanh from 0 to 1, as a clipped relu"""

    activation = "hardtanh"

    def wrong_phi(self, P):
        return np.clip(P, 0, 1)


@planted
class HardSigmoid(Of):
    """the piecewise linear sigmoid in place of sigmoid"""

    activation = "sigmoid"

    def wrong_phi(self, P):
        return np.clip(P / 6 + P.dtype.type(0.5), 0, 1)


@planted
class SoftsignByRoot(Of):
    """x/√(1 + x²) in place of softsign"""

    activation = "softsign"

    def wrong_phi(self, P):
        return P / np.sqrt(1 + P * P)


@planted
class SoftplusShifted(Of):
    """softplus less log 2, so that it is 0 at 0"""

    activation = "softplus"

    def wrong_phi(self, P):
        return np.logaddexp(0, P) - P.dtype.type(np.log(2))


# --- formulas that lose digits ----------------------------------------------------------------------------------------


@planted
class SoftplusThreshold(Of):
    """softplus replaced by the identity above 20, as a threshold in float32 allows"""

    activation = "softplus"

    def wrong_phi(self, P):
        return np.where(P > 20, P, np.logaddexp(0, P))


@planted
class SoftplusThresholdLow(Of):
    """softplus replaced by the identity above 8"""

    activation = "softplus"

    def wrong_phi(self, P):
        return np.where(P > 8, P, np.logaddexp(0, P))


@planted
class TanhByExp(Of):
    """tanh as (exp 2p − 1)/(exp 2p + 1), which overflows"""

    activation = "tanh"

    def wrong_phi(self, P):
        return (np.exp(2 * P) - 1) / (np.exp(2 * P) + 1)


@planted
class SigmoidByExp(Of):
    """sigmoid as exp p/(1 + exp p), which overflows"""

    activation = "sigmoid"

    def wrong_phi(self, P):
        return np.exp(P) / (1 + np.exp(P))


@planted
class TanhOfFloat32(Of):
    """tanh computed in float32"""

    activation = "tanh"

    def wrong_phi(self, P):
        return np.tanh(P.astype(np.float32))


@planted
class TanhFast(Of):
    """tanh approximated to seven digits"""

    activation = "tanh"

    def wrong_phi(self, P):
        return np.tanh(P) * (1 + P.dtype.type(1e-6) * np.exp(-P * P))
