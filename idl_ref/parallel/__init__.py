"""This package runs the library on engines that people already have: any executor, Dask, MPI."""

from idl_ref.parallel.prediction import Failure, RowsFailedError, predict_file
from idl_ref.parallel.tasks import Outcome, WorkersLostError, completed
from idl_ref.parallel.workers import OtherBitsError

__all__ = [
    "Failure",
    "OtherBitsError",
    "Outcome",
    "RowsFailedError",
    "WorkersLostError",
    "completed",
    "predict_file",
]
