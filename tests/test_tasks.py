"""Tasks on executors: every outcome is yielded once, failures are of their task alone, lost workers are said."""

import math
import os
import signal
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import clusters
import pytest

from idl_ref.parallel.tasks import Outcome, WorkersLostError, completed

TASKS = [(float(k),) for k in range(-3, 40)]


def slow_root(x):
    time.sleep(0.01)
    return math.sqrt(x)


def killed_at(x, fatal):
    if x == fatal:
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    return slow_root(x)


def leaves_at(x, fatal):
    if x == fatal:
        raise SystemExit(3)
    return x


def checked(outcomes):
    found = dict(outcomes)
    assert len(found) == len(TASKS)
    for (x,), outcome in found.items():
        if x < 0:
            assert outcome.value is None
            assert isinstance(outcome.error, ValueError)
        else:
            assert outcome == Outcome(math.sqrt(x))


def processes(workers=2):
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"))


def test_here():
    outcomes = list(completed(math.sqrt, TASKS))
    assert [task for task, _ in outcomes] == TASKS
    checked(outcomes)


@pytest.mark.parametrize("in_flight", [1, 2, 7, None])
def test_threads(in_flight):
    with ThreadPoolExecutor(2) as executor:
        checked(completed(math.sqrt, iter(TASKS), executor, in_flight))


def test_processes():
    with processes() as executor:
        checked(completed(math.sqrt, TASKS, executor, 5))


def test_loky():
    loky = pytest.importorskip("loky")
    executor = loky.ProcessPoolExecutor(2)
    try:
        checked(completed(math.sqrt, TASKS, executor, 5))
    finally:
        executor.shutdown(kill_workers=True)


def test_no_tasks():
    assert list(completed(math.sqrt, [])) == []
    with ThreadPoolExecutor(1) as executor:
        assert list(completed(math.sqrt, [], executor)) == []


class Watching(ThreadPoolExecutor):
    """A pool that counts the tasks which are submitted and not yet done."""

    def __init__(self, workers):
        super().__init__(workers)
        self.count = self.most = 0
        self.lock = threading.Lock()

    def submit(self, function, *task):
        with self.lock:
            self.count += 1
            self.most = max(self.most, self.count)
        future = super().submit(function, *task)
        future.add_done_callback(self.done)
        return future

    def done(self, future):
        with self.lock:
            self.count -= 1


@pytest.mark.parametrize("in_flight", [1, 3, 10])
def test_so_many_are_in_flight_and_no_more(in_flight):
    with Watching(2) as executor:
        checked(completed(slow_root, TASKS, executor, in_flight))
        assert executor.most == in_flight


def test_tasks_are_asked_for_when_there_is_room():
    asked = []

    def generated():
        for task in TASKS:
            asked.append(task)
            yield task

    with ThreadPoolExecutor(2) as executor:
        outcomes = completed(math.sqrt, generated(), executor, 3)
        next(outcomes)
        assert len(asked) == 3
        outcomes.close()


def test_leaving_the_loop_cancels_the_rest():
    with ThreadPoolExecutor(1) as executor:
        begun = time.perf_counter()
        for _ in completed(time.sleep, [(0.01,)] + 50 * [(0.2,)], executor):
            break
    assert time.perf_counter() - begun < 2


def test_a_killed_worker_of_a_pool_is_said_and_outcomes_are_kept():
    found = []
    outcomes = completed(killed_at, [(x, 20.0) for x in range(40)], clusters.all_started(processes()), 4)
    with pytest.raises(WorkersLostError, match=r"lost them after \d+ tasks \(BrokenProcessPool.*call again"):
        found.extend(outcomes)
    assert 10 <= len(found) <= 22
    assert all(outcome.error is None for _, outcome in found)


def test_outcomes_that_had_arrived_come_before_the_error():
    class Broken(ThreadPoolExecutor):
        """Two tasks are done when a third is refused."""

        def submit(self, function, *task):
            if task == (2,):
                raise RuntimeError("cannot schedule new futures after shutdown")
            future = Future()
            future.set_result(task)
            return future

    found = []
    with pytest.raises(WorkersLostError, match=r"after 2 tasks \(RuntimeError: cannot schedule"):
        found.extend(task for task, _ in completed(tuple, [(0,), (1,), (2,), (3,)], Broken(1), 4))
    assert found == [(0,), (1,)]


def test_a_pool_that_was_shut_down():
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(WorkersLostError, match="new executor"):
        list(completed(math.sqrt, TASKS, executor))


def test_a_cancelled_future_is_a_lost_task():
    class Cancelling(ThreadPoolExecutor):
        def submit(self, function, *task):
            future = Future()
            future.cancel()
            future.set_running_or_notify_cancel()
            return future

    with pytest.raises(WorkersLostError, match=r"after 0 tasks \(the task was cancelled"):
        list(completed(math.sqrt, TASKS, Cancelling(1)))


def test_a_task_that_leaves_its_process_ends_alone():
    with processes(1) as executor:
        outcomes = dict(completed(leaves_at, [(x, 2) for x in range(4)], executor))
    assert isinstance(outcomes[2, 2].error, SystemExit)
    assert [outcomes[x, 2].value for x in (0, 1, 3)] == [0, 1, 3]


@pytest.mark.parametrize(("name", "value"), [("in_flight", 0), ("in_flight", 1.5), ("executor", "threads")])
def test_refusals(name, value):
    with pytest.raises((TypeError, ValueError), match=f"{name} must be"):
        completed(math.sqrt, TASKS, **{"executor": None} | {name: value})


@pytest.mark.engine
def test_dask():
    distributed = pytest.importorskip("distributed")
    local = distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None)
    with local, distributed.Client(local) as client:
        executor = client.get_executor()
        checked(completed(math.sqrt, TASKS, executor, 5, "square-root-{}".format))
        checked(completed(math.sqrt, TASKS, executor, 5))


@pytest.mark.engine
@pytest.mark.slow
def test_a_task_that_kills_its_workers_fails_alone_on_dask():
    """Dask tries it on another worker, up to four of them, and then gives it up; all other tasks are done."""
    pytest.importorskip("distributed")
    with clusters.local(2) as client:
        outcomes = dict(completed(killed_at, [(x, 3.0) for x in range(8)], client.get_executor(), 2))
    assert type(outcomes[3, 3.0].error).__name__ == "KilledWorker"
    assert all(outcome.error is None for (x, _), outcome in outcomes.items() if x != 3)
