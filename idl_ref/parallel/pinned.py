"""This module gives a task one thread, because the workers of an executor already use all cores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from idl_ref import blas
from idl_ref.choices import TwinName


@contextmanager
def one_thread(backend: TwinName) -> Iterator[None]:
    """Give BLAS, and the Numba twin in the calling thread, one thread for the time of a block.

    The bits of the NumPy twin depend on the number of threads of BLAS, which threadpoolctl sets; without this package,
    workers need OPENBLAS_NUM_THREADS=1 or what the BLAS at hand has in its place.
    """
    with blas.OneThread(True):
        if backend != "numba":
            yield
            return
        import numba

        before = numba.get_num_threads()
        numba.set_num_threads(1)
        try:
            yield
        finally:
            numba.set_num_threads(before)
