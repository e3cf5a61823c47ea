"""What a backend is, and how it declares what it can do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np

from idl_ref import activations
from idl_ref.conformance.truth.problem import DTYPES, PHI0, Case, F, Problem

# All that a backend can do only if it declares it, and the convention that φ′ at a kink is the smaller one-sided slope.
EVERYTHING: Any = {"X0": True, "f": F, "straight_through": True, "phi0": 0.0}


class Backend(Protocol):
    """What the kit checks: any object with these attributes and methods.

    Attributes
    ----------
    name : str
    capabilities : mapping or set of words
        What the backend declares that it can do; see `Capabilities`. An empty declaration means everything that a model
        needs, in both dtypes.
    """

    name: str
    capabilities: Any

    def forward(self, problem: Problem) -> Mapping[str, Any]:
        """Solve a problem.

        Returns "Y" (q, m) and "X" (n, m), and optionally, per column, "converged" (m,) bool and "iterations" (m,) int.
        """
        ...

    def vjp(self, problem: Problem, G_Y: np.ndarray) -> Mapping[str, Any]:
        """The gradients of Σ G_Y ∘ Y: "A", or "L" and "R"; "B"; "C"; "U"; "D" where the problem has one."""
        ...


class BackendError(RuntimeError):
    """A backend crashed, hung or gave a malformed answer. It does not count as a report of failure."""


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do. Every field that the backend does not declare has the default here.

    Attributes
    ----------
    dtypes, activations : tuple of str
    low_rank, no_D, empty : bool
        Whether the backend takes A as L Rᵀ, models without D, and batches of no samples.
    subnormal : bool
        Whether it keeps numbers below the smallest normal number.
    vjp, X : bool
        Whether it gives gradients, and hidden states X beside Y.
    X0 : bool
        Whether it starts from `problem.X0`.
    f : tuple of str
        The maps from raw to effective weights that it can apply, of "inf", "rows" and "triu".
    straight_through : bool
        Whether it can treat that map as the identity when differentiating.
    phi0 : float or None
        Its convention for φ′ at a kink: the weight of the larger one-sided slope, 0, 0.5 or 1. None: any of them.
    deterministic : bool
        Whether repeated runs give the same bits.
    unknown : tuple of str
        Names that were declared and that the kit does not know; the report lists them.
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
        """Read a declaration: a mapping with the names above as keys, or a collection of words.

        Words are names of dtypes, activations, maps f and flags. Dtypes, activations and maps are limited to the words
        of their kind, or have the default if there is none: {"float64", "relu"} declares one dtype, one activation, and
        the default of everything else. If any word is a flag, then low_rank, vjp, X0 and straight_through are on only
        if they are named. The word "dense" without "low_rank" declares low_rank off; "forward" without "vjp", vjp.
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
        """Why the declaration excludes a case, or with `vjp` its gradients; None if it does not."""
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
    words -= {"forward", "dense", "bias"}  # words for what every backend can do
    flags = {name for name in known if isinstance(getattr(Capabilities, name), bool)}
    if words & flags:
        values |= dict.fromkeys(flags - {"deterministic", "empty", "no_D", "subnormal", "X"}, False)
    return values | dict.fromkeys(words, True)
