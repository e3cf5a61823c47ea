"""This module takes one sample from U to Ŷ by Picard's iteration on vectors, without the bookkeeping of a batch.

A sample that converges slowly, makes no progress, is not finite or reaches the iteration limit is not solved here; the
caller then uses `Layer.forward`.
"""

from __future__ import annotations

import math

import numpy as np

from idl_ref.activations import Activation
from idl_ref.backends import methods
from idl_ref.backends.equation import Application, Equation
from idl_ref.certificate import ROUNDED, Certifier, asked_step, limits
from idl_ref.solution import SolveOptions
from idl_ref.weights import Weights

# These are the indices of the numbers that a call measures: ‖ĝ − x̂‖∞, ‖x̂‖∞, ‖z‖∞, ‖ĝ‖∞, ‖u‖∞ and the number of
# applications. The entry TOL holds the tolerance, which the compiled twin reads from there.
STEP, X_NORM, Z_NORM, G_NORM, U_NORM, ITERATIONS, TOL = range(7)


def readout(weights: Weights) -> np.ndarray:
    """Return [C D], with zeros if there is no D, so that ŷ = [C D] [x; u] is one product.   -> (q, n + p)"""
    _, B, C, D, _ = weights
    return np.concatenate([C, np.zeros((len(C), B.shape[1]), C.dtype) if D is None else D], axis=1)


class OneSample:
    """Computes x = φ(A x + B u), ŷ = C x + D u for one sample.

    The object keeps scratch arrays for the largest number of calls that ran at the same time. If `impatient` is true, a
    sample that is expected to need many more Picard steps is not solved, and the caller uses `Layer.forward` instead.
    """

    def __init__(self, weights: Weights, activation: Activation, options: SolveOptions, impatient: bool) -> None:
        self.weights, self.activation, self.options, self.impatient = weights, activation, options, impatient
        self.readout = readout(weights)
        self.certifier = Certifier(weights.factors, activation, False, weights.B.dtype)
        self.eps, self.tiny = limits(weights.B.dtype)
        self.free = [self._scratch()]

    def _scratch(self) -> tuple[np.ndarray, ...]:
        """Allocate [x; u] with the 1 of the bias at the end, z, F₂ x, two arrays for |·|, and the measured numbers."""
        dtype, (n, width) = self.weights.B.dtype, self.weights.B.shape
        sizes = n + width, n, len(self.weights.factors[-1]), n, width
        return *(np.ones(size, dtype) for size in sizes), np.zeros(TOL + 1)

    def __call__(self, U: np.ndarray, Y: np.ndarray, measured: np.ndarray | None = None) -> bool:
        """Fill Y (1, q) for U (1, p), both contiguous, and return whether the sample converged.

        If `measured` is given, it is filled with the measured norms.
        """
        try:  # Scratch arrays are taken from the list and returned to it, so that no two threads share them.
            mine = self.free.pop()
        except IndexError:
            mine = self._scratch()
        with np.errstate(over="ignore", invalid="ignore"):  # The status of a sample reports overflow, not a warning.
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
        """Take Picard steps from x = 0, put the last iterate into xu, and return whether the sample converged."""
        F, phi, options = self.weights.factors, self.activation.phi, self.options
        n, u = len(z), xu[len(z) :]
        z_norm = norm(self.weights.B.dot(u, z), d)
        asked, largest = float(asked_step(options.tol, z_norm)), max(1.0, self.certifier.rounding.norm)
        x, p, g = np.zeros_like(z), z, phi(z)  # The first application needs no product, because A·0 = 0.
        slow, stale, before, lowest, count = 0, 0, math.inf, math.inf, 1
        while True:
            step, top = norm(np.subtract(g, x, out=d), d), norm(g, d)
            done = step <= asked
            if not done and step <= ROUNDED * self.eps * max(z_norm, largest * top):
                done = self._explained(p, x, g, z, step, asked)
            slow = slow + 1 if step > methods.SLOW * before else 0
            stale = 0 if step < lowest else stale + 1
            if done or not step < math.inf or count >= options.max_iter or stale >= methods.STALE:
                break
            stuck = self.impatient and slow >= methods.SLOW_STEPS
            if stuck and methods.steps_left(step, before, asked) > methods.STEPS_LEFT:
                break
            before, lowest, x, count = step, min(step, lowest), g, count + 1
            p = F[0].dot(x if len(F) == 1 else F[1].dot(x, t))
            g = phi(np.add(p, z, out=p))
        xu[:n] = g
        numbers[:TOL] = step, norm(x, d), z_norm, top, norm(u, e), count
        return done and step < math.inf

    def _explained(self, p: np.ndarray, x: np.ndarray, g: np.ndarray, z: np.ndarray, step: float, asked: float) -> bool:
        """Tell whether tol or rounding explains the change of every row, as in a batch."""
        X, P, G, Z = (v[:, None] for v in (x, p, g, z))
        equation = Equation(self.weights.factors, self.activation, None, Z)
        allowed = Application(equation, X, P, G, np.array([step])).allowance(self.certifier, np.zeros(1, bool))
        return bool((np.abs(G - X) <= np.maximum(allowed, asked)).all())


def norm(v: np.ndarray, scratch: np.ndarray) -> float:
    """Return ‖v‖∞, which is NaN if v contains NaN."""
    size = np.abs(v, out=scratch)
    return size.item(size.argmax())
