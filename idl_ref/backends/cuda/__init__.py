"""The CUDA twin: the solvers and the training step on a device; it inherits the rest from the NumPy twin."""

from idl_ref.backends.cuda.layer import Layer as Layer
from idl_ref.backends.cuda.layer import warmup as warmup
from idl_ref.backends.cuda.trainer import Trainer as Trainer
