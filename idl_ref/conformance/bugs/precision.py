"""Planted bugs that lose digits: narrow formats, pruned and clipped weights, and formulas that cancel or overflow."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from idl_ref.conformance.bugs.plain import Plain, registered_in

BUGS: dict[str, type[Plain]] = {}
planted = registered_in(BUGS)


def in_float16(M):
    """Entries rounded to float16."""
    with np.errstate(over="ignore", invalid="ignore"):
        return M.astype(np.float16).astype(M.dtype)


def in_tf32(M):
    """Entries rounded to the 11 significant bits of TF32."""
    with np.errstate(over="ignore", invalid="ignore"):
        bits = M.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32).astype(M.dtype)


def in_bfloat16(M):
    """Entries rounded to the 8 significant bits of bfloat16."""
    with np.errstate(over="ignore", invalid="ignore"):
        bits = M.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32).astype(M.dtype)


def in_float32(M):
    """Entries rounded to float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        return M.astype(np.float32).astype(M.dtype)


class _Stored(Plain):
    """Some arrays of the problem are changed before anything is computed with them."""

    names: ClassVar[tuple[str, ...]] = ()
    changed = staticmethod(in_float16)

    def altered(self, p):
        return p.with_arrays({name: self.changed(M) for name, M in p.arrays.items() if name in self.names})

    def forward(self, p):
        return super().forward(self.altered(p))

    def vjp(self, p, G_Y):
        return super().vjp(self.altered(p), self.changed(G_Y) if "G_Y" in self.names else G_Y)


@planted
class BInFloat16(_Stored):
    """B kept in float16"""

    names = ("B",)


@planted
class CInFloat16(_Stored):
    """C kept in float16"""

    names = ("C",)


@planted
class DInFloat16(_Stored):
    """D kept in float16"""

    names = ("D",)


@planted
class UInFloat16(_Stored):
    """U kept in float16"""

    names = ("U",)


@planted
class AInFloat16(_Stored):
    """A, or L and R, kept in float16"""

    names = ("A", "L", "R")


@planted
class CotangentInFloat16(_Stored):
    """G_Y kept in float16"""

    names = ("G_Y",)


@planted
class AInBfloat16(_Stored):
    """A, or L and R, kept in bfloat16"""

    names, changed = ("A", "L", "R"), staticmethod(in_bfloat16)


@planted
class InputsInTf32(_Stored):
    """B U computed in TF32"""

    names, changed = ("B", "U"), staticmethod(in_tf32)


@planted
class ReadoutInTf32(Plain):
    """C X + D U computed in TF32"""

    def readout(self, p, X):
        names = {name: in_tf32(M) for name, M in p.arrays.items() if name in ("C", "D", "U")}
        return super().readout(p.with_arrays(names), in_tf32(X))


@planted
class GradientsInTf32(Plain):
    """the products of the gradients computed in TF32"""

    def gradients(self, p, X, V, G_Y):
        return super().gradients(p.with_arrays({"U": in_tf32(p.U)}), in_tf32(X), in_tf32(V), in_tf32(G_Y))


@planted
class CotangentInFloat32(_Stored):
    """G_Y rounded to float32"""

    names, changed = ("G_Y",), staticmethod(in_float32)


@planted
class BInFloat32(_Stored):
    """B rounded to float32"""

    names, changed = ("B",), staticmethod(in_float32)


@planted
class CInFloat32(_Stored):
    """C rounded to float32"""

    names, changed = ("C",), staticmethod(in_float32)


@planted
class DInFloat32(_Stored):
    """D rounded to float32"""

    names, changed = ("D",), staticmethod(in_float32)


@planted
class SlopesInFloat32(Plain):
    """φ′ computed in float32"""

    def slope(self, p, P):
        return super().slope(p, in_float32(P)).astype(np.float32).astype(p.dtype)


@planted
class AdjointInFloat32(Plain):
    """the adjoint equation solved in float32"""

    def adjoint(self, p, S, G):
        return in_float32(super().adjoint(p, in_float32(S), in_float32(G)))


@planted
class GradientsInFloat32(Plain):
    """gradients summed in float32"""

    def factor_gradients(self, factors, X, V):
        G = super().factor_gradients(tuple(map(in_float32, factors)), X.astype(np.float32), V.astype(np.float32))
        return tuple(g.astype(X.dtype) for g in G)


@planted
class WeightsPruned(_Stored):
    """weights below 10⁻³ set to zero"""

    names = ("A", "L", "R", "B", "C", "D")
    changed = staticmethod(lambda M: np.where(np.abs(M) < 1e-3, 0, M).astype(M.dtype))


@planted
class SmallWeightsPruned(_Stored):
    """weights below 10⁻⁵ set to zero"""

    names = ("A", "L", "R", "B", "C", "D")
    changed = staticmethod(lambda M: np.where(np.abs(M) < 1e-5, 0, M).astype(M.dtype))


@planted
class WeightsClipped(_Stored):
    """B, C and D clipped to ±1.5"""

    names = ("B", "C", "D")
    changed = staticmethod(lambda M: np.clip(M, -1.5, 1.5))


@planted
class CotangentClipped(_Stored):
    """cotangents clipped to ±1"""

    names = ("G_Y",)
    changed = staticmethod(lambda M: np.clip(M, -1, 1))


@planted
class CotangentDivided(_Stored):
    """cotangents below 10⁻⁸ set to zero"""

    names = ("G_Y",)
    changed = staticmethod(lambda M: np.where(np.abs(M) < 1e-8, 0, M).astype(M.dtype))


@planted
class GradientsClipped(Plain):
    """gradients clipped to ±10"""

    def gradients(self, p, X, V, G_Y):
        return {name: np.clip(G, -10, 10) for name, G in super().gradients(p, X, V, G_Y).items()}


@planted
class StatesClipped(Plain):
    """hidden states clipped to ±10⁴"""

    def phi(self, p, P):
        return np.clip(super().phi(p, P), -1e4, 1e4)


@planted
class InputsQuantised(_Stored):
    """U rounded to multiples of 10⁻⁶"""

    names = ("U",)
    changed = staticmethod(lambda M: np.round(M, 6))


@planted
class SquaresOverflow(Plain):
    """the step measured by the square root of a sum of squares, which overflows or vanishes"""

    def done(self, step, stop):
        with np.errstate(over="ignore"):
            return np.sqrt((step * step).sum(axis=0)) <= np.sqrt((stop * stop).sum(axis=0))


@planted
class SubnormalInputs(_Stored):
    """subnormal inputs read as zero"""

    names = ("U",)
    changed = staticmethod(lambda M: np.where(np.abs(M) < np.finfo(M.dtype).tiny, 0, M).astype(M.dtype))


@planted
class StatesPacked(Plain):
    """X kept in float16 between iterations' end and the readout"""

    def readout(self, p, X):
        return super().readout(p, in_float16(X))
