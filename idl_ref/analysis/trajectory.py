"""This module has the states of an implicit RNN in all time steps, with their certificates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from idl_ref import activations
from idl_ref.analysis.through_time import ForwardThroughTime
from idl_ref.interface import certified
from idl_ref.settings import Settings
from idl_ref.solution import Status

__all__ = ["Trajectory"]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The states of an implicit RNN in all time steps t = 1 … T, with a status and an error bound for each.

    Attributes
    ----------
    Y : (m, q) array
        The outputs Ŷ = W h_T + w.
    H : (m, T, h) array
        The hidden states h_t = C x_t + D v_t.
    X : (m, T, n) array
        The equilibria x_t = φ(A x_t + B v_t).
    status : (m, T) int8 array
        The `Status` of each sample in each time step.
    iterations : (m, T) int array
        The number of applications of the map.
    step : (m, T) float64 array
        The largest change of an entry of x_t in the last application.
    error_bound : (m, T) float64 array
        A bound of ‖x* − x_t‖∞, where x* is the equilibrium for the h_{t−1} that was computed. It includes rounding. It
        does not include what the error of h_{t−1} changes.
    """

    Y: np.ndarray
    H: np.ndarray
    X: np.ndarray
    status: np.ndarray
    iterations: np.ndarray
    step: np.ndarray
    error_bound: np.ndarray

    @classmethod
    def of(cls, forward: ForwardThroughTime, settings: Settings) -> Trajectory:
        """Return the trajectory of a forward pass."""
        phi = activations.get(settings.activation)
        solutions = [certified(step, phi, False) for step in forward.steps]
        H, X = np.stack([step.Y.T for step in forward.steps], axis=1), np.stack([s.X.T for s in solutions], axis=1)
        rest = [
            np.stack([getattr(s, name) for s in solutions], axis=1)
            for name in ("status", "iterations", "step", "error_bound")
        ]
        return cls(forward.Y.T, H, X, *rest)

    @property
    def converged(self) -> bool:
        """True if every sample converged in every time step."""
        return all(Status(int(status)).success for status in np.unique(self.status))
