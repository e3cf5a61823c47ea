"""This module has the threads that share the tiles of a solve.

A helper that has nothing to do reads a counter for 0.1 ms, and then it sleeps. Where one launch follows another, it
therefore stays awake, because to wake a sleeping thread takes as long as a small solve. Some systems wake a thread on
the CPU of the one that wakes it, and leave both there for milliseconds; so a helper moves to another CPU then. The
kernels do not use Numba's `prange`: threads of OpenMP go on reading for far longer, as those of BLAS do, and where
several libraries need the same cores, a training step took many times as long.
"""

from __future__ import annotations

import atexit
import collections
import ctypes
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

import numpy as np

from idl_ref.backends.numba.compiling import PLAIN, entry, vec
from idl_ref.backends.numba.signals import watched

# A solve that may take more flops than this, and so longer than about 0.2 seconds, can be interrupted. A tile of five
# columns or more is at least five times as fast per column.
LONG_FLOPS = 2e9
SPINS = 0 if PLAIN else 1 << 18  # So many times a counter is read, for about 0.1 ms, before a thread sleeps.
# If a caller has waited this many seconds for a helper that has begun, and longer than it has worked itself, another
# process has the core of the helper. For the seconds of REST, callers then work alone.
LATE, REST = 5e-4, 0.25


# Returns the number of the CPU that runs the calling thread. Some systems do not tell, and there helpers stay in place.
current_cpu: Callable[[], int] = (
    getattr(ctypes.CDLL(None), "sched_getcpu", lambda: -1) if hasattr(os, "sched_setaffinity") else lambda: -1
)


def step_aside(cpu: int) -> None:
    """Move the calling thread to another CPU, if it is on this one and may run on others."""
    if cpu < 0 or current_cpu() != cpu:
        return
    with suppress(OSError):  # The process may not be allowed to choose; then the thread stays where it is.
        allowed = os.sched_getaffinity(0)
        if len(allowed) > 1:
            os.sched_setaffinity(0, allowed - {cpu})
            os.sched_setaffinity(0, allowed)


@entry
def changes(counter: Any, seen: Any, spins: Any) -> Any:
    """Return whether counter[0] is another number than `seen` in one of so many readings."""
    left = spins
    while left > 0 and vec.fresh(counter) == seen:
        left -= 1
    return left > 0


class Signal:
    """A counter that one thread raises, and on which one other thread waits. Python's lock keeps its steps in order."""

    def __init__(self) -> None:
        self.count = np.zeros(1, np.int64)
        self.asleep, self.bell = False, SimpleQueue[None]()

    def give(self) -> None:
        """Raise the counter, and wake the thread that waits for it."""
        self.count[0] += 1
        if self.asleep:
            self.bell.put(None)

    def wait(self, seen: int, spins: int) -> None:
        """Return when the counter is above `seen`: read it so many times, and then sleep."""
        while self.count[0] == seen and not changes(self.count, seen, spins):
            self.asleep = True
            try:
                if self.count[0] == seen:  # `give` sees that this thread sleeps; a ring too many makes it look again.
                    self.bell.get()
            finally:
                self.asleep = False


class Helper:
    """A thread that works for one caller after the other."""

    def __init__(self, number: int) -> None:
        self.called, self.done, self.calls, self.callers_cpu = Signal(), Signal(), 0, -1
        self.work: Callable[[], int] | None = None
        self.result, self.begun = 0, False
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self.serve, name=f"idl_ref_{number}", daemon=True)
        self.thread.start()

    @property
    def idle(self) -> bool:
        """Whether it has done all that it was called for."""
        return int(self.done.count[0]) == self.calls

    def call(self, work: Callable[[], int] | None) -> None:
        """Let it do some work, if it is idle; without any, it ends."""
        self.work, self.result, self.failure, self.begun = work, 0, None, False
        self.calls += 1
        self.callers_cpu = current_cpu()
        self.called.give()

    def wait(self, spins: int) -> None:
        """Return when it is idle."""
        self.done.wait(self.calls - 1, spins)

    def serve(self) -> None:
        """Do what callers ask for."""
        for seen in itertools.count():
            self.called.wait(seen, SPINS)
            step_aside(self.callers_cpu)
            self.begun = True
            if self.work is None:
                return
            try:
                self.result = self.work()
            except BaseException as error:  # It is the caller's.
                self.failure = error
            self.work = None  # The arrays of the caller are not kept.
            self.done.give()


class Crew:
    """The helpers of a process, which one caller has at a time."""

    def __init__(self) -> None:
        self.helpers: list[Helper] = []
        self.most = os.cpu_count() or 1
        self.free, self.closed, self.rests_until = threading.Lock(), False, 0.0

    def some(self, count: int) -> list[Helper]:
        """Return so many helpers, or as many as can be started."""
        count = 0 if self.closed else min(count, self.most)
        try:
            while len(self.helpers) < count:
                self.helpers.append(Helper(len(self.helpers)))
        except RuntimeError:  # no more threads, or the interpreter is ending
            pass
        return self.helpers[:count]

    def close(self) -> None:
        """End all helpers, unless somebody still works with them: they are daemons, and end with the process."""
        self.closed = True
        if not self.free.acquire(timeout=1):
            return
        for helper in self.helpers:
            helper.wait(0)
            helper.call(None)
            helper.thread.join()
        self.free.release()


_crews: dict[int, Crew] = {}  # by process, because a forked child has no threads but one


def crew() -> Crew:
    """The helpers of this process, which start when they are first needed."""
    process = os.getpid()
    if process not in _crews:
        _crews.setdefault(process, Crew())
    return _crews[process]


@atexit.register
def _close() -> None:
    if (own := _crews.get(os.getpid())) is not None:
        own.close()


def share(
    kernel: Callable[..., int], threads: int, tile: int, m: int, patient: bool, flag: np.ndarray, *arguments: Any
) -> int:
    """Call the kernel for every tile of columns of 0 … m − 1, on `threads` threads; the sum of what the calls return.

    Threads take one tile after the other. Columns never meet, so that the answer is the same on any number of threads.
    The calling thread is one of them, unless it is `patient`. Then it waits, because Python handles a signal only in
    the main thread and not while that is in compiled code. An exception in the calling thread sets the flag, which
    solvers read before each application, and which ends them. While another caller has the helpers, a caller works
    alone, or, if it is patient, with helpers of its own.
    """
    firsts = iter(range(0, m, tile))

    def work() -> int:
        return sum([kernel(first, min(m, first + tile), *arguments) for first in firsts])

    wanted = threads if patient else min(threads, -(-m // tile)) - 1
    if wanted == 0:
        return work()
    shared = crew()
    if not patient and time.perf_counter() < shared.rests_until:
        return work()
    if shared.free.acquire(blocking=False):
        try:
            return _with_helpers(shared, wanted, work, firsts, patient, flag)
        finally:
            shared.free.release()
    if not patient:
        return work()
    own = Crew()
    try:
        return _with_helpers(own, wanted, work, firsts, patient, flag)
    finally:
        own.close()


def _with_helpers(
    shared: Crew, wanted: int, work: Callable[[], int], firsts: Iterator[int], patient: bool, flag: np.ndarray
) -> int:
    """Let helpers take some of the tiles, the first columns of which `work` takes from `firsts`; see `share`."""
    helpers = [helper for helper in shared.some(wanted) if helper.idle]
    if not helpers:
        return work()
    began = time.perf_counter()
    try:
        for helper in helpers:
            helper.call(work)
        total, worked = 0 if patient else work(), time.perf_counter()
        # A helper that begins after this finds no tile.
        at_work = [helper for helper in helpers if patient or helper.begun]
        for helper in at_work:
            helper.wait(0 if patient else SPINS)
    except BaseException:
        flag[0] = 1
        collections.deque(firsts, maxlen=0)  # No tile is begun any more.
        for helper in helpers:
            if helper.begun:
                helper.wait(0)
        raise
    waited = time.perf_counter() - worked
    if not patient and waited > max(LATE, worked - began):
        shared.rests_until = time.perf_counter() + REST
    for helper in at_work:
        if helper.failure is not None:
            raise helper.failure
        total += helper.result
    return total


def interruptible(
    kernel: Callable[..., int],
    m: int,
    work: float,
    how: tuple[int, int],
    flag: np.ndarray,
    counts: tuple[np.ndarray, ...],
    *arguments: Any,
) -> int:
    """Call a solver for m columns, on some threads and in tiles, so that a signal ends it if its `work` is large.

    `work` is that of all columns in flops, and `how` is the number of threads and of columns of a tile. A signal sets
    the flag, which ends the solver, and what handles the signal usually raises an exception then. If it does not, all
    columns are solved once more, while the main thread waits and handles signals. The solver adds to the `counts`.
    """
    workers, tile = how
    if work <= min(m, 5) * LONG_FLOPS or threading.current_thread() is not threading.main_thread():
        return share(kernel, workers, tile, m, False, flag, *arguments)
    before = [count.copy() for count in counts]
    with watched(flag) as told:
        left = share(kernel, workers, tile, m, False, flag, *arguments) if told else 0
    if told and not flag[0]:
        return left
    flag[0] = 0
    for count, then in zip(counts, before, strict=True):
        count[:] = then
    return share(kernel, workers, tile, m, True, flag, *arguments)
