"""This module has the arrays of a training step, which belong to a trainer and are written anew by every step.

New arrays would be read from memory, and not from the cache, and would take longer to allocate than to fill.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from idl_ref.activations import Activation
from idl_ref.backends.equation import Equation
from idl_ref.backends.numba import descent, kernels, launches, passes
from idl_ref.backends.numba.launches import KEPT, NOTHING, Prepared, blank, by_rows, tiles
from idl_ref.backends.numpy.layer import LINEAR
from idl_ref.solution import Solution, SolveOptions
from idl_ref.weights import BackwardPass, ForwardPass, Options, Parameters, Weights

LABELS = np.empty(0, np.int64)  # The form of no labels.


class Workspace:
    """The arrays of the steps of a dense model with m samples, and the forward and backward pass that they hold.

    Parameters
    ----------
    weights : Weights
        The effective weights. Their B, C and D are the parameters, and A is an array of the trainer.
    activation, options
        As for a layer.
    m : int
        The number of samples of a step.
    """

    def __init__(self, weights: Weights, activation: Activation, options: Options, m: int) -> None:
        (A,), B, C, D, bias = weights
        (n, p), q, dtype = B.shape, len(C), B.dtype
        self.options, self.sizes, self.width = options, (n, p, q), p - bias
        self.U = np.empty((m, p), dtype)
        self.U[:, p - bias :] = 1
        Z, S, G = np.empty((3, m, n), dtype)
        self.Y, self.G_Y = np.empty((2, m, q), dtype)
        self.losses, self.both = np.empty(m), np.empty((m, n + q), dtype)
        self.answers = tuple(blank(n, m, dtype, np.zeros(m, np.intp)) for _ in range(2))
        self.to_U = launches.outer_room(n if D is None else n + q, p, dtype)
        self.to_X = launches.outer_room(n + q, n, dtype)
        self.equations = Equation((A,), activation, None, Z.T), Equation((A.T,), LINEAR, S.T, G.T)
        self.columns = tuple(
            (launches.flat(e.Z), nothing if e.S is None else launches.flat(e.S), nothing)
            for e, nothing in zip(self.equations, [NOTHING[dtype]] * 2, strict=True)
        )
        X, V = (_solution(answer, m) for answer in self.answers)
        self.forward = ForwardPass(weights, self.U.T, Z.T, X, self.Y.T)
        G_D = None if D is None else self.to_U[n : n + q]
        self.backward = BackwardPass(V, (self.to_X[:n],), self.to_U[:n], self.to_X[n : n + q], G_D)
        self.prepared: tuple[Prepared | None, Prepared | None] = (None, None)

    def is_of(self, parameters: Parameters) -> bool:
        """Tell whether B, C and D are these parameters, and A of the same shape."""
        _, B, C, D, _ = self.forward.weights
        return B is parameters["B"] and C is parameters["C"] and D is parameters.get("D")

    def prepare(self) -> bool:
        """Pack A and Aᵀ, and return whether Picard's method applies, with a norm of A below 1."""
        there, back = (
            launches.prepare(equation, options, None, room)
            for equation, options, room in zip(self.equations, self.options, self.prepared, strict=True)
        )
        self.prepared = there, back
        return all(p.method in ("auto", "picard") and p.roundings[0] < 1 for p in (there, back))

    def compute(self, U: np.ndarray, chosen: np.ndarray, T: np.ndarray, weights: np.ndarray | None) -> bool:
        """Compute everything from U to V for the chosen rows of U; return False if columns were slow.

        T, weights: those of the chosen samples; the labels (m,), or the targets (q, m)
        """
        (n, p, q), m, dtype = self.sizes, len(chosen), self.Y.dtype
        nothing = NOTHING[dtype][0]
        self.labels = T if T.ndim == 1 else LABELS
        targets = nothing if T.ndim == 1 else launches.by_columns(T)
        samples = U.ravel(), self.width, chosen, self.labels, targets, nothing if weights is None else weights
        there, back = self.prepared
        assert there is not None
        assert back is not None
        _, B, C, D, _ = self.forward.weights
        around = (by_rows(B), by_rows(C), nothing if D is None else by_rows(D)), self.U.ravel(), self.sizes, self.Y.ravel()
        rules = launches.picard_rules(there), launches.picard_rules(back)
        packed = (there.F1, there.F2), (back.F1, back.F2)
        rest = self.losses, self.G_Y.ravel(), *self.answers, self.both.ravel()
        flops = there.flops + back.flops + 2 * (n * p + q * n + q * p)
        how = tiles(m, KEPT["picard"] * n * dtype.itemsize + (p + q) * dtype.itemsize, self.options[0].tile, flops)
        work = m * (there.sizes[3] * there.flops + back.sizes[3] * back.flops)
        return not launches.launch_solver(
            passes.there_and_back, m, work, how, self.answers[0][-1], samples, around, packed, self.columns,
            (rules[0][0], rules[1][0]), (rules[0][1], rules[1][1]), (there.roundings, back.roundings), rest,
        )  # fmt: skip

    def figures(self) -> tuple[float, int, int, int, int, int, int]:
        """Return the loss, and what a training counts; see `descent.figures`."""
        return descent.figures(self.Y.ravel(), self.labels, self.losses, *self.answers)

    def outer(self) -> None:
        """Compute ∂[A; C] = [V; G_Y] Xᵀ and ∂[B; D] = [V; G_Y] Uᵀ."""
        V = self.backward.solution.X.T
        launches.outer(V if self.forward.weights.D is None else self.both, self.forward.U, self.to_U)
        launches.outer(self.both, self.forward.solution.X, self.to_X)


def _solution(answer: launches.Answer, m: int) -> Solution:
    """Return the solution whose arrays are those that a kernel writes."""
    x, status, iterations, numbers, _ = answer
    return Solution(x.reshape(m, -1).T, status, iterations, numbers[kernels.STEP], numbers[kernels.BOUND])
