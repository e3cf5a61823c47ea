"""One sample from U to Ŷ by vectors, without the bookkeeping of a batch. `one_numba` is its twin."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from idl_ref.activations import Activation
from idl_ref.backends import methods
from idl_ref.factors import Factors

# What is measured: ‖ĝ − x̂‖∞, ‖x̂‖∞, ‖z‖∞, ‖ĝ‖∞, ‖u‖∞, applications. TOL is told, not measured.
STEP, X_NORM, Z_NORM, G_NORM, U_NORM, ITERATIONS, TOL = range(7)


class Layer(NamedTuple):
    """X = φ(A X + B U), Ŷ = C X + D U by Picard's iteration; with `impatient`, slow samples are left."""

    factors: Factors
    B: np.ndarray  # (n, p), with the column of the bias where there is one
    C: np.ndarray  # (q, n)
    D: np.ndarray | None  # as wide as B
    activation: Activation
    bias: int
    tol: float
    max_iter: int
    impatient: bool

    @property
    def readout(self) -> np.ndarray:
        """[C D], zeros for no D: Ŷ = [C D] [x; u] is one product.   -> (q, n + p)"""
        D = np.zeros((len(self.C), self.B.shape[1]), self.C.dtype) if self.D is None else self.D
        return np.concatenate([self.C, D], axis=1)


class OneSample:
    """Weights, and scratch for as many calls as ever ran at once."""

    def __init__(self, layer: Layer) -> None:
        self.layer, self.readout = layer, layer.readout
        self.eps = float(np.finfo(layer.B.dtype).eps)
        self.free = [self._scratch()]

    def _scratch(self) -> tuple[np.ndarray, ...]:
        """[x; u] with the 1 of the bias at its end, z, F₂ x, two for magnitudes, and what is measured."""
        dtype, (n, width) = self.layer.B.dtype, self.layer.B.shape
        sizes = n + width, n, len(self.layer.factors[-1]), n, width
        return *(np.ones(size, dtype) for size in sizes), np.zeros(TOL + 1)

    def __call__(self, U: np.ndarray, Y: np.ndarray, measured: np.ndarray | None = None) -> bool:
        """Fill Y (1, q) for U (1, p), both contiguous; False if that did not work. `measured` takes the norms."""
        try:  # taken from the list and given back: no two calls share it, whatever threads or signals do
            mine = self.free.pop()
        except IndexError:
            mine = self._scratch()
        with np.errstate(over="ignore", invalid="ignore"):  # overflow is a status, not a warning
            mine[0][len(mine[1]) :][: U.shape[1]] = U[0]
            done = self._solve(*mine)
            self.readout.dot(mine[0], Y[0])
        if measured is not None:
            measured[:] = mine[-1]
        self.free.append(mine)
        return done

    def _solve(
        self, xu: np.ndarray, z: np.ndarray, t: np.ndarray, d: np.ndarray, e: np.ndarray, numbers: np.ndarray
    ) -> bool:
        """Picard's steps from x = 0 until the sample is done or is left; the answer stands in xu."""
        layer, phi, F = self.layer, self.layer.activation.phi, self.layer.factors
        n, u = len(z), xu[len(z) :]
        z_norm = norm(layer.B.dot(u, z), d)
        asked, rounded = layer.tol * min(1.0, z_norm), 4 * self.eps
        x, g = np.zeros_like(z), phi(z)  # A·0 = 0
        slow, before, count = 0, math.inf, 1
        while True:
            step, top = norm(np.subtract(g, x, out=d), d), norm(g, d)
            done = step <= asked or step <= rounded * max(z_norm, top)
            slow = slow + 1 if step > methods.SLOW * before else 0
            if done or not step < math.inf or count >= layer.max_iter:
                break
            limit = max(asked, rounded * z_norm)
            if (
                layer.impatient
                and slow >= methods.SLOW_STEPS
                and methods.steps_left(step, before, limit) > methods.STEPS_LEFT
            ):
                break
            before, x, count = step, g, count + 1
            p = F[0].dot(x if len(F) == 1 else F[1].dot(x, t))
            g = phi(np.add(p, z, out=p))
        xu[:n] = g
        numbers[:TOL] = step, norm(x, d), z_norm, top, norm(u, e), count
        return done and step < math.inf


def norm(v: np.ndarray, scratch: np.ndarray) -> float:
    """‖v‖∞, NaN if v holds one."""
    size = np.abs(v, out=scratch)
    return size.item(size.argmax())
