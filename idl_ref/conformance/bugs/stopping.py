"""Planted bugs in the norm, the tolerance and the moment at which the two iterations stop."""

from __future__ import annotations

import numpy as np

from idl_ref.conformance.bugs.plain import Plain, registered_in

BUGS: dict[str, type[Plain]] = {}
planted = registered_in(BUGS)


# --- the equation -----------------------------------------------------------------------------------------------------


@planted
class MeanOverUnits(Plain):
    """the step compared with its tolerance in the mean over hidden units"""

    def done(self, step, stop):
        return step.mean(axis=0) <= stop.mean(axis=0) if step.size else super().done(step, stop)


@planted
class RootMeanSquare(Plain):
    """the step measured by its root mean square over the whole batch"""

    def done(self, step, stop):
        return np.full(step.shape[1], np.sqrt((step**2).mean()) <= np.sqrt((stop**2).mean()))


@planted
class AnyUnit(Plain):
    """a column taken as converged when one of its hidden units is"""

    def done(self, step, stop):
        return np.any(step <= stop, axis=0)


@planted
class FirstUnit(Plain):
    """the step of the first hidden unit alone compared with the tolerance"""

    def done(self, step, stop):
        return step[0] <= stop[0]


@planted
class LastColumn(Plain):
    """the step of the last sample alone compared with the tolerance"""

    def done(self, step, stop):
        return np.full(step.shape[1], bool((step <= stop)[:, -1].all()))


@planted
class MostColumns(Plain):
    """the iteration stopped when nine tenths of the batch have converged"""

    def done(self, step, stop):
        done = super().done(step, stop)
        return np.full_like(done, done.mean() >= 0.75)


@planted
class RelativeToStep(Plain):
    """a tolerance relative to ‖x‖ of the whole batch, however small a column is"""

    def stop(self, p, z, noise):
        return np.maximum(p.tol * np.full_like(noise, z.max(initial=0.0)), noise)


@planted
class RelativeOnly(Plain):
    """tol times ‖z‖∞ also where ‖z‖∞ is above 1"""

    def stop(self, p, z, noise):
        return np.maximum(p.tol * z, noise)


@planted
class SquareRootOfTolerance(Plain):
    """the square of the step compared with the tolerance"""

    def stop(self, p, z, noise):
        return np.maximum(np.sqrt(p.tol) * np.minimum(1, z), noise)


@planted
class ToleranceOfFloat32(Plain):
    """a tolerance never below 10⁻⁷ ‖z‖∞, as in a float32 version"""

    def stop(self, p, z, noise):
        return np.maximum(super().stop(p, z, noise), 1e-7 * z)


@planted
class ToleranceTenfold(Plain):
    """ten times the tolerance"""

    def stop(self, p, z, noise):
        return np.maximum(10 * p.tol * np.minimum(1, z), noise)


@planted
class SmallStepsAreDone(Plain):
    """a tolerance never below 10⁻¹⁰, so that small columns stop at once"""

    def stop(self, p, z, noise):
        return np.maximum(super().stop(p, z, noise), 1e-10)


@planted
class ChangeOfNorm(Plain):
    """the change of ‖x‖ compared with the tolerance, not the norm of the change"""

    def iterate(self, g, noise, Z, X, p):
        if X.size == 0:
            return super().iterate(g, noise, Z, X, p)
        z, norm = np.abs(Z).max(axis=0), np.abs(X).sum(axis=0)
        k, done = 0, np.zeros(len(z), bool)
        while k < p.max_iter and not done.all():
            X, last, k = g(X), norm, k + 1
            norm = np.abs(X).sum(axis=0)
            done = np.abs(norm - last) <= self.stop(p, z, noise(X)).max(axis=0)
        return X, done & np.isfinite(X).all(axis=0), k


@planted
class TenSteps(Plain):
    """ten iterations, whatever the tolerance"""

    def limit(self, p):
        return min(p.max_iter, 10)

    def verdict(self, done, G):
        return np.isfinite(G).all(axis=0)


@planted
class ThousandSteps(Plain):
    """no more than a thousand iterations, whatever max_iter allows"""

    def limit(self, p):
        return min(p.max_iter, 1000)

    def verdict(self, done, G):
        return np.isfinite(G).all(axis=0)


# --- the adjoint equation ---------------------------------------------------------------------------------------------


class _Adjoint(Plain):
    """The adjoint iteration stops by another rule."""

    def rule(self, p, step, stop):
        raise NotImplementedError

    def begin(self, G):
        return np.zeros_like(G)

    def adjoint(self, p, S, G):
        V, At, g = self.begin(G), self.transposed(self.factors(p)), np.abs(G).max(axis=0, initial=0.0)
        for _ in range(p.max_iter if G.size else 0):
            last, V = V, S * (self.apply(At, V) + G)
            if self.rule(p, np.abs(V - last), self.stop(p, g, self.noise(At, S, G, V))):
                break
        return V


@planted
class AdjointOnMean(_Adjoint):
    """the step of the adjoint compared with its tolerance in the mean over the batch"""

    def rule(self, p, step, stop):
        return step.max(axis=0).mean() <= stop.max(axis=0).mean()


@planted
class AdjointOnMeanOverUnits(_Adjoint):
    """the step of the adjoint compared with its tolerance in the mean over hidden units"""

    def rule(self, p, step, stop):
        return bool((step.mean(axis=0) <= stop.mean(axis=0)).all())


@planted
class AdjointOnAny(_Adjoint):
    """the adjoint stopped when the first sample of the batch converges"""

    def rule(self, p, step, stop):
        return bool(np.all(step <= stop, axis=0).any())


@planted
class AdjointOfLargest(Plain):
    """columns of the adjoint frozen by a tolerance relative to the largest cotangent of the batch"""

    def adjoint(self, p, S, G):
        V, At, active = np.zeros_like(G), self.transposed(self.factors(p)), np.ones(G.shape[1], bool)
        for _ in range(p.max_iter if G.size else 0):
            last, V = V, np.where(active, S * (self.apply(At, V) + G), V)
            stop = self.stop(p, np.abs(G).max(), self.noise(At, S, G, V))
            active &= (np.abs(V - last) > stop.max()).any(axis=0)
            if not active.any():
                break
        return V


@planted
class AdjointLoose(_Adjoint):
    """a tolerance of the adjoint never below 10⁻⁶"""

    def rule(self, p, step, stop):
        return bool((step <= np.maximum(stop, 1e-6)).all())


@planted
class AdjointLooseRelative(_Adjoint):
    """a tolerance of the adjoint a thousand times that of the equation"""

    def rule(self, p, step, stop):
        return bool((step <= 1000 * stop).all())


@planted
class AdjointFromOnes(_Adjoint):
    """the adjoint started from 1 and stopped by an absolute tolerance"""

    def begin(self, G):
        return np.ones_like(G)

    def rule(self, p, step, stop):
        return bool((step <= np.maximum(p.tol, stop)).all())


@planted
class AdjointCapped(Plain):
    """the adjoint stopped after 50 iterations"""

    def adjoint(self, p, S, G):
        V, At = np.zeros_like(G), self.transposed(self.factors(p))
        for _ in range(50):
            V = S * (self.apply(At, V) + G)
        return V


@planted
class AdjointByNeumann(Plain):
    """the adjoint cut after three terms of its Neumann series"""

    def adjoint(self, p, S, G):
        At, V = self.transposed(self.factors(p)), S * G
        return V + S * self.apply(At, V + S * self.apply(At, V))
