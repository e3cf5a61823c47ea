"""This module has the passes of an implicit RNN through time: forward, backward, and one training step.

The cell is an implicit model whose inputs are v_t = (u_t, h_{t−1}) and whose outputs are h_t. Samples are columns.

forward    x_t = φ(A x_t + B v_t)    h_t = C x_t + D v_t    t = 1 … T         Ŷ = W h_T + w
backward   G_T = Wᵀ G_Y    V_t = S_t ∘ (Aᵀ V_t + Cᵀ G_t)    (∂u_t, G_{t−1}) = Bᵀ V_t + Dᵀ G_t      t = T … 1
gradients  ∂A = Σ_t V_t X_tᵀ    ∂B = Σ_t V_t v_tᵀ    ∂C = Σ_t G_t X_tᵀ    ∂D = Σ_t G_t v_tᵀ    ∂h₀ = G₀
           ∂W = G_Y h_Tᵀ        ∂w = G_Y 1

`f` maps the raw A to the effective A once, and all steps use the result. The pullback of f is a linear map, so that it
takes the sum Σ_t V_t X_tᵀ to the same gradient as its terms one by one: it is applied once, and not T times.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from idl_ref import activations, solution
from idl_ref.backends.numpy import Layer, Trainer
from idl_ref.choices import AnyLoss
from idl_ref.optim import Optimizer
from idl_ref.settings import Settings
from idl_ref.solution import Solution, SolveOptions
from idl_ref.weights import BackwardPass, ForwardPass, Gradients, Parameters, Parametrisation, Weights

READOUT = ("W", "w")  # The parameters outside the cell, Ŷ = W h_T + w.


class ForwardThroughTime(NamedTuple):
    """The results of the forward direction, which the backward direction needs.

    Attributes
    ----------
    weights : Weights
        The effective weights of the cell.
    steps : sequence of ForwardPass
        The passes of the cell for t = 1 … T. The outputs Y of pass t are h_t (h, m).
    solution : Solution
        A summary of the T solutions, with one column per sample; see `summary`.
    Y : (q, m) array
        The outputs Ŷ.
    whole
        What the backend computed in one call; None if it took the time steps one by one.
    """

    weights: Weights
    steps: Sequence[ForwardPass]
    solution: Solution
    Y: np.ndarray
    whole: Any = None


class BackwardThroughTime(NamedTuple):
    """The results of the backward direction.

    Attributes
    ----------
    cell : BackwardPass
        The gradients of the effective weights of the cell, which are sums over all time steps. Its solution is a
        summary of the adjoint equations; its U is None.
    steps : sequence of Solution
        The solutions V_t of the adjoint equations for t = 1 … T.
    W, w : (q, h) and (q,) arrays
        The gradients ∂W and ∂w.
    U : (p, T, m) array
        The gradient ∂U.
    H0 : (h, m) array
        The gradient ∂h₀.
    """

    cell: BackwardPass
    steps: Sequence[Solution]
    W: np.ndarray
    w: np.ndarray
    U: np.ndarray
    H0: np.ndarray

    @property
    def solution(self) -> Solution:
        """The summary of the adjoint equations."""
        return self.cell.solution


def summary(last: Solution, over_time: Sequence[np.ndarray]) -> Solution:
    """Return one solution with a column per sample: its worst status, all of its iterations, and its largest step.

    X and the error bound are those of the last one. over_time: status, iterations and step of all, (T, m) arrays.
    """
    status, iterations, step = over_time
    return Solution(last.X, status.max(axis=0), iterations.sum(axis=0), step.max(axis=0), last.error_bound)


def stacked(solutions: Sequence[Solution]) -> list[np.ndarray]:
    """Return status, iterations and step of the solutions of all time steps, each (T, m)."""
    return [np.stack([getattr(s, name) for s in solutions]) for name in ("status", "iterations", "step")]


class LayerThroughTime:
    """Computes the outputs of an implicit RNN and the gradients, for weights that do not change.

    Parameters
    ----------
    cell : Layer
        The layer of the cell, which has p + h inputs and h outputs. Its backend computes.
    W, w : (q, h) and (q,) arrays
        The weights of the readout.
    """

    def __init__(self, cell: Layer, W: np.ndarray, w: np.ndarray) -> None:
        self.cell, self.W = cell, W
        # The backend of the cell computes W h + w too, in its order of summation: it is the constant term B U of a
        # layer with the bias w, whose other weights are not used.
        nothing = np.empty((0, len(W)), W.dtype)
        weights = Weights((np.zeros((len(W), len(W)), W.dtype),), np.column_stack([W, w]), nothing, None, True)
        self.readout = type(cell)(weights, cell.activation, cell.options)

    def forward(self, U: np.ndarray, H0: np.ndarray | None = None) -> ForwardThroughTime:
        """Compute h_t = C x_t + D v_t for t = 1 … T, and Ŷ = W h_T + w.   U (p, T, m), H0 (h, m) or None for 0"""
        H = np.zeros((self.W.shape[1], U.shape[2]), U.dtype) if H0 is None else H0
        if (whole := self.cell.unrolled(U, H)) is not None:
            return self._completed(whole.steps(), whole.over_time(), whole)
        steps: list[ForwardPass] = []
        for t in range(U.shape[1]):
            V = np.concatenate([U[:, t].T, H.T], axis=1).T  # (p + h, m), with contiguous columns
            steps.append(self.cell.forward(V))
            H = steps[-1].Y
        return self._completed(steps, stacked([step.solution for step in steps]))

    def _completed(
        self, steps: Sequence[ForwardPass], over_time: Sequence[np.ndarray], whole: Any = None
    ) -> ForwardThroughTime:
        """Compute Ŷ = W h_T + w, and return the complete forward pass."""
        with np.errstate(over="ignore", invalid="ignore"):  # The status of a sample reports overflow, not a warning.
            Y = self.readout.constant(self.readout.inputs(steps[-1].Y))
        return ForwardThroughTime(self.cell.weights, steps, summary(steps[-1].solution, over_time), Y, whole)

    def backward(self, forward: ForwardThroughTime, G_Y: np.ndarray) -> BackwardThroughTime:
        """Compute the gradients by one adjoint equation per time step, from the last one to the first.   G_Y (q, m)"""
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            G_H = self.W.T @ G_Y
            W, w = G_Y @ forward.steps[-1].Y.T, G_Y.sum(axis=1)
            found = None if forward.whole is None else self.cell.unrolled_back(forward.whole, G_H, tiny(G_H.dtype))
            if found is None:
                total, solutions, G_U, G_H = self._step_by_step(forward, G_H)
                over_time = stacked(solutions)
            else:
                total, solutions, G_U, G_H = found.total, found.steps(), found.U, found.H0
                over_time = found.over_time()
        total = total._replace(solution=summary(solutions[-1], over_time), U=None)
        return BackwardThroughTime(total, solutions, W, w, G_U, G_H)

    def _step_by_step(
        self, forward: ForwardThroughTime, G_H: np.ndarray
    ) -> tuple[BackwardPass, Sequence[Solution], np.ndarray, np.ndarray]:
        """Return the gradients of the weights of the cell, the V_t, ∂U (p, T, m) and ∂h₀ (h, m).   G_H (h, m)"""
        p, T, m = self.cell.weights.B.shape[1] - self.cell.weights.bias - len(G_H), len(forward.steps), G_H.shape[1]
        G_U, solutions, totals = np.empty((p, T, m), G_H.dtype), [], None
        for t in reversed(range(T)):
            backward = self.cell.backward(forward.steps[t], without_tiny(G_H), inputs=True)
            assert backward.U is not None
            totals = backward if totals is None else added(totals, backward)
            G_U[:, t], G_H = backward.U[:p], backward.U[p:]
            solutions.append(backward.solution)
        assert totals is not None
        return totals, solutions[::-1], G_U, G_H


def report(
    total: Solution, steps: Iterable[Solution], weights: Weights, options: SolveOptions, equation: str, limit: str
) -> None:
    """Warn or raise an exception as `options.on_failure` says, if a sample failed in a time step."""
    if total.converged:
        return
    converged = [step.converged for step in steps]
    where = f"{equation}, time step {converged.index(False) + 1} of {len(converged)}"
    solution.report(total, weights.factors, options, where, limit)


def added(one: BackwardPass, other: BackwardPass) -> BackwardPass:
    """Return the sums of the gradients of the weights."""
    factors = tuple(G + F for G, F in zip(one.factors, other.factors, strict=True))
    D = None if one.D is None or other.D is None else one.D + other.D
    return BackwardPass(one.solution, factors, one.B + other.B, one.C + other.C, D)


def without_tiny(G: np.ndarray) -> np.ndarray:
    """Return G with 0 for numbers so small that their products would be subnormal: below 1e-31, or 1e-292 in float64.

    A gradient that vanishes through time gets there. Subnormal numbers have few digits, and processors compute with
    them a hundred times more slowly.
    """
    return np.where(np.abs(G) < tiny(G.dtype), G.dtype.type(0), G)


def tiny(dtype: np.dtype) -> float:
    """Return the number below which gradients of h_t count as 0."""
    limits = np.finfo(dtype)
    return float(limits.tiny / limits.eps)


class ParametrisationThroughTime(Parametrisation):
    """The map from the raw parameters of an implicit RNN to the effective weights of its cell, with its pullback."""

    def pullback(self, parameters: Parameters, backward: Any) -> Gradients:
        """Return the gradients of all raw parameters, for the BackwardThroughTime of the effective ones."""
        return super().pullback(parameters, backward.cell) | {"W": backward.W, "w": backward.w}


class TrainerThroughTime(Trainer):
    """Takes the training steps of an implicit RNN; `step` gets U (m, T, p).

    Parameters
    ----------
    parameters : mapping
        The raw parameters of the cell, W and w, which every step updates in place.
    settings : Settings
        The settings of the cell.
    loss, optimizer
        As for Trainer.
    """

    def __init__(
        self, parameters: Mapping[str, np.ndarray], settings: Settings, loss: AnyLoss, optimizer: Optimizer
    ) -> None:
        parametrisation = ParametrisationThroughTime(settings.parametrisation.function, settings.bias)
        phi = activations.get(settings.activation)
        super().__init__(parameters, parametrisation, phi, settings.options, loss, optimizer)
        self.settings = settings

    def layer(self) -> Any:
        """Return a LayerThroughTime with the effective weights of the current parameters."""
        cell = self.settings.layer(self.parametrisation.weights(self.parameters))
        return LayerThroughTime(cell, *(self.parameters[name] for name in READOUT))
