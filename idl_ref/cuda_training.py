"""Training on the device: parameters, velocities and every intermediate stay there.

Only minibatches go there, Ŷ and what is recorded per sample or per row come back, and G_Y goes there: the loss is
computed on the host, where it is written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from idl_ref import activations, losses
from idl_ref.backends import cuda_algebra as algebra
from idl_ref.backends import cuda_api as api
from idl_ref.backends import cuda_kernels as kernels
from idl_ref.backends.cuda_ import fixed_point
from idl_ref.backends.cuda_arrays import Matrix, empty, matrix
from idl_ref.functions import FUNCTIONS
from idl_ref.gradients import BackwardPass, ForwardPass, Weights
from idl_ref.model import ImplicitModel
from idl_ref.optim import SGD
from idl_ref.preprocessing import as_rows

THREADS = 128


def over(count: int) -> int:
    """Blocks for so many entries, or rows."""
    return -(-count // THREADS)


def multiply(F: Matrix, X: Matrix, result: Matrix | None = None) -> Matrix:
    """F X, or result + F X in place of `result`."""
    rows, columns, tile = F.shape[0], X.shape[1], algebra.TILE
    Y = empty(rows, columns, F.dtype) if result is None else result
    blocks = -(-rows // tile) * -(-columns // tile)
    shared = 2 * tile * tile * F.dtype.itemsize
    arguments = (F.d_array, X.d_array, Y.d_array, F.sizes, X.sizes, int(result is not None))
    api.launch(algebra.multiply, blocks, tile * tile, shared, 0, *arguments)
    return Y


def product(F: Matrix, X: Matrix, stored_as: Matrix) -> Matrix:
    """F X, by rows or by columns."""
    return multiply(F, X) if stored_as.right == 1 else multiply(X.T, F.T).T


def apply(factors: tuple[Matrix, ...], X: Matrix) -> Matrix:
    """F₁ F₂ … X"""
    for F in reversed(factors):
        X = multiply(F, X)
    return X


def like(F: Matrix) -> Matrix:
    """Room for a matrix that is stored as F is."""
    return Matrix(api.empty(F.size, F.dtype), F.shape, F.down, F.right)


def collected(values: Any) -> Any:
    """The largest of nonnegative numbers, its place, and their sum, on the device."""
    result = api.empty(3, values.dtype)
    api.launch(algebra.collect, 1, THREADS, 3 * THREADS * np.dtype(values.dtype).itemsize, 0, values, result)
    return result


class Trainer:
    """The training steps of one model with backend "cuda".

    Parameters
    ----------
    model : ImplicitModel
        Its `f` must be one of the package's own. `bring_back` writes the parameters into it.
    """

    def __init__(self, model: ImplicitModel) -> None:
        if model.f not in FUNCTIONS.values():
            raise ValueError(
                f"f must be one of {', '.join(f.__name__ for f in FUNCTIONS.values())} to be trained on the device; "
                f'got {model.f.__name__}: train with backend="numba", or "numpy".'
            )
        model.effective_weights()  # refuses parameters of a wrong shape or dtype
        self.model, self.dtype = model, model.dtype
        self.parameters = {name: matrix(np.ascontiguousarray(W), self.dtype) for name, W in model.parameters.items()}
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
        factors = self.effective()
        forward, Z = self.forward(factors, d_U)
        with np.errstate(over="ignore", invalid="ignore"):
            value, G_Y = losses.get(loss)(forward.Y, T)
        if not np.isfinite(value):
            raise FloatingPointError(f"the loss is {float(value)}")
        backward = self.backward(forward, Z, matrix(G_Y.astype(self.dtype, copy=False), self.dtype))
        self.descend(self.gradients(backward), optimizer)
        return float(value), forward, backward

    # --- forward and backward -----------------------------------------------------------------------------------------

    def forward(self, factors: tuple[Matrix, ...], U: Matrix) -> tuple[ForwardPass, Matrix]:
        """Z = B U,   X = φ(A X + Z),   Y = C X + D U."""
        P, settings = self.parameters, self.model.settings
        Z = multiply(P["B"], U)
        phi, options = activations.get(settings.activation), settings.forward_options()
        solution = fixed_point(factors, phi, None, Z, None, options)
        X: Any = solution.X
        Y = multiply(P["C"], X)
        if "D" in P:
            Y = multiply(P["D"], U, Y)
        weights: Any = Weights(*(factors, P["B"], P["C"], P.get("D")))  # type: ignore[arg-type]
        arrays: tuple[Any, Any] = (U, Z)  # matrices on the device in the places of arrays
        return ForwardPass(weights, settings.activation, *arrays, solution, Y.download()), Z

    def backward(self, forward: ForwardPass, Z: Matrix, G_Y: Matrix) -> BackwardPass:
        """G = Cᵀ G_Y,   S = φ′(A X + Z),   V = S ∘ (Aᵀ V + G),   and the gradients."""
        weights: Any = forward.weights
        factors, U, X = weights.factors, *self._matrices(forward.U, forward.solution.X)
        G = multiply(weights.C.T, G_Y)
        P = apply(factors, X)
        S = empty(*Z.shape, self.dtype)
        code = activations.get(forward.activation).code
        api.launch(algebra.slopes, over(S.size), THREADS, 0, 0, P.d_array, Z.d_array, code, S.d_array)
        transposed = tuple(F.T for F in reversed(factors))
        identity, options = activations.get("identity"), self.model.settings.adjoint_options()
        solution = fixed_point(transposed, identity, S, G, None, options)
        (V,) = self._matrices(solution.X)
        of_factors: Any = tuple(
            product(apply(tuple(F.T for F in reversed(factors[:i])), V), apply(factors[i + 1 :], X).T, factors[i])
            for i in range(len(factors))
        )
        rest: Any = multiply(V, U.T), multiply(G_Y, X.T), None if weights.D is None else multiply(G_Y, U.T)
        return BackwardPass(solution, of_factors, *rest)

    def _matrices(self, *arrays: Any) -> tuple[Matrix, ...]:
        return arrays

    # --- what `f` does ------------------------------------------------------------------------------------------------

    def raw(self) -> tuple[Matrix, ...]:
        """(A,) or (L, Rᵀ)"""
        P = self.parameters
        return (P["A"],) if "A" in P else (P["L"], P["R"].T)

    def effective(self) -> tuple[Matrix, ...]:
        """The factors that the equation uses."""
        maps: dict[str, Callable[[Matrix], Matrix]] = {
            "inf": self._scale, "rows": self._project, "triu": self._upper, "none": lambda F: F,
        }  # fmt: skip
        return tuple(maps[self.model.f.name](F) for F in self.raw())

    def gradients(self, backward: BackwardPass) -> dict[str, Matrix]:
        """Those of the raw parameters, stored as the parameters are."""
        name, pulled = self.model.f.name, []
        for F, effective_gradient in zip(self.raw(), backward.factors, strict=True):
            G: Any = effective_gradient  # stored as F is
            if not self.model.straight_through:
                pull = {"inf": self._pull_scale, "rows": self._pull_project, "triu": lambda _, G: self._upper(G)}
                G = pull.get(name, lambda _, G: G)(F, G)
            pulled.append(G)
        named: dict[str, Any] = {"A": pulled[0]} if len(pulled) == 1 else {"L": pulled[0], "R": pulled[1].T}
        named |= {"B": backward.B, "C": backward.C}
        return named if backward.D is None else named | {"D": backward.D}

    def _norms(self, F: Matrix) -> Any:
        sums, flags = api.empty(F.shape[0], self.dtype), [api.empty(F.shape[0], np.int32) for _ in range(2)]
        nothing = api.empty(0, self.dtype)
        api.launch(
            kernels.row_sums, over(F.shape[0]), THREADS, 0, 0, F.d_array, F.sizes, nothing, sums, *flags
        )  # fmt: skip
        return collected(sums)

    def _scale(self, F: Matrix) -> Matrix:
        result = like(F)
        api.launch(
            algebra.scale, over(F.size), THREADS, 0, 0, F.d_array, self._norms(F), self.levels, result.d_array
        )  # fmt: skip
        return result

    def _pull_scale(self, F: Matrix, G: Matrix) -> Matrix:
        result, products = like(F), collected(self.row_products(G, F))
        arguments = (G.d_array, F.d_array, F.sizes, self._norms(F), products, self.levels, result.d_array)
        api.launch(algebra.pull_scale, over(F.size), THREADS, 0, 0, *arguments)
        return result

    def _project(self, F: Matrix) -> Matrix:
        result = like(F)
        api.launch(
            algebra.project, over(F.shape[0]), THREADS, 0, 0, F.d_array, F.sizes, self.levels, result.d_array
        )  # fmt: skip
        return result

    def _pull_project(self, F: Matrix, G: Matrix) -> Matrix:
        result = like(F)
        arguments = (G.d_array, F.d_array, F.sizes, self.levels, result.d_array)
        api.launch(algebra.pull_project, over(F.shape[0]), THREADS, 0, 0, *arguments)
        return result

    def _upper(self, F: Matrix) -> Matrix:
        result = like(F)
        api.launch(algebra.upper, over(F.size), THREADS, 0, 0, F.d_array, F.shape[0], result.d_array)
        return result

    # --- descent ------------------------------------------------------------------------------------------------------

    def row_products(self, G: Matrix, F: Matrix) -> Any:
        """⟨g_i, f_i⟩ of every row."""
        products = api.empty(F.shape[0], self.dtype)
        api.launch(
            algebra.row_products, over(F.shape[0]), THREADS, 0, 0, G.d_array, F.d_array, F.sizes, products
        )  # fmt: skip
        return products

    def descend(self, gradients: dict[str, Matrix], optimizer: SGD) -> None:
        """One step of SGD, and the projection where `f` has one; nothing if a gradient is not finite."""
        for name, W in self.parameters.items():
            if not np.isfinite(api.download(self.row_products(gradients[name], W))).all():
                raise FloatingPointError(f"the gradient of {name} is not finite")
        rate = optimizer.advance()
        levels = tuple(self.dtype.type(x) for x in (rate, optimizer.momentum, optimizer.weight_decay))
        for name, W in self.parameters.items():
            arguments = (W.d_array, gradients[name].d_array, self.velocity[name].d_array, levels)
            api.launch(algebra.descend, over(W.size), THREADS, 0, 0, *arguments, int(optimizer.nesterov))
        if self.model.f.name == "rows":
            for name, F in zip("A" if "A" in self.parameters else "LR", self.raw(), strict=True):
                projected = self._project(F)
                self.parameters[name] = projected if name != "R" else projected.T
