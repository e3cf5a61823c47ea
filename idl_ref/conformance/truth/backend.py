"""What a backend is, and what it declares that it can do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np

from idl_ref import activations
from idl_ref.conformance.truth.problem import DTYPES, PHI0, Case, F, Problem

EVERYTHING: Any = {"X0": True, "f": F, "straight_through": True, "phi0": 0.0}


class Backend(Protocol):
    """What is checked.

    Attributes
    ----------
    name : str
    capabilities : mapping or set of words
        What it declares; see `Capabilities`. Empty: everything that a model needs, in both dtypes.
    """

    name: str
    capabilities: Any

    def forward(self, problem: Problem) -> Mapping[str, Any]:
        """{"Y": (q, m), "X": (n, m)}, and where it knows them "converged" (m,) bool and "iterations" (m,) int."""
        ...

    def vjp(self, problem: Problem, G_Y: np.ndarray) -> Mapping[str, Any]:
        """The gradients of Σ G_Y ∘ Y: "A", or "L" and "R"; "B"; "C"; "D" where there is one; "U"."""
        ...


class BackendError(RuntimeError):
    """The backend died, hung or gave nonsense: never a report of a failure."""


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do. What is not declared has the value here.

    Attributes
    ----------
    dtypes, activations : tuple of str
    low_rank, no_D, empty : bool
        A = L Rᵀ; models without D; batches of no samples.
    subnormal : bool
        It keeps numbers below the smallest normal one.
    vjp, X : bool
        Gradients; the hidden states X beside Y.
    X0 : bool
        It starts from `problem.X0`.
    f : tuple of str
        It maps raw weights by these: "inf", "rows", "triu".
    straight_through : bool
        It can treat that map as the identity when differentiating.
    phi0 : float or None
        Its convention at a kink: the weight of the larger one-sided slope, 0, 0.5 or 1. None: any of them.
    deterministic : bool
        Repeated runs give the same bits.
    unknown : tuple of str
        What was declared and is none of these; the report names it.
    """

    dtypes: tuple[str, ...] = DTYPES
    activations: tuple[str, ...] = tuple(activations.TABLE)
    low_rank: bool = True
    no_D: bool = True
    empty: bool = True
    subnormal: bool = True
    vjp: bool = True
    X: bool = True
    X0: bool = False
    f: tuple[str, ...] = ()
    straight_through: bool = False
    phi0: float | None = None
    deterministic: bool = True
    unknown: tuple[str, ...] = ()

    @classmethod
    def declared(cls, given: Any) -> Capabilities:
        """From a mapping of the names above, or from a collection of words, the names of dtypes, activations and flags.

        Of words, those of a kind that is named at all limit that kind: {"float64", "relu"} declares no float32, all of
        the other kinds, and no other activation. A flag left out of a collection that names any flag is off; "dense"
        without "low_rank", and "forward" without "vjp", turn those off.
        """
        given = {} if given is None else given
        known = {field.name for field in fields(cls)} - {"unknown"}
        if isinstance(given, Mapping):
            values = dict(given)
        elif isinstance(given, Iterable) and not isinstance(given, str | bytes):
            values = _from_words({str(word) for word in given}, known)
        else:
            raise TypeError(f"capabilities must be a mapping or a collection of words; got {type(given).__name__}.")
        unknown = tuple(sorted(map(str, values.keys() - known)))
        values = {name: value for name, value in values.items() if name in known}
        for name in ("dtypes", "activations", "f"):
            if name in values:
                words = [values[name]] if isinstance(values[name], str) else values[name]
                values[name] = tuple(getattr(word, "name", str(word)) for word in words)
        if values.get("phi0") not in (None, *PHI0):
            raise ValueError(f"capability phi0 must be 0, 0.5 or 1, or left out; got {values['phi0']!r}.")
        return cls(**values, unknown=unknown)

    def refusal(self, case: Case, vjp: bool = False) -> str | None:
        """Why this case, or its gradients, are not for the backend; None if they are."""
        problem, name = case.problem, case.problem.dtype.name
        rules = (
            (name in self.dtypes, f"{name} is not declared"),
            (problem.activation in self.activations, f"{problem.activation} is not declared"),
            (problem.A is not None or self.low_rank, "low_rank is declared off"),
            (problem.D is not None or self.no_D, "no_D is declared off"),
            (problem.U.shape[1] > 0 or self.empty, "empty is declared off"),
            ("subnormal" not in case.flags or self.subnormal, "subnormal is declared off"),
            (problem.f == "none" or problem.f in self.f, f'f = "{problem.f}" is not declared'),
            (not problem.straight_through or self.straight_through, "straight_through is not declared"),
            (not vjp or self.vjp, "vjp is declared off"),
        )
        return next((reason for holds, reason in rules if not holds), None)


def _from_words(words: set[str], known: set[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    kinds = (("dtypes", DTYPES), ("activations", tuple(activations.TABLE)), ("f", F))
    for name, choices in kinds:
        if chosen := tuple(word for word in choices if word in words):
            values[name] = chosen
        words = words - set(choices)
    for word, other in (("dense", "low_rank"), ("forward", "vjp")):
        if word in words and other not in words:
            values[other] = False
    words -= {"forward", "dense", "bias"}  # what every backend has
    flags = {name for name in known if isinstance(getattr(Capabilities, name), bool)}
    if words & flags:
        values |= dict.fromkeys(flags - {"deterministic", "empty", "no_D", "subnormal", "X"}, False)
    return values | dict.fromkeys(words, True)
