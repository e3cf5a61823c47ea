"""The activation table holds φ, its slope φ′, its Lipschitz constant and its kinks, for each activation by name.

A `Mixed` activation has a φ of its own for each row of X = φ(A X + Z).

An activation is applied entry by entry and must be non-expansive, |φ(a) − φ(b)| ≤ |a − b|, because this makes
X = φ(A X + Z) well posed for ‖A‖∞ < 1.

Every `phi` also takes complex arrays, so that derivatives can be checked by the complex step: the real part selects
the smooth piece of φ, and the analytic continuation of that piece is evaluated. Every `phi` maps NaN to NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np

from idl_ref import checks, slopes
from idl_ref.cycles import as_range
from idl_ref.slopes import Continued, Function, elu, leaky_relu_slope, mirror, sigmoid, sigmoid_slope, step, tanh_slope

__all__ = ["Activation", "get"]

LEAK = slopes.LEAK
# Compiled kernels select an activation by these codes. The Numba twin relies on IDENTITY < RELU < all others.
IDENTITY, RELU, LEAKY_RELU, TANH, SIGMOID, SOFTPLUS, ELU, HARDTANH, SOFTSIGN = range(9)
# The ranges of the bounded activations.
RANGES = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0), "hardtanh": (-1.0, 1.0), "softsign": (-1.0, 1.0)}
OWN = -1  # The code of an activation that is not in the table. No compiled kernel has it.
# The code of a mix of activations, above all others. Kernels add to it where the codes of the rows are.
MIXED = 64

Rows = slice | np.ndarray  # the numbers of some rows


@dataclass(frozen=True)
class Activation:
    """An activation φ of your own, for models and equations on the NumPy backend; also a row of the activation table.

    Parameters
    ----------
    name : str
        The name in messages, which consists of letters, digits and underscores, and is not that of a built-in
        activation.
    phi, slope : callable
        φ and φ′, which take a NumPy array, float32 or float64, of any shape, and return a new array of the same shape
        and dtype, entry by entry. φ(NaN) must be NaN. The computed φ(p) must differ from the exact value by at most
        16 u |φ(p)| + u Lip(φ) |p|, with the unit of rounding u = 2⁻²⁴ in float32 and 2⁻⁵³ in float64, because error
        bounds rely on this. At a kink, `slope` should be the smaller of the two one-sided slopes, as it is for relu,
        whose φ′(0) is 0.
    lipschitz : float
        The Lipschitz constant Lip(φ), 0 < Lip(φ) ≤ 1: the smallest c with |φ(a) − φ(b)| ≤ c |a − b| for all a, b. A
        larger c makes error bounds larger.
    kinks : tuple of float
        The arguments at which φ′ jumps. `check_gradients` avoids differences across them.

    Raises
    ------
    ValueError, TypeError
        The name is taken, or a check on several thousand points of all magnitudes shows that φ or φ′ is not what is
        claimed. Such checks can miss what happens between the points.

    Notes
    -----
    backend="auto" is numpy for an activation of your own; the other backends and all exports refuse it. A model with it
    can be pickled and copied if its functions can, that is, if a module defines them by name. `ImplicitModel.save`
    refuses it, because a file holds no functions, and says how to store the parameters.

    Examples
    --------
    >>> from idl_ref import solve_equilibrium
    >>> arctan = Activation("arctan", np.arctan, lambda P: 1 / (1 + P * P), lipschitz=1.0)
    >>> print(solve_equilibrium([[0.5]], [[1.0]], activation=arctan).X.round(4))
    [[0.9796]]
    """

    name: str
    phi: Function = field(repr=False)
    slope: Function = field(repr=False)
    lipschitz: float
    kinks: tuple[float, ...] = ()
    code: int = field(default=OWN, init=False, repr=False)  # the number by which compiled kernels choose φ

    def __post_init__(self) -> None:
        name = self.name
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"the name of an activation must consist of letters, digits and _; got {name!r}.")
        if name in TABLE:
            raise ValueError(
                f"the name of your activation must not be that of a built-in one; got {name!r}: choose another name, "
                f'or pass activation="{name}" to use the built-in activation.'
            )
        for which, function in (("phi", self.phi), ("slope", self.slope)):
            if not callable(function):
                raise TypeError(f"{which} must be a function of an array; got {function!r}.")
        if not isinstance(self.kinks, (tuple, list)):
            raise TypeError(f"kinks must be a tuple of numbers; got {self.kinks!r}: one kink is kinks=(0.0,).")
        kinks = tuple(checks.number("a kink", kink, -np.inf) for kink in self.kinks)
        lipschitz = checks.number("lipschitz", self.lipschitz, 0, why="It is a bound of the slope, 0 < Lip(φ) ≤ 1.")
        if not 0 < lipschitz <= 1:
            raise ValueError(
                f"lipschitz must be above 0 and at most 1; got {lipschitz:g}: divide phi and slope by the steepest "
                "slope of phi, so that ‖A‖∞ < 1 makes the model well posed."
            )
        object.__setattr__(self, "kinks", kinks)
        object.__setattr__(self, "lipschitz", lipschitz)
        from idl_ref import activation_checks  # Imported here because built-in activations do not need it.

        activation_checks.check(name, self.phi, self.slope, lipschitz, kinks)

    @property
    def range(self) -> tuple[Any, Any]:
        """The infimum and the supremum of φ if it is a built-in, bounded activation; else −inf and inf.

        For a mix, they are arrays (n, 1).
        """
        return RANGES[self.name] if self.name in RANGES and TABLE[self.name] is self else (-np.inf, np.inf)

    @property
    def segments(self) -> tuple[tuple[Activation, Rows], ...]:
        """The activations that are not mixes, and the rows that each of them has."""
        return ((self, slice(None)),)

    @property
    def at_zero(self) -> float:
        """The largest absolute value φ(0) of a row."""
        return abs(float(self.phi(np.zeros(1))[0]))

    @property
    def steepness(self) -> Any:
        """Lip(φ) of each row: a number, or for a mix an array (n, 1)."""
        return self.lipschitz

    def take(self, rows: Rows) -> Activation:
        """Return the activation of the given rows."""
        return self

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, ...]:
        if self.code != OWN:
            return get, (self.name,)  # Unpickling returns the row of the table, because lambdas cannot be pickled.
        return Activation, (self.name, self.phi, self.slope, self.lipschitz, self.kinks)

    def change(self, P: np.ndarray, delta: np.ndarray) -> np.ndarray:
        """Return a bound of |φ(a) − φ(b)| for all a and b between P − δ and P + δ, without its own rounding.

        Built-in activations do not decrease, so that this is φ(P + δ) − φ(P − δ). A user's activation may oscillate.
        """
        if self.code == OWN:
            return 2 * self.lipschitz * delta
        return self.phi(P + delta) - self.phi(P - delta)

    def for_complex_step(self) -> Activation:
        """Return the same activation with a φ that also takes P + iQ for tiny Q; built-in activations do so already.

        A φ of a user's takes real arrays only, so that φ(P) + i φ′(P) Q takes its place, which is exact to O(Q²).
        """
        if self.code != OWN:
            return self
        return _row(self.name, OWN, Continued(self.phi, self.slope), self.slope, self.lipschitz, self.kinks)


class Mixed(Activation):
    """An activation of which each of n rows has its own; its functions take arrays with n rows, (n,) or (n, m).

    `get` makes it of a sequence of n names or activations. If all are equal, that is the plain activation instead.

    Attributes
    ----------
    rows : tuple of Activation
        The activation of each row.
    lipschitz : float
        The largest Lipschitz constant of a row.
    kinks : tuple of float
        The kinks of all rows; `segments` has those of each row.
    """

    rows: tuple[Activation, ...]
    _segments: tuple[tuple[Activation, Rows], ...]

    @classmethod
    def of(cls, rows: Sequence[Activation]) -> Activation:
        """Return the mix of the given activations of the rows, or the plain one if they are all the same."""
        numbers: dict[Activation, list[int]] = {}
        for i, row in enumerate(rows):
            numbers.setdefault(row, []).append(i)
        if len(numbers) == 1:
            return rows[0]
        mix, segments = object.__new__(cls), tuple([(row, as_range(np.array(i))) for row, i in numbers.items()])
        vars(mix).update(
            name=", ".join(row.name for row in numbers),
            rows=tuple(rows),
            _segments=segments,
            phi=partial(_by_rows, [(row.phi, rows) for row, rows in segments]),
            slope=partial(_by_rows, [(row.slope, rows) for row, rows in segments]),
            lipschitz=max(row.lipschitz for row in numbers),
            kinks=tuple(sorted({kink for row in numbers for kink in row.kinks})),
            code=MIXED if all(row.code != OWN for row in numbers) else OWN,
        )
        return mix

    @property
    def names(self) -> tuple[str, ...]:
        """The name of the activation of each row."""
        return tuple(row.name for row in self.rows)

    @property
    def codes(self) -> np.ndarray:
        """The code of each row, by which compiled kernels choose its φ.   (n,)"""
        return np.array([row.code for row in self.rows])

    @property
    def runs(self) -> list[tuple[Activation, int]]:
        """The activations from the first to the last row, each with the number of successive rows that have it."""
        return [(row, len(list(same))) for row, same in groupby(self.rows)]

    @property
    def range(self) -> tuple[Any, Any]:
        return self._column(lambda row: row.range[0]), self._column(lambda row: row.range[1])

    @property
    def segments(self) -> tuple[tuple[Activation, Rows], ...]:
        return self._segments

    @property
    def at_zero(self) -> float:
        return max(row.at_zero for row, _ in self._segments)

    @property
    def steepness(self) -> np.ndarray:
        return self._column(lambda row: row.lipschitz)

    def _column(self, value: Callable[[Activation], float]) -> np.ndarray:
        """Return a number of each row.   (n, 1)"""
        column = np.empty((len(self.rows), 1))
        for row, rows in self._segments:
            column[rows] = value(row)
        return column

    def take(self, rows: Rows) -> Activation:
        """Return the activation of the given rows, a mix or a plain one."""
        numbers = range(len(self.rows))[rows] if isinstance(rows, slice) else rows.tolist()
        return Mixed.of([self.rows[i] for i in numbers]) if numbers else self.rows[0]

    def change(self, P: np.ndarray, delta: np.ndarray) -> np.ndarray:
        """Return the bound of each row, as for a plain activation."""
        result = np.empty_like(delta)
        for row, rows in self._segments:
            result[rows] = row.change(P[rows], delta[rows])
        return result

    def for_complex_step(self) -> Activation:
        """Return the same mix with functions that take complex arrays."""
        if self.code != OWN:
            return self
        each = {row: row.for_complex_step() for row, _ in self._segments}
        return Mixed.of([each[row] for row in self.rows])

    def __str__(self) -> str:
        runs = [f"{row.name} ×{count}" for row, count in self.runs]
        return ", ".join(runs) if len(runs) <= 6 else f"{', '.join(runs[:6])}, … ({len(runs)} runs of rows)"

    def __repr__(self) -> str:
        return f"<activation per row: {self}>"

    def __eq__(self, other: object) -> bool:
        return self.rows == other.rows if isinstance(other, Mixed) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.rows)

    def __reduce__(self) -> tuple[Any, ...]:
        return Mixed.of, (self.rows,)


def _by_rows(parts: list[tuple[Function, Rows]], P: np.ndarray) -> np.ndarray:
    """Return φ(P) or φ′(P) of a mix, whose parts are functions and their rows.   P (n,) or (n, m)"""
    result = np.empty_like(P)
    for function, rows in parts:
        result[rows] = function(P[rows])
    return result


def _row(
    name: str, code: int, phi: Function, slope: Function, lipschitz: float = 1.0, kinks: tuple[float, ...] = ()
) -> Activation:
    """Return a row of the table without the checks of the constructor, which the tests make in its place."""
    row = object.__new__(Activation)
    vars(row).update(name=name, phi=phi, slope=slope, lipschitz=lipschitz, kinks=kinks, code=code)
    return row


TABLE: dict[str, Activation] = {
    row.name: row
    for row in (
        _row("identity", IDENTITY, lambda P: P, np.ones_like),
        _row("relu", RELU, lambda P: np.maximum(P, 0), lambda P: step(P > 0, P), kinks=(0.0,)),
        _row("leaky_relu", LEAKY_RELU, lambda P: np.maximum(P, LEAK * P), leaky_relu_slope, kinks=(0.0,)),
        _row("tanh", TANH, np.tanh, tanh_slope),
        _row("sigmoid", SIGMOID, sigmoid, sigmoid_slope, lipschitz=0.25),
        _row("softplus", SOFTPLUS, lambda P: np.maximum(P, 0) + np.log1p(np.exp(-mirror(P))), sigmoid),
        _row("elu", ELU, elu, lambda P: np.exp(np.minimum(P, 0))),
        _row(
            "hardtanh",
            HARDTANH,
            lambda P: np.minimum(np.maximum(P, -1), 1),
            lambda P: step(np.abs(P) < 1, P),
            kinks=(-1.0, 1.0),
        ),
        _row("softsign", SOFTSIGN, lambda P: P / (1 + mirror(P)), lambda P: 1 / (1 + np.abs(P)) ** 2),
    )
}

EXPANSIVE = {"gelu": 1.13, "silu": 1.10, "swish": 1.10, "mish": 1.09}  # The largest slope of each refused activation.


def get(name: Any, n: int | None = None) -> Activation:
    """Return the row of the activation table that has the given name, or the mix of a sequence of names.

    Parameters
    ----------
    name : str, Activation, or a sequence of them
        relu, leaky_relu, tanh, sigmoid, softplus, elu, hardtanh, softsign or identity. An Activation is returned as it
        is. A sequence has the activation of each row.
    n : int, optional
        The number of rows, which a sequence must have.

    Returns
    -------
    Activation
        For a sequence of different activations, an Activation whose functions take arrays with n rows; if all are
        equal, that one.

    Raises
    ------
    ValueError
        The table has no such row, or a sequence has not n entries. For GELU, SiLU and Mish the message says why: their
        slopes exceed 1.

    Examples
    --------
    >>> get("relu").phi(np.array([-1.0, 2.0])), get("sigmoid").lipschitz
    (array([0., 2.]), 0.25)
    """
    if isinstance(name, str) and name in TABLE:
        return TABLE[name]
    if isinstance(name, (list, tuple, np.ndarray, Mixed)):
        return _mixed(name, n)
    if isinstance(name, Activation):
        return name
    if isinstance(name, str) and name.lower() in EXPANSIVE:
        raise ValueError(
            f"activation must be non-expansive; got {name!r}, whose slope reaches {EXPANSIVE[name.lower()]}, "
            'so that ‖A‖∞ < 1 would not make the model well posed: use "softplus", "elu" or "relu".'
        )
    if callable(name) or isinstance(name, type):
        raise TypeError(
            f"activation must be a name or an Activation; got {name!r}: pass idl_ref.Activation(name, phi, slope, "
            "lipschitz) with this function as phi and its derivative as slope."
        )
    return TABLE[checks.choice("activation", name, TABLE)]


def _mixed(each: Any, n: int | None) -> Activation:
    """Return the mix of a sequence of names and activations, or the plain activation if they are all the same."""
    rows = each.rows if isinstance(each, Mixed) else np.ravel(each).tolist() if isinstance(each, np.ndarray) else each
    if not rows or (n is not None and len(rows) != n):
        raise ValueError(
            f"activation must be one name, or a sequence of {'n' if n is None else f'n = {n}'} names, one per row; got "
            f'{len(rows)}: pass for example ["relu"] * 30 + ["hardtanh"] * 20 for n = 50.'
        )
    if isinstance(each, Mixed):
        return each
    known: dict[Any, Activation] = {}
    for i, name in enumerate(rows):
        if not isinstance(name, (str, Activation)) or isinstance(name, Mixed):
            raise TypeError(
                f"the activation of row {i} must be a name or an Activation; got {checks.shown(name)}: "
                "a sequence of activations has one entry per row."
            )
        if name not in known:
            known[name] = get(name)
    return Mixed.of([known[name] for name in rows])
