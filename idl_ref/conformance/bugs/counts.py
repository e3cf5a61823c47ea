"""Planted bugs in the iterations and the status that are reported, and in what max_iter allows."""

from __future__ import annotations

import numpy as np

from idl_ref.conformance.bugs.plain import Plain, registered_in

BUGS: dict[str, type[Plain]] = {}
planted = registered_in(BUGS)


class _Counted(Plain):
    """Other iterations are reported."""

    def counted(self, p, k):
        raise NotImplementedError

    def forward(self, p):
        out = super().forward(p)
        return out | {"iterations": self.counted(p, out["iterations"])}


@planted
class CountsZero(_Counted):
    """iterations always reported as 0"""

    def counted(self, p, k):
        return 0 * k


@planted
class CountsOneMore(_Counted):
    """one iteration too many reported"""

    def counted(self, p, k):
        return np.minimum(k + 1, p.max_iter)


@planted
class CountsOneLess(_Counted):
    """one iteration too few reported"""

    def counted(self, p, k):
        return np.maximum(k - 1, 0)


@planted
class CountsDoubled(_Counted):
    """iterations counted twice, up to max_iter"""

    def counted(self, p, k):
        return np.minimum(2 * k, p.max_iter)


@planted
class CountsTwiceTheCap(_Counted):
    """twice max_iter reported where it is reached"""

    def counted(self, p, k):
        return np.where(k == p.max_iter, 2 * k, k)


@planted
class CountsTheCap(_Counted):
    """max_iter reported as the iterations, whatever was needed"""

    def counted(self, p, k):
        return np.full_like(k, p.max_iter)


@planted
class CountsNegative(_Counted):
    """the iterations that are left reported in place of those made"""

    def counted(self, p, k):
        return k - p.max_iter


@planted
class CountsSummed(_Counted):
    """the iterations of all samples added up"""

    def counted(self, p, k):
        return np.minimum(k * max(len(k), 1), p.max_iter)


@planted
class CountsInEights(_Counted):
    """iterations rounded up to a multiple of 8, the interval at which the step is measured"""

    def counted(self, p, k):
        return np.minimum(-(-k // 8) * 8, p.max_iter)


@planted
class CountsHalved(_Counted):
    """iterations counted in pairs"""

    def counted(self, p, k):
        return k // 2


@planted
class CountsBetween(_Counted):
    """iterations that are not whole numbers"""

    def counted(self, p, k):
        return k - 0.5


@planted
class CountsInByte(_Counted):
    """iterations counted in 8 bits"""

    def counted(self, p, k):
        return k % 256


@planted
class ConvergedAtCap(Plain):
    """converged reported where max_iter is reached"""

    def iterate(self, g, noise, Z, X, p):
        X, converged, k = super().iterate(g, noise, Z, X, p)
        return X, converged | (k == self.limit(p)), k


@planted
class CapOneLess(Plain):
    """a max_iter of k allows k − 1 applications"""

    def limit(self, p):
        return max(p.max_iter - 1, 1)


@planted
class CapOneMore(Plain):
    """a max_iter of k allows k + 1 applications, and k are reported"""

    def limit(self, p):
        return p.max_iter + 1

    def forward(self, p):
        out = super().forward(p)
        return out | {"iterations": np.minimum(out["iterations"], p.max_iter)}


@planted
class CapHalved(Plain):
    """max_iter spent twice as fast: each iteration counts two applications"""

    def limit(self, p):
        return max(p.max_iter // 2, 1)


@planted
class NotConvergedAtCap(Plain):
    """a column that converges with the last allowed application reported as not converged"""

    def iterate(self, g, noise, Z, X, p):
        X, converged, k = super().iterate(g, noise, Z, X, p)
        return X, converged & (k < p.max_iter), k


@planted
class StatusInverted(Plain):
    """a status code of 0 for success read as «not converged», and 1 as «converged»"""

    def verdict(self, done, G):
        return ~super().verdict(done, G)


@planted
class StatusOfNeighbour(Plain):
    """the status of each sample reported for the next one"""

    def verdict(self, done, G):
        return np.roll(super().verdict(done, G), 1)


@planted
class StatusOfFirst(Plain):
    """the status of the first sample reported for all"""

    def verdict(self, done, G):
        verdict = super().verdict(done, G)
        return np.full_like(verdict, verdict[:1].all())


@planted
class StatusOfAny(Plain):
    """all samples reported as converged when one is"""

    def verdict(self, done, G):
        return np.full_like(done, super().verdict(done, G).any())


@planted
class FiniteIsConverged(Plain):
    """every finite column reported as converged"""

    def verdict(self, done, G):
        return np.isfinite(G).all(axis=0)


@planted
class NanIsConverged(Plain):
    """a step of NaN not larger than the tolerance, and so reported as converged"""

    def done(self, step, stop):
        return ~(step > stop).any(axis=0)

    def verdict(self, done, G):
        return done


@planted
class GivesUpAt64(Plain):
    """columns that grow in the first 64 iterations given up"""

    def limit(self, p):
        return min(p.max_iter, 64)
