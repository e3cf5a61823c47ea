"""This module has the trainer of the Numba twin, which takes the steps of the NumPy twin in compiled code."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from idl_ref import losses
from idl_ref.activations import get
from idl_ref.backends.numba import descent, layer
from idl_ref.backends.numba.launches import by_columns, by_rows
from idl_ref.backends.numba.layer import Layer
from idl_ref.backends.numpy import trainer as definition
from idl_ref.functions import ImplicitFunction
from idl_ref.optim import SGD
from idl_ref.solution import SolveOptions
from idl_ref.weights import BackwardPass, Options, Parametrisation


class Trainer(definition.Trainer):
    """Takes the training steps of one model; the passes, the loss and the descent are compiled."""

    layer_class = Layer

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.loss = mse if self.loss is losses.mse else cross_entropy

    def descend(self, backward: BackwardPass) -> None:
        """Take one step of the optimizer with the gradients of the raw parameters, then project the parameters."""
        optimizer, parameters = self.optimizer, self.parameters
        if not _is_plain(optimizer) or not all(w.flags.carray for w in parameters.values()):
            return super().descend(backward)
        pulled, dtype = self.parametrisation.pullback(parameters, backward), parameters["B"].dtype
        weights = tuple([w.reshape(-1) for w in parameters.values()])
        gradients = tuple([_flat(pulled[name], w) for name, w in parameters.items()])
        velocities = tuple([optimizer.velocity(name, w).reshape(-1) for name, w in parameters.items()])
        rule = dtype.type(optimizer.rate()), dtype.type(optimizer.momentum), dtype.type(optimizer.weight_decay)
        failed = descent.descend(weights, gradients, velocities, rule, optimizer.nesterov)
        if failed >= 0:
            raise FloatingPointError(f"the gradient of {list(parameters)[failed]} is not finite")
        optimizer.advance()
        self.parametrisation.project(parameters)
        return None


def _flat(G: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return the gradient of w as a flat array; that of a user's `f` may broadcast and have another dtype."""
    if np.shape(G) != w.shape or G.dtype != w.dtype:
        G = np.broadcast_to(np.asarray(G, w.dtype), w.shape)
    return by_rows(G)


def _is_plain(optimizer: SGD) -> bool:
    """Tell whether the steps of an optimizer are those of SGD, which are compiled, and not those of a user."""
    steps = ((getattr(optimizer, name), getattr(SGD, name)) for name in ("step", "advance"))
    return all(getattr(own, "__func__", None) is step for own, step in steps)


def cross_entropy(Y: np.ndarray, labels: np.ndarray) -> tuple[Any, np.ndarray]:
    """Do the same as `losses.cross_entropy`, in compiled code."""
    return _compiled(descent.cross_entropy, Y, np.ascontiguousarray(labels, np.int64))


def mse(Y: np.ndarray, T: np.ndarray) -> tuple[Any, np.ndarray]:
    """Do the same as `losses.mse`, in compiled code."""
    return _compiled(descent.mse, Y, by_columns(T))


def _compiled(loss: Callable[..., float], Y: np.ndarray, targets: np.ndarray) -> tuple[Any, np.ndarray]:
    """Return the value and the gradient of a loss for flat targets."""
    G_Y = np.empty((Y.shape[1], Y.shape[0]), Y.dtype)
    with np.errstate(over="ignore"):  # A loss that overflows is inf, as the dtype of Y has it.
        return Y.dtype.type(loss(by_columns(Y), targets, G_Y.reshape(-1))), G_Y.T


def warmup(dtype: np.dtype) -> None:
    """Compile every kernel for one dtype: every solver, and the steps of small models of every kind."""
    layer.warmup(dtype)
    options, two = Options(SolveOptions(), SolveOptions()), np.zeros((2, 2), dtype)
    for names, loss in itertools.product(("ABC", "ABCD", "LRBC", "LRBCD"), ("cross_entropy", "mse")):
        parameters = {name: two.copy() for name in names}
        targets = np.zeros(2, np.int64) if loss == "cross_entropy" else two
        arguments = parameters, Parametrisation(ImplicitFunction()), get("relu"), options, loss, SGD()
        Trainer(*arguments).step(two, targets)
