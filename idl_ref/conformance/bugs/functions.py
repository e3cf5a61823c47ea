"""Planted bugs in the map f from raw to effective weights, and in its pullback."""

from __future__ import annotations

import numpy as np

from idl_ref import perron
from idl_ref.conformance.bugs.plain import Plain, registered_in
from idl_ref.functions import FUNCTIONS
from idl_ref.weights import by_name

BUGS: dict[str, type[Plain]] = {}
planted = registered_in(BUGS)


@planted
class StraightThrough(Plain):
    """straight-through where exact was declared: ∂A of the effective weights returned as that of the raw weights"""

    def function(self, p):
        return FUNCTIONS[p.f](p.kappa, straight_through=p.f in ("inf", "rows"))


@planted
class ScaleHeldFixed(Plain):
    """the derivative of the norm left out of the derivative of the scaling"""

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
    """weights inside the ball scaled up to its boundary"""

    def factors(self, p):
        if p.f != "inf":
            return super().factors(p)
        return tuple(F * p.dtype.type(p.kappa / np.abs(F).sum(axis=1).max()) for F in p.factors)


@planted
class ColumnNorm(Plain):
    """the largest column sum in place of ‖A‖∞"""

    def factors(self, p):
        if p.f != "inf":
            return super().factors(p)
        return tuple(F * p.dtype.type(p.kappa / max(p.kappa, np.abs(F).sum(axis=0).max())) for F in p.factors)


@planted
class RowsScaled(Plain):
    """rows scaled to the ball, not projected on it"""

    def factors(self, p):
        if p.f != "rows":
            return super().factors(p)
        return tuple(
            (F * (p.kappa / np.maximum(p.kappa, np.abs(F).sum(axis=1, keepdims=True)))).astype(p.dtype)
            for F in p.factors
        )


@planted
class DiagonalKept(Plain):
    """the diagonal kept where f = triu sets it to zero"""

    def factors(self, p):
        return tuple(np.triu(F) for F in p.factors) if p.f == "triu" else super().factors(p)


@planted
class TriangleOfGradientMissing(Plain):
    """the gradients of entries kept that f = triu sets to zero"""

    def raw(self, p, gradients):
        return by_name(gradients) if p.f == "triu" else super().raw(p, gradients)


# --- the Perron root --------------------------------------------------------------------------------------------------


@planted
class NormForRoot(Plain):
    """‖A‖∞ in place of the Perron root of |A|"""

    def function(self, p):
        return FUNCTIONS["inf"](p.kappa, p.straight_through) if p.f == "perron" else super().function(p)


@planted
class RootOfRootMissing(Plain):
    """L and Rᵀ scaled by the Perron root of |L||Rᵀ| in place of its square root"""

    def factors(self, p):
        if p.f != "perron" or p.L is None:
            return super().factors(p)
        return tuple((F * min(1, p.kappa / perron.root(p.factors).value)).astype(p.dtype) for F in p.factors)


@planted
class RootHeldFixed(Plain):
    """the derivative of the Perron root left out of the derivative of the scaling"""

    def raw(self, p, gradients):
        if p.f != "perron" or p.straight_through:
            return super().raw(p, gradients)
        scaled, raw = self.function(p).effective(p.factors)[0], p.factors[0]
        return by_name(tuple(G * (np.abs(scaled).max() / np.abs(raw).max()) for G in gradients))


@planted
class VectorsExchanged(Plain):
    """the left and the right vector of the Perron root exchanged in its derivative"""

    def raw(self, p, gradients):
        if p.f != "perron" or p.straight_through or p.L is not None:
            return super().raw(p, gradients)
        (A,), (G,), root = p.factors, gradients, perron.root(p.factors)
        if root.value <= p.kappa:
            return super().raw(p, gradients)
        (slope,) = perron.slopes((A.T,), root.block)
        pulled = (G - (G * A).sum() / root.value * np.sign(A) * slope) * (p.kappa / root.value)
        return {"A": pulled.astype(p.dtype)}


# --- straight-through, and other derivatives --------------------------------------------------------------------------


@planted
class StraightThroughIgnored(Plain):
    """f differentiated where it is declared to count as the identity"""

    def function(self, p):
        return FUNCTIONS[p.f](p.kappa)


@planted
class StraightThroughRowsIgnored(Plain):
    """rows differentiated through their projection where it is declared to count as the identity"""

    def function(self, p):
        return FUNCTIONS[p.f](p.kappa, straight_through=p.straight_through and p.f != "rows")


@planted
class StraightThroughLowRankIgnored(Plain):
    """the scaling of L and R differentiated where it is declared to count as the identity"""

    def raw(self, p, gradients):
        if p.straight_through and len(gradients) == 2:
            return by_name(FUNCTIONS[p.f](p.kappa).pullback(p.factors, gradients))
        return super().raw(p, gradients)


@planted
class StraightThroughScaled(Plain):
    """the gradient scaled as the weights are where f is declared to count as the identity"""

    def raw(self, p, gradients):
        if not p.straight_through:
            return super().raw(p, gradients)
        norms = [max(p.kappa, np.abs(F).sum(axis=1).max(initial=0.0)) for F in p.factors]
        return by_name(tuple(G * p.dtype.type(p.kappa / norm) for G, norm in zip(gradients, norms, strict=True)))


@planted
class StraightThroughForRows(Plain):
    """rows differentiated as if their projection were the identity"""

    def function(self, p):
        return FUNCTIONS[p.f](p.kappa, straight_through=p.straight_through or p.f == "rows")


@planted
class KappaIgnored(Plain):
    """a radius of 1 in place of κ"""

    def function(self, p):
        return FUNCTIONS[p.f](1.0, p.straight_through)


@planted
class KappaRounded(Plain):
    """κ rounded to two decimals"""

    def function(self, p):
        return FUNCTIONS[p.f](round(p.kappa, 2), p.straight_through)


@planted
class ScaledPerRow(Plain):
    """each row scaled to the ball, where one scale is due for the whole matrix"""

    def factors(self, p):
        if p.f != "inf":
            return super().factors(p)
        return tuple(F * np.minimum(1, p.kappa / np.abs(F).sum(axis=1, keepdims=True)).astype(p.dtype)
                     for F in p.factors)  # fmt: skip


@planted
class ScaledByFrobenius(Plain):
    """the Frobenius norm in place of ‖A‖∞"""

    def factors(self, p):
        if p.f != "inf":
            return super().factors(p)
        return tuple(F * p.dtype.type(p.kappa / max(p.kappa, float(np.sqrt((F * F).sum())))) for F in p.factors)


@planted
class OnlyLScaled(Plain):
    """R used as it is where f maps L and R"""

    def factors(self, p):
        factors = super().factors(p)
        return factors if len(factors) == 1 else (factors[0], p.factors[1])


@planted
class SignsOfTopRowDropped(Plain):
    """the derivative of ‖A‖∞ taken as that of a plain sum, without the signs"""

    def raw(self, p, gradients):
        if p.f != "inf" or p.straight_through:
            return super().raw(p, gradients)
        out = []
        for F, G in zip(p.factors, gradients, strict=True):
            norms = np.abs(F).sum(axis=1)
            nu = norms.max(initial=0.0)
            top = (np.arange(len(F)) == norms.argmax())[:, None]
            out.append(p.dtype.type(p.kappa / nu) * (G - (G * F).sum() / nu * top) if nu > p.kappa else G)
        return by_name(tuple(out))


@planted
class EveryRowOfNorm(Plain):
    """the derivative of ‖A‖∞ spread over every row, not the one that attains it"""

    def raw(self, p, gradients):
        if p.f != "inf" or p.straight_through:
            return super().raw(p, gradients)
        out = []
        for F, G in zip(p.factors, gradients, strict=True):
            nu = np.abs(F).sum(axis=1).max(initial=0.0)
            pulled = p.dtype.type(p.kappa / max(nu, 1e-30)) * (G - (G * F).sum() / max(nu, 1e-30) * np.sign(F))
            out.append(pulled.astype(p.dtype) if nu > p.kappa else G)
        return by_name(tuple(out))


@planted
class SupportIgnored(Plain):
    """the gradient of a projected row not restricted to its nonzero entries"""

    def raw(self, p, gradients):
        if p.f != "rows" or p.straight_through:
            return super().raw(p, gradients)
        out = []
        for F, G in zip(p.factors, gradients, strict=True):
            signs = np.sign(F)
            mean = (signs * G).sum(axis=1, keepdims=True) / np.maximum(np.abs(signs).sum(axis=1, keepdims=True), 1)
            beyond = np.abs(F).sum(axis=1, keepdims=True) > p.kappa
            out.append(np.where(beyond, G - signs * mean, G).astype(p.dtype))
        return by_name(tuple(out))


@planted
class TriangleIsLower(Plain):
    """the lower triangle kept where f = triu keeps the upper one"""

    def factors(self, p):
        return tuple(np.tril(F, -1) for F in p.factors) if p.f == "triu" else super().factors(p)


@planted
class TriangleByNilpotency(Plain):
    """A taken for triangular, and so solved by n iterations, whatever f is"""

    def limit(self, p):
        return min(p.max_iter, len(p.B) + 1)

    def verdict(self, done, G):
        return np.isfinite(G).all(axis=0)
