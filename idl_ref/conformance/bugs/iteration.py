"""Planted bugs in the iteration: the stopping rule, the status that is reported, and what a call leaves behind."""

from __future__ import annotations

import numpy as np

from idl_ref.conformance.bugs.plain import Plain, registered_in

BUGS: dict[str, type[Plain]] = {}
planted = registered_in(BUGS)


@planted
class StopOnMean(Plain):
    """the step compared with its tolerance in the mean over the batch, not in each column"""

    def done(self, step, stop):
        return np.full(step.shape[1], step.max(axis=0).mean() <= stop.max(axis=0).mean())


@planted
class StopOnAny(Plain):
    """the iteration stopped when the first column of the batch converges"""

    def done(self, step, stop):
        return np.full(step.shape[1], super().done(step, stop).any())


@planted
class AbsoluteTolerance(Plain):
    """an absolute tolerance: the iteration stops at once for small inputs"""

    def stop(self, p, z, noise):
        return np.maximum(super().stop(p, z, noise), p.tol)


@planted
class RelativeToBatch(Plain):
    """a tolerance relative to the largest column of the batch"""

    def stop(self, p, z, noise):
        return np.full(noise.shape, super().stop(p, z, noise).max())


@planted
class NormOfColumn(Plain):
    """the rounding of a step measured by the norm of the column: one large row stops all others"""

    def stop(self, p, z, noise):
        return np.maximum(super().stop(p, z, noise), noise.max(axis=0))


@planted
class UnjudgedOutsideBall(Plain):
    """g(x̂) returned where only x̂ was judged and g is no contraction"""

    def answer(self, p, X, G):
        return G


@planted
class CyclesForever(Plain):
    """a cycle in the last digits reported as a failure"""

    def back(self, change, noise):
        return np.zeros(change.shape[1], bool)


@planted
class LooseTolerance(Plain):
    """a tolerance never below 10⁻⁴ ‖z‖∞"""

    def stop(self, p, z, noise):
        return np.maximum(super().stop(p, z, noise), 1e-4 * z)


@planted
class StaleIterate(Plain):
    """the iterate before the last application of the map returned"""

    def returned(self, G, last):
        return last


@planted
class AbsoluteStale(AbsoluteTolerance, StaleIterate):
    """an absolute tolerance, and the iterate before the last returned: small inputs give X = 0"""


@planted
class GrowthGivenUp(Plain):
    """an iteration given up as divergent once a step is a million times the first one"""

    def iterate(self, g, noise, Z, X, p):
        first = np.abs(g(X) - X).max(axis=0, initial=0.0)

        def watched(X):
            G = g(X)
            return np.where(np.abs(G - X).max(axis=0, initial=0.0) > 1e6 * first, G.dtype.type(np.nan), G)

        return super().iterate(watched, noise, Z, X, p)


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
    """a wrong status: every column reported as converged"""

    def verdict(self, done, G):
        return np.ones_like(done)


@planted
class NeverConverged(Plain):
    """a wrong status: no column reported as converged"""

    def verdict(self, done, G):
        return np.zeros_like(done)


@planted
class ZerosForFailures(Plain):
    """columns that do not converge set to zero and reported as converged"""

    def iterate(self, g, noise, Z, X, p):
        X, converged, k = super().iterate(g, noise, Z, X, p)
        return np.where(converged, X, 0).astype(p.dtype), np.ones_like(converged), k


@planted
class NanSwallowed(Plain):
    """NaN and inf in U replaced by 0"""

    def forward(self, p):
        return super().forward(p.with_arrays({"U": np.where(np.isfinite(p.U), p.U, 0).astype(p.dtype)}))


@planted
class NanSpreads(Plain):
    """NaN or inf in one column spread to the whole batch"""

    def apply(self, factors, X):
        out = super().apply(factors, X)
        return out + 0 * X.sum(axis=1, keepdims=True)


@planted
class FailureSpoilsMates(Plain):
    """all columns reported as failed when one fails"""

    def verdict(self, done, G):
        return np.full(done.shape, super().verdict(done, G).all())


@planted
class StartTrusted(Plain):
    """X0 taken for the equilibrium after one application of the map"""

    def equilibrium(self, p):
        if p.X0 is None:
            return super().equilibrium(p)
        X = self.phi(p, self.apply(self.factors(p), p.X0) + self.Z(p))
        return X, np.ones(X.shape[1], bool), 1


@planted
class EmptyRefused(Plain):
    """a batch of no samples refused"""

    def iterate(self, g, noise, Z, X, p):
        if Z.shape[1] == 0:
            raise ValueError("zero-size array")
        return super().iterate(g, noise, Z, X, p)
