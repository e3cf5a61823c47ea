"""Training on the device: parameters, velocities and every intermediate stay there.

Minibatches and G_Y go there, Ŷ and what is recorded per sample or per row come back: the loss is computed on the host,
where it is written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from idl_ref import factors as fac
from idl_ref.activations import Activation
from idl_ref.backends.cuda import algebra, api
from idl_ref.backends.cuda.api import Matrix, by_rows, matrix
from idl_ref.backends.cuda.layer import Layer, row_sums
from idl_ref.backends.numpy import trainer as definition
from idl_ref.functions import FUNCTIONS
from idl_ref.optim import SGD
from idl_ref.weights import (
    BackwardPass,
    ForwardPass,
    Options,
    Parameters,
    Parametrisation,
    Weights,
    as_factors,
    by_name,
)

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


class DeviceLayer(Layer):
    """The layer with its matrices on the device. U comes from the host, and Y goes there, to the loss."""

    def forward(self, U: np.ndarray, X0: Any = None) -> ForwardPass:
        """Z = B U,   X = φ(A X + Z),   Y = C X + D U.   U (p, m) on the host"""
        weights: Any = self.weights
        d_U: Any = matrix(self.inputs(U), U.dtype)
        Z: Any = multiply(weights.B, d_U)
        solution = self.solve(self.equation(Z), X0)
        X: Any = solution.X
        Y = multiply(weights.C, X)
        if weights.D is not None:
            Y = multiply(weights.D, d_U, Y)
        return ForwardPass(weights, d_U, Z, solution, Y.download())

    def backward(self, forward: ForwardPass, G_Y: Any, inputs: bool = False) -> BackwardPass:
        """G = Cᵀ G_Y,   S = φ′(A X + Z),   V = S ∘ (Aᵀ V + G),   and the gradients.   G_Y (q, m) on the host"""
        if inputs:
            raise NotImplementedError("a training step has no use for ∂U: ask a layer whose arrays are on the host.")
        passed: Any = forward  # holds matrices on the device in the places of arrays
        factors, _, C, D, _ = passed.weights
        U, Z, X = passed.U, passed.Z, passed.solution.X
        G_Y = matrix(G_Y.astype(Z.dtype, copy=False), Z.dtype)
        G, S = multiply(C.T, G_Y), empty(Z.shape, Z.dtype)
        each(algebra.slopes, S.array.size, apply(factors, X), Z, self.activation.code, S)
        solution = self.solve(self.adjoint(S, G))  # type: ignore[arg-type]
        V: Any = solution.X
        of_factors: Any = tuple(
            product(apply(fac.transpose(factors[:i]), V), apply(factors[i + 1 :], X).T, factors[i])
            for i in range(len(factors))
        )
        rest: Any = multiply(V, U.T), multiply(G_Y, X.T), None if D is None else multiply(G_Y, U.T)
        return BackwardPass(solution, of_factors, *rest)


class Trainer(definition.Trainer):
    """Takes the training steps of one model on the device; its `f` must be one of the package's own.

    `parameters` are the copies on the device; `update_host` writes them back into the arrays of the model.
    """

    layer_class = DeviceLayer

    def __init__(
        self,
        parameters: Parameters,
        parametrisation: Parametrisation,
        activation: Activation,
        options: Options,
        loss: str,
        optimizer: SGD,
    ) -> None:
        f, dtype = parametrisation.function, parameters["B"].dtype
        if type(f) not in FUNCTIONS.values():
            raise ValueError(
                f"f must be one of {', '.join(f.__name__ for f in FUNCTIONS.values())} to be trained on the device; "
                f'got {type(f).__name__}: train with backend="numba", or "numpy".'
            )
        copies: Any = {name: matrix(np.ascontiguousarray(W), dtype) for name, W in parameters.items()}
        super().__init__(copies, parametrisation, activation, options, loss, optimizer)
        self.host = parameters
        self.velocity = {name: matrix(np.zeros(W.shape, dtype), dtype) for name, W in parameters.items()}
        self.levels = (dtype.type(f.kappa), dtype.type(np.finfo(dtype).eps))

    def update_host(self) -> None:
        """Copy the parameters into the arrays of the model."""
        for name, W in self.parameters.items():
            d_W: Any = W
            self.host[name][...] = d_W.download()

    def layer(self) -> Layer:
        """The layer of the parameters as they are now."""
        P, of_f = self.parameters, MAPS[self.parametrisation.function.name][0]
        factors: Any = tuple(of_f(F, self.levels) for F in as_factors(P))
        weights = Weights(factors, P["B"], P["C"], P.get("D"), self.parametrisation.bias)
        return DeviceLayer(weights, self.activation, self.options)

    def gradients(self, backward: BackwardPass) -> Any:
        """Those of the raw parameters, stored as the parameters are."""
        f = self.parametrisation.function
        pull = MAPS["none" if f.straight_through else f.name][1]
        raw: Any = as_factors(self.parameters)
        G: Any = [pull(F, G, self.levels) for F, G in zip(raw, backward.factors, strict=True)]
        named = by_name(G) | {"B": backward.B, "C": backward.C}
        return named if backward.D is None else named | {"D": backward.D}

    def descend(self, backward: BackwardPass) -> None:
        """One step of SGD, and the projection where `f` has one; nothing if a gradient is not finite."""
        gradients, optimizer, parameters = self.gradients(backward), self.optimizer, dict(self.parameters)
        for name, W in parameters.items():
            if not np.isfinite(api.download(row_products(W, gradients[name]))).all():  # type: ignore[arg-type]
                raise FloatingPointError(f"the gradient of {name} is not finite")
        scalar = self.levels[0].dtype.type
        levels = scalar(optimizer.advance()), scalar(optimizer.momentum), scalar(optimizer.weight_decay)
        for name, W in parameters.items():
            G, V = gradients[name], self.velocity[name]
            each(algebra.descend, V.array.size, W, G, V, levels, int(optimizer.nesterov))
        if self.parametrisation.function.name == "rows":
            for name, F in zip("A" if "A" in parameters else "LR", as_factors(parameters), strict=True):
                projected: Any = project(F, self.levels)  # type: ignore[arg-type]
                parameters[name] = projected if name != "R" else projected.T
            self.parameters = parameters
