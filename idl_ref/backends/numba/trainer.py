"""This module has the trainer of the Numba twin, which takes the steps of the NumPy twin with compiled solvers."""

from __future__ import annotations

from idl_ref.backends.numba.layer import Layer
from idl_ref.backends.numpy import trainer as definition


class Trainer(definition.Trainer):
    """Takes the training steps of one model; compiled kernels solve its equations."""

    layer_class = Layer
