"""This package runs the library on engines that people already have: any executor, Dask, MPI."""

from idl_ref.parallel.lazy import certified
from idl_ref.parallel.results import Sweep
from idl_ref.parallel.sweeps import sweep

__all__ = ["Sweep", "certified", "sweep"]
