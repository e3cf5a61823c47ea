"""The Numba twin: the solvers compiled for the CPU, on threads; it inherits the rest from the NumPy twin."""

from idl_ref.backends.numba.layer import Layer as Layer
from idl_ref.backends.numba.layer import warmup as warmup
from idl_ref.backends.numba.trainer import Trainer as Trainer
