"""This module hands tasks to an executor: the one place that knows what executors do when a task or a worker fails.

An executor is any `concurrent.futures.Executor`: the pools of the standard library, loky, `client.get_executor()` of
Dask, `mpi4py.futures`. A task is a tuple of arguments for a function of a module, and both are pickled: a task should
hold names of files and ranges of rows, not arrays.
"""

from __future__ import annotations

import queue
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from contextlib import closing
from typing import Any, NamedTuple

from idl_ref import checks

IN_FLIGHT = 1024  # At most so many tasks are submitted at a time: enough for 500 workers, and little memory.
LONGEST = 200  # So many characters of the message of an executor are shown.

Task = tuple[Any, ...]


class WorkersLostError(BrokenExecutor):
    """This error means that an executor has lost its workers, or takes no more tasks; what is done stays done."""


class Outcome(NamedTuple):
    """What became of a task.

    Attributes
    ----------
    value : object
        What the function returned, or None if it raised an exception.
    error : BaseException or None
        The exception that ended the task.
    """

    value: Any
    error: BaseException | None = None


def completed(
    function: Callable[..., Any],
    tasks: Iterable[Task],
    executor: Executor | None = None,
    in_flight: int | None = None,
    name: Callable[..., str] | None = None,
) -> Iterator[tuple[Task, Outcome]]:
    """Yield each task with its outcome, as soon as it is done: in any order with an executor, in this one without.

    Parameters
    ----------
    function : callable
        A function of a module, called as function(*task).
    tasks : iterable of tuples
        The arguments of each call. A generator is asked for the next task when there is room for it.
    executor : Executor, optional
        Where the tasks run. Without one, they run here, one after the other.
    in_flight : int, optional
        At most so many tasks are submitted and not done; 1,024 if None. Twice the number of workers keeps all busy.
    name : callable, optional
        name(*task) is what a task is called on the dashboard of Dask, such as "predict-rows-0-16384": the words before
        the first number are the name of its group.

    Yields
    ------
    task : tuple
        The task.
    outcome : Outcome
        Its value, or the exception that ended it. The other tasks go on.

    Raises
    ------
    WorkersLostError
        The executor has lost its workers, as a pool of processes has when one of them is killed, or it was shut down.
        All outcomes that had arrived are yielded before. Dask replaces lost workers, and does not end here.

    Notes
    -----
    If the loop over the outcomes is left, the tasks that have not begun are cancelled.

    Examples
    --------
    >>> from math import sqrt
    >>> for task, outcome in completed(sqrt, [(4,), (-1,)]):
    ...     print(task, outcome.value, type(outcome.error).__name__)
    (4,) 2.0 NoneType
    (-1,) None ValueError
    """
    limit = checked(executor, in_flight)
    if executor is None:
        return _here(function, tasks)
    return _elsewhere(_Submitting(function, executor, name), iter(tasks), limit)


def checked(executor: Any, in_flight: Any) -> int:
    """Return how many tasks may be submitted at a time, and refuse what is no executor."""
    if executor is not None and not isinstance(executor, Executor):
        raise TypeError(
            f"executor must be None or a concurrent.futures.Executor; got {checks.shown(executor)}: with Dask, pass "
            "client.get_executor()."
        )
    return IN_FLIGHT if in_flight is None else checks.integer("in_flight", in_flight, 1)


def _here(function: Callable[..., Any], tasks: Iterable[Task]) -> Iterator[tuple[Task, Outcome]]:
    """Run the tasks in this process."""
    for task in tasks:
        try:
            outcome = Outcome(function(*task))
        except Exception as error:
            outcome = Outcome(None, error)
        yield task, outcome


def _elsewhere(submit: _Submitting, tasks: Iterator[Task], limit: int) -> Iterator[tuple[Task, Outcome]]:
    """Keep at most `limit` tasks submitted, and yield outcomes in the order in which they arrive."""
    done = 0
    with closing(submit):
        try:
            while True:
                while len(submit.running) < limit and (task := next(tasks, None)) is not None:
                    submit(task)
                if not submit.running:
                    return
                yield submit.next()
                done += 1
        except _LostError as lost:
            for outcome in submit.arrived():
                yield outcome
                done += 1
            raise WorkersLostError(
                f"executor must keep its workers; it lost them after {done} tasks ({_short(lost)}): call again with a "
                "new executor to do the rest."
            ) from lost.__cause__


def _short(reason: Exception) -> str:
    """Return the beginning of a message, because those of some executors are long."""
    words = checks.printable(reason)
    return words if len(words) <= LONGEST else f"{words[:LONGEST]} …"


class _LostError(Exception):
    """A task has no outcome, because its worker is gone, or because the executor takes no more tasks."""


class _Submitting:
    """The tasks that an executor has and that are not done."""

    def __init__(self, function: Callable[..., Any], executor: Executor, name: Callable[..., str] | None) -> None:
        self.function, self.executor, self.name = function, executor, name
        self.running: dict[Future[Any], Task] = {}
        self.finished: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        dask = type(executor).__module__.partition(".")[0] == "distributed"
        self.token = uuid.uuid4().hex if dask and name is not None else ""  # Dask takes equal keys for equal results.

    def __call__(self, task: Task) -> None:
        """Submit a task."""
        named = {"key": f"{self.name(*task)}-{self.token}"} if self.token and self.name is not None else {}
        try:
            future = self.executor.submit(self.function, *task, **named)
        except RuntimeError as reason:  # The pool is broken or shut down.
            raise _LostError(f"{type(reason).__name__}: {reason}") from reason
        self.running[future] = task
        future.add_done_callback(self.finished.put)

    def next(self) -> tuple[Task, Outcome]:
        """Wait for a task, and return it with its outcome."""
        return self._outcome(self.finished.get())

    def arrived(self) -> Iterator[tuple[Task, Outcome]]:
        """Yield the outcomes that are there, without waiting for any."""
        for future in [future for future in self.running if future.done()]:
            try:
                yield self._outcome(future)
            except _LostError:
                continue  # This is what the caller is about to report.

    def _outcome(self, future: Future[Any]) -> tuple[Task, Outcome]:
        """Return the outcome of a future that is done."""
        task = self.running.pop(future)
        try:
            error = future.exception()
        except CancelledError as reason:
            raise _LostError("the task was cancelled") from reason
        if isinstance(error, BrokenExecutor):
            raise _LostError(f"{type(error).__name__}: {error}") from error
        return task, Outcome(None if error else future.result(), error)

    def close(self) -> None:
        """Cancel what has not begun."""
        for future in self.running:
            future.cancel()
