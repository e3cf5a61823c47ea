"""This module has what all bounds of a model over boxes of inputs need: its weights as balls, boxes, and resolvents.

In this package a box is a pair of arrays, low ≤ high, whose columns are samples. The constant feature of a bias is one
more row of the box of inputs, in which low = high = 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from idl_ref import activations
from idl_ref.activations import Activation, Mixed
from idl_ref.analysis.balls import EPS, TINY, Ball, ball, span
from idl_ref.certificate import SAFETY, ULPS
from idl_ref.model import ImplicitModel
from idl_ref.preprocessing import Standardise

PIECEWISE = ("identity", "relu", "hardtanh")  # These activations select one of their constants and their argument.
Box = tuple[np.ndarray, np.ndarray]


class System(NamedTuple):
    """The equations X = φ(A X + B U), Ŷ = [C D] (X; U) of a model in real arithmetic, with its effective weights."""

    A: Ball  # (n, n); for A = L Rᵀ, the product is computed, with its rounding in the radius
    B: Ball  # (n, p), with the column of the bias
    readout: Ball  # (q, n + p), the matrix [C D]
    activation: Activation
    bias: bool
    preprocessing: Standardise | None

    @classmethod
    def of(cls, model: ImplicitModel) -> System:
        """Return the equations of a model; ValueError is raised for weights that are not finite."""
        if not isinstance(model, ImplicitModel):
            raise TypeError(f"model must be an ImplicitModel; got {type(model).__name__}: pass the model itself.")
        W = model.effective_weights().dense()
        if not all(np.isfinite(F).all() for F in (*W.factors, W.B, W.C) + (() if W.D is None else (W.D,))):
            raise ValueError("model must have finite weights; got NaN or inf among them: train it again from a seed.")
        first, *others = map(ball, W.factors)
        D = np.zeros((len(W.C), W.B.shape[1])) if W.D is None else W.D
        readout = ball(np.hstack([W.C.astype(np.float64), D]))
        A = first @ others[0] if others else first
        return cls(A, ball(W.B), readout, activations.get(model.activation), W.bias, model.preprocessing)

    @property
    def rows(self) -> tuple[Activation, ...]:
        """The activation of each row."""
        phi = self.activation
        return phi.rows if isinstance(phi, Mixed) else (phi,) * len(self.A.mid)

    def inputs(self, low: np.ndarray, high: np.ndarray) -> Box:
        """Return the box of the inputs of the equations for a box of raw inputs, rounded outwards.   (m, p) -> (p, m)

        The preprocessing u = (U − mean)/scale does not decrease, so that it takes the ends of a box to its ends.
        """
        low, high = low.T, high.T
        if self.preprocessing is not None:
            low, high = self._standardised(low).lower(), self._standardised(high).upper()
        if self.bias:
            one = np.ones((1, low.shape[1]))
            low, high = np.vstack([low, one]), np.vstack([high, one])
        return low, high

    def raw(self, u: np.ndarray) -> np.ndarray:
        """Return the raw input (p,) of an input of the equations, which may include the constant feature."""
        u = u[: len(u) - int(self.bias)]
        return u if self.preprocessing is None else self.preprocessing.inverse(u)

    def _standardised(self, U: np.ndarray) -> Ball:
        """Return (U − mean)/scale.   (p, m) -> (p, m)"""
        assert self.preprocessing is not None
        mean, scale = self.preprocessing.mean, self.preprocessing.scale
        if mean.ndim:
            mean, scale = mean[:, None], scale[:, None]
        difference = ball(U) - mean
        mid = difference.mid / scale
        return Ball(mid, SAFETY * (difference.rad / scale + EPS * np.abs(mid)) + TINY)

    def arguments(self, state: Box, inputs: Box) -> Box:
        """Return a box of A x + B u, for x and u in their boxes.   (n, m), (p, m) -> (n, m)"""
        (low, high), (z_low, z_high) = span(self.A, *state), span(self.B, *inputs)
        return (low + z_low).lower(), (high + z_high).upper()

    def image(self, low: np.ndarray, high: np.ndarray) -> Box:
        """Return a box of φ(z) for z between low and high, where φ does not decrease.   (n, m) -> (n, m)"""
        if all(row.name in PIECEWISE for row, _ in self.activation.segments):
            return self.activation.phi(low), self.activation.phi(high)
        least, largest = self.activation.range
        return np.maximum(self._phi(low).lower(), least), np.minimum(self._phi(high).upper(), largest)

    def _phi(self, P: np.ndarray) -> Ball:
        """Return φ(P), with the error that the activation table allows a computed φ."""
        mid = self.activation.phi(P)
        return Ball(mid, ULPS * EPS * np.abs(mid) + EPS * self.activation.steepness * np.abs(P) + TINY)


class Resolvent:
    """Upper bounds of (I − M)⁻¹ d for d ≥ 0, where M = Lip(φ)|A|; they are inf unless the Perron root of M is below 1.

    If some v > 0 has w = v − M v > 0, then the inverse exists, and is nonnegative. An approximation e ≥ 0 of
    (I − M)⁻¹ d with the defect δ = max(d − (e − M e), 0) gives (I − M)⁻¹ d ≤ e + (I − M)⁻¹ δ ≤ e + v·max(δ/w).
    Nothing rests on the accuracy of the solves.
    """

    def __init__(self, system: System) -> None:
        self.M = scaled(system.activation.steepness, system.A.size())
        self.v, self.w = np.ones(len(self.M)), np.full(len(self.M), -1.0)
        if np.isfinite(self.M).all():
            self.v = self._approximate(self.v[:, None])[:, 0]
            self.w = self._left(self.v[:, None]).lower()[:, 0]
        self.exists = bool((self.v > 0).all() and (self.w > 0).all())

    def _approximate(self, D: np.ndarray) -> np.ndarray:
        """Return an approximation of (I − M)⁻¹ D, or NaN.   (n, m) -> (n, m)"""
        try:
            return np.linalg.solve(np.eye(len(self.M)) - self.M, D)
        except np.linalg.LinAlgError:
            return np.full_like(D, np.nan)

    def _left(self, E: np.ndarray) -> Ball:
        """Return E − M E.   (n, m) -> (n, m)"""
        return ball(E) - ball(self.M) @ E

    def __call__(self, D: np.ndarray) -> np.ndarray:
        """Bound (I − M)⁻¹ D, column by column.   (n, m) -> (n, m)"""
        bad = ~np.isfinite(D).all(axis=0)
        if not self.exists:
            return np.full_like(D, np.inf)
        D = np.where(bad, 0, D)
        E = np.maximum(self._approximate(D), 0)
        defect = np.maximum((ball(D) - self._left(E)).upper(), 0)
        bound = SAFETY * (E + self.v[:, None] * (defect / self.w[:, None]).max(axis=0, initial=0.0))
        return np.where(bad | ~np.isfinite(bound), np.inf, bound)


def scaled(factor: float | np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return an upper bound of factor · size for size ≥ 0, which is 0 only where size is 0."""
    return np.where(size > 0, np.nextafter(SAFETY * factor * size, np.inf), 0.0)
