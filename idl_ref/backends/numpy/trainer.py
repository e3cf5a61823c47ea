"""This module defines a training step: forward, loss, backward, pullback, descent and projection.

The trainers of all twins follow this definition.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np

from idl_ref import losses
from idl_ref.activations import Activation
from idl_ref.backends.numpy.layer import Layer
from idl_ref.choices import LossFunction
from idl_ref.labels import hits
from idl_ref.optim import Optimizer
from idl_ref.solution import Solution
from idl_ref.weights import BackwardPass, ForwardPass, Options, Parameters, Parametrisation


class Counts(NamedTuple):
    """What a training counts in a step.

    Attributes
    ----------
    right : int
        The number of samples that were classified right; 0 if the loss does not classify.
    failed : int
        The number of samples that did not converge, forward or adjoint.
    forward_sum, forward_most, adjoint_sum, adjoint_most : int
        The iterations of the samples in both equations: their sum, and the largest number.
    """

    right: int
    failed: int
    forward_sum: int
    forward_most: int
    adjoint_sum: int
    adjoint_most: int

    @classmethod
    def of(cls, forward: ForwardPass, solution: Solution, labels: np.ndarray | None) -> Counts:
        """Count for a forward pass, the solution of the adjoint equation, and the labels if the loss classifies."""
        right = 0 if labels is None else hits(forward, labels)
        failed = ~(forward.solution.succeeded & solution.succeeded)
        sums = ((int(s.iterations.sum()), int(s.iterations.max(initial=0))) for s in (forward.solution, solution))
        return cls(right, int(failed.sum()), *next(sums), *next(sums))


class Step(NamedTuple):
    """The results of one training step.

    Attributes
    ----------
    loss : float
        The loss of the minibatch before the parameters were updated.
    forward : ForwardPass
        The forward pass of the minibatch.
    backward : BackwardPass
        The backward pass, whose gradients were used.
    counts : Counts
        What a training counts.
    """

    loss: float
    forward: ForwardPass
    backward: BackwardPass
    counts: Counts


class Trainer:
    """Takes the training steps of one model.

    Parameters
    ----------
    parameters : dict
        The raw parameters, which every step updates in place.
    parametrisation : Parametrisation
        The map from raw parameters to effective weights.
    activation : Activation
        The activation φ.
    options : Options
        The options for the forward and for the adjoint equation.
    loss : {"cross_entropy", "mse"} or callable
        The loss that is minimised.
    optimizer : Optimizer
        The optimizer, which belongs to these parameters. Its moments may be those of earlier steps.
    """

    layer_class: ClassVar[type[Layer]] = Layer

    def __init__(
        self,
        parameters: Parameters,
        parametrisation: Parametrisation,
        activation: Activation,
        options: Options,
        loss: str | LossFunction,
        optimizer: Optimizer,
    ) -> None:
        self.parameters, self.parametrisation = parameters, parametrisation
        self.activation, self.options = activation, options
        self.loss, self.optimizer = losses.get(loss, self.layer_class.losses), optimizer
        self.classifies = loss == "cross_entropy"

    def step(
        self, U: np.ndarray, T: np.ndarray, weights: np.ndarray | None = None, chosen: np.ndarray | None = None
    ) -> Step:
        """Take one step: forward, loss, backward, pullback through `f`, descent, and the projection if `f` has one.

        U (m, p) has samples as rows, T holds the targets in the form that the loss takes, and the weights (m,) of the
        samples are 1 if they are not given. `chosen` has the numbers of the samples of this step, which are all if it
        is not given. With `chosen`, a twin may write the results of every step to the same arrays, so that they are
        valid until the next step. If the loss or a gradient is not finite, FloatingPointError is raised, and the
        parameters are not changed.
        """
        if chosen is not None:
            U, T, weights = U[chosen], T[..., chosen], None if weights is None else weights[chosen]
        layer = self.layer()
        forward = layer.forward(U.T)
        with np.errstate(over="ignore", invalid="ignore"):  # A step that diverges is an error, and not a warning.
            value, G_Y = self.loss(forward.Y, T, weights)
            if not np.isfinite(value):
                raise FloatingPointError(f"the loss is {float(value)}")
            backward = layer.backward(forward, G_Y)
            self.descend(backward)
        labels = T if self.classifies else None
        return Step(float(value), forward, backward, Counts.of(forward, backward.solution, labels))

    def layer(self) -> Layer:
        """Return a layer with the effective weights of the current parameters."""
        return self.layer_class(self.parametrisation.weights(self.parameters), self.activation, self.options)

    def descend(self, backward: BackwardPass) -> None:
        """Take one step of the optimizer with the gradients of the raw parameters, then project the parameters."""
        gradients = self.parametrisation.pullback(self.parameters, backward)
        for name, G in gradients.items():
            if not np.isfinite(G).all():
                raise FloatingPointError(f"the gradient of {name} is not finite")
        self.optimizer.step(self.parameters, gradients)
        self.parametrisation.project(self.parameters)

    def update_host(self) -> None:
        """Update parameters and moments on the host. This twin has nothing to do: a step updates them in place."""
