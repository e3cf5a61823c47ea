"""Training on the device: parameters, velocities and every intermediate stay there.

Minibatches and G_Y go there, Ŷ and what is recorded per sample or per row come back: the loss is computed on the host,
where it is written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from idl_ref import activations, losses
from idl_ref import factors as fac
from idl_ref.backends.cuda import algebra, api
from idl_ref.backends.cuda.api import Matrix, by_rows, matrix
from idl_ref.backends.cuda.layer import fixed_point, row_sums
from idl_ref.factors import by_name
from idl_ref.functions import FUNCTIONS
from idl_ref.gradients import BackwardPass, ForwardPass, Weights
from idl_ref.model import ImplicitModel
from idl_ref.optim import SGD
from idl_ref.preprocessing import as_rows

THREADS = 128


def each(kernel: Any, count: int, *arguments: Any) -> None:
    """A thread for each of `count` entries, or rows."""
    api.launch(kernel, -(-count // THREADS), THREADS, 0, 0, *arguments)


def empty(shape: tuple[int, int], dtype: Any) -> Matrix:
    """An uninitialised matrix, row by row."""
    return by_rows(api.empty(shape[0] * shape[1], dtype), *shape)


def made(kernel: Any, count: int, F: Matrix, *arguments: Any) -> Matrix:
    """What a kernel makes of F and more, stored as F is."""
    result = F._replace(array=api.empty(F.array.size, F.dtype))
    each(kernel, count, F, *arguments, result.array)
    return result


def multiply(F: Matrix, X: Matrix, Y: Matrix | None = None) -> Matrix:
    """F X, or Y + F X in place of Y."""
    rows, columns, tile = F.shape[0], X.shape[1], algebra.TILE
    result = empty((rows, columns), F.dtype) if Y is None else Y
    blocks = -(-rows // tile) * -(-columns // tile)
    shared = 2 * tile * tile * F.dtype.itemsize
    api.launch(algebra.multiply, blocks, tile * tile, shared, 0, F, X, result, int(Y is not None))
    return result


def product(F: Matrix, X: Matrix, stored_as: Matrix) -> Matrix:
    """F X, by rows or by columns."""
    return multiply(F, X) if stored_as.right == 1 else multiply(X.T, F.T).T


def apply(factors: Any, X: Matrix) -> Matrix:
    """F₁ F₂ … X"""
    for F in reversed(factors):
        X = multiply(F, X)
    return X


def row_products(F: Matrix, G: Matrix) -> Any:
    """⟨g_i, f_i⟩ of every row."""
    products = api.empty(F.shape[0], F.dtype)
    each(algebra.row_products, F.shape[0], F, G, products)
    return products


def collected(values: Any) -> Any:
    """The largest of nonnegative numbers, its place, and their sum, on the device."""
    result = api.empty(3, values.dtype)
    api.launch(algebra.collect, 1, THREADS, 3 * THREADS * np.dtype(values.dtype).itemsize, 0, values, result)
    return result


def norm(F: Matrix) -> Any:
    """‖F‖∞, the row that attains it, and Σ_ik |F_ik|, on the device."""
    return collected(row_sums(F, api.empty(0, F.dtype))[0])


# --- what `f` does to a factor, and to its gradient; levels: κ, eps ---------------------------------------------------


def scale(F: Matrix, levels: tuple) -> Matrix:
    return made(algebra.scale, F.array.size, F, norm(F), levels)


def pull_scale(F: Matrix, G: Matrix, levels: tuple) -> Matrix:
    return made(algebra.pull_scale, F.array.size, F, G, norm(F), collected(row_products(F, G)), levels)


def project(F: Matrix, levels: tuple) -> Matrix:
    return made(algebra.project, F.shape[0], F, levels)


def pull_project(F: Matrix, G: Matrix, levels: tuple) -> Matrix:
    return made(algebra.pull_project, F.shape[0], F, G, levels)


def upper(F: Matrix, levels: tuple) -> Matrix:
    return made(algebra.upper, F.array.size, F)


MAPS: dict[str, tuple[Callable[..., Matrix], Callable[..., Matrix]]] = {
    "none": (lambda F, levels: F, lambda F, G, levels: G),
    "inf": (scale, pull_scale),
    "rows": (project, pull_project),
    "triu": (upper, lambda F, G, levels: upper(G, levels)),
}


class Trainer:
    """The training steps of one model with backend "cuda"; its `f` must be one of the package's own."""

    def __init__(self, model: ImplicitModel) -> None:
        if model.f not in FUNCTIONS.values():
            raise ValueError(
                f"f must be one of {', '.join(f.__name__ for f in FUNCTIONS.values())} to be trained on the device; "
                f'got {model.f.__name__}: train with backend="numba", or "numpy".'
            )
        model.effective_weights()  # refuses parameters of a wrong shape or dtype
        self.model, self.dtype = model, model.dtype
        self.parameters: dict[str, Any] = {
            name: matrix(np.ascontiguousarray(W), self.dtype) for name, W in model.parameters.items()
        }
        self.velocity = {name: matrix(np.zeros(W.shape, self.dtype), self.dtype) for name, W in self.parameters.items()}
        self.levels = (self.dtype.type(model.kappa), self.dtype.type(np.finfo(self.dtype).eps))

    def bring_back(self) -> None:
        """The parameters, into the model on the host."""
        for name, W in self.parameters.items():
            self.model.parameters[name][...] = W.download()

    def step(self, U: np.ndarray, T: np.ndarray, loss: str, optimizer: SGD) -> tuple[float, ForwardPass, BackwardPass]:
        """One step, as `train.train_step`; what it returns holds Ŷ and statuses on the host, all else on the device."""
        settings = self.model.settings
        d_U = matrix(as_rows(U, settings.bias).T, self.dtype)
        forward = self.forward(d_U)
        with np.errstate(over="ignore", invalid="ignore"):
            value, G_Y = losses.get(loss)(forward.Y, T)
        if not np.isfinite(value):
            raise FloatingPointError(f"the loss is {float(value)}")
        backward = self.backward(forward, matrix(G_Y.astype(self.dtype, copy=False), self.dtype))
        self.descend(self.gradients(backward), optimizer)
        return float(value), forward, backward

    def raw(self) -> tuple[Matrix, ...]:
        """(A,) or (L, Rᵀ)"""
        P = self.parameters
        return (P["A"],) if "A" in P else (P["L"], P["R"].T)

    def forward(self, U: Any) -> ForwardPass:
        """Z = B U,   X = φ(A X + Z),   Y = C X + D U."""
        P, settings, of_f = self.parameters, self.model.settings, MAPS[self.model.f.name][0]
        factors: Any = tuple(of_f(F, self.levels) for F in self.raw())
        Z: Any = multiply(P["B"], U)
        phi, options = activations.get(settings.activation), settings.forward_options()
        solution = fixed_point(factors, phi, None, Z, None, options)
        X: Any = solution.X
        Y = multiply(P["C"], X)
        if "D" in P:
            Y = multiply(P["D"], U, Y)
        weights = Weights(factors, P["B"], P["C"], P.get("D"))
        return ForwardPass(weights, settings.activation, U, Z, solution, Y.download())

    def backward(self, forward: ForwardPass, G_Y: Matrix) -> BackwardPass:
        """G = Cᵀ G_Y,   S = φ′(A X + Z),   V = S ∘ (Aᵀ V + G),   and the gradients."""
        passed: Any = forward  # which holds matrices on the device in the places of arrays
        weights, U, Z, X = passed.weights, passed.U, passed.Z, passed.solution.X
        factors = weights.factors
        G, S = multiply(weights.C.T, G_Y), empty(Z.shape, self.dtype)
        each(algebra.slopes, S.array.size, apply(factors, X), Z, activations.get(forward.activation).code, S)
        identity, options = activations.get("identity"), self.model.settings.adjoint_options()
        solution = fixed_point(fac.transpose(factors), identity, S, G, None, options)
        V: Any = solution.X
        of_factors: Any = tuple(
            product(apply(fac.transpose(factors[:i]), V), apply(factors[i + 1 :], X).T, factors[i])
            for i in range(len(factors))
        )
        rest: Any = multiply(V, U.T), multiply(G_Y, X.T), None if weights.D is None else multiply(G_Y, U.T)
        return BackwardPass(solution, of_factors, *rest)

    def gradients(self, backward: BackwardPass) -> dict[str, Matrix]:
        """Those of the raw parameters, stored as the parameters are."""
        pull = MAPS["none" if self.model.straight_through else self.model.f.name][1]
        G: Any = [pull(F, G, self.levels) for F, G in zip(self.raw(), backward.factors, strict=True)]
        named = by_name(G)
        named |= {"B": backward.B, "C": backward.C}
        return named if backward.D is None else named | {"D": backward.D}

    def descend(self, gradients: dict[str, Matrix], optimizer: SGD) -> None:
        """One step of SGD, and the projection where `f` has one; nothing if a gradient is not finite."""
        for name, W in self.parameters.items():
            if not np.isfinite(api.download(row_products(W, gradients[name]))).all():
                raise FloatingPointError(f"the gradient of {name} is not finite")
        rate = optimizer.advance()
        levels = tuple(self.dtype.type(x) for x in (rate, optimizer.momentum, optimizer.weight_decay))
        for name, W in self.parameters.items():
            G, V = gradients[name], self.velocity[name]
            each(algebra.descend, W.array.size, W, G, V, levels, int(optimizer.nesterov))
        if self.model.f.name == "rows":
            for name, F in zip("A" if "A" in self.parameters else "LR", self.raw(), strict=True):
                projected = project(F, self.levels)
                self.parameters[name] = projected if name != "R" else projected.T
