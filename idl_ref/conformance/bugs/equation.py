"""Planted bugs in the equation: A, Z, φ and Y."""

from __future__ import annotations

import numpy as np

from idl_ref.conformance.bugs.plain import Plain, registered_in
from idl_ref.conformance.bugs.reached import without

BUGS: dict[str, type[Plain]] = {}
planted = registered_in(BUGS)


@planted
class RowScaled(Plain):
    """one row of A scaled by 1.001"""

    def factors(self, p):
        first, *rest = super().factors(p)
        first = first.copy()
        first[0] *= first.dtype.type(1.001)
        return (first, *rest)


@planted
class ForwardTransposed(Plain):
    """Aᵀ in place of A in the equation"""

    def factors(self, p):
        return self.transposed(super().factors(p))


@planted
class FactorsSwapped(Plain):
    """L and R swapped in the equation"""

    def factors(self, p):
        factors = super().factors(p)
        return factors if len(factors) == 1 else self.transposed(factors)


@planted
class DiagonalIgnored(Plain):
    """the diagonal of A left out"""

    def apply(self, factors, X):
        out = super().apply(factors, X)
        return out - np.diagonal(factors[0])[:, None] * X if len(factors) == 1 else out


@planted
class BiasTwice(Plain):
    """the bias added twice"""

    def Z(self, p):
        constant = p.U.shape[1] > 0 and bool((p.U[-1] == 1).all())
        return super().Z(p) + p.B[:, -1:] if constant else super().Z(p)


@planted
class InputsInFloat32(Plain):
    """B U computed in float32"""

    def Z(self, p):
        return (p.B.astype(np.float32) @ p.U.astype(np.float32)).astype(p.dtype)


@planted
class InputsClipped(Plain):
    """B U clipped to ±10⁶"""

    def Z(self, p):
        return np.clip(super().Z(p), -1e6, 1e6).astype(p.dtype)


@planted
class MemoryOrder(Plain):
    """strides ignored: the entries of B read in the order in which they lie in memory"""

    def Z(self, p):
        return p.B.ravel(order="K").reshape(p.B.shape) @ p.U


@planted
class PreactivationReturned(Plain):
    """A X + Z returned in place of X"""

    def returned(self, G, last):
        return G if self._adjoint else self._last_p

    _adjoint = False

    def phi(self, p, P):
        self._last_p = P
        return super().phi(p, P)

    def adjoint(self, p, S, G):
        self._adjoint = True
        V = super().adjoint(p, S, G)
        self._adjoint = False
        return V


@planted
class LeakyTenth(Plain):
    """leaky_relu with slope 0.1 in place of 0.01"""

    def phi(self, p, P):
        return np.maximum(P, P * p.dtype.type(0.1)) if p.activation == "leaky_relu" else super().phi(p, P)

    def slope(self, p, P):
        return np.where(P > 0, 1, 0.1).astype(p.dtype) if p.activation == "leaky_relu" else super().slope(p, P)


@planted
class SoftplusOverflows(Plain):
    """softplus computed as log(1 + exp p), which overflows"""

    def phi(self, p, P):
        return np.log1p(np.exp(P)) if p.activation == "softplus" else super().phi(p, P)


@planted
class SigmoidForTanh(Plain):
    """sigmoid in place of tanh"""

    def phi(self, p, P):
        return 1 / (1 + np.exp(-P)) if p.activation == "tanh" else super().phi(p, P)


@planted
class Subnormals(Plain):
    """subnormal numbers flushed to zero"""

    def phi(self, p, P):
        X = super().phi(p, P)
        return np.where(np.abs(X) < np.finfo(p.dtype).tiny, 0, X).astype(p.dtype)


@planted
class Float32Sums(Plain):
    """A X accumulated in float32"""

    def apply(self, factors, X):
        small = tuple(F.astype(np.float32) for F in factors)
        return super().apply(small, X.astype(np.float32)).astype(X.dtype)


@planted
class Float32EverywhereElse(Plain):
    """Y rounded to float32"""

    def readout(self, p, X):
        return super().readout(p, X).astype(np.float32).astype(p.dtype)


@planted
class DDropped(Plain):
    """D U left out of Y"""

    def readout(self, p, X):
        return p.C @ X


@planted
class DSubtracted(Plain):
    """D U subtracted from Y"""

    def readout(self, p, X):
        return p.C @ X if p.D is None else p.C @ X - p.D @ p.U


@planted
class Damped(Plain):
    """half of the last iterate kept in each step, and the average reported as the last application"""

    def returned(self, G, last):
        return (G + last) / 2


@planted
class BiasDropped(Plain):
    """the constant feature of the bias left out of Z"""

    def Z(self, p):
        constant = p.U.shape[1] > 0 and bool((p.U[-1] == 1).all())
        return p.B[:, :-1] @ p.U[:-1] if constant else super().Z(p)


@planted
class BiasInYDropped(Plain):
    """the constant feature of the bias left out of D U"""

    def readout(self, p, X):
        if p.D is None or not (p.U.shape[1] and bool((p.U[-1] == 1).all())):
            return super().readout(p, X)
        return p.C @ X + p.D[:, :-1] @ p.U[:-1]


@planted
class ReadoutOfP(Plain):
    """Y = C (A X + Z) + D U"""

    def readout(self, p, X):
        return super().readout(p, self.preactivation(p, X))


@planted
class SkipConnection(Plain):
    """Z added to X once more in the readout"""

    def readout(self, p, X):
        return super().readout(p, X + self.Z(p))


@planted
class ActivatedReadout(Plain):
    """φ applied to Y"""

    def readout(self, p, X):
        return self.phi(p, super().readout(p, X))


@planted
class FactorOfR(Plain):
    """A = L Lᵀ in place of L Rᵀ"""

    def factors(self, p):
        factors = super().factors(p)
        return factors if len(factors) == 1 else (factors[0], factors[0].T)


@planted
class StridesOfC(Plain):
    """strides ignored: the entries of C read in the order in which they lie in memory"""

    def readout(self, p, X):
        return super().readout(p.with_arrays({"C": p.C.ravel(order="K").reshape(p.C.shape)}), X)


@planted
class StridesOfU(Plain):
    """strides ignored: the entries of U read in the order in which they lie in memory, in B U"""

    def Z(self, p):
        return p.B @ p.U.ravel(order="K").reshape(p.U.shape)


@planted
class AbsoluteA(Plain):
    """|A| in place of A"""

    def factors(self, p):
        return tuple(map(np.abs, super().factors(p)))


# --- blocks of units --------------------------------------------------------------------------------------------------


@planted
class CyclesApart(Plain):
    """what a cycle of hidden units gets from other cycles left out"""

    def factors(self, p):
        return without(super().factors(p), "all")


@planted
class CyclesInOrderOfUnits(Plain):
    """cycles of hidden units solved once each, in the order of their first units and not in that of the couplings"""

    def factors(self, p):
        return without(super().factors(p), "later")


@planted
class NearestCycleOnly(Plain):
    """what a cycle of hidden units gets from others left out where it also gets it over a third one"""

    def factors(self, p):
        return without(super().factors(p), "far")
