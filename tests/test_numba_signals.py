"""Signals end long solves of the Numba twin, and what handles them decides what happens then."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import idl_ref
from idl_ref import SGD, ImplicitModel, SolveOptions, fit, solve_equilibrium
from idl_ref.analysis import ImplicitRNN

pytest.importorskip("numba")
if not hasattr(signal, "setitimer"):
    pytest.skip("this system has no timer that sends signals", allow_module_level=True)
from idl_ref.backends.numba import signals, threads


class ArrivedError(Exception):
    """What a handler of these tests raises."""


def raising(number, frame):
    raise ArrivedError


@pytest.fixture
def alarms():
    """Send a signal after so many seconds, and then again and again, to a handler; count them."""
    count = []

    def start(handler, seconds, again=0.0):
        def handle(*arguments):
            count.append(time.perf_counter())
            if handler:
                handler(*arguments)

        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, seconds, again)
        return count

    before = signal.getsignal(signal.SIGALRM)
    yield start
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def endless(n=300, m=64, seed=0):
    """An equation whose iteration takes minutes."""
    A = (1 - 1e-9) * np.roll(np.eye(n), 1, axis=0)
    return A, np.random.default_rng(seed).standard_normal((n, m))


def options(max_iter, method="picard"):
    return SolveOptions(tol=1e-15, max_iter=max_iter, method=method, on_failure="ignore")


def solve_for_ever(A, Z, method):
    while True:
        solve_equilibrium(A, Z, activation="identity", options=options(10**7, method), backend="numba")


@pytest.mark.parametrize("method", ["picard", "anderson", "auto"])
def test_a_handler_that_raises_ends_a_solve(alarms, method):
    A, Z = endless()
    solve_equilibrium(A, Z, activation="identity", options=options(200, method), backend="numba")  # compiles
    count = alarms(raising, 0.2)
    with pytest.raises(ArrivedError):
        solve_for_ever(A, Z, method)
    assert time.perf_counter() - count[0] < 0.5
    rests_by = time.perf_counter() + 5
    while not all(helper.idle for helper in threads.crew().helpers):  # One may see only now that the work is over.
        assert time.perf_counter() < rests_by
        time.sleep(1e-3)
    assert signals.watch().flag is None


@pytest.mark.parametrize("method", ["picard", "anderson", "newton", "auto"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_handler_that_returns_changes_no_bit(alarms, monkeypatch, method, workers):
    monkeypatch.setattr(threads, "LONG_FLOPS", 0)
    monkeypatch.setattr(idl_ref.backends.numba.launches, "PARALLEL_FLOPS", 0 if workers > 1 else 1e99)
    monkeypatch.setattr(idl_ref.backends.numba.launches.numba, "get_num_threads", lambda: workers)
    rng = np.random.default_rng(1)
    A = rng.standard_normal((120, 120))
    A *= 0.999 / np.abs(A).sum(axis=1, keepdims=True)
    if method == "auto":  # All columns go on with Anderson's method, from where Picard's left them.
        A = np.abs(A)
    Z = rng.standard_normal((120, 300))

    def solve():
        s = solve_equilibrium(A, Z, options=SolveOptions(tol=1e-12, max_iter=3000, method=method), backend="numba")
        return s.X, s.status, s.iterations, s.step, s.error_bound

    expected = solve()
    count = alarms(None, 1e-3, 1e-3)
    for _ in range(20):
        for found, right in zip(solve(), expected, strict=True):
            np.testing.assert_array_equal(found, right)
    assert len(count) > 20


def test_signals_change_no_bit_of_a_training(alarms, monkeypatch):
    monkeypatch.setattr(threads, "LONG_FLOPS", 0)
    rng = np.random.default_rng(2)
    U, T = rng.standard_normal((600, 20)).astype("f4"), rng.integers(0, 5, 600)

    def trained():
        model = ImplicitModel(20, 5, 100, seed=0, backend="numba")
        fit(model, U, T, epochs=3, batch_size=60, optimizer=SGD(0.05), progress=False)
        return model.parameters

    expected, count = trained(), alarms(None, 1e-3, 1e-3)
    for _ in range(5):
        found = trained()
        assert all((found[name] == w).all() for name, w in expected.items())
    assert len(count) > 5


def test_signals_change_no_bit_of_the_passes_through_time(alarms, monkeypatch):
    monkeypatch.setattr(threads, "LONG_FLOPS", 0)
    rng = np.random.default_rng(3)
    rnn, U, T = ImplicitRNN(3, 2, 40, 10, seed=0, backend="numba"), rng.standard_normal((50, 20, 3)), np.ones((50, 2))

    def gradients():
        return rnn.loss_and_gradients(U, T, "mse")[1]

    expected, count = gradients(), alarms(None, 1e-3, 1e-3)
    for _ in range(40):
        found = gradients()
        assert all((found[name] == G).all() for name, G in expected.items())
    assert len(count) > 3


def test_where_somebody_else_is_told_of_signals_the_main_thread_waits(alarms):
    reader, writer = socket.socketpair()
    with reader, writer:
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno())
        try:
            A, Z = endless()
            count = alarms(raising, 0.2)
            with pytest.raises(ArrivedError):
                solve_for_ever(A, Z, "picard")
            assert time.perf_counter() - count[0] < 0.5
            assert signal.set_wakeup_fd(-1) == writer.fileno()
            assert reader.recv(10) == bytes([signal.SIGALRM])
        finally:
            signal.set_wakeup_fd(before)


def test_other_threads_solve_without_a_watch(monkeypatch):
    monkeypatch.setattr(threads, "LONG_FLOPS", 0)
    monkeypatch.setattr(threads, "watched", lambda flag: pytest.fail("only the main thread is told of signals"))
    failures = []

    def work():
        try:
            solve_equilibrium(*endless(), options=options(3), backend="numba")
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures


def test_the_watch_outside_of_the_main_thread_says_no():
    found = []

    def work():
        with signals.watched(np.zeros(1, np.int64)) as told:
            found.append(told)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]


def test_where_no_file_is_left_the_main_thread_waits(alarms, monkeypatch):
    def refused():
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(signals, "_watches", {})
    monkeypatch.setattr(signals.socket, "socketpair", refused)
    count = alarms(raising, 0.2)
    with pytest.raises(ArrivedError):
        solve_for_ever(*endless(), "picard")
    assert time.perf_counter() - count[0] < 0.5
    assert not signals._watches


def test_ctrl_c_ends_a_process_that_solves():
    program = textwrap.dedent("""
        import numpy as np, idl_ref

        def solve(max_iter):
            how = idl_ref.SolveOptions(tol=1e-15, max_iter=max_iter, method="picard", on_failure="ignore")
            idl_ref.solve_equilibrium(A, Z, activation="identity", options=how, backend="numba")

        A, Z = (1 - 1e-9) * np.roll(np.eye(300), 1, axis=0), np.ones((300, 64))
        solve(2)
        print("begun", flush=True)
        while True:
            solve(10**7)
    """)
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "begun\n"
        time.sleep(0.3)
        began = time.perf_counter()
        os.kill(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=30)
    finally:
        process.kill()
    assert time.perf_counter() - began < 5
    assert error.rstrip().endswith("KeyboardInterrupt")
    assert "Warning" not in error
