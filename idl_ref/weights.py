"""The border between a model and what computes it: weights go in, a forward and a backward pass come out.

A model owns raw parameters. `Parametrisation` maps them to the effective `Weights`; a twin prepares these once in a
`Layer`, which returns a `ForwardPass` and a `BackwardPass`; `Parametrisation` takes the gradients back to the raw
parameters. Everything here is in the paper's columns: a sample is a column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from idl_ref.factors import Factors
from idl_ref.functions import ImplicitFunction
from idl_ref.solution import Solution, SolveOptions

__all__ = ["BackwardPass", "ForwardPass", "Options", "Parametrisation", "Weights"]

Parameters = Mapping[str, np.ndarray]
Gradients = dict[str, np.ndarray]
T = TypeVar("T")
NOTHING = np.empty((0, 0))


class Options(NamedTuple):
    """How a layer solves its two equations."""

    forward: SolveOptions
    adjoint: SolveOptions


class Weights(NamedTuple):
    """The effective weights, those that the equations use.

    Attributes
    ----------
    factors : tuple of arrays
        A as factors: (A,) with A (n, n), or (L, Rᵀ) with shapes (n, r) and (r, n).
    B, C : (n, p) and (q, n) arrays
    D : (q, p) array or None
        None for a model without D.
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
        """The weights of an equation alone, without inputs and outputs: B and C are empty."""
        return cls(factors, NOTHING, NOTHING)

    @property
    def A(self) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """A, or the pair (L, R)."""
        return self.factors[0] if len(self.factors) == 1 else (self.factors[0], self.factors[1].T)


class ForwardPass(NamedTuple):
    """What the forward direction computed, and the backward direction needs.

    Attributes
    ----------
    weights : Weights
    U : (p, m) array
        The inputs, with the constant feature where there is a bias.
    Z : (n, m) array
        B U.
    solution : Solution
        Its X (n, m) is the equilibrium.
    Y : (q, m) array
        The outputs, C X + D U.
    """

    weights: Weights
    U: np.ndarray
    Z: np.ndarray
    solution: Solution
    Y: np.ndarray


class BackwardPass(NamedTuple):
    """What the backward direction computed: gradients with respect to the effective weights.

    Attributes
    ----------
    solution : Solution
        The adjoint solution: its X (n, m) is V = ∂ℓ/∂Z.
    factors : tuple of arrays
        ∂A as (∂A,), or (∂L, ∂Rᵀ).
    B, C : arrays
        ∂B and ∂C.
    D : array or None
        ∂D; None for a model without D.
    U : (p, m) array or None
        ∂U, without the constant feature; None where it was not asked for.
    """

    solution: Solution
    factors: Factors
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray | None
    U: np.ndarray | None = None


# --- raw parameters ---------------------------------------------------------------------------------------------------


def by_name(factors: Factors) -> Gradients:
    """Factors, or their gradients, under the names of the parameters: A, or L and R.   (A,) or (L, Rᵀ)"""
    return {"A": factors[0]} if len(factors) == 1 else {"L": factors[0], "R": factors[1].T}


def as_factors(parameters: Parameters) -> Factors:
    """(A,) or (L, Rᵀ) out of named parameters."""
    return (parameters["A"],) if "A" in parameters else (parameters["L"], parameters["R"].T)


@dataclass(frozen=True)
class Parametrisation:
    """How raw parameters become effective weights, and gradients of the effective weights those of the parameters.

    Attributes
    ----------
    function : ImplicitFunction
        Maps the raw A, or L and Rᵀ, to the effective one.
    bias : bool
        See Weights.
    """

    function: ImplicitFunction
    bias: bool = False

    def weights(self, parameters: Parameters) -> Weights:
        """The effective weights; B, C and D are the parameters themselves."""
        with np.errstate(over="ignore", invalid="ignore"):  # a column that is not finite is reported by its status
            factors = self.function.effective(as_factors(parameters))
        return Weights(factors, parameters["B"], parameters["C"], parameters.get("D"), self.bias)

    def pullback(self, parameters: Parameters, backward: BackwardPass) -> Gradients:
        """The gradients of the raw parameters: those of the effective weights, pulled back through the function."""
        raw = self.function.pullback(as_factors(parameters), backward.factors)
        named = by_name(raw) | {"B": backward.B, "C": backward.C}
        return named if backward.D is None else named | {"D": backward.D}

    def project(self, parameters: Parameters) -> None:
        """Write back into A, or L and R, what the function keeps there: the row projection of ImplicitFunctionRows."""
        projected = self.function.project(as_factors(parameters))
        if projected is not None:
            for name, value in by_name(projected).items():
                parameters[name][...] = value


class Kept(Generic[T]):
    """One value, kept for as long as the settings and parameters that it was made of stay as they are.

    B, C and D are used as they are, so that it is enough if they are the same arrays. A, or L and R, are compared with
    copies: n² comparisons take the place of the map of `f`, the norms, and what a twin prepares. A copy and a pickle
    of a Kept are empty.
    """

    def __init__(self) -> None:
        self._entry: tuple[Any, dict[str, np.ndarray], dict[str, np.ndarray], T] | None = None

    def get(self, settings: Any, parameters: Parameters, make: Callable[[], T]) -> T:
        """The kept value, or else a new one from `make`, which is kept from now on."""
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
    """Whether the settings are those of then, and the parameters the same arrays with the same A, or L and R."""
    if settings is not then or parameters.keys() != arrays.keys():
        return False
    for name, W in arrays.items():
        if parameters[name] is not W:
            return False
    for name, copy in copies.items():
        if parameters[name].shape != copy.shape or not (parameters[name] == copy).all():
            return False
    return True
