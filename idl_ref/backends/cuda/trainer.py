"""Training on the device: the parameters, the velocities of the optimizer and all intermediate results stay there.

The minibatches and G_Y are copied to the device; Ŷ, the status of the samples and one number per row of a gradient are
copied back. The loss is computed on the host, by the same function as in the other twins.
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
from idl_ref.choices import LossFunction
from idl_ref.functions import FUNCTIONS
from idl_ref.optim import SGD, Adam, Optimizer
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

THREADS = 128  # of a block, in kernels with one thread per entry or row


def each(kernel: Any, count: int, *arguments: Any) -> None:
    """Launch a kernel with one thread for each of `count` entries or rows."""
    api.launch(kernel, -(-count // THREADS), THREADS, 0, 0, *arguments)


def empty(shape: tuple[int, int], dtype: Any) -> Matrix:
    """Allocate an uninitialised matrix on the device, in row-major order."""
    return by_rows(api.empty(shape[0] * shape[1], dtype), *shape)


def made(kernel: Any, count: int, F: Matrix, *arguments: Any) -> Matrix:
    """Return the result of a kernel that maps F, and further arguments, to a matrix with the layout of F."""
    result = F._replace(array=api.empty(F.array.size, F.dtype))
    each(kernel, count, F, *arguments, result.array)
    return result


def multiply(F: Matrix, X: Matrix, Y: Matrix | None = None) -> Matrix:
    """Return F X as a new matrix; with Y, add F X to Y in place and return Y."""
    rows, columns, tile = F.shape[0], X.shape[1], algebra.TILE
    result = empty((rows, columns), F.dtype) if Y is None else Y
    blocks = -(-rows // tile) * -(-columns // tile)
    shared = 2 * tile * tile * F.dtype.itemsize
    api.launch(algebra.multiply, blocks, tile * tile, shared, 0, F, X, result, int(Y is not None))
    return result


def product(F: Matrix, X: Matrix, stored_as: Matrix) -> Matrix:
    """Return F X in row-major order, or in column-major order if `stored_as` is so."""
    return multiply(F, X) if stored_as.right == 1 else multiply(X.T, F.T).T


def apply(factors: Any, X: Matrix) -> Matrix:
    """Return F₁ F₂ … X."""
    for F in reversed(factors):
        X = multiply(F, X)
    return X


def row_products(F: Matrix, G: Matrix) -> Any:
    """Return ⟨g_i, f_i⟩ for every row i of G and F, on the device."""
    products = api.empty(F.shape[0], F.dtype)
    each(algebra.row_products, F.shape[0], F, G, products)
    return products


def collected(values: Any) -> Any:
    """Return the largest of nonnegative numbers, its place, and the sum of all, as an array of three on the device."""
    result = api.empty(3, values.dtype)
    api.launch(algebra.collect, 1, THREADS, 3 * THREADS * np.dtype(values.dtype).itemsize, 0, values, result)
    return result


def norm(F: Matrix) -> Any:
    """Return ‖F‖∞, the row that attains it, and Σ_ik |F_ik|, as an array of three on the device."""
    return collected(row_sums(F, api.empty(0, F.dtype))[0])


# --- the parametrisations `f` and their pullbacks; levels: κ, eps -----------------------------------------------------


def scale(F: Matrix, levels: tuple) -> Matrix:
    """Return κ F / max(κ, ‖F‖∞)."""
    return made(algebra.scale, F.array.size, F, norm(F), levels)


def pull_scale(F: Matrix, G: Matrix, levels: tuple) -> Matrix:
    """Return the gradient with respect to F from the gradient G with respect to `scale` of F."""
    return made(algebra.pull_scale, F.array.size, F, G, norm(F), collected(row_products(F, G)), levels)


def project(F: Matrix, levels: tuple) -> Matrix:
    """Return the projection of each row of F onto the ℓ1 ball of radius κ."""
    return made(algebra.project, F.shape[0], F, levels)


def pull_project(F: Matrix, G: Matrix, levels: tuple) -> Matrix:
    """Return the gradient with respect to F from the gradient G with respect to `project` of F."""
    return made(algebra.pull_project, F.shape[0], F, G, levels)


def upper(F: Matrix, levels: tuple) -> Matrix:
    """Return the strict upper triangle of F."""
    return made(algebra.upper, F.array.size, F)


# By the name of the class in `functions`: the map from a raw to an effective factor, and its pullback.
MAPS: dict[str, tuple[Callable[..., Matrix], Callable[..., Matrix]]] = {
    "none": (lambda F, levels: F, lambda F, G, levels: G),
    "inf": (scale, pull_scale),
    "rows": (project, pull_project),
    "triu": (upper, lambda F, G, levels: upper(G, levels)),
}


def descent(optimizer: Optimizer, shrinkage: float, dtype: np.dtype) -> tuple[Any, tuple, tuple]:
    """Return the kernel of an optimizer, its numbers for the next step, which is counted, and its last arguments."""
    rate = optimizer.advance()
    if type(optimizer) is SGD:
        levels: tuple[float, ...] = rate, optimizer.momentum, optimizer.weight_decay, shrinkage
        return algebra.descend, tuple(map(dtype.type, levels)), (int(optimizer.nesterov),)
    assert type(optimizer) is Adam
    one, two = optimizer.beta1, optimizer.beta2
    levels = *optimizer.levels(rate, dtype), one, 1 - one, two, 1 - two, shrinkage
    return algebra.adam, tuple(map(dtype.type, levels)), ()


class DeviceLayer(Layer):
    """The layer of a Trainer: its matrices are on the device, except U, G_Y and Y.

    `forward` takes U from the host and returns Y to it, where the Trainer computes the loss and G_Y for `backward`.
    """

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
            raise NotImplementedError(
                "the layer of the CUDA trainer does not compute ∂U: use a layer whose arrays are on the host."
            )
        passed: Any = forward  # typed as NumPy arrays, but those of this layer are matrices on the device
        factors, _, C, D, _ = passed.weights
        U, Z, X = passed.U, passed.Z, passed.solution.X
        G_Y = matrix(G_Y.astype(Z.dtype, copy=False), Z.dtype)
        G, S = multiply(C.T, G_Y), empty(Z.shape, Z.dtype)
        codes = self.packed(factors, self.activation, False, 0).d_codes
        each(algebra.slopes, S.array.size, apply(factors, X), Z, self.activation.code, codes, S)
        solution = self.solve(self.adjoint(S, G))  # type: ignore[arg-type]
        V: Any = solution.X
        of_factors: Any = tuple(
            product(apply(fac.transpose(factors[:i]), V), apply(factors[i + 1 :], X).T, factors[i])
            for i in range(len(factors))
        )
        rest: Any = multiply(V, U.T), multiply(G_Y, X.T), None if D is None else multiply(G_Y, U.T)
        return BackwardPass(solution, of_factors, *rest)


class Trainer(definition.Trainer):
    """The trainer of one model, with its training steps on the device; `f` must be one of the classes in `functions`.

    `parameters` are copies on the device; `update_host` writes them back into the arrays of the model, in `host`.
    """

    layer_class = DeviceLayer

    def __init__(
        self,
        parameters: Parameters,
        parametrisation: Parametrisation,
        activation: Activation,
        options: Options,
        loss: str | LossFunction,
        optimizer: Optimizer,
    ) -> None:
        f, dtype = parametrisation.function, parameters["B"].dtype
        on_device = [FUNCTIONS[name] for name in MAPS]
        if type(f) not in on_device:
            raise ValueError(
                f"f must be one of {', '.join(f.__name__ for f in on_device)} to be trained on the device; "
                f'got {type(f).__name__}: train with backend="numba", or "numpy".'
            )
        if type(optimizer) not in (SGD, Adam):
            raise ValueError(
                f"optimizer must be SGD or Adam to train on the device; got {type(optimizer).__name__}: train with "
                'backend="numba", or "numpy".'
            )
        copies: Any = {name: matrix(np.ascontiguousarray(W), dtype) for name, W in parameters.items()}
        super().__init__(copies, parametrisation, activation, options, loss, optimizer)
        self.host = parameters
        self.moments = {
            name: tuple(matrix(np.ascontiguousarray(M), dtype) for M in optimizer.moments(name, W))
            for name, W in parameters.items()
        }
        self.levels = (dtype.type(f.kappa), dtype.type(np.finfo(dtype).eps))

    def update_host(self) -> None:
        """Copy parameters and moments from the device into the arrays of the model and the optimizer, in place."""
        for name, W in self.parameters.items():
            d_W: Any = W
            self.host[name][...] = d_W.download()
            moments: Any = zip(self.optimizer.moments(name, self.host[name]), self.moments[name], strict=True)
            for M, d_M in moments:
                M[...] = d_M.download()

    def layer(self) -> Layer:
        """Return the layer of the current parameters, with the effective factors that `f` makes of the raw ones."""
        P, of_f = self.parameters, MAPS[self.parametrisation.function.name][0]
        factors: Any = tuple(of_f(F, self.levels) for F in as_factors(P))
        weights = Weights(factors, P["B"], P["C"], P.get("D"), self.parametrisation.bias)
        return DeviceLayer(weights, self.activation, self.options)

    def shrinkage(self, gradients: Any) -> float:
        """Return what all gradients are multiplied by: min(1, clip/‖g‖), or 1 without `clip`."""
        if self.optimizer.clip is None:
            return 1.0
        squares = [api.download(row_products(G, G)) for G in gradients.values()]
        return self.optimizer.shrinkage({str(i): np.sqrt(rows) for i, rows in enumerate(squares)})

    def gradients(self, backward: BackwardPass) -> Any:
        """Return the gradients of the raw parameters by name, each with the layout of its parameter."""
        f = self.parametrisation.function
        pull = MAPS["none" if f.straight_through else f.name][1]
        raw: Any = as_factors(self.parameters)
        G: Any = [pull(F, G, self.levels) for F, G in zip(raw, backward.factors, strict=True)]
        named = by_name(G) | {"B": backward.B, "C": backward.C}
        return named if backward.D is None else named | {"D": backward.D}

    def descend(self, backward: BackwardPass) -> None:
        """Take one step of SGD or Adam, then project the factors if `f` projects rows.

        Raises FloatingPointError, with all parameters unchanged, if a gradient is not finite.
        """
        gradients, optimizer, parameters = self.gradients(backward), self.optimizer, dict(self.parameters)
        for name, W in parameters.items():
            if not np.isfinite(api.download(row_products(W, gradients[name]))).all():  # type: ignore[arg-type]
                raise FloatingPointError(f"the gradient of {name} is not finite")
        shrinkage = self.shrinkage({name: gradients[name] for name in parameters})
        kernel, levels, last = descent(optimizer, shrinkage, self.levels[0].dtype)
        for name, W in parameters.items():
            each(kernel, self.moments[name][0].array.size, W, gradients[name], *self.moments[name], levels, *last)
        if self.parametrisation.function.name == "rows":
            for name, F in zip("A" if "A" in parameters else "LR", as_factors(parameters), strict=True):
                projected: Any = project(F, self.levels)
                parameters[name] = projected if name != "R" else projected.T
            self.parameters = parameters
