"""The activation table holds φ, its slope φ′, its Lipschitz constant and its kinks, for each activation by name.

An activation is applied entry by entry and must be non-expansive, |φ(a) − φ(b)| ≤ |a − b|, because this makes
X = φ(A X + Z) well posed for ‖A‖∞ < 1.

Every `phi` also takes complex arrays, so that derivatives can be checked by the complex step: the real part selects
the smooth piece of φ, and the analytic continuation of that piece is evaluated. Every `phi` maps NaN to NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np

from idl_ref import checks
from idl_ref.choices import ActivationName, Backend

__all__ = ["Activation", "get"]

LEAK = 0.01  # The slope of leaky_relu for negative arguments.
# Compiled kernels select an activation by these codes. The Numba twin relies on IDENTITY < RELU < all others.
IDENTITY, RELU, LEAKY_RELU, TANH, SIGMOID, SOFTPLUS, ELU, HARDTANH, SOFTSIGN = range(9)
# The ranges of the bounded activations.
RANGES = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0), "hardtanh": (-1.0, 1.0), "softsign": (-1.0, 1.0)}
OWN = -1  # The code of an activation that is not in the table. No compiled kernel has it.

Function = Callable[[np.ndarray], np.ndarray]


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
    def range(self) -> tuple[float, float]:
        """The infimum and the supremum of φ if it is a built-in, bounded activation; else −inf and inf."""
        return RANGES[self.name] if self.name in RANGES and TABLE[self.name] is self else (-np.inf, np.inf)

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
        return _row(self.name, OWN, _Continued(self), self.slope, self.lipschitz, self.kinks)


class _Continued:
    """The φ of an activation for real and complex arrays."""

    def __init__(self, activation: Activation) -> None:
        self.activation = activation

    def __call__(self, P: np.ndarray) -> np.ndarray:
        if not np.iscomplexobj(P):
            return self.activation.phi(P)
        real = np.ascontiguousarray(P.real)
        return self.activation.phi(real) + 1j * (self.activation.slope(real) * P.imag)


def _row(
    name: str, code: int, phi: Function, slope: Function, lipschitz: float = 1.0, kinks: tuple[float, ...] = ()
) -> Activation:
    """Return a row of the table without the checks of the constructor, which the tests make in its place."""
    row = object.__new__(Activation)
    vars(row).update(name=name, phi=phi, slope=slope, lipschitz=lipschitz, kinks=kinks, code=code)
    return row


def _step(condition: np.ndarray, P: np.ndarray) -> np.ndarray:
    """Return 1 where `condition` holds and 0 elsewhere, in the dtype of P."""
    return condition.astype(P.dtype)


def _mirror(P: np.ndarray) -> np.ndarray:
    """Return P where its real part is ≥ 0 and −P elsewhere; for real P this is |P|."""
    return np.where(P.real >= 0, P, -P)


def _leaky_relu_slope(P: np.ndarray) -> np.ndarray:
    """Return φ′(P) = 1 for P > 0, else LEAK."""
    return np.where(P > 0, P.dtype.type(1), P.dtype.type(LEAK))


def _sigmoid(P: np.ndarray) -> np.ndarray:
    """Return φ(P) = 1/(1 + exp(−P))."""
    E = np.exp(-_mirror(P))  # |E| ≤ 1 for arguments of either sign, so that exp cannot overflow.
    return np.where(P.real >= 0, 1 / (1 + E), E / (1 + E))


def _sigmoid_slope(P: np.ndarray) -> np.ndarray:
    """Return φ′(P) = exp(−|P|)/(1 + exp(−|P|))², which is the slope of the sigmoid because φ′ is even."""
    E = np.exp(-np.abs(P))
    return E / (1 + E) ** 2


def _tanh_slope(P: np.ndarray) -> np.ndarray:
    """1/cosh² p = 4e/(1 + e)² with e = exp(−2|p|); 1 − tanh² p would lose its digits where it is small."""
    E = np.exp(-2 * np.abs(P))
    return 4 * E / (1 + E) ** 2


def _elu(P: np.ndarray) -> np.ndarray:
    """Return φ(P) = P for P > 0, else exp(P) − 1."""
    return np.where(P.real > 0, P, np.expm1(np.where(P.real > 0, 0, P)))


TABLE: dict[str, Activation] = {
    row.name: row
    for row in (
        _row("identity", IDENTITY, lambda P: P, np.ones_like),
        _row("relu", RELU, lambda P: np.maximum(P, 0), lambda P: _step(P > 0, P), kinks=(0.0,)),
        _row("leaky_relu", LEAKY_RELU, lambda P: np.maximum(P, LEAK * P), _leaky_relu_slope, kinks=(0.0,)),
        _row("tanh", TANH, np.tanh, _tanh_slope),
        _row("sigmoid", SIGMOID, _sigmoid, _sigmoid_slope, lipschitz=0.25),
        _row("softplus", SOFTPLUS, lambda P: np.maximum(P, 0) + np.log1p(np.exp(-_mirror(P))), _sigmoid),
        _row("elu", ELU, _elu, lambda P: np.exp(np.minimum(P, 0))),
        _row(
            "hardtanh",
            HARDTANH,
            lambda P: np.minimum(np.maximum(P, -1), 1),
            lambda P: _step(np.abs(P) < 1, P),
            kinks=(-1.0, 1.0),
        ),
        _row("softsign", SOFTSIGN, lambda P: P / (1 + _mirror(P)), lambda P: 1 / (1 + np.abs(P)) ** 2),
    )
}

EXPANSIVE = {"gelu": 1.13, "silu": 1.10, "swish": 1.10, "mish": 1.09}  # The largest slope of each refused activation.


def get(name: Any) -> Activation:
    """Return the row of the activation table that has the given name.

    Parameters
    ----------
    name : str or Activation
        relu, leaky_relu, tanh, sigmoid, softplus, elu, hardtanh, softsign or identity. An Activation is returned as it
        is.

    Returns
    -------
    Activation

    Raises
    ------
    ValueError
        The table has no such row. For GELU, SiLU and Mish the message says why: their slopes exceed 1.

    Examples
    --------
    >>> get("relu").phi(np.array([-1.0, 2.0])), get("sigmoid").lipschitz
    (array([0., 2.]), 0.25)
    """
    if isinstance(name, Activation):
        return name
    if isinstance(name, str) and name in TABLE:
        return TABLE[name]
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


def by_name(activation: Any) -> ActivationName | Activation:
    """Return the name of a built-in activation, given by name or as a row of the table, or a user's Activation."""
    row = get(activation)
    return row if row.code == OWN else checks.choice("activation", row.name, get_args(ActivationName))


def backend_for(activation: Activation, backend: Backend) -> Backend:
    """Return the backend that computes with an activation: for a user's, "auto" is numpy, and others are refused."""
    if activation.code != OWN or backend not in ("auto", "numba", "cuda"):
        return backend
    if backend == "auto":
        return "numpy"
    raise ValueError(
        f"backend {backend!r} has the built-in activations only; got the activation {activation.name!r} of your own: "
        'use backend="numpy" or backend="auto".'
    )


def built_in(activation: ActivationName | Activation, what: str, way_out: str) -> ActivationName:
    """Return the name of a built-in activation, and refuse a user's Activation; `what` cannot have it."""
    if isinstance(activation, str):
        return activation
    raise ValueError(
        f"{what} must have a built-in activation, because a file holds no Python functions; got the activation "
        f"{activation.name!r} of your own: {way_out}."
    )
