"""Planted bugs in what calls leave behind: workspaces, caches, scratch memory, and the arrays of the caller."""

from __future__ import annotations

import numpy as np

from idl_ref.conformance.bugs.plain import Plain, registered_in

BUGS: dict[str, type[Plain]] = {}
planted = registered_in(BUGS)


@planted
class InputsModified(Plain):
    """the arrays of the caller overwritten"""

    def forward(self, p):
        out = super().forward(p)
        if p.U.flags.writeable:
            p.U *= 2
        return out


@planted
class CotangentModified(Plain):
    """G_Y overwritten"""

    def vjp(self, p, G_Y):
        out = super().vjp(p, G_Y)
        if G_Y.flags.writeable:
            G_Y[...] = 0
        return out


@planted
class ReadOnlyRefused(Plain):
    """arrays refused that cannot be written"""

    def Z(self, p):
        p.B[:0] = 0
        return super().Z(p)


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
    """A X written to scratch memory that all threads share"""

    def __init__(self):
        self.scratch = {}

    def apply(self, factors, X):
        out = self.scratch.setdefault((X.shape, X.dtype, len(factors)), np.empty_like(X))
        out[...] = super().apply(factors, X)
        return out.copy()


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
        fits = self.inside and self.last is not None and self.last.shape == X.shape and self.last.dtype == X.dtype
        return super().preactivation(p, self.last if fits else X)


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


# --- the start, strides and aliases -----------------------------------------------------------------------------------


@planted
class StartIgnored(Plain):
    """X0 ignored: the iteration starts at 0"""

    def start(self, p, Z):
        return np.zeros_like(Z)


@planted
class StartInMemoryOrder(Plain):
    """X0 read in the order in which its entries lie in memory"""

    def start(self, p, Z):
        return super().start(p, Z) if p.X0 is None else p.X0.ravel(order="K").reshape(Z.shape)


@planted
class StartReturned(Plain):
    """X0 returned as X where it meets the tolerance: an answer that shares the memory of an input"""

    def forward(self, p):
        out = super().forward(p)
        if p.X0 is not None and np.abs(out["X"] - p.X0).max(initial=0.0) <= p.tol:
            return out | {"X": p.X0}
        return out


@planted
class ReadoutInPlace(Plain):
    """C U kept in the memory of U where they have the same shape"""

    def readout(self, p, X):
        Y = super().readout(p, X)
        if Y.shape == p.U.shape and p.U.flags.writeable:
            p.U[...] = Y
            return p.U
        return Y


@planted
class ScaledInPlace(Plain):
    """A halved in place during the call and restored after it: another role of the same array is halved as well"""

    scaled = False

    def forward(self, p):
        first = p.A if p.L is None else p.L
        self.scaled = first.flags.writeable and p.f == "none"
        if self.scaled:
            first *= 0.5
        out = super().forward(p)
        if self.scaled:
            first *= 2
        self.scaled = False
        return out

    def factors(self, p):
        first, *rest = super().factors(p)
        return (2 * first if self.scaled else first, *rest)


@planted
class InputsTransposedIfSquare(Plain):
    """U taken for samples as rows where it is square"""

    def Z(self, p):
        return super().Z(p.with_arrays({"U": p.U.T}) if p.U.shape[0] == p.U.shape[1] > 1 else p)


@planted
class OutputsTransposedIfSquare(Plain):
    """Y returned with samples as rows where it is square"""

    def readout(self, p, X):
        Y = super().readout(p, X)
        return np.ascontiguousarray(Y.T) if Y.shape[0] == Y.shape[1] > 1 else Y


@planted
class CotangentTransposedIfSquare(Plain):
    """G_Y taken for samples as rows where it is square"""

    def vjp(self, p, G_Y):
        return super().vjp(p, G_Y.T if G_Y.shape[0] == G_Y.shape[1] > 1 else G_Y)


@planted
class BTransposedIfSquare(Plain):
    """B taken as (p, n) where it is square"""

    def Z(self, p):
        return super().Z(p.with_arrays({"B": p.B.T}) if p.B.shape[0] == p.B.shape[1] > 1 else p)


@planted
class StatesTransposedIfSquare(Plain):
    """X returned with samples as rows where it is square"""

    def forward(self, p):
        out = super().forward(p)
        return out | {"X": out["X"].T.copy()} if out["X"].shape[0] == out["X"].shape[1] > 1 else out
