"""The Numba twin has solvers that are compiled for the CPU, and inherits everything else from the NumPy twin."""

from idl_ref.backends.numba.layer import Layer as Layer
from idl_ref.backends.numba.layer import warmup as warmup
from idl_ref.backends.numba.trainer import Trainer as Trainer
