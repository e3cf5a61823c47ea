"""Planted bugs in the gradients of the weights and of U."""

from __future__ import annotations

import numpy as np

from idl_ref.conformance.bugs.plain import Plain, registered_in

BUGS: dict[str, type[Plain]] = {}
planted = registered_in(BUGS)


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
    """∂D equal to zero"""

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
    """the gradient of the bias equal to zero"""

    def gradients(self, p, X, V, G_Y):
        out = super().gradients(p, X, V, G_Y)
        if p.U.shape[1] and bool((p.U[-1] == 1).all()):
            out["B"] = out["B"].copy()
            out["B"][:, -1] = 0
        return out


@planted
class GradientOfCWithP(Plain):
    """∂C computed with A X + Z in place of X"""

    def gradients(self, p, X, V, G_Y):
        return super().gradients(p, X, V, G_Y) | {"C": G_Y @ self.preactivation(p, X).T}


@planted
class CotangentDoubled(Plain):
    """Cᵀ G_Y doubled in the adjoint"""

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
    """∂L = V (Lᵀ X)ᵀ in place of V (Rᵀ X)ᵀ"""

    def factor_gradients(self, factors, X, V):
        out = super().factor_gradients(factors, X, V)
        return out if len(factors) == 1 else (V @ (factors[0].T @ X).T, out[1])
