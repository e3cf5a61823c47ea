"""The NumPy twin defines every step in a few readable lines; the other twins compute the same results."""

from idl_ref.backends.numpy.layer import Layer
from idl_ref.backends.numpy.layer import warmup as warmup
from idl_ref.backends.numpy.trainer import Trainer

__all__ = ["Layer", "Trainer"]
