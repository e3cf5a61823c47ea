"""Planted bugs in the adjoint, the gradients, and the map f from raw to effective weights."""

from __future__ import annotations

import numpy as np

from idl_ref.conformance.adapters import Plain
from idl_ref.conformance.bugs import BUGS as BUGS  # with those of this file
from idl_ref.conformance.bugs import StaleIterate, planted
from idl_ref.functions import FUNCTIONS
from idl_ref.weights import by_name

# --- the adjoint ------------------------------------------------------------------------------------------------------


@planted
class AdjointNotTransposed(Plain):
    """adjoint not transposed"""

    def transposed(self, factors):
        return factors


@planted
class AdjointFactorsNotReversed(Plain):
    """L and R swapped in the adjoint"""

    def transposed(self, factors):
        return super().transposed(factors) if len(factors) == 1 else factors


@planted
class SlopesMissing(Plain):
    """φ′ left out of the adjoint"""

    def slope(self, p, P):
        return np.ones_like(P)


@planted
class SlopesOfX(Plain):
    """φ′ taken at X in the place of A X + Z"""

    def preactivation(self, p, X):
        return X


@planted
class SlopesStale(Plain):
    """φ′ taken at the previous iterate"""

    def preactivation(self, p, X):
        return super().preactivation(p, StaleIterate().equilibrium(p)[0])


@planted
class SlopesInside(Plain):
    """φ′ applied to Aᵀ V but not to G"""

    def adjoint(self, p, S, G):
        At = self.transposed(self.factors(p))
        return self.iterate(lambda V: S * self.apply(At, V) + G, G, np.zeros_like(G), p)[0]


@planted
class TanhSlope(Plain):
    """φ′ of tanh as 1 − tanh"""

    def slope(self, p, P):
        return 1 - np.tanh(P) if p.activation == "tanh" else super().slope(p, P)


@planted
class HardtanhSlope(Plain):
    """φ′ of hardtanh 1 everywhere"""

    def slope(self, p, P):
        return np.ones_like(P) if p.activation == "hardtanh" else super().slope(p, P)


@planted
class OtherKink(Plain):
    """φ′(0) = 1 where 0 was declared"""

    def slope(self, p, P):
        S = super().slope(p, P)
        return np.where(P >= 0, 1, S).astype(p.dtype) if p.activation == "relu" else S


@planted
class AdjointFiveSteps(Plain):
    """adjoint stopped after 5 iterations"""

    steps = 5

    def adjoint(self, p, S, G):
        V, At = np.zeros_like(G), self.transposed(self.factors(p))
        for _ in range(self.steps):
            V = S * (self.apply(At, V) + G)
        return V


@planted
class AdjointHundredSteps(AdjointFiveSteps):
    """adjoint stopped after 100 iterations"""

    steps = 100


@planted
class AdjointNotSolved(Plain):
    """adjoint not solved: V = φ′ ∘ Cᵀ G_Y"""

    def adjoint(self, p, S, G):
        return S * G


@planted
class AdjointDamped(Plain):
    """adjoint regularised"""

    def adjoint(self, p, S, G):
        return super().adjoint(p, S * S.dtype.type(1 - 1e-4), G)


@planted
class AdjointAbsolute(Plain):
    """adjoint tolerance absolute: small cotangents stop at once"""

    def adjoint(self, p, S, G):
        return self.pair(p, S, G)[0]

    def pair(self, p, S, G):
        At = self.transposed(self.factors(p))
        V = last = np.zeros_like(G)
        for _ in range(p.max_iter):
            V, last = S * (self.apply(At, V) + G), V
            if not np.abs(V - last).max(initial=0.0) > max(p.tol, 1e-15):
                break
        return V, last


@planted
class AdjointAbsoluteStale(AdjointAbsolute):
    """adjoint tolerance absolute and the iterate before the last returned: small cotangents give no gradient"""

    def adjoint(self, p, S, G):
        return self.pair(p, S, G)[1]


# --- gradients --------------------------------------------------------------------------------------------------------


@planted
class GradientOfATransposed(Plain):
    """∂A transposed"""

    def factor_gradients(self, factors, X, V):
        return tuple(np.ascontiguousarray(G.T) if G.shape[0] == G.shape[1] and len(factors) == 1 else G
                     for G in super().factor_gradients(factors, X, V))  # fmt: skip


@planted
class GradientsAveraged(Plain):
    """gradients averaged over the batch"""

    def gradients(self, p, X, V, G_Y):
        out = super().gradients(p, X, V, G_Y)
        return {name: G if name == "U" else G / p.dtype.type(max(X.shape[1], 1)) for name, G in out.items()}


@planted
class GradientOfDMissing(Plain):
    """∂D zero"""

    def gradients(self, p, X, V, G_Y):
        out = super().gradients(p, X, V, G_Y)
        return out | ({"D": np.zeros_like(out["D"])} if "D" in out else {})


@planted
class GradientOfUWithoutD(Plain):
    """Dᵀ G_Y left out of ∂U"""

    def gradients(self, p, X, V, G_Y):
        return super().gradients(p, X, V, G_Y) | {"U": p.B.T @ V}


@planted
class GradientOfBBiasMissing(Plain):
    """the bias gets no gradient"""

    def gradients(self, p, X, V, G_Y):
        out = super().gradients(p, X, V, G_Y)
        if p.U.shape[1] and bool((p.U[-1] == 1).all()):
            out["B"] = out["B"].copy()
            out["B"][:, -1] = 0
        return out


@planted
class GradientOfCWithP(Plain):
    """∂C with A X + Z in the place of X"""

    def gradients(self, p, X, V, G_Y):
        return super().gradients(p, X, V, G_Y) | {"C": G_Y @ self.preactivation(p, X).T}


@planted
class CotangentDoubled(Plain):
    """G_Y doubled"""

    def G(self, p, G_Y):
        return 2 * super().G(p, G_Y)


@planted
class GradientsOfFactorsSwapped(Plain):
    """∂L and ∂R swapped"""

    def raw(self, p, gradients):
        if len(gradients) == 1:
            return super().raw(p, gradients)
        return super().raw(p, (gradients[1].T, gradients[0].T))


@planted
class GradientOfLWithL(Plain):
    """∂L = V (Lᵀ X)ᵀ in the place of V (Rᵀ X)ᵀ"""

    def factor_gradients(self, factors, X, V):
        out = super().factor_gradients(factors, X, V)
        return out if len(factors) == 1 else (V @ (factors[0].T @ X).T, out[1])


# --- f ----------------------------------------------------------------------------------------------------------------


@planted
class StraightThrough(Plain):
    """straight-through where exact was declared: ∂A of the effective weights passed on to the raw ones"""

    def function(self, p):
        return FUNCTIONS[p.f](p.kappa, straight_through=p.f in ("inf", "rows"))


@planted
class ScaleHeldFixed(Plain):
    """the derivative of the norm left out of the gradient through the scaling"""

    def raw(self, p, gradients):
        if p.f != "inf" or p.straight_through:
            return super().raw(p, gradients)
        norms = [np.abs(F).sum(axis=1).max(initial=0.0) for F in p.factors]
        scaled = tuple(
            G * p.dtype.type(min(1, p.kappa / max(norm, 1e-30))) for G, norm in zip(gradients, norms, strict=True)
        )
        return by_name(scaled)


@planted
class ScaledInside(Plain):
    """scaled to the ball also from inside it"""

    def factors(self, p):
        if p.f != "inf":
            return super().factors(p)
        return tuple(F * p.dtype.type(p.kappa / np.abs(F).sum(axis=1).max()) for F in p.factors)


@planted
class ColumnNorm(Plain):
    """the largest column sum in the place of ‖A‖∞"""

    def factors(self, p):
        if p.f != "inf":
            return super().factors(p)
        return tuple(F * p.dtype.type(p.kappa / max(p.kappa, np.abs(F).sum(axis=0).max())) for F in p.factors)


@planted
class RowsScaled(Plain):
    """rows scaled in the place of projected"""

    def factors(self, p):
        if p.f != "rows":
            return super().factors(p)
        return tuple(
            (F * (p.kappa / np.maximum(p.kappa, np.abs(F).sum(axis=1, keepdims=True)))).astype(p.dtype)
            for F in p.factors
        )


@planted
class DiagonalKept(Plain):
    """the triangle with its diagonal"""

    def factors(self, p):
        return tuple(np.triu(F) for F in p.factors) if p.f == "triu" else super().factors(p)


@planted
class TriangleOfGradientMissing(Plain):
    """entries below the triangle get a gradient"""

    def raw(self, p, gradients):
        return by_name(gradients) if p.f == "triu" else super().raw(p, gradients)
