"""What a backend is given, what is known about it, what a backend is, and what it declares that it can do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

import numpy as np

from idl_ref import activations
from idl_ref.factors import Factors
from idl_ref.functions import FUNCTIONS, ImplicitFunction

Arrays = dict[str, np.ndarray]
WEIGHTS = ("A", "L", "R", "B", "C", "D", "U")
INPUTS = (*WEIGHTS, "X0")
SETTINGS = ("activation", "dtype", "tol", "max_iter", "f", "kappa", "straight_through")
DTYPES = ("float32", "float64")
F = ("inf", "rows", "triu")
PHI0 = (0.0, 0.5, 1.0)  # the conventions for φ′ at a kink that are accepted
COLUMNS = ("X", "Y", "V", "U")  # of what comes out: one column per sample


@dataclass(frozen=True, eq=False)
class Problem:
    """X = φ(A X + B U), Y = C X + D U: one equation for a backend, in the paper's columns.

    Attributes
    ----------
    A : (n, n) array or None
        The effective weights; None where L and R are given.
    L, R : (n, r) arrays or None
        A = L Rᵀ.
    B, C : (n, p) and (q, n) arrays
    D : (q, p) array or None
        None for a model without one.
    U : (p, m) array
        Samples as columns. With a bias its last row is the constant 1 already.
    activation : str
        φ: relu, leaky_relu (slope 0.01), tanh, sigmoid, softplus, elu, hardtanh, softsign or identity.
    dtype : numpy.dtype
        float32 or float64: of every array here, and of the answers.
    tol : float
        The largest change of an entry in the last step, per column: tol·min(1, ‖z‖∞), and not below rounding.
    max_iter : int
        Enough for plain Picard iteration from 0, unless the case is about its being too few.
    X0 : (n, m) array or None
        Where to start; only for a backend that declares the capability "X0".
    f : str
        "none": A, or L and R, are effective. Else "inf", "rows" or "triu": they are raw, the backend maps them with
        radius `kappa`, and the gradients asked for are those of the raw weights. Only for a backend that declares f.
    kappa : float
    straight_through : bool
        The declared derivative of `f` is the identity.
    """

    A: np.ndarray | None
    L: np.ndarray | None
    R: np.ndarray | None
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray | None
    U: np.ndarray
    activation: str
    dtype: np.dtype
    tol: float
    max_iter: int
    X0: np.ndarray | None = None
    f: str = "none"
    kappa: float = 0.99
    straight_through: bool = False

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """n, p, q, m."""
        return (*self.B.shape, self.C.shape[0], self.U.shape[1])

    @property
    def factors(self) -> Factors:
        """(A,) or (L, Rᵀ)."""
        if self.L is None or self.R is None:
            assert self.A is not None
            return (self.A,)
        return self.L, self.R.T

    @property
    def arrays(self) -> Arrays:
        """The arrays that are there, by name."""
        return {name: getattr(self, name) for name in INPUTS if getattr(self, name) is not None}

    @property
    def settings(self) -> dict[str, Any]:
        """Everything but the arrays, as JSON takes it."""
        return {name: getattr(self, name) for name in SETTINGS} | {"dtype": self.dtype.name}

    @property
    def function(self) -> ImplicitFunction:
        """`f` as an object, which maps raw weights to effective ones and pulls gradients back."""
        return FUNCTIONS[self.f](self.kappa, self.straight_through)

    def with_arrays(self, arrays: Mapping[str, np.ndarray]) -> Problem:
        """The same with other arrays in the place of some."""
        return replace(self, **dict[str, Any](arrays))


def make(arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any]) -> Problem:
    """A problem out of what `arrays` and `settings` give."""
    named: dict[str, Any] = {name: arrays.get(name) for name in INPUTS}
    return Problem(**named, **{**settings, "dtype": np.dtype(settings["dtype"])})


@dataclass(frozen=True, eq=False)
class Case:
    """One problem with what is known about it.

    Attributes
    ----------
    id, group, comment : str
    flags : tuple of str
        Names in `cases.FLAGS`, which say what bug the case hunts.
    expect : str
        "valid": the answer is known. "acceptable": each of several answers is right, by declared convention.
        "reported": some columns have no answer, and the backend must say so; `bad` names them.
    problem : Problem
    G_Y : (q, m) array
        ∂ℓ/∂Y for the gradients.
    truths : tuple of dict
        Correctly rounded X, Y, V and every gradient; one dict per acceptable answer.
    facts : dict
        norm (‖A‖∞ of the effective A), perron, spectral_radius, kink_margin, condition, provenance; "still":
        units that pass nothing on, if there are any.
    bad : tuple of int
        Columns without an answer.
    layout : str
        How the arrays lie in memory: "C", "fortran", "strided", "reversed" or "readonly".
    strict : bool
        The last application of the map is asked for, κ times closer than the stopping rule alone grants.
    """

    id: str
    group: str
    comment: str
    flags: tuple[str, ...]
    problem: Problem
    G_Y: np.ndarray
    expect: str = "valid"
    truths: tuple[Arrays, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    bad: tuple[int, ...] = ()
    layout: str = "C"
    strict: bool = False

    @property
    def good(self) -> np.ndarray:
        """(m,) bool: columns with an answer."""
        good = np.ones(self.problem.U.shape[1], bool)
        good[list(self.bad)] = False
        return good


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


# --- arrays -----------------------------------------------------------------------------------------------------------


def spread(arrays: Arrays, good: np.ndarray) -> Arrays:
    """Columns put back where they were, NaN between them; sums over all columns, which do not exist, left out."""
    if good.all():
        return arrays
    result = {}
    for name in COLUMNS:
        result[name] = np.full((arrays[name].shape[0], good.size), np.nan)
        result[name][:, good] = arrays[name]
    return result


def answer_shapes(problem: Problem, what: str) -> dict[str, tuple[int, ...]]:
    """The arrays that "forward" or "vjp" gives, and their shapes."""
    n, _, q, m = problem.sizes
    if what == "forward":
        return {"Y": (q, m), "X": (n, m)}
    return {name: M.shape for name, M in problem.arrays.items() if name != "X0"}


def laid_out(array: np.ndarray, layout: str) -> np.ndarray:
    """A copy of an array that lies in memory as a case asks."""
    if layout == "fortran":
        return np.asfortranarray(array.copy())
    if layout == "strided":
        wide = np.zeros((2 * array.shape[0] + 1, 3 * array.shape[1] + 1), array.dtype)
        view = wide[1::2, 1::3]
        view[...] = array
        return view
    if layout == "reversed":
        return array[::-1, ::-1].copy()[::-1, ::-1]
    copy = np.array(array, order="C")
    copy.flags.writeable = layout != "readonly"
    return copy
