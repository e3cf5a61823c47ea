"""This module defines the interface between a model and the twins, which are the backends that compute for it.

A model owns raw parameters. `Parametrisation` maps them to the effective `Weights`. A twin prepares these weights once,
in a `Layer`, which returns a `ForwardPass` and a `BackwardPass`. `Parametrisation` then maps the gradients of the
effective weights to gradients of the raw parameters. In all arrays of this module, a sample is a column, as in the
paper.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from idl_ref.factors import Factors
from idl_ref.functions import ImplicitFunction
from idl_ref.solution import Solution, SolveOptions
from idl_ref.sparse import Pattern, Sparse, dense

__all__ = ["BackwardPass", "ForwardPass", "Options", "Parametrisation", "Weights"]

Parameters = Mapping[str, np.ndarray]
Gradients = dict[str, np.ndarray]
T = TypeVar("T")
NOTHING = np.empty((0, 0))


class Options(NamedTuple):
    """The options by which a layer solves its two equations.

    Attributes
    ----------
    forward, adjoint : SolveOptions
        The options for the forward and for the adjoint equation.
    """

    forward: SolveOptions
    adjoint: SolveOptions


class Weights(NamedTuple):
    """The effective weights, which are those that the equations X = φ(A X + B U) and Ŷ = C X + D U use.

    Attributes
    ----------
    factors : tuple of arrays
        The factors of A: (A,) with A (n, n), an array or a Sparse, or (L, Rᵀ) with the shapes (n, r) and (r, n).
    B, C : (n, p) and (q, n) arrays
        The weights of the inputs and of the outputs.
    D : (q, p) array or None
        The weights from the inputs to the outputs; None for a model without D.
    bias : bool
        Whether the last column of B and of D belongs to a constant feature 1, which a layer appends to U.
    """

    factors: Factors
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray | None = None
    bias: bool = False

    @classmethod
    def of(cls, factors: Factors) -> Weights:
        """Return the weights of an equation without inputs and outputs, in which B and C are empty."""
        return cls(factors, NOTHING, NOTHING)

    def dense(self) -> Weights:
        """Return these weights with all zeros of a sparse A."""
        return self._replace(factors=tuple([dense(F) for F in self.factors]))

    @property
    def A(self) -> np.ndarray | Sparse | tuple[np.ndarray, np.ndarray]:
        """The matrix A, or the pair (L, R) with A = L Rᵀ."""
        return self.factors[0] if len(self.factors) == 1 else (self.factors[0], self.factors[1].T)


class ForwardPass(NamedTuple):
    """The results of the forward direction, which the backward direction needs.

    Attributes
    ----------
    weights : Weights
        The effective weights of this pass.
    U : (p, m) array
        The inputs, with the constant feature as an additional last row if there is a bias.
    Z : (n, m) array
        The product B U.
    solution : Solution
        Its X (n, m) is the equilibrium.
    Y : (q, m) array
        The outputs Ŷ = C X + D U.
    """

    weights: Weights
    U: np.ndarray
    Z: np.ndarray
    solution: Solution
    Y: np.ndarray


class BackwardPass(NamedTuple):
    """The results of the backward direction, which are gradients with respect to the effective weights.

    Attributes
    ----------
    solution : Solution
        The solution of the adjoint equation. Its X (n, m) is V = ∂ℓ/∂Z.
    factors : tuple of arrays
        The gradients of the factors of A: (∂A,), or (∂L, ∂Rᵀ).
    B, C : arrays
        The gradients ∂B and ∂C.
    D : array or None
        The gradient ∂D; None for a model without D.
    U : (p, m) array or None
        The gradient ∂U without the constant feature; None if it was not requested.
    """

    solution: Solution
    factors: Factors
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray | None
    U: np.ndarray | None = None


# --- raw parameters ---------------------------------------------------------------------------------------------------


def by_name(factors: Factors) -> Gradients:
    """Return factors (A,) or (L, Rᵀ), or their gradients, by the names of the parameters: A, or L and R."""
    return {"A": factors[0]} if len(factors) == 1 else {"L": factors[0], "R": factors[1].T}


def as_factors(parameters: Parameters) -> Factors:
    """Return the factors (A,) or (L, Rᵀ) of named parameters."""
    return (parameters["A"],) if "A" in parameters else (parameters["L"], parameters["R"].T)


@dataclass(frozen=True)
class Parametrisation:
    """The map from raw parameters to effective weights, together with its pullback for gradients.

    Attributes
    ----------
    function : ImplicitFunction
        The map from the raw A, or the raw L and Rᵀ, to the effective ones. B, C and D are not mapped.
    bias : bool
        The attribute `bias` of the effective Weights.
    pattern : Pattern or None
        Where a sparse A has entries, which are the parameter A (entries,); None for other models. The functions that
        such a model may have treat all entries of a row alike, so that they map the entries of the rows side by side.
    """

    function: ImplicitFunction
    bias: bool = False
    pattern: Pattern | None = None

    def raw(self, parameters: Parameters) -> Factors:
        """Return what the function maps: the raw factors of A, or the entries of each row of a sparse A."""
        return as_factors(parameters) if self.pattern is None else (self.pattern.padded(parameters["A"]),)

    def factors(self, mapped: Factors) -> Factors:
        """Return the factors of A, for what the function made of `raw`."""
        return mapped if self.pattern is None else (self.pattern.matrix(self.pattern.unpadded(mapped[0])),)

    def named(self, mapped: Factors) -> Gradients:
        """Return what the function, or its pullback, made of `raw`, by the names of the parameters."""
        return by_name(mapped) if self.pattern is None else {"A": self.pattern.unpadded(mapped[0])}

    def weights(self, parameters: Parameters) -> Weights:
        """Return the effective weights; B, C and D are the arrays of the parameters, not copies."""
        with np.errstate(over="ignore", invalid="ignore"):  # The status of a column reports overflow, not a warning.
            factors = self.factors(self.function.effective(self.raw(parameters)))
        return Weights(factors, parameters["B"], parameters["C"], parameters.get("D"), self.bias)

    def pullback(self, parameters: Parameters, backward: BackwardPass) -> Gradients:
        """Return the gradients of the raw parameters, by pulling back those of the effective weights."""
        gradients = backward.factors
        if self.pattern is not None:
            gradients = (self.pattern.padded(gradients[0].data),)
        named = self.named(self.function.pullback(self.raw(parameters), gradients)) | {"B": backward.B, "C": backward.C}
        return named if backward.D is None else named | {"D": backward.D}

    def project(self, parameters: Parameters) -> None:
        """Project A, or L and R, in place if the function asks for that, as ImplicitFunctionRows does."""
        projected = self.function.project(self.raw(parameters))
        if projected is not None:
            for name, value in self.named(projected).items():
                parameters[name][...] = value


class Kept(Generic[T]):
    """A cache for one value, which is valid as long as the settings and the parameters that it depends on are the same.

    The value refers to the arrays B, C and D, so that it remains valid if their entries change, as long as they are the
    same arrays. A, or L and R, are compared with copies: n² comparisons are cheaper than the map of `f`, the norms, and
    the preparations of a twin. Copying or pickling a Kept gives an empty one.
    """

    def __init__(self) -> None:
        self._entry: tuple[Any, dict[str, np.ndarray], dict[str, np.ndarray], T] | None = None

    def get(self, settings: Any, parameters: Parameters, make: Callable[[], T]) -> T:
        """Return the cached value if it is still valid; otherwise call `make`, and cache and return its result."""
        entry = self._entry
        if entry is None or not _unchanged(settings, parameters, *entry[:3]):
            copies = {name: W.copy() for name, W in parameters.items() if name in "ALR"}
            entry = self._entry = settings, dict(parameters), copies, make()
        return entry[3]

    def __reduce__(self) -> tuple:
        return Kept, ()


def _unchanged(
    settings: Any, parameters: Parameters, then: Any, arrays: dict[str, np.ndarray], copies: dict[str, np.ndarray]
) -> bool:
    """Tell whether the settings are the object `then`, and the parameters are the same arrays as before.

    For A, or L and R, the entries must equal the copies too.
    """
    if settings is not then or len(parameters) != len(arrays):
        return False
    for name, W in arrays.items():
        if parameters.get(name) is not W:
            return False
    for name, copy in copies.items():
        W = arrays[name]
        if W.shape != copy.shape or np.count_nonzero(copy != W):  # NumPy counts faster than it asks for `any`.
            return False
    return True
