"""The activation table holds φ, its slope φ′, its Lipschitz constant and its kinks, for each activation by name.

An activation is applied entry by entry and must be non-expansive, |φ(a) − φ(b)| ≤ |a − b|, because this makes
X = φ(A X + Z) well posed for ‖A‖∞ < 1.

Every `phi` also takes complex arrays, so that derivatives can be checked by the complex step: the real part selects
the smooth piece of φ, and the analytic continuation of that piece is evaluated. Every `phi` maps NaN to NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from idl_ref import checks

__all__ = ["Activation", "get"]

LEAK = 0.01  # The slope of leaky_relu for negative arguments.
# Compiled kernels select an activation by these codes. The Numba twin relies on IDENTITY < RELU < all others.
IDENTITY, RELU, LEAKY_RELU, TANH, SIGMOID, SOFTPLUS, ELU, HARDTANH, SOFTSIGN = range(9)


@dataclass(frozen=True)
class Activation:
    """One row of the activation table: a function φ and what solvers and certificates need to know of it.

    Attributes
    ----------
    name : str
        The name by which users choose the activation.
    code : int
        The number by which compiled kernels choose the activation.
    phi, slope : callable
        φ and φ′, applied entry by entry. At a kink, `slope` is the smaller of the two one-sided slopes, so that
        φ′(0) = 0 for relu.
    lipschitz : float
        The Lipschitz constant Lip(φ): the smallest c with |φ(a) − φ(b)| ≤ c |a − b| for all a, b. It is at most 1.
    kinks : tuple of float
        The arguments at which φ′ jumps.
    """

    name: str
    code: int
    phi: Callable[[np.ndarray], np.ndarray]
    slope: Callable[[np.ndarray], np.ndarray]
    lipschitz: float = 1.0
    kinks: tuple[float, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return get, (self.name,)  # Unpickling returns the row of the table, because lambdas cannot be pickled.


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
        Activation("identity", IDENTITY, lambda P: P, np.ones_like),
        Activation("relu", RELU, lambda P: np.maximum(P, 0), lambda P: _step(P > 0, P), kinks=(0.0,)),
        Activation("leaky_relu", LEAKY_RELU, lambda P: np.maximum(P, LEAK * P), _leaky_relu_slope, kinks=(0.0,)),
        Activation("tanh", TANH, np.tanh, _tanh_slope),
        Activation("sigmoid", SIGMOID, _sigmoid, _sigmoid_slope, lipschitz=0.25),
        Activation("softplus", SOFTPLUS, lambda P: np.maximum(P, 0) + np.log1p(np.exp(-_mirror(P))), _sigmoid),
        Activation("elu", ELU, _elu, lambda P: np.exp(np.minimum(P, 0))),
        Activation(
            "hardtanh",
            HARDTANH,
            lambda P: np.minimum(np.maximum(P, -1), 1),
            lambda P: _step(np.abs(P) < 1, P),
            kinks=(-1.0, 1.0),
        ),
        Activation("softsign", SOFTSIGN, lambda P: P / (1 + _mirror(P)), lambda P: 1 / (1 + np.abs(P)) ** 2),
    )
}

EXPANSIVE = {"gelu": 1.13, "silu": 1.10, "swish": 1.10, "mish": 1.09}  # The largest slope of each refused activation.


def get(name: Any) -> Activation:
    """Return the row of the activation table that has the given name.

    Parameters
    ----------
    name : str
        relu, leaky_relu, tanh, sigmoid, softplus, elu, hardtanh, softsign or identity.

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
    if isinstance(name, str) and name in TABLE:
        return TABLE[name]
    if isinstance(name, str) and name.lower() in EXPANSIVE:
        raise ValueError(
            f"activation must be non-expansive; got {name!r}, whose slope reaches {EXPANSIVE[name.lower()]}, "
            'so that ‖A‖∞ < 1 would not make the model well posed: use "softplus", "elu" or "relu".'
        )
    return TABLE[checks.choice("activation", name, TABLE)]
