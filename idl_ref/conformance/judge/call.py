"""One call to a backend, and its answer or its failure. Nothing that a backend does here ends the run."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from idl_ref.conformance.judge.text import LIMIT, short
from idl_ref.conformance.truth.backend import Backend, BackendError, Capabilities
from idl_ref.conformance.truth.problem import Arrays, Problem, answer_shapes, laid_out
from idl_ref.training.interrupts import Terminated

STOPS = (KeyboardInterrupt, Terminated)  # What Ctrl-C and SIGTERM raise: they are meant for the run, not for a check.


@dataclass
class Answer:
    """The answer to one call, or how the call failed.

    Attributes
    ----------
    arrays : dict
        Y and X, or the gradients, by name.
    converged, iterations : (m,) array of bool, of int, or None
        The status of each column, where the backend gave one.
    error : str
        Why there is no answer: the backend raised an exception, or returned something other than the arrays due.
    raised : bool
        Whether the backend raised an exception other than `BackendError`, which counts as a report of failure.
    warned : str
        The first warning.
    note : str
        A remark on an answer that is accepted.
    """

    arrays: Arrays = field(default_factory=dict)
    converged: np.ndarray | None = None
    iterations: np.ndarray | None = None
    error: str = ""
    raised: bool = False
    warned: str = ""
    note: str = ""


class MalformedError(ValueError):
    """What a backend returned is not an answer."""


def ask(
    backend: Backend, what: str, problem: Problem, G_Y: np.ndarray, declared: Capabilities, layout: str = "C"
) -> Answer:
    """Call `forward` or `vjp` with copies of the arrays, and check what is returned.

    The backend must not change the copies, and must return every array that is due, in the right shape.
    """
    before = {**problem.arrays, "G_Y": G_Y}
    given = {name: laid_out(M, layout) for name, M in before.items()}
    theirs = problem.with_arrays({name: given[name] for name in problem.arrays})
    call = (lambda: backend.forward(theirs)) if what == "forward" else (lambda: backend.vjp(theirs, given["G_Y"]))
    answer, out = _called(call)
    if answer.error:
        return answer
    for name in before:
        if not np.array_equal(before[name], given[name], equal_nan=True):
            return Answer(error=f"input {name} was modified")
    read, _ = _called(lambda: _read(answer, out, problem, what, declared))
    return replace(read, raised=False) if read.error else answer


def _called(call: Callable[[], Any]) -> tuple[Answer, Any]:
    """What a call returns, or how it failed; settings of NumPy and of warnings that it changes are as before.

    An exception that is no `Exception`, such as `SystemExit`, would end a program: it counts as a crash of this call.
    """
    with warnings.catch_warnings(record=True) as caught, np.errstate():
        warnings.simplefilter("always")
        try:
            out = call()
        except STOPS:
            raise
        except MalformedError as reason:
            return Answer(error=short(reason)), None
        except BackendError as reason:
            return Answer(error=short(reason, 2 * LIMIT)), None
        except BaseException as reason:
            name = type(reason).__name__
            return Answer(error=f"raised {name}: {short(reason)}", raised=isinstance(reason, Exception)), None
    return Answer(warned=short(caught[0].message) if caught else ""), out


def _read(answer: Answer, out: Any, problem: Problem, what: str, declared: Capabilities) -> None:
    """Put what a backend returned into the answer; `MalformedError` if it is not what is due."""
    get = getattr(out, "get", None)
    if not callable(get):
        raise MalformedError(f"{what} must return a dictionary of arrays; got {type(out).__name__}")
    for name, shape in answer_shapes(problem, what).items():
        if name != "X" or declared.X:
            answer.arrays[name] = _numbers(answer, name, get(name), shape, problem)
    if what == "forward":
        m = problem.U.shape[1]
        answer.converged = _status("converged", get("converged"), m, "booleans", (0, 1))
        answer.iterations = _status("iterations", get("iterations"), m, "whole numbers", (0, 2**53))


def _numbers(answer: Answer, name: str, value: Any, shape: tuple[int, ...], problem: Problem) -> np.ndarray:
    """An array of the answer in float64."""
    if value is None:
        raise MalformedError(f"returned no {name}")
    array, dtype = _array(name, value), problem.dtype
    if array.dtype.name == "bfloat16":  # that of the package ml_dtypes, which for NumPy is no float
        array = array.astype(np.float32)
    if array.dtype.kind != "f" or array.shape != shape:
        raise MalformedError(f"{name} must be {shape} {dtype}; got {array.shape} {array.dtype}")
    if array.dtype != dtype and not problem.bfloat16:
        answer.note = f"{name} is {array.dtype}, but the problem is {dtype}"
    return array.astype(np.float64, copy=True)


def _status(name: str, value: Any, m: int, kind: str, limits: tuple[int, int]) -> np.ndarray | None:
    """A status of every column, or one for all; None where the backend gave none."""
    if value is None:
        return None
    array, (low, high) = _array(name, value), limits
    fits = array.shape in ((m,), ()) and array.dtype.kind in "buif"
    if not fits or not ((array >= low) & (array <= high) & (array == np.floor(array))).all():
        got = f"{array.shape} {array.dtype}" + (f" with {short(array.ravel()[:3].tolist(), 60)}" if array.size else "")
        raise MalformedError(f"{name} must be ({m},) {kind}; got {got}")
    return np.broadcast_to(array.astype(bool if high == 1 else np.int64), (m,))


def _array(name: str, value: Any) -> np.ndarray:
    if np.ma.is_masked(value):
        raise MalformedError(f"{name} must be an array of numbers; got a masked one, which lacks some")
    try:
        return np.asarray(value)
    except STOPS:
        raise
    except BaseException as reason:  # a ragged list, or a tensor that is bound to a graph or to a device
        kind = type(value).__name__
        raise MalformedError(f"{name} must be an array for NumPy; got {kind}, which NumPy refuses: {reason}") from None
