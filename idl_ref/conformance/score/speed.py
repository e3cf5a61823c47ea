"""The time and the memory that a backend needs for problems of three sizes."""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from idl_ref.conformance.adapters import IdlRef
from idl_ref.conformance.judge.text import short
from idl_ref.conformance.remote import Command
from idl_ref.conformance.truth.backend import Capabilities
from idl_ref.conformance.truth.problem import Problem, make

SIZES = {"small": (16, 8, 4, 1), "medium": (64, 32, 10, 64), "large": (128, 64, 10, 128)}  # n, p, q and m
KAPPA = 0.9
ENOUGH = 0.4  # seconds after which a measurement is not repeated any more
REPEATS = 9
PATIENCE = 10.0  # a backend that needs more seconds for one answer is asked nothing larger


def problem(size: str, declared: Capabilities) -> tuple[Problem, np.ndarray]:
    """A problem of one of the SIZES in the first dtype and activation that are declared, and a cotangent G_Y."""
    n, p, q, m = SIZES[size]
    rng = np.random.default_rng(n)
    A = rng.uniform(-0.2, 1.0, (n, n))
    arrays = {"A": A * (KAPPA / np.abs(A).sum(axis=1, keepdims=True)), "B": rng.normal(size=(n, p)) / p}
    arrays |= {"C": rng.normal(size=(q, n)) / n, "U": rng.normal(size=(p, m)), "D": rng.normal(size=(q, p))}
    dtype = "float64" if "float64" in declared.dtypes else declared.dtypes[0]
    activation = "relu" if "relu" in declared.activations else declared.activations[0]
    settings = {"activation": activation, "dtype": dtype, "tol": 1e-6, "max_iter": 1000}
    return make({name: M.astype(dtype) for name, M in arrays.items()}, settings), rng.normal(size=(q, m)).astype(dtype)


def speed(backend: Any, declared: Capabilities) -> dict[str, Any]:
    """By size and direction: seconds per problem, of the first call, and relative to the NumPy twin; or why none."""
    result: dict[str, Any] = {}
    for size in SIZES:
        asked, G_Y = problem(size, declared)
        for what in ("forward", "vjp")[: 1 + declared.vjp]:
            name = "Y" if what == "forward" else "B"
            measured = _measured(backend, partial(_called, what, asked, G_Y), name)
            result[f"{size} {what}"] = measured
            if measured.get("seconds", PATIENCE) >= PATIENCE:
                return result
    return result


def _called(what: str, asked: Problem, G_Y: np.ndarray, backend: Any) -> Any:
    return backend.forward(asked) if what == "forward" else backend.vjp(asked, G_Y)


def _measured(backend: Any, call: Callable[[Any], Any], name: str) -> dict[str, Any]:
    """The seconds that a call takes once it is warm, for an answer that agrees with that of the NumPy twin."""
    twin = IdlRef("numpy")
    expected = call(twin)[name]
    try:
        started = time.perf_counter()
        answer = np.asarray(call(backend)[name], np.float64)
        first = time.perf_counter() - started
        if answer.shape != expected.shape or not np.allclose(answer, expected, rtol=1e-3, atol=1e-3):
            return {"reason": f"{name} differs from that of the NumPy twin"}
        if first >= PATIENCE:
            return {"seconds": first}
        mine, theirs = _quickest(lambda: call(backend), lambda: call(twin))
    except Exception as reason:
        return {"reason": f"raised {type(reason).__name__}: {short(reason)}"}
    return {"seconds": mine, "first": first, "ratio": mine / theirs}


def _quickest(*calls: Callable[[], Any]) -> list[float]:
    """The shortest time of each call in a few turns, in which nothing else of this program runs between them."""
    times: list[list[float]] = [[] for _ in calls]
    while len(times[0]) < REPEATS and sum(map(sum, times)) < ENOUGH:
        for call, mine in zip(calls, times, strict=True):
            started = time.perf_counter()
            call()
            mine.append(time.perf_counter() - started)
    return [min(mine) for mine in times]


def memory(backend: Any, declared: Capabilities) -> dict[str, Any]:
    """The peak in bytes, and what it is the peak of."""
    if isinstance(backend, Command):
        return _of_children(backend)
    asked, G_Y = problem("large", declared)
    tracemalloc.start()
    try:
        backend.forward(asked)
        if declared.vjp:
            backend.vjp(asked, G_Y)
        peak = tracemalloc.get_traced_memory()[1]
    except Exception as reason:
        return {"reason": f"raised {type(reason).__name__}: {short(reason)}"}
    finally:
        tracemalloc.stop()
    return {"bytes": peak, "of": "Python and NumPy for one large problem, by tracemalloc; not what C++ allocates"}


def _of_children(backend: Command) -> dict[str, Any]:
    """The most that a process had in memory in the whole run; the process is ended for this."""
    backend.close()
    if sys.platform == "win32":
        return {"reason": "Windows does not tell the peak of a process that has ended"}
    import resource

    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {"bytes": peak * (1 if sys.platform == "darwin" else 1024), "of": "the whole process, by ru_maxrss"}
