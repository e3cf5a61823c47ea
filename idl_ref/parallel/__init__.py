"""This package runs the library on engines that people already have: any executor, Dask, MPI."""

from idl_ref.parallel.lazy import certified
from idl_ref.parallel.prediction import Failure, RowsFailedError, predict_file
from idl_ref.parallel.results import Sweep
from idl_ref.parallel.sweeps import sweep
from idl_ref.parallel.tasks import WorkersLostError
from idl_ref.parallel.workers import OtherBitsError

__all__ = [
    "Failure",
    "OtherBitsError",
    "RowsFailedError",
    "Sweep",
    "WorkersLostError",
    "certified",
    "predict_file",
    "sweep",
]
