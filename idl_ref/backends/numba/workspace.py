"""This module has the arrays of a training step, which belong to a trainer and are written anew by every step.

New arrays would be read from memory, and not from the cache. What kernels take is put together once as well, because
that takes longer than some of the kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from idl_ref import factors as fac
from idl_ref.activations import Activation
from idl_ref.backends import methods
from idl_ref.backends.equation import Equation
from idl_ref.backends.numba import descent, kernels, launches, passes, preparing, threads
from idl_ref.backends.numba.launches import (
    KEPT,
    NOTHING,
    blank,
    by_columns,
    by_rows,
    flat,
    launch_outer,
    outer_room,
    tiles,
)
from idl_ref.backends.numba.parametrisation import effective, pulled_back
from idl_ref.backends.numba.products import ROWS, VECTOR_BYTES
from idl_ref.backends.numpy.blocks import LINEAR
from idl_ref.blocks import pays
from idl_ref.solution import Solution
from idl_ref.weights import BackwardPass, ForwardPass, Options, Parameters, Parametrisation

LABELS = np.empty(0, np.int64)  # The form of no labels.


class Workspace:
    """The arrays of the steps of a dense model with m samples, and the forward and backward pass that they hold.

    Parameters
    ----------
    parameters, parametrisation, activation, options
        As for a trainer. The parameters are contiguous and not empty, and the methods are "auto" or "picard".
    m : int
        The number of samples of a step, at least 1.
    """

    def __init__(
        self, parameters: Parameters, parametrisation: Parametrisation, activation: Activation, options: Options, m: int
    ) -> None:
        f, dtype = parametrisation.function, parameters["B"].dtype
        self.parameters, self.function, self.options = dict(parameters), f, options
        weights, nothing = parametrisation.weights(parameters), NOTHING[dtype]
        (A,), B, C, D, bias = weights
        (n, p), q = B.shape, len(C)
        u, (Z, S, G), (Y, G_Y) = aligned(m, p, dtype), np.empty((3, m, n), dtype), np.empty((2, m, q), dtype)
        U, apart = u.reshape(m, -1)[:, :p], len(u) // m
        U[:, p - bias :] = 1
        self.losses, both = (np.empty(m), G_Y.ravel()), np.empty((m, n + q), dtype)  # of each sample; [V; G_Y]
        self.answers = blank(n, m, dtype, np.zeros(m, np.intp)), blank(n, m, dtype, np.zeros(m, np.intp))
        solution, adjoint = (_solution(answer, m) for answer in self.answers)
        rows = n if D is None else n + q
        to_U, to_X = outer_room(rows, p, dtype), outer_room(n + q, n, dtype)
        G_A, G_B, G_C, G_D = to_X[:n], to_U[:n], to_X[n : n + q], None if D is None else to_U[n:rows]
        G_A[...] = 0  # because it is pulled back once, to find out whether that gives another array
        self.raw_gradient = pulled_back(f, parameters["A"], G_A, np.empty_like(A))
        self.flats = flats(parameters, {"A": self.raw_gradient, "B": G_B, "C": G_C, "D": G_D})
        self.forward = ForwardPass(weights, U.T, Z.T, solution, Y.T)
        self.backward = BackwardPass(adjoint, (G_A,), G_B, G_C, G_D)
        self.equations = Equation((A,), activation, None, Z.T), Equation((A.T,), LINEAR, S.T, G.T)
        there, back = (preparing.prepare(e, o, None) for e, o in zip(self.equations, options, strict=True))
        # What the kernels take:
        weights_by_rows = by_rows(B), by_rows(C), nothing[0] if D is None else by_rows(D)
        x, z = by_columns(solution.X), Z.ravel()
        self.packed = (there.F1, there.F2), (back.F1, back.F2)
        self.packing = [preparing.packing(e, *F) for e, F in zip(self.equations, self.packed, strict=True)]
        self.around = weights_by_rows, u, (n, p, q, apart), Y.ravel()
        self.columns = (flat(Z.T), nothing, nothing), (flat(G.T), flat(S.T), nothing)
        self.rules = launches.picard_rules(there), launches.picard_rules(back)
        terms = (x, z, G_Y.ravel()), (n, 0, q, activation.code), (S.ravel(), G.ravel())
        self.terms = there.F1, there.F2, weights_by_rows[1], *terms
        self.both, self.parts = both, (adjoint.X.T, G_Y)
        of_X, of_U = (x, (n + q, n, m, n), to_X.ravel()), (u, (rows, p, m, apart), to_U.ravel())
        self.products = flat(both), n + q, 2 * m * (rows * p + (n + q) * n), of_X, of_U
        self.bytes = (KEPT["picard"] * n + p + q) * dtype.itemsize  # of a column
        self.flops = there.flops + back.flops + 2 * (n * p + q * n + q * p)
        self.work = m * (there.sizes[3] * there.flops + back.sizes[3] * back.flops)

    def is_of(self, parameters: Parameters) -> bool:
        """Tell whether the parameters are still the same arrays."""
        return all(self.parameters[name] is w for name, w in parameters.items())

    def prepare(self) -> bool:
        """Map A and pack it; return whether Picard's method applies, and the norm of A alone shows a contraction."""
        there, back = self.equations
        effective(self.function, self.parameters["A"], there.factors[0])
        if any(o.method == "auto" for o in self.options) and (fac.triangle(there.factors) or pays(there.factors[0])):
            return False
        first, second = self.packing
        self.roundings = (
            preparing.roundings(there, preparing.pack(*first)),
            preparing.roundings(back, preparing.pack(*second)),
        )
        return self.roundings[0][0] < 1 and self.roundings[1][0] < 1

    def compute(self, U: np.ndarray, chosen: np.ndarray, T: np.ndarray, weights: np.ndarray | None) -> bool:
        """Compute everything from U to V for the chosen rows of U; return False if columns were slow.

        T, weights: those of the chosen samples; T are the labels (m,), or the targets (q, m)
        """
        m, nothing = len(chosen), NOTHING[U.dtype][0]
        self.labels = np.ascontiguousarray(T, np.int64) if T.ndim == 1 else LABELS
        self.targets = self.labels if T.ndim == 1 else by_columns(T), nothing if weights is None else weights
        # A signal may set the flag of a step after its end, so that every step has flags of its own.
        there, back = self.answers
        self.answers = (*there[:4], np.zeros(1, np.int64), there[5]), (*back[:4], np.zeros(1, np.int64), back[5])
        counts, samples = (there[2], back[2]), U.ravel()
        for iterations in counts:
            iterations[:] = 0
        how = tiles(m, self.bytes, self.options[0].tile, self.flops)
        flag = self.answers[0][4]
        return not threads.interruptible(self.columns_of, m, self.work, how, flag, counts, samples, U.shape[1], chosen)

    def columns_of(self, first: int, last: int, samples: np.ndarray, width: int, chosen: np.ndarray) -> int:
        """Compute U, Z, X, Y, the losses, G_Y, S, G and V for some columns; return how many of them were slow."""
        _, U, (_, _, _, apart), Y = self.around
        (F, F_back), (Z, G), (there, back), (values, G_Y) = self.packed, self.columns, self.answers, self.losses
        (shape, levels), (shape_back, levels_back) = self.rules
        passes.take(first, last, samples, chosen, width, U, apart)
        slow = passes.forward(first, last, self.around, *F, Z, shape, levels, self.roundings[0], there)
        if slow:
            return slow
        loss = descent.cross_entropy if self.labels.size else descent.mse
        loss(first, last, Y, *self.targets, G_Y, values)
        return passes.backward(first, last, self.terms, *F_back, G, shape_back, levels_back, self.roundings[1], back)

    def figures(self) -> tuple[float, int, int, int, int, int, int]:
        """Return the loss, and what a training counts; see `descent.figures`."""
        return descent.figures(self.around[-1], self.labels, self.losses[0], *self.answers)

    def differentiate(self) -> None:
        """Compute ∂[A; C] = [V; G_Y] Xᵀ, ∂[B; D] = [V; G_Y] Uᵀ, and the gradient of the raw A."""
        np.concatenate(self.parts, axis=1, out=self.both)
        launch_outer(*self.products)
        pulled_back(self.function, self.parameters["A"], self.backward.factors[0], self.raw_gradient)


def aligned(m: int, p: int, dtype: np.dtype) -> np.ndarray:
    """Return a flat array for m columns of p entries, each of which begins at a multiple of the size of a vector."""
    size, apart = VECTOR_BYTES // dtype.itemsize, methods.filled(p, ROWS)
    memory = np.zeros(m * apart + size, dtype)
    start = -memory.ctypes.data % VECTOR_BYTES // dtype.itemsize
    return memory[start : start + m * apart]


def _solution(answer: launches.Answer, m: int) -> Solution:
    """Return the solution whose arrays are those that a kernel writes."""
    x, status, iterations, numbers = answer[:4]
    return Solution(x.reshape(m, -1).T, status, iterations, numbers[kernels.STEP], numbers[kernels.BOUND])


Flats = tuple[np.ndarray, ...]


def flats(parameters: Parameters, gradients: Mapping[str, Any]) -> tuple[Flats, Flats]:
    """Return parameters and their gradients as flat arrays, in the order of the parameters."""
    weights = tuple([w.reshape(-1) for w in parameters.values()])
    return weights, tuple([_flat(gradients[name], w) for name, w in parameters.items()])


def _flat(G: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return the gradient of w as a flat array; that of a user's `f` may broadcast and have another dtype."""
    if np.shape(G) != w.shape or G.dtype != w.dtype:
        G = np.broadcast_to(np.asarray(G, w.dtype), w.shape)
    return by_rows(G)
