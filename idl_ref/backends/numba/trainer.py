"""This module has the trainer of the Numba twin, which takes the steps of the NumPy twin in compiled code."""

from __future__ import annotations

import numpy as np

from idl_ref.backends.numba.descent import descend, is_finite
from idl_ref.backends.numba.layer import Layer
from idl_ref.backends.numpy import trainer as definition
from idl_ref.optim import SGD
from idl_ref.weights import BackwardPass


class Trainer(definition.Trainer):
    """Takes the training steps of one model; the solver, all products and the descent are compiled."""

    layer_class = Layer

    def descend(self, backward: BackwardPass) -> None:
        """Take one step of the optimizer with the gradients of the raw parameters, then project the parameters."""
        optimizer, parameters = self.optimizer, self.parameters
        if type(optimizer).step is not SGD.step or not all(w.flags.carray for w in parameters.values()):
            return super().descend(backward)
        pulled = self.parametrisation.pullback(parameters, backward)
        gradients = {name: np.ascontiguousarray(pulled[name], w.dtype).reshape(-1) for name, w in parameters.items()}
        for name, g in gradients.items():
            if not is_finite(g):
                raise FloatingPointError(f"the gradient of {name} is not finite")
        rule, nesterov = [optimizer.advance(), optimizer.momentum, optimizer.weight_decay], optimizer.nesterov
        for name, w in parameters.items():
            v = optimizer.velocity(name, w)
            descend(w.reshape(-1), gradients[name], v.reshape(-1), *map(w.dtype.type, rule), nesterov)
        self.parametrisation.project(parameters)
        return None
