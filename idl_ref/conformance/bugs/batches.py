"""Planted bugs that show only with more samples than a chunk, a block or a grid has."""

from __future__ import annotations

import numpy as np

from idl_ref.conformance.bugs.plain import Plain, registered_in

BUGS: dict[str, type[Plain]] = {}
planted = registered_in(BUGS)


class _Columns(Plain):
    """Some columns are left at zero."""

    def lost(self, m):
        raise NotImplementedError

    def equilibrium(self, p):
        X, converged, k = super().equilibrium(p)
        X = X.copy()
        X[:, self.lost(X.shape[1])] = 0
        return X, converged, k


@planted
class BatchesBeyond64(_Columns):
    """samples beyond the 64th not computed"""

    def lost(self, m):
        return np.s_[64:]


@planted
class BatchesBeyond1024(_Columns):
    """samples beyond the 1,024th not computed"""

    def lost(self, m):
        return np.s_[1024:]


@planted
class BatchesBeyond4096(_Columns):
    """samples beyond the 4,096th not computed"""

    def lost(self, m):
        return np.s_[4096:]


@planted
class ChunkTail(_Columns):
    """samples after the last whole chunk of 64 not computed, where there are more than 64"""

    def lost(self, m):
        return np.s_[m - m % 64 :] if m > 64 else np.s_[m:]


@planted
class LastOfChunk(_Columns):
    """the last sample left out where m is a multiple of 64"""

    def lost(self, m):
        return np.s_[m - 1 :] if m and m % 64 == 0 else np.s_[m:]


@planted
class ChunksReversed(Plain):
    """chunks of 64 samples returned in reverse order"""

    def equilibrium(self, p):
        X, converged, k = super().equilibrium(p)
        parts = [X[:, j : j + 64] for j in range(0, X.shape[1], 64)]
        return (np.hstack(parts[::-1]) if parts else X), converged, k


@planted
class GradientOfLastChunk(Plain):
    """gradients of the last chunk of 64 samples alone: each chunk overwrites the sum"""

    def gradients(self, p, X, V, G_Y):
        whole, last = super().gradients(p, X, V, G_Y), np.s_[:, (X.shape[1] - 1) // 64 * 64 if X.size else 0 :]
        part = super().gradients(p.with_arrays({"U": p.U[last]}), X[last], V[last], G_Y[last])
        return part | {"U": whole["U"]}


@planted
class GradientTail(Plain):
    """gradients without the samples after the last whole chunk of 64, where there are more than 64"""

    def gradients(self, p, X, V, G_Y):
        whole, m = super().gradients(p, X, V, G_Y), X.shape[1]
        some = np.s_[:, : m - m % 64 if m > 64 else m]
        part = super().gradients(p.with_arrays({"U": p.U[some]}), X[some], V[some], G_Y[some])
        return part | {"U": whole["U"]}


@planted
class IndexIn16Bits(Plain):
    """indices of X kept in 16 bits: entries beyond the 32,767th lost"""

    def equilibrium(self, p):
        X, converged, k = super().equilibrium(p)
        flat = X.ravel().copy()
        flat[2**15 :] = 0
        return flat.reshape(X.shape), converged, k


@planted
class ZerosSkipped(Plain):
    """columns in which B U is 0 left at X = 0, though φ(0) need not be 0"""

    def forward(self, p):
        found = super().forward(p)
        X = found["X"] * self.Z(p).any(axis=0)
        return found | {"X": X, "Y": self.readout(p, X)}
