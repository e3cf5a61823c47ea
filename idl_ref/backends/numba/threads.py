"""This module has the threads that share the tiles of a solve, and sleep while there is nothing to do.

The kernels do not use Numba's `prange`, because threads of OpenMP spin for some time after their work is done, as those
of BLAS do. In a training step both need the same cores, and the step took many times as long. The threads of this
module may serve any number of callers at once, and a forked child starts threads of its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np

# A solve that may take more flops than this, and so longer than about 0.2 seconds, can be interrupted. A tile of five
# columns or more is at least five times as fast per column.
LONG_FLOPS = 2e9

_pools: dict[int, ThreadPoolExecutor] = {}  # by process


def share(
    kernel: Callable[..., int], threads: int, tile: int, m: int, patient: bool, flag: np.ndarray, *arguments: Any
) -> int:
    """Call the kernel for every tile of columns of 0 … m − 1, on `threads` threads; the sum of what the calls return.

    Threads take one tile after the other. Columns never meet, so that the answer is the same on any number of threads.
    The calling thread is one of them, unless the solve may take long (`patient`). Then it waits, because Python handles
    an interrupt only in the main thread and not while that is in compiled code. An exception in the calling thread sets
    the flag, which solvers read before each application, and which ends them.
    """
    firsts = iter(range(0, m, tile))

    def work() -> int:
        return sum([kernel(first, min(m, first + tile), *arguments) for first in firsts])

    helpers, start, alone = [], threading.Event(), False

    def help_out() -> int:
        start.wait()
        return 0 if alone else work()

    try:
        for _ in range(0 if patient else 1, threads):
            helpers.append(pool().submit(help_out))
    except RuntimeError:  # no more threads, or the interpreter is ending; helpers that are queued may still run later
        alone = True
    start.set()
    try:
        done = 0 if patient and not alone else work()
        return done + sum([helper.result() for helper in helpers if patient or not helper.cancel()])
    except BaseException:
        flag[0] = 1
        wait([helper for helper in helpers if not helper.cancel()])
        raise


def pool() -> ThreadPoolExecutor:
    """The threads of this process, which start when they are first needed."""
    process = os.getpid()
    if process not in _pools:
        _pools.setdefault(process, ThreadPoolExecutor(os.cpu_count(), "idl_ref"))
    return _pools[process]
