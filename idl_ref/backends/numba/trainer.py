"""This module has the trainer of the Numba twin, which takes the steps of the NumPy twin in compiled code."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from idl_ref.activations import get
from idl_ref.backends.numba import descent, layer
from idl_ref.backends.numba.layer import Layer
from idl_ref.backends.numba.losses import LOSSES
from idl_ref.backends.numba.parametrisation import Compiled, is_known
from idl_ref.backends.numba.workspace import Flats, Workspace, flats
from idl_ref.backends.numpy import trainer as definition
from idl_ref.backends.numpy.trainer import Counts, Step
from idl_ref.functions import ImplicitFunction
from idl_ref.optim import SGD, Adam, Optimizer
from idl_ref.solution import SolveOptions
from idl_ref.weights import BackwardPass, Options, Parametrisation

# After a step that is not simple, so many are taken in arrays of their own, which does not change their bits.
PAUSE = 16


class Trainer(definition.Trainer):
    """Takes the training steps of one model; the passes, the loss, `f` with its pullback, and the descent are compiled.

    A step of a dense model is taken in arrays of this trainer, which are written anew by each step, if its samples are
    `chosen`. It has the same bits as a step in arrays of its own.
    """

    layer_class = Layer

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        simple = [o.method in ("auto", "picard") and o.certificate == "fast" for o in self.options]
        known = self.loss in LOSSES.values() and is_known(self.parametrisation.function)
        dense = "A" in self.parameters and self.parametrisation.pattern is None
        self.in_place = known and all(simple) and dense and self.layer_class is Layer
        self.parametrisation = Compiled.of(self.parametrisation)
        self.spaces: dict[int, Workspace] = {}
        self.pause = 0  # the number of steps that are not tried in place, because one before them was not simple

    def step(
        self, U: np.ndarray, T: np.ndarray, weights: np.ndarray | None = None, chosen: np.ndarray | None = None
    ) -> Step:
        """Take one step, in place if its samples are `chosen` and Picard's method solves all equations."""
        self.pause = max(self.pause - 1, 0)
        if chosen is not None and self.in_place and not self.pause and U.flags.carray and _is_ours(self.optimizer):
            step = self.step_in_place(U, T[..., chosen], None if weights is None else weights[chosen], chosen)
            if step is not None:
                return step
            self.pause = PAUSE
        return super().step(U, T, weights, chosen)

    def step_in_place(
        self, U: np.ndarray, T: np.ndarray, weights: np.ndarray | None, chosen: np.ndarray
    ) -> Step | None:
        """Take one step in the arrays of this trainer, or return None, before anything changes, if it is not simple."""
        space = self.space(len(chosen))
        if space is None or not space.prepare() or not space.compute(U, chosen, T, weights):
            return None
        value, *counts = space.figures()
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value}")
        space.differentiate()
        self.follow(*space.flats)
        return Step(value, space.forward, space.backward, Counts(*counts))

    def space(self, m: int) -> Workspace | None:
        """Return the arrays for steps with m samples; None if they are empty, or the parameters are not contiguous."""
        P, space = self.parameters, self.spaces.get(m)
        if space is not None and space.is_of(P):
            return space
        if not m or not all(w.size and w.flags.carray for w in P.values()):
            return None
        space = self.spaces[m] = Workspace(P, self.parametrisation, self.activation, self.options, m)
        return space

    def descend(self, backward: BackwardPass) -> None:
        """Take one step of the optimizer with the gradients of the raw parameters, then project the parameters."""
        parameters = self.parameters
        if not _is_ours(self.optimizer) or not all(w.flags.carray for w in parameters.values()):
            return super().descend(backward)
        return self.follow(*flats(parameters, self.parametrisation.pullback(parameters, backward)))

    def follow(self, weights: Flats, gradients: Flats) -> None:
        """Take one step of SGD or Adam along flat gradients, then project the parameters."""
        optimizer, parameters = self.optimizer, self.parameters
        moments = [optimizer.moments(name, w) for name, w in parameters.items()]
        kinds = [tuple([M.reshape(-1) for M in kind]) for kind in zip(*moments, strict=True)]
        dtype, rate, clip = weights[0].dtype, optimizer.rate(), math.inf if optimizer.clip is None else optimizer.clip
        number = dtype.type
        if isinstance(optimizer, SGD):
            rule = number(rate), number(optimizer.momentum), number(optimizer.weight_decay)
            faulty = descent.sgd(weights, gradients, *kinds, rule, clip, optimizer.nesterov)
        else:
            assert isinstance(optimizer, Adam)
            one, two, levels = optimizer.beta1, optimizer.beta2, optimizer.levels(rate, dtype, 1)
            betas = number(one), number(1 - one), number(two), number(1 - two)
            faulty = descent.adam(weights, gradients, *kinds, tuple([number(x) for x in levels]), betas, clip)
        if faulty >= 0:
            raise FloatingPointError(f"the gradient of {list(parameters)[faulty]} is not finite")
        optimizer.advance()
        self.parametrisation.project(parameters)


STEPS = frozenset(("step", "update", "advance", "shrinkage"))  # the methods that make up a step


def _is_ours(optimizer: Optimizer) -> bool:
    """Tell whether the steps of an optimizer are those of SGD or Adam, which are compiled, and not those of a user."""
    ours = SGD if isinstance(optimizer, SGD) else Adam
    if type(optimizer) is ours and STEPS.isdisjoint(vars(optimizer)):
        return True
    methods = [(getattr(optimizer, name), getattr(ours, name)) for name in STEPS]
    return isinstance(optimizer, ours) and all(getattr(own, "__func__", None) is method for own, method in methods)


def warmup(dtype: np.dtype) -> None:
    """Compile every kernel for one dtype: every solver, and the steps of small models of every kind."""
    layer.warmup(dtype)
    # A matrix of zeros would be solved by substitution.
    options, two = Options(SolveOptions(), SolveOptions()), np.full((2, 2), 0.25, dtype)
    for names, loss in itertools.product(("ABC", "ABCD", "LRBC", "LRBCD"), ("cross_entropy", "mse")):
        parameters = {name: two.copy() for name in names}
        targets, optimizer = (np.zeros(2, np.int64), SGD()) if loss == "cross_entropy" else (two, Adam())
        arguments = parameters, Parametrisation(ImplicitFunction()), get("relu"), options, loss, optimizer
        Trainer(*arguments).step(two, targets)
