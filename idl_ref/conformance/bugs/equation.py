"""Planted bugs: the plain backend with one method changed. The kit must find each, and names what it finds by them.

The docstring of a class is the diagnosis in words. Here those of the equation and the iteration; the others follow in
`bugs_gradients`.
"""

from __future__ import annotations

import numpy as np

from idl_ref.conformance.adapters import Plain

BUGS: dict[str, type[Plain]] = {}
STATEFUL: set[str] = set()  # their wrong numbers depend on the calls before, and explain nobody else's


def planted(bug: type[Plain]) -> type[Plain]:
    bug.name = bug.__name__
    BUGS[bug.name] = bug
    return bug


def diagnosis(name: str) -> str:
    """The bug in words."""
    return BUGS[name].__doc__ or name


# --- the equation -----------------------------------------------------------------------------------------------------


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
    """Aᵀ in the place of A in the equation"""

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
    """bias added twice"""

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
    """arrays read in the order in which they lie in memory"""

    def Z(self, p):
        return p.B.ravel(order="K").reshape(p.B.shape) @ p.U


@planted
class PreactivationReturned(Plain):
    """A X + Z returned in the place of X"""

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
    """leaky_relu with slope 0.1"""

    def phi(self, p, P):
        return np.maximum(P, P * p.dtype.type(0.1)) if p.activation == "leaky_relu" else super().phi(p, P)

    def slope(self, p, P):
        return np.where(P > 0, 1, 0.1).astype(p.dtype) if p.activation == "leaky_relu" else super().slope(p, P)


@planted
class SoftplusOverflows(Plain):
    """softplus as log(1 + exp p), which overflows"""

    def phi(self, p, P):
        return np.log1p(np.exp(P)) if p.activation == "softplus" else super().phi(p, P)


@planted
class SigmoidForTanh(Plain):
    """sigmoid in the place of tanh"""

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
    """the answer rounded to float32"""

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


# --- the iteration ----------------------------------------------------------------------------------------------------


@planted
class StopOnMean(Plain):
    """step tolerance on the mean over the batch in the place of each column"""

    def done(self, step, stop):
        return np.full(step.shape, step.mean() <= stop.mean())


@planted
class StopOnAny(Plain):
    """stopped when the first column of the batch converges"""

    def done(self, step, stop):
        return np.full(step.shape, (step <= stop).any())


@planted
class AbsoluteTolerance(Plain):
    """tolerance absolute: small inputs stop at once"""

    def stop(self, p, z, x):
        return np.maximum(super().stop(p, z, x), p.tol)


@planted
class RelativeToBatch(Plain):
    """tolerance relative to the largest column of the batch"""

    def stop(self, p, z, x):
        return np.full(z.shape, super().stop(p, z, x).max())


@planted
class LooseTolerance(Plain):
    """tolerance never below 10⁻⁴"""

    def stop(self, p, z, x):
        return np.maximum(super().stop(p, z, x), 1e-4 * z)


@planted
class StaleIterate(Plain):
    """the iterate before the last application returned"""

    def returned(self, G, last):
        return last


@planted
class AbsoluteStale(AbsoluteTolerance, StaleIterate):
    """tolerance absolute and the iterate before the last returned: small inputs give no hidden state"""


@planted
class CapIgnored(Plain):
    """stopped after 300 iterations whatever max_iter allows"""

    def limit(self, p):
        return 300

    def verdict(self, done, G):
        return np.ones_like(done)


@planted
class CapExceeded(Plain):
    """more iterations than max_iter allows"""

    def limit(self, p):
        return max(p.max_iter, 5000)


@planted
class AlwaysConverged(Plain):
    """status lies: converged whatever happened"""

    def verdict(self, done, G):
        return np.ones_like(done)


@planted
class NeverConverged(Plain):
    """status lies: not converged whatever happened"""

    def verdict(self, done, G):
        return np.zeros_like(done)


@planted
class ZerosForFailures(Plain):
    """columns that fail answered by zeros, and called converged"""

    def iterate(self, g, Z, X, p):
        X, converged, k = super().iterate(g, Z, X, p)
        return np.where(converged, X, 0).astype(p.dtype), np.ones_like(converged), k


@planted
class NanSwallowed(Plain):
    """NaN swallowed by a comparison"""

    def forward(self, p):
        return super().forward(p.with_arrays({"U": np.where(np.isfinite(p.U), p.U, 0).astype(p.dtype)}))


@planted
class NanSpreads(Plain):
    """a column that is not finite spoils the batch"""

    def apply(self, factors, X):
        out = super().apply(factors, X)
        return out + 0 * X.sum(axis=1, keepdims=True)


@planted
class FailureSpoilsMates(Plain):
    """one failed column reported as a failure of all"""

    def verdict(self, done, G):
        return np.full(done.shape, super().verdict(done, G).all())


@planted
class StartTrusted(Plain):
    """a given start taken for the answer after one application"""

    def equilibrium(self, p):
        if p.X0 is None:
            return super().equilibrium(p)
        X = self.phi(p, self.apply(self.factors(p), p.X0) + self.Z(p))
        return X, np.ones(X.shape[1], bool), 1


@planted
class InputsModified(Plain):
    """inputs modified"""

    def forward(self, p):
        out = super().forward(p)
        if p.U.flags.writeable:
            p.U *= 2
        return out


@planted
class EmptyRefused(Plain):
    """a batch of no samples refused"""

    def iterate(self, g, Z, X, p):
        if Z.shape[1] == 0:
            raise ValueError("zero-size array")
        return super().iterate(g, Z, X, p)


@planted
class WeightsRemembered(Plain):
    """weights remembered from an earlier call with the same shape"""

    def __init__(self):
        self.seen = {}

    def factors(self, p):
        return self.seen.setdefault((p.B.shape, p.A is None, p.dtype), super().factors(p))


@planted
class Noise(Plain):
    """different bits in each run"""

    def __init__(self):
        self.calls = 0

    def readout(self, p, X):
        self.calls += 1
        return super().readout(p, X) * p.dtype.type(1 + self.calls % 2 * np.finfo(p.dtype).eps)


STATEFUL |= {"WeightsRemembered", "Noise", "InputsModified"}
