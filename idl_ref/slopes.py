"""This module has φ and φ′ of smooth activations, for real and complex arrays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Function = Callable[[np.ndarray], np.ndarray]

LEAK = 0.01  # The slope of leaky_relu for negative arguments.


def step(condition: np.ndarray, P: np.ndarray) -> np.ndarray:
    """Return 1 where `condition` holds and 0 elsewhere, in the dtype of P."""
    return condition.astype(P.dtype)


def mirror(P: np.ndarray) -> np.ndarray:
    """Return P where its real part is ≥ 0 and −P elsewhere; for real P this is |P|."""
    return np.where(P.real >= 0, P, -P)


def leaky_relu_slope(P: np.ndarray) -> np.ndarray:
    """Return φ′(P) = 1 for P > 0, else LEAK."""
    return np.where(P > 0, P.dtype.type(1), P.dtype.type(LEAK))


def sigmoid(P: np.ndarray) -> np.ndarray:
    """Return φ(P) = 1/(1 + exp(−P))."""
    E = np.exp(-mirror(P))  # |E| ≤ 1 for arguments of either sign, so that exp cannot overflow.
    return np.where(P.real >= 0, 1 / (1 + E), E / (1 + E))


def sigmoid_slope(P: np.ndarray) -> np.ndarray:
    """Return φ′(P) = exp(−|P|)/(1 + exp(−|P|))², which is the slope of the sigmoid because φ′ is even."""
    E = np.exp(-np.abs(P))
    return E / (1 + E) ** 2


def tanh_slope(P: np.ndarray) -> np.ndarray:
    """1/cosh² p = 4e/(1 + e)² with e = exp(−2|p|); 1 − tanh² p would lose its digits where it is small."""
    E = np.exp(-2 * np.abs(P))
    return 4 * E / (1 + E) ** 2


def elu(P: np.ndarray) -> np.ndarray:
    """Return φ(P) = P for P > 0, else exp(P) − 1."""
    return np.where(P.real > 0, P, np.expm1(np.where(P.real > 0, 0, P)))


class Continued:
    """The φ of an activation for real arrays, continued to complex ones by φ(P + iQ) = φ(P) + i φ′(P) Q."""

    def __init__(self, phi: Function, slope: Function) -> None:
        self.phi, self.slope = phi, slope

    def __call__(self, P: np.ndarray) -> np.ndarray:
        if not np.iscomplexobj(P):
            return self.phi(P)
        real = np.ascontiguousarray(P.real)
        return self.phi(real) + 1j * (self.slope(real) * P.imag)
