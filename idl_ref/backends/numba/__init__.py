"""The Numba twin is compiled for the CPU, and inherits what is not compiled from the NumPy twin."""

from idl_ref.backends.numba.layer import Layer as Layer
from idl_ref.backends.numba.trainer import Trainer as Trainer
from idl_ref.backends.numba.trainer import warmup as warmup
