"""Planted bugs in the map f from raw to effective weights, and in its pullback."""

from __future__ import annotations

import numpy as np

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
