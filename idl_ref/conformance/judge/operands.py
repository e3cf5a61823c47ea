"""Gradients by name that are products of the wrong arrays: of every two arrays whose shapes fit."""

# mypy: disable-error-code="misc"
# mypy infers no type of a lambda that binds the variable of a loop by a default.

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from idl_ref import factors as fac
from idl_ref.conformance.judge.maps import mapped
from idl_ref.conformance.judge.steps import Steps
from idl_ref.conformance.judge.transformations import Transformation, has_D, low_rank

Operand = Callable[[Steps], np.ndarray]


def _product(s: Steps) -> np.ndarray:
    return fac.apply(s.F, s.Xb)


def _pulled(s: Steps) -> np.ndarray:
    return fac.apply(s.Ft, s.V)


def _bracketed(text: str) -> str:
    return text if " " not in text else f"({text})"


OF_UNITS: dict[str, Operand] = {
    "X": lambda s: s.Xb, "V": lambda s: s.V, "G": lambda s: s.G, "B U": lambda s: s.Z, "A X": _product,
    "A X + Z": lambda s: _product(s) + s.Z, "Aᵀ V": _pulled, "Aᵀ V + G": lambda s: _pulled(s) + s.G,
    "φ′": lambda s: s.S, "φ′ ∘ X": lambda s: s.S * s.Xb, "φ′ ∘ V": lambda s: s.S * s.V, "φ′ ∘ G": lambda s: s.S * s.G,
    "φ(X)": lambda s: s.phi[0](s.Xb),
}  # fmt: skip
OF_RANK: dict[str, Operand] = {
    **{f"Rᵀ {_bracketed(text)}": (lambda s, M=M: s.F[1] @ M(s)) for text, M in OF_UNITS.items()},
    **{f"Lᵀ {_bracketed(text)}": (lambda s, M=M: s.F[0].T @ M(s)) for text, M in OF_UNITS.items()},
}


def products() -> Iterator[Transformation]:
    """The gradients of the weights and of U with another array in the place of one of their operands."""
    T = Transformation
    for text, M in OF_UNITS.items():
        if text != "X":
            yield T(f"∂A computed with {text} in place of X", {"dF": lambda s, M=M: fac.gradients(s.F, M(s), s.V)})
            yield T(f"∂C computed with {text} in place of X", {"dC": lambda s, M=M: s.G_Y @ M(s).T})
        if text != "V":
            yield T(f"∂A computed with {text} in place of V", {"dF": lambda s, M=M: fac.gradients(s.F, s.Xb, M(s))})
            yield T(f"∂B computed with {text} in place of V", {"dB": lambda s, M=M: M(s) @ s.U.T})
            yield T(f"∂U computed with {text} in place of V",
                    {"dU": lambda s, M=M: s.right("dU") + s.B.T @ (M(s) - s.V)})  # fmt: skip
            yield T(f"∂A and ∂B computed with {text} in place of V", {
                "dF": lambda s, M=M: fac.gradients(s.F, s.Xb, M(s)), "dB": lambda s, M=M: M(s) @ s.U.T})  # fmt: skip
    for name in ("∂C", "∂D"):
        of: Operand = lambda s, name=name: s.Y @ (s.Xb if name == "∂C" else s.U).T  # noqa: E731
        yield T(f"{name} computed with Y in place of G_Y", {f"d{name[1]}": of})
    square = lambda c: has_D(c) and c.problem.sizes[1] == c.problem.sizes[2]  # noqa: E731
    yield T("∂D computed with Dᵀ G_Y in place of G_Y, where p = q", {"dD": lambda s: s.D.T @ s.G_Y @ s.U.T}, square)
    yield T("Bᵀ V left out of ∂U where there is a D", {"dU": lambda s: s.D.T @ s.G_Y}, has_D)
    yield T("Dᵀ Y in place of Dᵀ G_Y in ∂U", {"dU": lambda s: s.right("dU") + s.D.T @ (s.Y - s.G_Y)}, has_D)
    for text, M in OF_RANK.items():
        if text != "Rᵀ X":
            yield T(f"∂L = V ({text})ᵀ in place of V (Rᵀ X)ᵀ",
                    {"dF": lambda s, M=M: (s.V @ M(s).T, s.right("dF")[1])}, low_rank)  # fmt: skip
        if text != "Lᵀ V":
            yield T(f"∂R = X ({text})ᵀ in place of X (Lᵀ V)ᵀ",
                    {"dF": lambda s, M=M: (s.right("dF")[0], M(s) @ s.Xb.T)}, low_rank)  # fmt: skip
    yield T("∂L = X (Rᵀ X)ᵀ in place of V (Rᵀ X)ᵀ",
            {"dF": lambda s: (s.Xb @ (s.F[1] @ s.Xb).T, s.right("dF")[1])}, low_rank)  # fmt: skip
    yield T("∂R = V (Lᵀ V)ᵀ in place of X (Lᵀ V)ᵀ",
            {"dF": lambda s: (s.right("dF")[0], s.F[0].T @ s.V @ s.V.T)}, low_rank)  # fmt: skip


def of_sums() -> Iterator[Transformation]:
    """Gradients of the sums over the samples, where they are sums over the samples."""

    def total(M: np.ndarray) -> np.ndarray:
        return M.sum(axis=1, keepdims=True)

    for name, change in {
        "∂A": {"dF": lambda s: fac.gradients(s.F, total(s.Xb), total(s.V))},
        "∂B": {"dB": lambda s: total(s.V) @ total(s.U).T},
        "∂C": {"dC": lambda s: total(s.G_Y) @ total(s.Xb).T},
        "∂D": {"dD": lambda s: total(s.G_Y) @ total(s.U).T},
    }.items():
        yield Transformation(f"{name} computed from sums over the samples, not as a sum over the samples", change)


def overwritten() -> Iterator[Transformation]:
    """A gradient in the place of the weights, whose memory it was written to."""
    T = Transformation
    yield T("∂U computed with ∂B in place of B", {"dU": lambda s: s.right("dU") + (s.dB - s.B).T @ s.V})
    yield T("∂U computed with ∂D in place of D", {"dU": lambda s: s.right("dU") + (s.dD - s.D).T @ s.G_Y}, has_D)
    yield T("Cᵀ G_Y computed with ∂C in place of C", {"G": lambda s: s.dC.T @ s.G_Y})
    yield T("∂R computed with ∂L in place of L",
            {"dF": lambda s: (s.right("dF")[0], s.right("dF")[0].T @ s.V @ s.Xb.T)}, low_rank)  # fmt: skip
    yield T("∂L computed with ∂R in place of R",
            {"dF": lambda s: (s.V @ (s.right("dF")[1] @ s.Xb).T, s.right("dF")[1])}, low_rank)  # fmt: skip


def raw() -> Iterator[Transformation]:
    """The raw weights where those belong that f makes of them."""
    T = Transformation
    yield T("the raw weights in place of those that f makes of them in the adjoint",
            {"Ft": lambda s: fac.transpose(s.raw)}, mapped)  # fmt: skip
    yield T("the raw weights in place of those that f makes of them in A X + Z, where φ′ is taken",
            {"P": lambda s: fac.apply(s.raw, s.Xb) + s.Z}, mapped)  # fmt: skip
    for text, changed in {"∂L and ∂R": (0, 1), "∂L": (0,), "∂R": (1,)}.items():
        yield T(f"{text} computed with the raw weights in place of those that f makes of them",
                {"dF": lambda s, which=changed: _partly(s, which)},
                lambda c: low_rank(c) and mapped(c))  # fmt: skip


def _partly(s: Steps, which: tuple[int, ...]) -> fac.Factors:
    """The gradients of both factors, some of which are computed with the raw weights."""
    right, other = s.right("dF"), fac.gradients(s.raw, s.Xb, s.V)
    return tuple(other[k] if k in which else right[k] for k in range(len(right)))
