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


@planted
class GradientOfRWithR(Plain):
    """∂R = X (Rᵀ V)ᵀ in place of X (Lᵀ V)ᵀ"""

    def factor_gradients(self, factors, X, V):
        out = super().factor_gradients(factors, X, V)
        return out if len(factors) == 1 else (out[0], (factors[1] @ V) @ X.T)


@planted
class GradientOfRMissing(Plain):
    """∂R equal to zero"""

    def factor_gradients(self, factors, X, V):
        out = super().factor_gradients(factors, X, V)
        return out if len(factors) == 1 else (out[0], np.zeros_like(out[1]))


@planted
class GradientsNegated(Plain):
    """gradients of the loss that is to be maximised: all signs wrong"""

    def gradients(self, p, X, V, G_Y):
        return {name: -G for name, G in super().gradients(p, X, V, G_Y).items()}


@planted
class GradientOfAWithU(Plain):
    """∂A = V (B U)ᵀ in place of V Xᵀ"""

    def factor_gradients(self, factors, X, V):
        return super().factor_gradients(factors, self.inputs if self.inputs is not None else X, V)

    inputs = None

    def gradients(self, p, X, V, G_Y):
        self.inputs = self.Z(p)
        out = super().gradients(p, X, V, G_Y)
        self.inputs = None
        return out


@planted
class GradientOfBUnsolved(Plain):
    """∂B = (Cᵀ G_Y) Uᵀ, without the adjoint"""

    def gradients(self, p, X, V, G_Y):
        return super().gradients(p, X, V, G_Y) | {"B": self.G(p, G_Y) @ p.U.T}


@planted
class GradientOfUDirectOnly(Plain):
    """∂U = Dᵀ G_Y, without Bᵀ V"""

    def gradients(self, p, X, V, G_Y):
        out = super().gradients(p, X, V, G_Y)
        return out | {"U": np.zeros_like(out["U"]) if p.D is None else p.D.T @ G_Y}


@planted
class GradientOfUDetached(Plain):
    """∂U equal to zero: the inputs are cut off from the graph"""

    def gradients(self, p, X, V, G_Y):
        out = super().gradients(p, X, V, G_Y)
        return out | {"U": np.zeros_like(out["U"])}


@planted
class GradientsWithoutFirst(Plain):
    """gradients of the weights without the first sample"""

    def gradients(self, p, X, V, G_Y):
        whole = super().gradients(p, X, V, G_Y)
        part = super().gradients(p.with_arrays({"U": p.U[:, 1:]}), X[:, 1:], V[:, 1:], G_Y[:, 1:])
        return part | {"U": whole["U"]}


@planted
class GradientOfUAveraged(Plain):
    """∂U divided by the number of samples"""

    def gradients(self, p, X, V, G_Y):
        out = super().gradients(p, X, V, G_Y)
        return out | {"U": out["U"] / p.dtype.type(max(X.shape[1], 1))}


@planted
class GradientsPerOutput(Plain):
    """gradients divided by the number of outputs"""

    def G(self, p, G_Y):
        return super().G(p, G_Y) / p.dtype.type(len(G_Y))


@planted
class GradientOfADiagonal(Plain):
    """the diagonal of ∂A equal to zero"""

    def factor_gradients(self, factors, X, V):
        out = super().factor_gradients(factors, X, V)
        return (out[0] * (1 - np.eye(len(X), dtype=X.dtype)),) if len(out) == 1 else out


@planted
class GradientOfDAveraged(Plain):
    """∂D averaged over the batch, the other gradients summed"""

    def gradients(self, p, X, V, G_Y):
        out = super().gradients(p, X, V, G_Y)
        return out | ({"D": out["D"] / p.dtype.type(max(X.shape[1], 1))} if "D" in out else {})


@planted
class GradientOfCSlopes(Plain):
    """∂C = (G_Y) (φ′ ∘ X)ᵀ"""

    def gradients(self, p, X, V, G_Y):
        S = self.slope(p, self.preactivation(p, X))
        return super().gradients(p, X, V, G_Y) | {"C": G_Y @ (S * X).T}
