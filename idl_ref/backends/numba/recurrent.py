"""This module starts the compiled passes through time, and puts their results together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from idl_ref.activations import Activation
from idl_ref.backends.equation import Equation
from idl_ref.backends.numba import kernels, launches, sequences, threads
from idl_ref.backends.numba.launches import Answer, Forward, Prepared, blank, by_columns, by_rows, flat, tiles
from idl_ref.solution import Solution, SolveOptions
from idl_ref.weights import BackwardPass, ForwardPass, Options, Weights

View = TypeVar("View")
ONE_CALL = ("auto", "picard")  # The methods whose columns a kernel solves without coming back in between.


class Layer(Protocol):
    """What this module needs of the layer that calls it."""

    weights: Weights
    activation: Activation
    options: Options

    def equation(self, Z: np.ndarray) -> Equation:
        """Return the forward equation."""

    def adjoint(self, S: np.ndarray, G: np.ndarray) -> Equation:
        """Return the adjoint equation."""

    def prepared(self, equation: Equation, options: SolveOptions) -> Prepared | None:
        """Return the data of a solve that do not depend on its columns."""

    def finished(self, solution: Solution, equation: Equation, options: SolveOptions) -> Solution:
        """Return a solution with the error bound that the options ask for."""


class Steps(Sequence[View], Generic[View]):
    """The passes of the time steps, or their solutions: views of all columns, each made when it is asked for."""

    def __init__(self, sizes: tuple[int, int, int], of: Callable[[slice], View]) -> None:
        self.sizes = sizes
        self.of: Callable[[slice], View] = of

    def __len__(self) -> int:
        return self.sizes[0]

    def __getitem__(self, t: Any) -> Any:
        m = self.sizes[1]
        t = range(len(self))[t]
        return self.of(slice(t * m, (t + 1) * m))


class Whole(NamedTuple):
    """The passes of all time steps, whose columns stand beside each other."""

    forward: ForwardPass
    sizes: tuple[int, int, int]  # T, m and p

    @property
    def solution(self) -> Solution:
        """The solution of all time steps."""
        return self.forward.solution

    def over_time(self) -> list[np.ndarray]:
        """Return status, iterations and step of all time steps, each (T, m)."""
        return over_time(self.solution, self.sizes)

    def steps(self) -> Sequence[ForwardPass]:
        """Return the pass of each time step."""
        f = self.forward

        def one(part: slice) -> ForwardPass:
            return ForwardPass(f.weights, f.U[:, part], f.Z[:, part], some(f.solution, part), f.Y[:, part])

        return Steps(self.sizes, one)


class UnrolledBack(NamedTuple):
    """The gradients of all time steps."""

    solution: Solution  # V of all time steps, whose columns stand beside each other
    sizes: tuple[int, int, int]
    total: BackwardPass  # the gradients of the weights, sums over the time steps
    U: np.ndarray  # (p, T, m)
    H0: np.ndarray  # (h, m)

    def over_time(self) -> list[np.ndarray]:
        """Return status, iterations and step of all time steps, each (T, m)."""
        return over_time(self.solution, self.sizes)

    def steps(self) -> Sequence[Solution]:
        """Return the solution of each time step."""
        return Steps(self.sizes, lambda part: some(self.solution, part))


def over_time(s: Solution, sizes: tuple[int, int, int]) -> list[np.ndarray]:
    """Return status, iterations and step of all time steps, each (T, m)."""
    return [numbers.reshape(sizes[:2]) for numbers in (s.status, s.iterations, s.step)]


def some(s: Solution, part: slice) -> Solution:
    """Return the solution of some columns, as views."""
    return Solution(s.X[:, part], s.status[part], s.iterations[part], s.step[part], s.error_bound[part])


def room(n: int, columns: int, dtype: np.dtype) -> Answer:
    """Return the arrays that a kernel writes for the columns of all time steps."""
    return blank(n, columns, dtype, np.zeros(columns, np.intp))


def solution_of(answer: Answer) -> Solution:
    """Return what a kernel wrote as a solution; its map is a contraction."""
    x, status, iterations, numbers = answer[:4]
    return Solution(x.reshape(len(status), -1).T, status, iterations, numbers[kernels.STEP], numbers[kernels.BOUND])


def in_one_call(prepared: Prepared | None) -> bool:
    """Tell whether a kernel can solve the equation of each time step without coming back in between."""
    return prepared is not None and prepared.method in ONE_CALL and prepared.roundings[0] < 1


def launch(
    kernel: Callable[..., int],
    layer: Layer,
    p: Prepared,
    whole: tuple[int, int, int],
    answer: Answer,
    *arguments: Any,
) -> bool:
    """Call a kernel for tiles of sequences; return whether no column was slow.   whole: T, m and p"""
    (T, m, _), (_, width), h, n = whole, layer.weights.B.shape, len(layer.weights.C), p.sizes[0]
    flops = T * (p.flops + 2 * (width * (n + h) + h * n))
    how = tiles(m, (2 * launches.KEPT["picard"] * n + width + h) * layer.weights.B.itemsize, p.options.tile, flops)
    work = m * T * p.sizes[3] * p.flops
    return not threads.interruptible(kernel, m, work, how, answer[4], (answer[2],), *arguments, whole)


def forward(layer: Layer, U: np.ndarray, H0: np.ndarray) -> Whole | None:
    """Compute all time steps in one launch, or return None where that is not possible.   U (p, T, m), H0 (h, m)"""
    weights, (p, T, m), (n, width), h = layer.weights, U.shape, layer.weights.B.shape, len(layer.weights.C)
    V = np.ones((T * m, width), U.dtype)  # with the constant feature, if there is one
    V[:, :p], V[:m, p : p + h] = U.transpose(1, 2, 0).reshape(T * m, p), H0.T
    Z, nothing = np.empty((T * m, n), U.dtype).T, launches.NOTHING[U.dtype]
    equation = Equation(weights.factors, layer.activation, None, Z)
    prepared = layer.prepared(equation, layer.options.forward) if V.size else None
    if prepared is None or not in_one_call(prepared):
        return None
    around, answer, levels = Forward.of(weights, V.T), room(n, T * m, U.dtype), launches.picard_rules(prepared)
    columns = flat(Z), nothing, nothing
    arguments = tuple(around), prepared.F1, prepared.F2, columns, *levels, prepared.roundings, answer
    if not launch(sequences.unroll, layer, prepared, (T, m, p), answer, *arguments):
        return None
    solution = layer.finished(solution_of(answer), equation, layer.options.forward)
    U = around.U.reshape(T * m, width).T
    return Whole(ForwardPass(weights, U, Z, solution, around.Y.reshape(T * m, h).T), (T, m, p))


def backward(layer: Layer, whole: Whole, G_H: np.ndarray, tiny: float) -> UnrolledBack | None:
    """Compute the gradients of all time steps in one launch, or return None where that is not possible.   G_H (h, m)"""
    (weights, U, Z, solution, _), (T, m, p), options = whole.forward, whole.sizes, layer.options.adjoint
    (_, B, C, D, _), X, dtype, nothing = weights, solution.X, Z.dtype, launches.NOTHING[Z.dtype]
    (n, width), h = B.shape, len(C)
    S, G = np.empty((2, T * m, n), dtype)
    equation = layer.adjoint(S.T, G.T)
    forth, back = layer.prepared(layer.equation(Z), layer.options.forward), layer.prepared(equation, options)
    if forth is None or back is None or not in_one_call(back):
        return None
    G_Y, G_V, answer = np.zeros((T * m, h), dtype), np.empty(T * m * width, dtype), room(n, T * m, dtype)
    G_Y[-m:] = np.where(np.abs(G_H.T) < tiny, 0, G_H.T)
    terms = forth.F1, forth.F2, (n, forth.sizes[1], h, forth.sizes[2])
    columns = flat(G.T), flat(S.T), nothing
    adjoint = back.F1, back.F2, columns, *launches.picard_rules(back), back.roundings, answer
    rows = by_rows(C), by_rows(B.T), nothing[0] if D is None else by_rows(D.T)
    given = by_columns(X), by_columns(Z), G_Y.reshape(-1)
    arguments = terms, adjoint, rows, given, G_V, dtype.type(tiny)
    if not launch(sequences.unroll_back, layer, back, whole.sizes, answer, *arguments):
        return None
    found = layer.finished(solution_of(answer), equation, options)
    total = launches.gradients(weights, (U, X, found.X, G_Y.T), found)
    by_step = G_V.reshape(T, m, width).transpose(2, 0, 1)
    return UnrolledBack(found, whole.sizes, total, by_step[:p], by_step[p : p + h, 0])
