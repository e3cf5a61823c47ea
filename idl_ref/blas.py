"""This module limits the threads of BLAS, which computes products for the NumPy twin, and those of the Numba twin."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar


class OneThread:
    """A context in which BLAS has one thread, if `applies` is true.

    The threads of BLAS wait for each other in every product. Beside a busy process, one of them often does not run, and
    small products take several times as long. Without the package threadpoolctl, the context does nothing. Of contexts
    that overlap, the first one sets the limit, and the last one takes it back.
    """

    _lock: ClassVar = threading.Lock()
    _users: ClassVar[int] = 0
    _limit: ClassVar[Any] = None

    def __init__(self, applies: bool) -> None:
        self.applies = applies

    def __enter__(self) -> None:
        if not self.applies:
            return
        with OneThread._lock:
            if OneThread._users == 0:
                try:
                    from threadpoolctl import threadpool_limits
                except ImportError:
                    self.applies = False
                    return
                _take_control()
                OneThread._limit = threadpool_limits(limits=1, user_api="blas")
            OneThread._users += 1

    def __exit__(self, *exception: object) -> None:
        if not self.applies:
            return
        with OneThread._lock:
            OneThread._users -= 1
            if OneThread._users == 0:
                _take_control()
                OneThread._limit.restore_original_limits()
                _take_control()


def _take_control() -> None:
    """Let any thread set the number of threads of BLAS.

    From version 3.8 on, threadpoolctl lets only that thread do so which was the first one, and ignores all others.
    """
    import threadpoolctl

    clear = getattr(getattr(threadpoolctl, "OpenBLASController", None), "clear_controlling_thread", None)
    if clear is not None:
        clear(force=True)


@contextmanager
def one_thread(backend: str) -> Iterator[None]:
    """Give BLAS, and the Numba twin in the calling thread, one thread for the time of a block.

    It is for processes that share a machine and use all of its cores. The bits of the NumPy twin depend on the number
    of threads of BLAS, which threadpoolctl sets; without this package, OPENBLAS_NUM_THREADS=1 has to be set for the
    processes, or what the BLAS at hand has in its place.
    """
    with OneThread(True):
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
