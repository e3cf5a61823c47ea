"""One call to a backend: arrays of its own, and what it gave, checked for shape."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from idl_ref.conformance.problem import WEIGHTS, Arrays, Backend, Problem, laid_out


class BackendError(RuntimeError):
    """The backend died, hung or gave nonsense: never a report of a failure."""


@dataclass
class Answer:
    """What a backend gave, or how it failed to."""

    arrays: Arrays = field(default_factory=dict)
    converged: np.ndarray | None = None
    iterations: np.ndarray | None = None
    error: str = ""  # it raised, or gave something else than arrays of the right shape
    raised: bool = False
    warned: str = ""
    note: str = ""


def ask(backend: Backend, what: str, problem: Problem, G_Y: np.ndarray, layout: str, asked: tuple[str, ...]) -> Answer:
    """One call, with arrays of its own that it must not change, and what it gave as arrays of the right shape."""
    given = problem.with_arrays({name: laid_out(M, layout) for name, M in problem.arrays.items()})
    cotangent = laid_out(G_Y, layout)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            out = backend.forward(given) if what == "forward" else backend.vjp(given, cotangent)
        except Exception as reason:
            died = isinstance(reason, BackendError)
            return Answer(error=f"raised {type(reason).__name__}: {_short(reason)}", raised=not died)
    answer = Answer(warned=_short(caught[0].message) if caught else "")
    for name, before in (*problem.arrays.items(), ("G_Y", G_Y)):
        after = cotangent if name == "G_Y" else getattr(given, name)
        if not np.array_equal(before, after, equal_nan=True):
            answer.error = f"input {name} was modified"
            return answer
    shapes = _shapes(problem)
    for name in asked:
        value = out.get(name) if hasattr(out, "get") else None
        if value is None:
            answer.error = f"gave no {name}"
            return answer
        array = np.asarray(value)
        if array.dtype.kind != "f" or array.shape != shapes[name]:
            answer.error = f"{name} must be {shapes[name]} {problem.dtype}; got {array.shape} {array.dtype}"
            return answer
        if array.dtype != problem.dtype:
            answer.note = f"{name} is {array.dtype}, the problem {problem.dtype}"
        answer.arrays[name] = array.astype(np.float64, copy=True)
    for name in ("converged", "iterations"):
        if what == "forward" and (value := out.get(name)) is not None:
            setattr(answer, name, np.broadcast_to(np.asarray(value), (problem.U.shape[1],)))
    return answer


def _short(reason: Any) -> str:
    text = " ".join(str(reason).split())
    return text if len(text) <= 160 else text[:157] + "…"


def _shapes(problem: Problem) -> dict[str, tuple[int, ...]]:
    _, _, q, m = problem.sizes
    shapes: dict[str, tuple[int, ...]] = {name: M.shape for name, M in problem.arrays.items()}
    return shapes | {"X": (len(problem.B), m), "Y": (q, m)}


def names(problem: Problem) -> tuple[str, ...]:
    """The gradients that are asked for."""
    return tuple(name for name in WEIGHTS if name in problem.arrays)
