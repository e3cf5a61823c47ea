"""The threads of the Numba twin: who takes the tiles, what is waited for, and what an error leaves behind."""

import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import idl_ref

pytest.importorskip("numba")
from idl_ref.backends.numba import threads

ME = threading.get_ident


@pytest.fixture(autouse=True)
def own_crew(monkeypatch):
    """Helpers of this test alone."""
    crew = threads.Crew()
    crew.most = 4
    monkeypatch.setattr(threads, "crew", lambda: crew)
    yield crew
    crew.close()


def share(kernel, workers, m=8, tile=1, patient=False, flag=None):
    return threads.share(kernel, workers, tile, m, patient, np.zeros(1, np.int64) if flag is None else flag)


def watched(ran, kernel=lambda first, last: 0):
    """A kernel that notes which thread took which tile; the calling thread waits until another one has begun."""
    me, several = ME(), threading.Event()

    def call(first, last):
        ran.append((ME(), first, last))
        if ME() != me:
            several.set()
        else:
            assert several.wait(30)
        return kernel(first, last)

    return call


@pytest.mark.parametrize("patient", [False, True])
@pytest.mark.parametrize("workers", [2, 3])
def test_every_column_is_taken_once(workers, patient):
    me = ME()
    for _ in range(30):
        taken, by = [], set()

        def kernel(first, last, taken=taken, by=by):
            by.add(ME())
            taken.extend(range(first, last))
            return last - first

        assert share(kernel, workers, m=11, tile=2, patient=patient) == 11
        assert sorted(taken) == [*range(11)]
        assert len(by) <= workers
        assert (me in by) <= (not patient)


def test_helpers_are_kept_and_sleep_in_between(own_crew):
    ran = []
    share(watched(ran), 2)
    (helper,) = own_crew.helpers
    deadline = time.monotonic() + 30
    while not helper.called.asleep and time.monotonic() < deadline:
        time.sleep(0.001)
    assert helper.called.asleep
    before = time.process_time()  # that of all threads
    time.sleep(0.2)
    assert time.process_time() - before < 0.1
    share(watched(ran), 2)  # a sleeping helper wakes up
    assert own_crew.helpers == [helper]
    assert {thread for thread, *_ in ran} == {ME(), helper.thread.ident}


def test_what_a_helper_has_worked_with_is_not_kept(own_crew):
    share(watched([]), 2)
    assert own_crew.helpers[0].work is None


def test_one_tile_wakes_nobody(own_crew):
    assert share(lambda first, last: last - first, 3, m=5, tile=5) == 5
    assert own_crew.helpers == []


def test_a_helper_that_has_not_begun_is_not_waited_for(own_crew, monkeypatch):
    share(watched([]), 2)
    (helper,) = own_crew.helpers
    with monkeypatch.context() as patch:
        patch.setattr(helper.called, "give", lambda: None)  # it hears nothing
        assert share(lambda first, last: ME(), 2, m=3) == 3 * ME()
    assert not helper.idle
    assert share(lambda first, last: ME(), 2, m=3) == 3 * ME()  # it cannot be called a second time
    helper.called.give()  # late, it finds no tile
    helper.wait(0)
    ran = []
    share(watched(ran), 2)
    assert len({thread for thread, *_ in ran}) == 2


@pytest.mark.skipif(
    threads.current_cpu() < 0 or len(os.sched_getaffinity(0)) < 2, reason="one CPU, or the system does not tell which"
)
def test_a_helper_leaves_the_cpu_of_its_caller():
    allowed, seen = os.sched_getaffinity(0), []

    def move():
        os.sched_setaffinity(0, {min(allowed)})  # This moves the thread there.
        os.sched_setaffinity(0, allowed)
        threads.step_aside(min(allowed))
        seen.extend([threads.current_cpu(), os.sched_getaffinity(0)])

    thread = threading.Thread(target=move)
    thread.start()
    thread.join()
    assert seen[0] != min(allowed)
    assert seen[1] == allowed


def test_a_helper_on_another_cpu_is_not_moved(monkeypatch):
    monkeypatch.setattr(threads, "current_cpu", lambda: 0)
    monkeypatch.setattr(os, "sched_setaffinity", pytest.fail, raising=False)
    threads.step_aside(1)
    threads.step_aside(-1)


def test_a_helper_stays_where_the_system_forbids_to_move(own_crew, monkeypatch):
    def forbidden(*_):
        raise PermissionError

    monkeypatch.setattr(threads, "current_cpu", lambda: 0)
    monkeypatch.setattr(os, "sched_setaffinity", forbidden, raising=False)
    ran = []
    share(watched(ran), 2)
    assert sorted(first for _, first, _ in ran) == list(range(8))


def test_other_callers_work_alone_meanwhile(own_crew):
    with own_crew.free:
        assert share(lambda first, last: ME(), 3, m=3) == 3 * ME()


def test_a_patient_caller_has_helpers_of_its_own_meanwhile(own_crew):
    ran = set()
    with own_crew.free:
        share(lambda first, last: ran.add(ME()) or 0, 2, patient=True)
    assert ran
    assert ME() not in ran
    assert own_crew.helpers == []


def test_callers_work_alone_for_a_while_after_they_had_to_wait(own_crew, monkeypatch):
    """A helper that holds a tile for long does not have its core."""
    monkeypatch.setattr(threads, "REST", 3600)
    me = ME()
    share(watched([], lambda first, last: time.sleep(0 if ME() == me else 0.1) or 0), 2, m=2)
    assert share(lambda first, last: ME(), 2, m=3) == 3 * me
    own_crew.rests_until = 0.0
    ran = []
    share(watched(ran), 2)
    assert len({thread for thread, *_ in ran}) == 2


@pytest.mark.parametrize("started", [0, 1])
def test_where_no_thread_can_be_started_the_others_do_it_all(own_crew, monkeypatch, started):
    class Exhausted(threads.Helper):
        def __init__(self, number):
            if number >= started:
                raise RuntimeError("can't start new thread")
            super().__init__(number)

    monkeypatch.setattr(threads, "Helper", Exhausted)
    for patient in (False, True):
        assert share(lambda first, last: last - first, 4, patient=patient) == 8
    assert len(own_crew.helpers) == started


@pytest.mark.parametrize("patient", [False, True])
def test_an_error_of_a_helper_is_the_callers(own_crew, patient):
    me, failed = ME(), threading.Event()

    def kernel(first, last):
        if ME() != me:
            failed.set()
            raise MemoryError("no room for a tile")
        assert failed.wait(30)
        return 0

    for _ in range(2):
        failed.clear()
        with pytest.raises(MemoryError, match="no room for a tile"):
            share(kernel, 2, m=2, patient=patient)
    assert share(lambda first, last: 1, 2) == 8  # the helper goes on


def test_an_error_of_the_caller_ends_what_helpers_do():
    me, flag, others = ME(), np.zeros(1, np.int64), threading.Event()

    def kernel(first, last):
        if ME() == me:
            assert others.wait(30)
            raise KeyboardInterrupt
        others.set()
        while flag[0] == 0:  # as a solver does before each application
            time.sleep(0.001)
        return 0

    with pytest.raises(KeyboardInterrupt):
        share(kernel, 2, m=100, flag=flag)
    assert flag[0] == 1
    assert share(lambda first, last: 1, 2) == 8


def test_the_helpers_end_with_the_process():
    code = textwrap.dedent("""
        import atexit, threading, numpy as np
        from idl_ref.backends.numba import threads
        def work():
            print(threads.share(lambda first, last: 1, 2, 1, 8, False, np.zeros(1, np.int64)))
        atexit.register(work)  # after the helpers have ended
        from idl_ref.backends.numba.threads import _close
        atexit.unregister(_close), atexit.register(_close)
        work()
        print([thread.name for thread in threading.enumerate()])
    """)
    environment = {**os.environ, "PYTHONPATH": str(Path(idl_ref.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600)
    assert done.stdout.split("\n") == ["8", "['MainThread', 'idl_ref_0']", "8", ""], done.stderr
    assert done.returncode == 0
