"""Planted bugs that show only beyond the size of a tile, a vector, a chunk or a grid."""

from __future__ import annotations

import numpy as np

from idl_ref.conformance.bugs.plain import Plain, registered_in

BUGS: dict[str, type[Plain]] = {}
planted = registered_in(BUGS)


def _without(array, rows):
    """A copy of an array with some rows set to zero."""
    array = array.copy()
    array[rows] = 0
    return array


# --- hidden units -----------------------------------------------------------------------------------------------------


@planted
class UnitsBeyond32(Plain):
    """hidden units beyond the 32nd, a tile, get no A X"""

    def apply(self, factors, X):
        return _without(super().apply(factors, X), np.s_[32:])


@planted
class UnitsBeyond256(Plain):
    """hidden units beyond the 256th, a block of threads, get no A X"""

    def apply(self, factors, X):
        return _without(super().apply(factors, X), np.s_[256:])


@planted
class UnitsBeyond1024(Plain):
    """hidden units beyond the 1,024th, the largest block of threads, get no A X"""

    def apply(self, factors, X):
        return _without(super().apply(factors, X), np.s_[1024:])


@planted
class SumsBeyond64(Plain):
    """sums over hidden units cut after 64 terms"""

    def apply(self, factors, X):
        return super().apply(factors, _without(X, np.s_[64:]))


@planted
class SumsBeyond128(Plain):
    """sums over hidden units cut after 128 terms"""

    def apply(self, factors, X):
        return super().apply(factors, _without(X, np.s_[128:]))


@planted
class TailOfEight(Plain):
    """hidden units after the last whole vector of 8 left out of sums, where there are more than 8"""

    def apply(self, factors, X):
        n = len(X)
        return super().apply(factors, _without(X, np.s_[n - n % 8 :]) if n > 8 else X)


@planted
class TailOfSixteen(Plain):
    """hidden units after the last whole tile of 16 not updated, where there are more than 32"""

    def apply(self, factors, X):
        n = len(X)
        return _without(super().apply(factors, X), np.s_[n - n % 16 :] if n > 32 else np.s_[n:])


@planted
class WholeTiles(Plain):
    """the last tile left out of sums where n is a multiple of 16"""

    def apply(self, factors, X):
        n = len(X)
        return super().apply(factors, X if n % 16 or not n else _without(X, np.s_[n - 16 :]))


@planted
class TilesExchanged(Plain):
    """two tiles of 16 of A exchanged across the diagonal, where n is 32 or more"""

    def factors(self, p):
        factors = super().factors(p)
        if len(factors) > 1 or len(factors[0]) < 32:
            return factors
        A = factors[0].copy()
        upper, lower = A[:16, 16:32].copy(), A[16:32, :16].copy()
        A[:16, 16:32], A[16:32, :16] = lower, upper
        return (A,)


@planted
class StepOfFirst32(Plain):
    """the step measured over the first 32 hidden units only"""

    def done(self, step, stop):
        return super().done(step[:32], stop[:32])


@planted
class ReadoutBeyond64(Plain):
    """C X cut after 64 hidden units"""

    def readout(self, p, X):
        return super().readout(p, _without(X, np.s_[64:]))


@planted
class LowRankBeyond16(Plain):
    """L and R swapped where n is above 16"""

    def factors(self, p):
        factors = super().factors(p)
        return self.transposed(factors) if len(factors) == 2 and len(factors[0]) > 16 else factors


@planted
class TanhBeyond16(Plain):
    """tanh replaced by a rational function of ±3 in the vectorised path for n above 16"""

    def phi(self, p, P):
        if p.activation != "tanh" or len(P) <= 16:
            return super().phi(p, P)
        Q = np.clip(P, -3, 3)
        return (Q * (27 + Q * Q) / (27 + 9 * Q * Q)).astype(p.dtype)


@planted
class AdjointBeyond32(Plain):
    """the adjoint not transposed where n is above 32"""

    def transposed(self, factors):
        return factors if len(factors) == 1 and len(factors[0]) > 32 else super().transposed(factors)


@planted
class GradientTilesTransposed(Plain):
    """∂A stored transposed where n is above 32"""

    def factor_gradients(self, factors, X, V):
        out = super().factor_gradients(factors, X, V)
        return tuple(np.ascontiguousarray(G.T) for G in out) if len(out) == 1 and len(X) > 32 else out


# --- features, outputs, rank ------------------------------------------------------------------------------------------


@planted
class FeaturesBeyond16(Plain):
    """features beyond the 16th ignored"""

    def Z(self, p):
        return p.B[:, :16] @ p.U[:16]


@planted
class FeaturesBeyond17(Plain):
    """features beyond the 17th ignored"""

    def Z(self, p):
        return p.B[:, :17] @ p.U[:17]


@planted
class FeaturesBeyond32(Plain):
    """the gradient of features beyond the 32nd equal to zero"""

    def gradients(self, p, X, V, G_Y):
        out = super().gradients(p, X, V, G_Y)
        return out | {"U": _without(out["U"], np.s_[32:])}


@planted
class OutputsBeyond3(Plain):
    """outputs beyond the third equal to zero"""

    def readout(self, p, X):
        return _without(super().readout(p, X), np.s_[3:])


@planted
class OutputsBeyond16(Plain):
    """outputs beyond the 16th equal to zero"""

    def readout(self, p, X):
        return _without(super().readout(p, X), np.s_[16:])


@planted
class CotangentsBeyond3(Plain):
    """cotangents of outputs beyond the third ignored"""

    def G(self, p, G_Y):
        return super().G(p, _without(G_Y, np.s_[3:]))


@planted
class RankBeyond5(Plain):
    """columns of L and R beyond the fifth ignored"""

    def factors(self, p):
        factors = super().factors(p)
        return factors if len(factors) == 1 else (factors[0][:, :5], factors[1][:5])

    def raw(self, p, gradients):
        if len(gradients) == 2:
            gradients = tuple(self._padded(G, F) for G, F in zip(gradients, p.factors, strict=True))
        return super().raw(p, gradients)

    def _padded(self, G, F):
        out = np.zeros_like(F)
        out[: G.shape[0], : G.shape[1]] = G
        return out


@planted
class RankBeyond16(RankBeyond5):
    """columns of L and R beyond the 16th ignored"""

    def factors(self, p):
        factors = Plain.factors(self, p)
        return factors if len(factors) == 1 else (factors[0][:, :16], factors[1][:16])
