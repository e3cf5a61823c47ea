"""A training step, which is the definition of every twin's: forward, loss, backward, pullback, descent, projection."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np

from idl_ref import losses
from idl_ref.activations import Activation
from idl_ref.backends.numpy.layer import Layer
from idl_ref.optim import SGD
from idl_ref.weights import BackwardPass, ForwardPass, Options, Parameters, Parametrisation


class Step(NamedTuple):
    """What one training step computed: the loss before the step, and the two passes that led to the gradients."""

    loss: float
    forward: ForwardPass
    backward: BackwardPass


class Trainer:
    """Takes the training steps of one model.

    Parameters
    ----------
    parameters : dict
        The raw parameters, which every step updates in place.
    parametrisation : Parametrisation
    activation : Activation
        φ.
    options : Options
        How the two equations are solved.
    loss : {"cross_entropy", "mse"}
    optimizer : SGD
    """

    layer_class: ClassVar[type[Layer]] = Layer

    def __init__(
        self,
        parameters: Parameters,
        parametrisation: Parametrisation,
        activation: Activation,
        options: Options,
        loss: str,
        optimizer: SGD,
    ) -> None:
        self.parameters, self.parametrisation = parameters, parametrisation
        self.activation, self.options = activation, options
        self.loss, self.optimizer = losses.get(loss), optimizer

    def step(self, U: np.ndarray, T: np.ndarray) -> Step:
        """Forward, loss, backward, pullback through `f`, descent, and the projection where `f` has one.

        U (m, p) has samples as rows; T are targets as the loss takes them. Raises FloatingPointError, the parameters
        untouched, if the loss or a gradient is not finite.
        """
        layer = self.layer()
        forward = layer.forward(U.T)
        with np.errstate(over="ignore", invalid="ignore"):
            value, G_Y = self.loss(forward.Y, T)
        if not np.isfinite(value):
            raise FloatingPointError(f"the loss is {float(value)}")
        backward = layer.backward(forward, G_Y)
        self.descend(backward)
        return Step(float(value), forward, backward)

    def layer(self) -> Layer:
        """The layer of the parameters as they are now."""
        return self.layer_class(self.parametrisation.weights(self.parameters), self.activation, self.options)

    def descend(self, backward: BackwardPass) -> None:
        """One step of the optimizer along the gradients of the raw parameters, then the projection."""
        gradients = self.parametrisation.pullback(self.parameters, backward)
        for name, G in gradients.items():
            if not np.isfinite(G).all():
                raise FloatingPointError(f"the gradient of {name} is not finite")
        self.optimizer.step(self.parameters, gradients)
        self.parametrisation.project(self.parameters)

    def update_host(self) -> None:
        """Bring the parameters on the host up to date; nothing to do here, where a step updates them in place."""
