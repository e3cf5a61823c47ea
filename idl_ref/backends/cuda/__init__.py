"""The CUDA twin: its Layer and Trainer solve and train on a device; all else is inherited from the NumPy twin."""

from idl_ref.backends.cuda.layer import Layer as Layer
from idl_ref.backends.cuda.layer import warmup as warmup
from idl_ref.backends.cuda.trainer import Trainer as Trainer
