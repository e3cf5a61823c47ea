"""Planted bugs in what calls leave behind: workspaces, caches, scratch memory, and the arrays of the caller."""

from __future__ import annotations

import numpy as np

from idl_ref.conformance.bugs.plain import Plain, registered_in

BUGS: dict[str, type[Plain]] = {}
planted = registered_in(BUGS)


@planted
class WeightsRemembered(Plain):
    """the weights of an earlier call with the same shapes used again"""

    def __init__(self):
        self.seen = {}

    def factors(self, p):
        return self.seen.setdefault((p.B.shape, p.A is None, p.dtype), super().factors(p))


@planted
class WeightsByObject(Plain):
    """weights remembered by the object that holds them: changes in place are not noticed"""

    def __init__(self):
        self.seen = {}

    def factors(self, p):
        key = tuple(id(M) for M in (p.A, p.L, p.R))
        if key not in self.seen:  # the problem is kept, so that no other array gets the same id
            self.seen[key] = p, tuple(F.copy() for F in super().factors(p))
        return self.seen[key][1]


@planted
class InputsByObject(Plain):
    """B U remembered by the object of U: changes in place are not noticed"""

    def __init__(self):
        self.seen = {}

    def Z(self, p):
        return self.seen.setdefault((id(p.U), id(p.B)), (p, super().Z(p)))[1]


@planted
class Noise(Plain):
    """different bits in each call"""

    def __init__(self):
        self.calls = 0

    def readout(self, p, X):
        self.calls += 1
        return super().readout(p, X) * p.dtype.type(1 + self.calls % 2 * np.finfo(p.dtype).eps)


@planted
class WorkspaceReturned(Plain):
    """answers that lie in a workspace, which the next call overwrites"""

    def __init__(self):
        self.spaces = {}

    def kept(self, name, M):
        space = self.spaces.setdefault((name, M.shape, M.dtype), np.empty_like(M))
        space[...] = M
        return space

    def forward(self, p):
        out = super().forward(p)
        return out | {name: self.kept(name, out[name]) for name in ("X", "Y")}


@planted
class GradientsInWorkspace(WorkspaceReturned):
    """gradients that lie in a workspace, which the next call overwrites"""

    def forward(self, p):
        return Plain.forward(self, p)

    def vjp(self, p, G_Y):
        return {name: self.kept(name, G) for name, G in super().vjp(p, G_Y).items()}


@planted
class GradientsAdded(Plain):
    """gradients added to those of the call before, as where they are not reset to zero"""

    def __init__(self):
        self.sums = {}

    def vjp(self, p, G_Y):
        out = super().vjp(p, G_Y)
        for name, G in out.items():
            key = name, G.shape, G.dtype
            self.sums[key] = out[name] = self.sums.get(key, 0) + G
        return out


@planted
class ScratchShared(Plain):
    """B U kept in scratch memory that all threads share"""

    def __init__(self):
        self.scratch = {}

    def Z(self, p):
        Z = super().Z(p)
        out = self.scratch.setdefault((Z.shape, Z.dtype), np.empty_like(Z))
        out[...] = Z
        return out


@planted
class BatchShared(Plain):
    """the batch of a call kept in the object, where another thread overwrites it"""

    def equilibrium(self, p):
        self.batch = p
        answer = super().equilibrium(p)
        return answer if self.batch is p else super().equilibrium(self.batch)


@planted
class ForwardRemembered(Plain):
    """gradients at the X of the last forward call, whatever problem they are asked for"""

    last = None

    def forward(self, p):
        out = super().forward(p)
        self.last = out["X"].copy()
        return out

    def vjp(self, p, G_Y):
        self.inside = True
        out = super().vjp(p, G_Y)
        self.inside = False
        return out

    inside = False

    def preactivation(self, p, X):
        last = self.last if self.inside and self.last is not None else X
        return super().preactivation(p, last if (last.shape, last.dtype) == (X.shape, X.dtype) else X)


@planted
class BatchOfBefore(Plain):
    """gradients summed over a workspace of the largest batch so far, and so over samples of an earlier call"""

    def __init__(self):
        self.spaces = {}

    def space(self, name, M):
        old = self.spaces.get((name, len(M), M.dtype))
        if old is None or old.shape[1] <= M.shape[1]:
            self.spaces[name, len(M), M.dtype] = M.copy()
            return M
        old[:, : M.shape[1]] = M
        return old

    def factor_gradients(self, factors, X, V):
        X, V = (self.space(name, np.nan_to_num(M)) for name, M in (("X", X), ("V", V)))
        m = min(X.shape[1], V.shape[1])
        return super().factor_gradients(factors, X[:, :m], V[:, :m])


@planted
class DtypeOfFirst(Plain):
    """a workspace in the dtype of the first call: float64 after float32 loses half of its digits"""

    def __init__(self):
        self.spaces = {}

    def apply(self, factors, X):
        out = super().apply(factors, X)
        return out.astype(self.spaces.setdefault(X.shape, X.dtype)).astype(X.dtype)


@planted
class NanStays(Plain):
    """an iteration that starts from the last X of the same shape: after NaN it gives NaN for ever"""

    def __init__(self):
        self.last = {}

    def equilibrium(self, p):
        start = self.last.get((p.B.shape, p.U.shape, p.dtype))
        answer = super().equilibrium(p if p.X0 is not None or start is None else p.with_arrays({"X0": start}))
        self.last[p.B.shape, p.U.shape, p.dtype] = answer[0].copy()
        return answer


@planted
class SettingsOfFirst(Plain):
    """tol of the first call kept for all later ones of the same shape"""

    def __init__(self):
        self.tol = {}

    def stop(self, p, z, noise):
        tol = self.tol.setdefault((p.B.shape, p.U.shape, p.dtype), p.tol)
        return np.maximum(tol * np.minimum(1, z), noise)


@planted
class LoosestTolerance(Plain):
    """the loosest tol so far kept for all later calls"""

    tol = 0.0

    def stop(self, p, z, noise):
        self.tol = max(self.tol, p.tol)
        return np.maximum(self.tol * np.minimum(1, z), noise)


@planted
class ActivationOfFirst(Plain):
    """φ chosen once for each shape, by the first call"""

    def __init__(self):
        self.chosen = {}

    def phi(self, p, P):
        first = self.chosen.setdefault((p.B.shape, p.U.shape, p.dtype), p)
        return super().phi(first, P)


@planted
class TransposesShared(Plain):
    """Aᵀ kept from the last call of the same shape"""

    def __init__(self):
        self.kept = {}

    def transposed(self, factors):
        return self.kept.setdefault((factors[0].shape, len(factors), factors[0].dtype), super().transposed(factors))
