"""The problem that a backend is given, and the case: a problem with the known answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

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
