"""The problem that a backend is given, and the case: a problem with the known answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from idl_ref.factors import Factors
from idl_ref.functions import FUNCTIONS, ImplicitFunction

Arrays = dict[str, np.ndarray]
WEIGHTS = ("A", "L", "R", "B", "C", "D", "U")
INPUTS = (*WEIGHTS, "X0")
SETTINGS = ("activation", "dtype", "tol", "max_iter", "f", "kappa", "straight_through")
DTYPES = ("float32", "float64")
STORAGE = ("float16", "bfloat16")  # dtypes that a backend may declare, but that none is asked for unless it does
F = ("inf", "rows", "triu", "perron")
PHI0 = (0.0, 0.5, 1.0)  # the conventions for φ′ at a kink that are accepted
LAYOUTS = ("C", "fortran", "strided", "reversed", "readonly")
COLUMNS = ("X", "Y", "V", "U")  # the results that have one column per sample; ∂U is named U


@dataclass(frozen=True, eq=False)
class Problem:
    """One equation for a backend to solve: X = φ(A X + B U), Y = C X + D U, with samples as columns.

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
        Samples as columns. In a problem with a bias the last row of U is the constant 1.
    activation : str
        φ: relu, leaky_relu (slope 0.01), tanh, sigmoid, softplus, elu, hardtanh, softsign or identity.
    dtype : numpy.dtype
        float32 or float64: the dtype of every array of the problem, and of the answers. float16 for a backend that
        declares it, whatever that computes in.
    tol : float
        The stopping rule: a column has converged when no entry of it changes by more than tol·min(1, ‖z‖∞) in a step,
        or by more than rounding explains.
    max_iter : int
        The limit of the number of iterations. It suffices for plain Picard iteration from 0, except in the cases that
        are about a limit that is too small.
    X0 : (n, m) array or None
        Where the iteration starts; given only to a backend that declares the capability "X0".
    f : str
        "none": A, or L and R, are the effective weights. Another name of F: they are raw weights, which the
        backend maps to effective ones by this f; it returns the gradients of the raw weights. Such a problem is given
        only to a backend that declares this f.
    kappa : float
        The radius of `f`.
    straight_through : bool
        Whether the gradient is to treat `f` as the identity.
    bfloat16 : bool
        Whether all numbers are those of bfloat16, which NumPy does not have: the arrays are float32, with its values,
        and the answers may be of any dtype. Such a problem is given only to a backend that declares "bfloat16".
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
    bfloat16: bool = False

    @property
    def storage(self) -> str:
        """The name of the dtype whose numbers the arrays and the answers hold."""
        return "bfloat16" if self.bfloat16 else self.dtype.name

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
        """The arrays that are not None, by name."""
        return {name: getattr(self, name) for name in INPUTS if getattr(self, name) is not None}

    @property
    def settings(self) -> dict[str, Any]:
        """Everything but the arrays, in types that JSON can hold."""
        return {name: getattr(self, name) for name in SETTINGS} | {"dtype": self.storage}

    @property
    def function(self) -> ImplicitFunction:
        """The object of `f`, which maps raw weights to effective ones and pulls gradients back."""
        return FUNCTIONS[self.f](self.kappa, self.straight_through)

    def with_arrays(self, arrays: Mapping[str, np.ndarray]) -> Problem:
        """The same problem with some of its arrays replaced."""
        return replace(self, **dict[str, Any](arrays))


def make(arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any]) -> Problem:
    """A problem made of arrays and settings by name; arrays that are missing are None."""
    named: dict[str, Any] = {name: arrays.get(name) for name in INPUTS}
    name = settings["dtype"]
    return Problem(**named, **{**settings, "dtype": array_dtype(name), "bfloat16": name == "bfloat16"})


@dataclass(frozen=True, eq=False)
class Case:
    """One problem with what is known about its answer.

    Attributes
    ----------
    id, group, comment : str
    flags : tuple of str
        The bugs that the case is meant to find, by their names in `truth.flags.FLAGS`.
    expect : str
        "valid": there is one correct answer. "acceptable": there are several, each correct under some convention.
        "reported": some columns, named in `bad`, have no answer, and the backend must report that.
    problem : Problem
    G_Y : (q, m) array
        ∂ℓ/∂Y for the gradients.
    truths : tuple of dict
        The correctly rounded X, Y, V and gradients by name; one dict per acceptable answer.
    facts : dict
        "norm" (‖A‖∞ of the effective A), "perron" (the Perron root of |A|), "spectral_radius", "kink_margin" (the
        smallest distance of a preactivation from a kink of φ), "condition" (1/(1 − Lip(φ)‖A‖∞)) and "provenance" (how
        the truth was computed). In some cases also "still": the units whose slope φ′ is 0 in every good column.
    bad : tuple of int
        The columns that have no answer.
    layout : str
        How the arrays are laid out in memory: "C", "fortran", "strided", "reversed" or "readonly".
    strict : bool
        Whether X must be the last application of the map, whose error is κ times that of the iterate before it.
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
        """Which columns have an answer.   (m,) bool"""
        good = np.ones(self.problem.U.shape[1], bool)
        good[list(self.bad)] = False
        return good

    @property
    def has_gradients(self) -> bool:
        """Whether gradients are asked for: some column has an answer, and max_iter is not chosen for X alone."""
        return not {"limit", "start"} & {*self.flags} and (not self.bad or bool(self.good.any()))


class Deferred(Case):
    """A case whose problem, truth and facts are computed when they are first asked for.

    `light` says that this takes no time to speak of. Its other fields have their defaults. A changed copy, which
    `dataclasses.replace` makes, is an ordinary `Case`.
    """

    light: bool

    def __new__(cls, *names: Any, **fields: Any) -> Any:
        return Case(**fields) if "problem" in fields else object.__new__(cls)

    def __init__(
        self,
        id: str,
        group: str,
        comment: str,
        flags: tuple[str, ...],
        compute: Callable[[], Case],
        light: bool = False,
    ) -> None:
        given = {"id": id, "group": group, "comment": comment, "flags": flags, "compute": compute, "light": light}
        vars(self).update(given)

    @cached_property
    def _computed(self) -> Case:
        compute: Callable[[], Case] = vars(self)["compute"]
        return compute()

    problem = property(lambda self: self._computed.problem)
    G_Y = property(lambda self: self._computed.G_Y)
    truths = property(lambda self: self._computed.truths)
    facts = property(lambda self: self._computed.facts)
    layout = property(lambda self: self._computed.layout)


# --- arrays -----------------------------------------------------------------------------------------------------------


def array_dtype(storage: str) -> np.dtype:
    """The dtype of arrays that hold numbers of the dtype that is named."""
    return np.dtype("float32" if storage == "bfloat16" else storage)


def rounded(M: np.ndarray, bits: int, to_integer: Callable[[np.ndarray], np.ndarray] = np.round) -> np.ndarray:
    """The nearest numbers with a mantissa of so many bits, the leading one included, of any exponent."""
    mantissa, exponent = np.frexp(M)
    return np.ldexp(to_integer(np.ldexp(mantissa, bits)), exponent - bits)


def stored(array: Any, storage: str) -> np.ndarray:
    """The nearest numbers of the dtype that is named; of two, the one whose last bit is 0."""
    rounded = np.array(array, array_dtype(storage))
    if storage == "bfloat16":
        bits = rounded.view(np.uint32)
        bits += 0x7FFF + (bits >> 16 & 1)
        bits &= 0xFFFF0000
    return rounded


def spread(arrays: Arrays, good: np.ndarray) -> Arrays:
    """Results of the good columns put into all columns, with NaN in the others.

    Gradients of the weights are left out if some column is not good: they are sums over all columns.
    """
    if good.all():
        return arrays
    result = {}
    for name in COLUMNS:
        result[name] = np.full((arrays[name].shape[0], good.size), np.nan)
        result[name][:, good] = arrays[name]
    return result


def answer_shapes(problem: Problem, what: str) -> dict[str, tuple[int, ...]]:
    """The arrays that the answer to "forward" or "vjp" consists of, and their shapes."""
    n, _, q, m = problem.sizes
    if what == "forward":
        return {"Y": (q, m), "X": (n, m)}
    return {name: M.shape for name, M in problem.arrays.items() if name != "X0"}


def laid_out(array: np.ndarray, layout: str) -> np.ndarray:
    """A copy of an array, laid out in memory as `Case.layout` says."""
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
