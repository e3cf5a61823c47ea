"""Planted bugs in the adjoint equation and in φ′."""

from __future__ import annotations

import numpy as np

from idl_ref.conformance.bugs.iteration import StaleIterate
from idl_ref.conformance.bugs.plain import Plain, registered_in
from idl_ref.conformance.bugs.reached import without

BUGS: dict[str, type[Plain]] = {}
planted = registered_in(BUGS)


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
    """φ′ taken at X in place of A X + Z"""

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
        noise = lambda V: self.noise(At, 1.0, G, V)  # noqa: E731
        return self.iterate(lambda V: S * self.apply(At, V) + G, noise, G, np.zeros_like(G), p)[0]


@planted
class TanhSlope(Plain):
    """φ′ of tanh computed as 1 − tanh"""

    def slope(self, p, P):
        return 1 - np.tanh(P) if p.activation == "tanh" else super().slope(p, P)


@planted
class HardtanhSlope(Plain):
    """φ′ of hardtanh equal to 1 everywhere"""

    def slope(self, p, P):
        return np.ones_like(P) if p.activation == "hardtanh" else super().slope(p, P)


@planted
class OtherKink(Plain):
    """relu with φ′(0) = 1 where 0 was declared"""

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
    """adjoint damped: φ′ multiplied by 1 − 10⁻⁴"""

    def adjoint(self, p, S, G):
        return super().adjoint(p, S * S.dtype.type(1 - 1e-4), G)


@planted
class AdjointAbsolute(Plain):
    """an absolute tolerance in the adjoint: the iteration stops at once for small cotangents"""

    def adjoint(self, p, S, G):
        return self.pair(p, S, G)[0]

    def pair(self, p, S, G):
        """The last two iterates of V, the later one first."""
        At = self.transposed(self.factors(p))
        V = last = np.zeros_like(G)
        for _ in range(p.max_iter):
            V, last = S * (self.apply(At, V) + G), V
            if not np.abs(V - last).max(initial=0.0) > max(p.tol, 1e-15):
                break
        return V, last


@planted
class AdjointAbsoluteStale(AdjointAbsolute):
    """an absolute tolerance in the adjoint, and the iterate before the last returned: small cotangents give V = 0"""

    def adjoint(self, p, S, G):
        return self.pair(p, S, G)[1]


@planted
class AdjointCyclesApart(Plain):
    """what a cycle of hidden units gives to other cycles left out of the adjoint"""

    def transposed(self, factors):
        return super().transposed(without(factors, "all"))


@planted
class AdjointInForwardOrder(Plain):
    """the adjoint of cycles of hidden units solved once each, in the order of their first units"""

    def transposed(self, factors):
        return super().transposed(without(factors, "later"))
