"""This module has what an implicit RNN takes and returns: checked sequences, and states with their certificates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from idl_ref import activations, checks, solution
from idl_ref.analysis.through_time import ForwardThroughTime
from idl_ref.interface import certified
from idl_ref.settings import Settings
from idl_ref.solution import Solution, SolveOptions, Status
from idl_ref.weights import Weights


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


def sequences(name: str, U: Any, p: int, dtype: np.dtype) -> np.ndarray:
    """Return sequences, one per row, as an array (m, T, p) with T ≥ 1."""
    array = checks.real_array(name, U, dtype)
    if isinstance(array, checks.OnDevice):
        raise ValueError(f"{name} must be in the memory of the host; got an array on a CUDA device: copy it.")
    if array.ndim == 3 and array.shape[2] == p and array.shape[1] > 0:
        return array
    way_out = "sequences are rows."
    if array.ndim == 2 and p == 1:
        way_out = f"one number per time step is {name}[:, :, None]."
    elif array.ndim == 2 and array.shape[1] == p:
        way_out = f"one sequence is {name}[None]."
    elif array.ndim == 3 and array.shape[1] == p:
        way_out = f"time comes before the inputs, so numpy.swapaxes({name}, 1, 2) may be what was meant."
    elif array.ndim == 3 and array.shape[2] == p:
        way_out = "a sequence has at least one time step."
    raise ValueError(f"{name} must have shape (m, T, p) with p = {p} and T ≥ 1; got {array.shape}: {way_out}")


def report(
    total: Solution, steps: tuple[Solution, ...], weights: Weights, options: SolveOptions, equation: str, limit: str
) -> None:
    """Warn or raise an exception as `options.on_failure` says, if a sample failed in a time step."""
    if total.converged:
        return
    first = next(t for t, step in enumerate(steps) if not step.converged) + 1
    solution.report(total, weights.factors, options, f"{equation}, time step {first} of {len(steps)}", limit)
