"""This package runs the library on engines that people already have: any executor, Dask, MPI."""
