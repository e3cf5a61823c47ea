"""The NumPy twin: the definition of every step, in a few readable lines each."""

from idl_ref.backends.numpy.layer import Layer
from idl_ref.backends.numpy.layer import warmup as warmup
from idl_ref.backends.numpy.trainer import Trainer

__all__ = ["Layer", "Trainer"]
