"""The training step of the NumPy twin, with the layer of this one."""

from __future__ import annotations

from idl_ref.backends.numba.layer import Layer
from idl_ref.backends.numpy import trainer as definition


class Trainer(definition.Trainer):
    """Takes the training steps of one model, its equations solved by compiled kernels."""

    layer_class = Layer
