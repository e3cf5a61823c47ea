"""What a backend is, and how it declares what it can do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from numbers import Real
from typing import Any, Protocol

import numpy as np

from idl_ref import activations
from idl_ref.conformance.truth.problem import DTYPES, STORAGE, Case, F, Problem

STOPS = ("step", "residual")

# All that a backend can do only if it declares it, and the convention that φ′ at a kink is the smaller one-sided slope.
EVERYTHING: Any = {"X0": True, "f": F, "straight_through": True, "phi0": 0.0}


WITH_STORAGE: Any = EVERYTHING | {"dtypes": (*DTYPES, *STORAGE)}


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
        "float16" and "bfloat16" are dtypes of inputs and answers, whatever the backend computes in. They are off unless
        they are declared.
    low_rank, no_D, empty : bool
        Whether the backend takes A as L Rᵀ, models without D, and batches of no samples.
    subnormal : bool
        Whether it is asked about numbers below the smallest normal number.
    flushes : bool
        Whether it replaces such numbers by 0. If so, an error as large as the smallest normal number is allowed.
    vjp, X : bool
        Whether it gives gradients, and hidden states X beside Y.
    X0 : bool
        Whether it starts from `problem.X0`.
    f : tuple of str
        The maps from raw to effective weights that it can apply, of "inf", "rows", "triu" and "perron".
    kappa : float or None
        The radius of f, if the backend has only one; it is not asked about another. None: any radius.
    straight_through : tuple of str
        The maps that it can treat as the identity when differentiating, for dense and for low-rank weights. True in a
        declaration means all of them, False none.
    phi0 : float, dict of str to float, or None
        Its convention for φ′ at a kink: the weight of the larger one-sided slope, from 0 to 1; a dict has one for each
        activation. None: any of them.
    stops : str
        "step": it iterates until a step is small, and returns the last application of the map. "residual": it returns
        an X whose residual it found to be small, as root finders do.
    iterations : bool
        Whether the iterations that it reports are those of X ← φ(A X + B U) from the start, so that they can be judged.
    iteration_slack : int
        By how many they may differ from those of the exact iteration.
    concurrent : bool
        Whether several threads may call it at once.
    deterministic : bool
        Whether repeated runs give the same bits.
    unknown : tuple of str
        What was declared and is not known to the kit, each with what was probably meant; the report lists them.

    Examples
    --------
    >>> declared = Capabilities.declared({"dtypes": ["Float32"], "low_rank": "no", "phi0": {"relu": 0}})
    >>> declared.dtypes, declared.low_rank, declared.kink("relu"), declared.kink("hardtanh")
    ((), True, 0.0, None)
    >>> declared.unknown
    ("dtypes: 'Float32' (did you mean 'float32'?)", "low_rank: 'no' (True or False is due; ignored)")
    """

    dtypes: tuple[str, ...] = DTYPES
    activations: tuple[str, ...] = tuple(activations.TABLE)
    low_rank: bool = True
    no_D: bool = True
    empty: bool = True
    subnormal: bool = True
    flushes: bool = False
    vjp: bool = True
    X: bool = True
    X0: bool = False
    f: tuple[str, ...] = ()
    kappa: float | None = None
    straight_through: tuple[str, ...] = ()
    phi0: float | Mapping[str, float] | None = None
    stops: str = "step"
    iterations: bool = False
    iteration_slack: int = 1
    concurrent: bool = True
    deterministic: bool = True
    unknown: tuple[str, ...] = ()

    @classmethod
    def declared(cls, given: Any) -> Capabilities:
        """Read a declaration: a mapping with the names above as keys, or a collection of words.

        Words are names of dtypes, activations, maps f and flags. Dtypes, activations and maps are limited to the words
        of their kind, or have the default if there is none: {"float64", "relu"} declares one dtype, one activation, and
        the default of everything else. If any word is a flag, then low_rank, vjp, X0 and straight_through are on only
        if they are named. The word "dense" without "low_rank" declares low_rank off; "forward" without "vjp", vjp.

        A name that is not known, and a value that its name does not take, are entered in `unknown` and ignored.
        """
        given = {} if given is None else given
        if isinstance(given, Mapping):
            values = {str(name): value for name, value in given.items()}
        elif isinstance(given, Iterable) and not isinstance(given, str | bytes):
            values = _from_words({str(word) for word in given})
        else:
            raise TypeError(f"capabilities must be a mapping or a collection of words; got {type(given).__name__}.")
        known: dict[str, Any] = {}
        odd = [_nearest(repr(name), name, (*READERS, *WORDS)) for name in sorted(values.keys() - READERS.keys())]
        for name, value in values.items():
            if name in READERS:
                known[name], complaints = READERS[name](value)
                odd += [f"{name}: {text}" for text in complaints]
        known = {name: value for name, value in known.items() if value is not MISSING}
        return cls(**known, unknown=tuple(odd))

    def kink(self, activation: str) -> float | None:
        """The declared weight of the larger one-sided slope in φ′ at a kink of an activation; None if any is right."""
        return self.phi0.get(activation) if isinstance(self.phi0, Mapping) else self.phi0

    def refusal(self, case: Case, vjp: bool = False) -> str | None:
        """Why the declaration excludes a case, or with `vjp` its gradients; None if it does not."""
        problem, name, flags = case.problem, case.problem.storage, case.flags
        radius = self.kappa is None or problem.f in ("none", "triu") or problem.kappa == self.kappa
        near = self.flushes and "subnormal" in flags
        straight = not problem.straight_through or problem.f in self.straight_through
        rules = (
            (name in self.dtypes, f"{name} is not declared"),
            (problem.activation in self.activations, f"{problem.activation} is not declared"),
            (problem.A is not None or self.low_rank, "low_rank is declared off"),
            (problem.D is not None or self.no_D, "no_D is declared off"),
            (problem.U.shape[1] > 0 or self.empty, "empty is declared off"),
            ("subnormal" not in flags or self.subnormal, "subnormal is declared off"),
            (not near or not (vjp or "kink" in flags), "flushes is declared: numbers next to a kink at 0 are at it"),
            ("start" not in flags or self.X0, "X0 is not declared"),
            ("limit" not in flags or self.iterations, "iterations is not declared"),
            (problem.f == "none" or problem.f in self.f, f'f = "{problem.f}" is not declared'),
            (radius, f"kappa is declared to be {self.kappa}, not {problem.kappa}"),
            (straight, f'straight_through is not declared for f = "{problem.f}"'),
            (not vjp or self.vjp, "vjp is declared off"),
        )  # fmt: skip
        return next((reason for holds, reason in rules if not holds), None)


# --- reading a declaration --------------------------------------------------------------------------------------------

# A reader returns the value of a field, or MISSING for its default, and a sentence for everything that it ignored.
Read = tuple[Any, list[str]]


def _nearest(shown: str, name: str, known: Iterable[str]) -> str:
    """What the user wrote, and the known name that is most like it."""
    by_lower = {word.lower(): word for word in known}
    like = get_close_matches(name.lower(), by_lower, 1)
    return f"{shown} (did you mean {by_lower[like[0]]!r}?)" if like else f"{shown} (not known)"


def _flag(value: Any) -> Read:
    if isinstance(value, bool | np.bool_) or (isinstance(value, int) and value in (0, 1)):
        return bool(value), []
    return MISSING, [f"{value!r} (True or False is due; ignored)"]


def _names(known: tuple[str, ...]) -> Callable[[Any], Read]:
    """A reader of some of the known names; a dtype and a class count as their own names."""

    def read(value: Any) -> Read:
        if isinstance(value, str) or not isinstance(value, Iterable):
            value = [value]
        words = [str(getattr(word, "name", getattr(word, "__name__", word))).removeprefix("torch.") for word in value]
        return tuple(w for w in words if w in known), [_nearest(repr(w), w, known) for w in words if w not in known]

    return read


def _straight(value: Any) -> Read:
    if isinstance(value, bool | np.bool_ | int):
        value, odd = _flag(value)
        return (value if value is MISSING else F if value else ()), odd
    return _names(F)(value)


def _number(due: str, fits: Callable[[Any], bool], kind: Callable[[Any], Any] = float) -> Callable[[Any], Read]:
    def read(value: Any) -> Read:
        if isinstance(value, Real) and not isinstance(value, bool) and fits(value):
            return kind(value), []
        return (None, []) if value is None else (MISSING, [f"{value!r} ({due} is due; ignored)"])

    return read


_weight = _number("a number from 0 to 1", lambda value: 0 <= value <= 1)


def _kinks(value: Any) -> Read:
    if not isinstance(value, Mapping):
        return _weight(value)
    read = {str(name): _weight(weight) for name, weight in value.items()}
    odd = [_nearest(repr(name), name, activations.TABLE) for name in read if name not in activations.TABLE]
    odd += [f"{name}: {text}" for name, (_, complaints) in read.items() for text in complaints]
    return {name: weight for name, (weight, _) in read.items() if isinstance(weight, float)}, odd


def _stops(value: Any) -> Read:
    return (value, []) if value in STOPS else (MISSING, [_nearest(repr(value), str(value), STOPS)])


READERS: dict[str, Callable[[Any], Read]] = {
    field.name: _flag for field in fields(Capabilities) if isinstance(field.default, bool)
} | {
    "dtypes": _names(DTYPES + STORAGE),
    "activations": _names(tuple(activations.TABLE)),
    "f": _names(F),
    "kappa": _number("a number of at least 0", lambda value: value >= 0),
    "straight_through": _straight,
    "phi0": _kinks,
    "stops": _stops,
    "iteration_slack": _number("an integer of at least 0", lambda value: value >= 0 and value == int(value), int),
}
WORDS = (*DTYPES, *STORAGE, *activations.TABLE, *F, "dense", "forward", "bias")
NEEDED = ("low_rank", "vjp", "X0", "straight_through")  # words that a declaration in words names, or declares off


def _from_words(words: set[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, choices in (("dtypes", DTYPES + STORAGE), ("activations", tuple(activations.TABLE)), ("f", F)):
        if chosen := tuple(word for word in choices if word in words):
            values[name] = chosen
        words = words - set(choices)
    for word, other in (("dense", "low_rank"), ("forward", "vjp")):
        if word in words and other not in words:
            values[other] = False
    words -= {"forward", "dense", "bias"}  # words for what every backend can do
    if any(READERS.get(word) in (_flag, _straight) for word in words):
        values |= dict.fromkeys(NEEDED, False)
    return values | dict.fromkeys(words, True)
