"""Planted bugs in the arrays of the caller: overwritten, read without their strides, or taken the wrong way round."""

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
            np.multiply(p.U, 2, out=p.U)
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
class StartThroughPhi(Plain):
    """the iteration started at φ(X0) in place of X0"""

    def start(self, p, Z):
        return super().start(p, Z) if p.X0 is None else self.phi(p, p.X0)


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
