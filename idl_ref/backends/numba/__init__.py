"""The Numba twin: the solvers compiled for the CPU, on threads; it inherits the rest from the NumPy twin."""

from idl_ref.backends.numba.layer import Layer, warmup
from idl_ref.backends.numba.trainer import Trainer

__all__ = ["Layer", "Trainer", "warmup"]
