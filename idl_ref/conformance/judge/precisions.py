"""Precision by name: products and steps computed with fewer digits than are due."""

# mypy: disable-error-code="misc"
# mypy infers no type of a lambda that binds the variable of a loop by a default.

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from idl_ref import factors as fac
from idl_ref.conformance.judge.numbers import PRECISIONS
from idl_ref.conformance.judge.steps import Steps, UnsolvedError, adjoint
from idl_ref.conformance.judge.transformations import Transformation, low_rank
from idl_ref.conformance.truth.problem import Case

Product = Callable[[fac.Factors, np.ndarray], np.ndarray]  # F M, with some rounding
UNITS = "TF32", "TF32, halves away from zero", "bfloat16", "float16"  # what units for matrices round their inputs to
_PRODUCTS: dict[str, Callable[[Steps, Callable[[np.ndarray], np.ndarray]], dict[str, Any]]] = {
    "B U": lambda s, r: {"Z": r(s.B) @ r(s.U)},
    "C X + D U": lambda s, r: {"Y": r(s.C) @ r(s.Xf) + (0 if s.D is None else r(s.D) @ r(s.U))},
    "the products of the gradients, but for the weights in them,": lambda s, r: {
        "dB": r(s.V) @ r(s.U).T, "dC": r(s.G_Y) @ r(s.Xb).T, "dD": r(s.G_Y) @ r(s.U).T,
        "dU": s.B.T @ r(s.V) + (0 if s.D is None else s.D.T @ r(s.G_Y)),
        "dF": fac.gradients(s.F, r(s.Xb), r(s.V))},
    "the products of the gradients": lambda s, r: {
        "dB": r(s.V) @ r(s.U).T, "dC": r(s.G_Y) @ r(s.Xb).T, "dD": r(s.G_Y) @ r(s.U).T,
        "dU": r(s.B).T @ r(s.V) + (0 if s.D is None else r(s.D).T @ r(s.G_Y)),
        "dF": fac.gradients(tuple(map(r, s.F)), r(s.Xb), r(s.V))},
}  # fmt: skip


def products() -> Iterator[Transformation]:
    """Both factors of products rounded, as units for matrices do."""
    for what, values in _PRODUCTS.items():
        steps = {"B U": ("Z",), "C X + D U": ("Y",)}.get(what, ("dB", "dC", "dD", "dU", "dF"))
        for dtype in UNITS:
            change = {name: (lambda s, name=name, f=values, r=PRECISIONS[dtype]: f(s, r)[name]) for name in steps}
            yield Transformation(f"{what} computed in {dtype}", change)


def _float32(M: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return M.astype(np.float32)


def _in_float32(F: fac.Factors, M: np.ndarray) -> np.ndarray:
    """F M with the arithmetic of float32."""
    return fac.apply(tuple(map(_float32, F)), _float32(M)).astype(np.float64)


def _settled(g: Callable[[np.ndarray], np.ndarray], start: np.ndarray) -> np.ndarray:
    """Where the iteration of a map with its rounding ends, which depends on its start."""
    X = start
    for _ in range(400):
        X, last = g(X), X
        if not np.isfinite(X).all():
            raise UnsolvedError
        if (last == X).all():
            break
    return X


def _zero(s: Steps) -> np.ndarray:
    """Where the iteration starts."""
    X: np.ndarray = 0 * s.Z if s.X0 is None else s.X0
    return X


def _iterated(product: Product) -> dict[str, Callable[[Steps], Any]]:
    """X, A X + Z and V, where both equations are iterated with a product F M of their own."""
    return {
        "X": lambda s: _settled(lambda X: s.phi[0](product(s.F, X) + s.Z), _zero(s)),
        "P": lambda s: product(s.F, s.Xb) + s.Z,
        "V": lambda s: _settled(lambda V: s.S * (product(s.Ft, V) + s.G), 0 * s.G),
    }


def _of_rounded(r: Callable[[np.ndarray], np.ndarray], F: fac.Factors, M: np.ndarray) -> np.ndarray:
    """F M with both factors of every product rounded."""
    for factor in reversed(F):
        M = r(factor) @ r(M)
    return M


def iterations() -> Iterator[Transformation]:
    """Both factors of A X and of Aᵀ V rounded in every iteration."""
    for dtype in UNITS:
        product = partial(_of_rounded, PRECISIONS[dtype])
        yield Transformation(f"A X and Aᵀ V computed in {dtype}", _iterated(product))
        inputs = {"Z": lambda s, r=PRECISIONS[dtype]: r(s.B) @ r(s.U)}
        yield Transformation(f"A X, B U and Aᵀ V computed in {dtype}", inputs | _iterated(product))


def _stored(r: Callable[[np.ndarray], np.ndarray], F: fac.Factors, M: np.ndarray) -> np.ndarray:
    """F M for a product of factors whose inner result, such as Rᵀ X, is rounded."""
    left, right = F
    product: np.ndarray = left @ r(right @ M)
    return product


def stored() -> Iterator[Transformation]:
    """Rᵀ X and Lᵀ V rounded in every iteration."""
    for dtype in ("float32", *UNITS):
        product = partial(_stored, PRECISIONS[dtype])
        yield Transformation(f"Rᵀ X and Lᵀ V rounded to {dtype}", _iterated(product), low_rank)


def singles() -> Iterator[Transformation]:
    """Steps computed in float32 where float64 is due."""
    double: Callable[[Case], bool] = lambda case: case.problem.dtype == np.float64  # noqa: E731
    r = PRECISIONS["float32"]
    yield Transformation("B U computed in float32", {"Z": lambda s: _in_float32((s.B,), s.U)}, double)
    iterated = _iterated(_in_float32)
    yield Transformation("A X computed in float32", iterated, double)
    yield Transformation("Aᵀ V computed in float32", {"V": iterated["V"]}, double)
    yield Transformation("the adjoint equation solved in float32",
                         {"V": lambda s: r(adjoint(s.Ft, r(s.S), r(s.G)))}, double)  # fmt: skip
    yield Transformation("φ′ computed in float32", {"S": lambda s: r(s.phi[1](r(s.P)))}, double)
    yield Transformation("the gradients of A, or of L and R, summed in float32", {"dF": lambda s: tuple(
        G.astype(np.float64) for G in fac.gradients(*_narrow(s)))}, double)  # fmt: skip


def _narrow(s: Steps) -> tuple[fac.Factors, np.ndarray, np.ndarray]:
    return tuple(map(_float32, s.F)), _float32(s.Xb), _float32(s.V)
