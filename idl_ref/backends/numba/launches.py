"""This module starts the compiled kernels: it divides columns into tiles, and tiles among threads."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np

from idl_ref import certificate, checks
from idl_ref import factors as fac
from idl_ref.backends import methods
from idl_ref.backends.equation import Equation
from idl_ref.backends.numba import kernels, passes, substitution, threads
from idl_ref.backends.numba.products import GROUP
from idl_ref.solution import Solution, SolveOptions
from idl_ref.weights import BackwardPass, ForwardPass, Weights

# Several threads are used if a launch takes more flops than this, where a solver is taken to apply its map USUAL times.
# Two threads then save more than it takes to start them, and to move what they share from one core to the other.
PARALLEL_FLOPS, USUAL = 15e6, 6
# A tile has at most TILE columns, and all vectors of its columns take at most TILE_BYTES, so that they stay in the L2
# cache.
TILE = 64
TILE_BYTES = 3 << 19

Flat = tuple[np.ndarray, int, int]  # The entries of a matrix, and the distances between its rows and its columns.
NOTHING: dict[np.dtype, Flat] = {
    dtype: (np.empty(0, dtype), 0, 0) for dtype in checks.FLOAT_DTYPES
}  # The form of None.


def flat(array: np.ndarray) -> Flat:
    """Return a matrix in the form that kernels read. It is copied only if its memory is read-only or not contiguous."""
    if not array.flags.carray:
        if array.flags.farray:
            return array.T.ravel(), 1, array.shape[0]
        array = np.array(array, order="C")  # Numba would compile other kernels for arrays with gaps, or read-only ones.
    return array.ravel(), array.shape[1], 1


def transposed(F: np.ndarray) -> np.ndarray:
    """Return the entries of a factor in column-major order, as a flat array."""
    return np.array(F.T, order="C").reshape(-1)


def by_rows(M: np.ndarray) -> np.ndarray:
    """Return the entries of a matrix row by row, as a flat array, which is a copy only if the memory is different."""
    return (M if M.flags.carray else np.array(M, order="C")).ravel()


def by_columns(M: np.ndarray) -> np.ndarray:
    """Return the entries of a matrix column by column, as a flat array; samples are columns."""
    return by_rows(M.T)


def tiles(m: int, column_bytes: int, tile: int | None, flops: int) -> tuple[int, int]:
    """Return the number of threads that save time, and the number of columns of a tile.

    A tile is wide, so that each entry of A is used often, but its vectors fit into the cache. All threads get the same
    number of tiles. A `tile` that is given is used as it is.
    """
    workers = numba.get_num_threads() if m * flops > PARALLEL_FLOPS else 1
    if tile is None:
        most = max(GROUP, min(TILE, TILE_BYTES // column_bytes) // GROUP * GROUP)
        if m <= most and workers == 1:
            return 1, m
        share = -(-m // workers)
        width = -(-share // -(-share // most))
        tile = -(-width // GROUP) * GROUP
    return min(workers, -(-m // tile)), tile


# The activation, the step and the norms of one entry take as long as this many flops of a product.
ENTRY_FLOPS = 40
# The number of vectors that a method needs for each column.
KEPT = {"auto": 3, "picard": 3, "substitution": 3, "newton": 5, "anderson": 5 + kernels.HISTORY}
Answer = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # what `blank` allocates


class Prepared(NamedTuple):
    """The data of a solve that do not depend on its columns. A layer computes them once for each of its equations."""

    options: SolveOptions
    method: str  # the method that the name in the options stands for
    sizes: tuple[int, int, int, int]  # n, the rank or 0 for a dense A, the code of the activation, and max_iter
    F1: np.ndarray  # the first factor, packed in panels, with the codes of the rows behind them for a mix
    F2: np.ndarray  # the second factor, packed in panels; empty for a dense A
    roundings: tuple[float, ...]  # a Rounding as a plain tuple, which a kernel receives faster than a named one
    flops: int  # the flops of one application to one column


def blank(n: int, m: int, dtype: np.dtype, iterations: np.ndarray) -> Answer:
    """Return the arrays that kernels write: the columns x (m n,), status (m,), iterations (m,), and numbers (6, m).

    Then come a flag that ends kernels before they are done, where it is not 0, and room for F of `hand_over` (m n,).
    """
    x, F, stop = np.empty(m * n, dtype), np.empty(m * n, dtype), np.zeros(1, np.int64)
    return x, np.empty(m, np.int8), iterations, np.empty((6, m)), stop, F


class Forward(NamedTuple):
    """What stands around the equation in a forward pass: Z = B U before it, and Y = C X + D U behind it."""

    weights: tuple[np.ndarray, np.ndarray, np.ndarray]  # B, C and D row by row; D is empty if there is none
    U: np.ndarray
    sizes: tuple[int, int, int, int]  # n, p, q, and the distance between the columns of U
    Y: np.ndarray

    @property
    def kernel(self) -> Callable[..., int]:
        """Return the kernel that computes this, and solves the equation."""
        return passes.forward

    @classmethod
    def of(cls, weights: Weights, U: np.ndarray) -> Forward:
        """Return the parts for weights and inputs, with room for the outputs.   U (p, m) with the constant feature"""
        _, B, C, D, _ = weights
        (n, p), q = B.shape, len(C)
        D = NOTHING[B.dtype][0] if D is None else by_rows(D)
        return cls((by_rows(B), by_rows(C), D), by_columns(U), (n, p, q, p), np.empty(q * U.shape[1], B.dtype))

    def cost(self) -> tuple[int, int]:
        """Return how many entries and how many flops a column takes besides those of the solver."""
        n, p, q, _ = self.sizes
        return p + q, 2 * (n * p + q * n + q * p)

    def before(self, Z: np.ndarray) -> None:
        """Write B U to Z, whose columns are contiguous."""
        n, p, _, _ = self.sizes
        how = tiles(Z.shape[1], (n + p) * Z.itemsize, None, 2 * n * p)
        launch(passes.constant, Z.shape[1], how, self.weights[0], self.U, self.sizes, Z.T.reshape(-1))

    def after(self, X: np.ndarray) -> None:
        """Write C X + D U to Y.   X one column after the other"""
        n, p, q, _ = self.sizes
        m, (_, C, D) = len(X) // n, self.weights
        how = tiles(m, (n + p + q) * X.itemsize, None, 2 * q * (n + p))
        launch(passes.readout, m, how, C, D, X, self.U, self.sizes, self.Y)


class Backward(NamedTuple):
    """What stands before the adjoint equation: S = φ′(A X + Z) and G = Cᵀ G_Y."""

    F1: np.ndarray  # the factors of A, as they are packed for the forward equation
    F2: np.ndarray
    C: np.ndarray  # row by row
    columns: tuple[np.ndarray, np.ndarray, np.ndarray]  # X, Z and G_Y
    sizes: tuple[int, int, int, int]  # n, r (0 for one factor), q, and the code of the activation
    S_and_G: tuple[np.ndarray, np.ndarray]

    @property
    def kernel(self) -> Callable[..., int]:
        """Return the kernel that computes this, and solves the equation."""
        return passes.backward

    def cost(self) -> tuple[int, int]:
        """Return how many entries and how many flops a column takes besides those of the solver."""
        n, r, q, _ = self.sizes
        return 3 * n + q, ENTRY_FLOPS * n + 2 * (2 * n * r if r else n * n) + 2 * n * q

    def before(self, G: np.ndarray) -> None:
        """Write S and G, whose columns are contiguous."""
        width, flops = self.cost()
        launch(passes.terms, G.shape[1], tiles(G.shape[1], width * G.itemsize, None, flops), *self)

    def after(self, V: np.ndarray) -> None:
        """Do nothing: the gradients are sums over all columns."""


def solve(
    prepared: Prepared,
    equation: Equation,
    X0: np.ndarray | None,
    around: Forward | Backward | None = None,
) -> Solution:
    """Solve an equation, and compute what stands around it, in the same launch if the method is Picard's."""
    (n, m), adjoint, one_launch = equation.Z.shape, equation.S is not None, prepared.method in ("auto", "picard")
    answer = blank(n, m, equation.Z.dtype, np.zeros(m, np.intp))
    if around and not one_launch:
        around.before(equation.Z)
    left = solve_columns(prepared.method, prepared, equation, X0, answer, around if one_launch else None)
    if left and prepared.method == "auto":
        _solve_slow(("anderson", "newton"), prepared, equation, X0, answer)
    x, status, iterations, numbers = answer[:4]
    if around and (left or not one_launch):
        around.after(x)
    step, bound = numbers[kernels.STEP], numbers[kernels.BOUND]
    if not prepared.roundings[0] < 1:  # The norm of A alone then shows no contraction.
        numerator, kappa, lipschitz = numbers[kernels.EXCESS : kernels.FIRST]
        factors, phi = equation.factors, equation.activation
        forward = fac.transpose(factors) if adjoint else certificate.contracting(factors, phi)
        bound = certificate.divide(numerator, kappa, lipschitz, forward, adjoint)
    return Solution(x.reshape(m, n).T, status, iterations, step, bound)


def _solve_slow(
    names: tuple[str, ...], prepared: Prepared, equation: Equation, X0: np.ndarray | None, answer: Answer
) -> None:
    """Continue with the columns of the status SLOW by the first of some methods, and with those left by the next one.

    A column continues from its last point, or from where it began in X0 if its step is longer there or not known.
    """
    X, status, iterations, numbers = answer[0].reshape(len(answer[1]), -1), *answer[1:4]
    slow = np.flatnonzero(status == kernels.SLOW)
    away = slow[~(numbers[kernels.STEP, slow] <= numbers[kernels.FIRST, slow])]
    X[away] = 0 if X0 is None else X0.T[away]
    F = answer[5].reshape(X.shape)
    F[away] = np.nan
    begin, known, rest = X[slow].T, F[slow].ravel(), answer
    if slow.size < status.size:
        S, Z = equation.S, equation.Z
        equation = equation._replace(S=None if S is None else S.T[slow].T, Z=Z.T[slow].T)
        rest = blank(X.shape[1], slow.size, X.dtype, iterations[slow])
    if solve_columns(names[0], prepared, equation, begin, rest, F=known):
        _solve_slow(names[1:], prepared, equation, begin, rest)
    if rest is not answer:
        X[slow], status[slow], iterations[slow], numbers[:, slow] = rest[0].reshape(slow.size, -1), *rest[1:4]


def solve_columns(
    method: str,
    p: Prepared,
    equation: Equation,
    X0: np.ndarray | None,
    answer: Answer,
    around: Forward | Backward | None = None,
    F: np.ndarray | None = None,
) -> int:
    """Solve all columns by one method and write the results to `answer`, whose iterations are added to.

    F (m n,): as `guarded` takes it, column by column
    Here "auto" means Picard, which gives up slow columns with the status SLOW. The number of these columns is returned.
    """
    (factors, _, S, Z), options = equation, p.options
    (n, m), nothing = Z.shape, NOTHING[Z.dtype]
    if method == "substitution" and X0 is not None:  # Only a start that is not finite has an effect.
        Z = np.where(np.isfinite(X0).all(axis=0), Z, Z.dtype.type(np.nan))
    columns = flat(Z), nothing if S is None else flat(S), nothing if X0 is None else flat(X0)
    tol, (_, r, code, max_iter) = float(options.tol), p.sizes
    column_bytes, flops = KEPT[method] * n * Z.itemsize, p.flops
    kernel: Callable[..., int]
    arguments: tuple
    if method == "substitution":
        kind = n, code, int(fac.triangle(factors) == "upper")
        kernel, arguments = substitution.substitute, (transposed(factors[0]), p.F1, columns, kind, tol, p.roundings)
    elif method in ("anderson", "newton"):
        rules = *p.sizes, methods.LEASH, methods.RESPITE
        cheaper = p.method == "auto" and method == "anderson"
        other = methods.newton_cost(factors) if cheaper else math.inf
        levels, Lt = (tol, methods.DECREASE, other), transposed(factors[0]) if method == "newton" else None
        start = *columns, nothing[0] if F is None or Lt is not None else F
        kernel, arguments = kernels.guarded, (p.F1, p.F2, Lt, start, rules, levels, p.roundings)
    else:
        shape, levels_of_picard = picard_rules(p)
        kernel, arguments = kernels.picard, (p.F1, p.F2, columns, shape, levels_of_picard, p.roundings)
        if around:
            kernel, arguments, (width, more) = around.kernel, (tuple(around), *arguments), around.cost()
            column_bytes += width * Z.itemsize
            flops += more
    if not around and method != "substitution":
        flops *= USUAL
    work = m * max_iter * (p.flops + (n**3 if method == "newton" and not r else 0))
    how = tiles(m, column_bytes, options.tile, flops)
    if m <= how[1] and work <= threads.LONG_FLOPS:  # One tile, which is soon done, needs neither threads nor signals.
        return kernel(0, m, *arguments, answer)
    return threads.interruptible(kernel, m, work, how, answer[4], (answer[2],), *arguments, answer)


def picard_rules(p: Prepared) -> tuple[tuple[int, ...], tuple[float, float]]:
    """Return the sizes and the levels that `picard` takes."""
    sizes = *p.sizes, methods.SLOW_STEPS if p.method == "auto" else methods.ENDLESS
    return sizes, (float(p.options.tol), methods.SLOW)


# --- products ---------------------------------------------------------------------------------------------------------


def launch(kernel: Callable[..., int], m: int, workers_and_tile: tuple[int, int], *arguments: Any) -> None:
    """Call a kernel for m columns, or for m rows, on some threads and in tiles; see `tiles`."""
    workers, tile = workers_and_tile
    if m <= tile:
        kernel(0, m, *arguments)
    else:
        threads.share(kernel, workers, tile, m, False, np.zeros(1, np.int64), *arguments)


def forward(prepared: Prepared, equation: Equation, weights: Weights, U: np.ndarray) -> tuple[Solution, np.ndarray]:
    """Compute Z, which is written to the equation, the solution, and Y (q, m).   U (p, m) with the constant feature"""
    around = Forward.of(weights, U)
    solution = solve(prepared, equation, None, around)
    return solution, around.Y.reshape(U.shape[1], -1).T


def readout(weights: Weights, U: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Return Y = C X + D U.   U (p, m) with the constant feature, X (n, m) -> (q, m)"""
    around = Forward.of(weights, U)
    around.after(by_columns(X))
    return around.Y.reshape(U.shape[1], -1).T


def product(F: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Return F X, for example Z = B U.   F (a, b), X (b, m) -> (a, m)"""
    (a, b), m = F.shape, X.shape[1]
    out = np.empty((m, a), X.dtype)
    how = tiles(m, (a + b) * X.itemsize, None, 2 * a * b)
    launch(passes.constant, m, how, by_rows(F), by_columns(X), (a, b, 0, b), out.reshape(-1))
    return out.T


# --- gradients, which are sums over samples ---------------------------------------------------------------------------

# R, one column after the other; the sizes a, b, m and the distance between these columns; and L Rᵀ: see `passes.outer`.
Product = tuple[np.ndarray, tuple[int, int, int, int], np.ndarray]


def outer_room(a: int, b: int, dtype: np.dtype) -> np.ndarray:
    """Return an array for L Rᵀ (a, b), with the rows that `passes.outer` needs besides."""
    return np.empty((-(-a // GROUP) * GROUP + 1, b), dtype)


def outer(Lt: np.ndarray, R: np.ndarray) -> np.ndarray:
    """Return L Rᵀ, a sum over samples, for Lt = Lᵀ.   Lt (m, a), R (b, m) -> (a, b)"""
    a, (b, m) = Lt.shape[1], R.shape
    out = outer_room(a, b, R.dtype)
    launch_outer(flat(Lt), a, 2 * a * b * m, (by_columns(R), (a, b, m, b), out.ravel()))
    return out[:a]


def launch_outer(left: Flat, a: int, flops: int, *products: Product) -> None:
    """Call `passes.outers` for all a rows of L. A tile reads all of each R, so that each thread has only one tile."""
    workers = numba.get_num_threads() if flops > PARALLEL_FLOPS else 1
    share = -(-a // workers)
    launch(passes.outers, a, (workers, -(-share // GROUP) * GROUP), left, products)


def backward(
    prepared: tuple[Prepared, Prepared],
    equation: Equation,
    forward: ForwardPass,
    G_Y: np.ndarray,
    inputs: bool,
    answer: Callable[..., Solution] | None,
) -> BackwardPass:
    """Compute S and G, which are written to the adjoint equation, its solution V, and the gradients.

    `prepared` belongs to the forward and to the adjoint equation, and `answer` solves the latter if it is not None.
    """
    weights, U, Z, solution, _ = forward
    (forth, back), (n, r, code, _), S = prepared, prepared[0].sizes, equation.S
    assert S is not None
    given, S_and_G = (by_columns(solution.X), by_columns(Z), by_columns(G_Y)), (S.T.ravel(), equation.Z.T.ravel())
    terms = Backward(forth.F1, forth.F2, by_rows(weights.C), given, (n, r, len(G_Y), code), S_and_G)
    if answer:
        terms.before(equation.Z)
        adjoint = answer(equation, None, back.options)
    else:
        adjoint = solve(back, equation, None, terms)
    return gradients(weights, (U, solution.X, adjoint.X, G_Y), adjoint, inputs)


def gradients(
    weights: Weights,
    columns: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    solution: Solution,
    inputs: bool = False,
) -> BackwardPass:
    """Return the gradients of all weights, and of U if `inputs` is true, for the columns U, X, V and G_Y.

    ∂[A; C] = [V; G_Y] Xᵀ, ∂[B; D] = [V; G_Y] Uᵀ and ∂U = [B; D]ᵀ [V; G_Y] are one product each.
    """
    (factors, B, C, D, bias), (U, X, V, G_Y) = weights, columns
    both, (n, m), p, rows = np.concatenate([V.T, G_Y.T], axis=1), V.shape, len(U), len(V) + len(C)
    if len(factors) == 1:
        few, dtype = n if D is None else rows, U.dtype
        to_X, to_U = outer_room(rows, n, dtype), outer_room(few, p, dtype)
        of_X, of_U = (by_columns(X), (rows, n, m, n), to_X.ravel()), (by_columns(U), (few, p, m, p), to_U.ravel())
        launch_outer(flat(both), rows, 2 * m * (rows * n + few * p), of_X, of_U)
        G_A: fac.Factors = (to_X[:n],)
        G_C = to_X[n:rows]
    else:
        L, Rt = factors
        to_U, G_C = outer(V.T if D is None else both, U), outer(G_Y.T, X)
        G_A = outer(V.T, product(Rt, X)), outer(outer(V, L.T), X)  # V (Rᵀ X)ᵀ and (Lᵀ V) Xᵀ
    G_U = None
    if inputs:
        G_U = outer(V if D is None else both.T, (B if D is None else np.concatenate([B, D])).T).T
        G_U = G_U[:-1] if bias else G_U
    return BackwardPass(solution, G_A, to_U[:n], G_C, None if D is None else to_U[n:rows], G_U)
