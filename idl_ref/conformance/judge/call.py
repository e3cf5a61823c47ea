"""One call to a backend, and its answer or its failure."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from idl_ref.conformance.truth.backend import Backend, BackendError, Capabilities
from idl_ref.conformance.truth.problem import Arrays, Problem, answer_shapes, laid_out


@dataclass
class Answer:
    """The answer to one call, or how the call failed.

    Attributes
    ----------
    arrays : dict
        Y and X, or the gradients, by name.
    converged, iterations : (m,) array or None
        The status of each column, where the backend gave one.
    error : str
        Why there is no answer: the backend raised an exception, or returned something other than the arrays due.
    raised : bool
        Whether the backend raised an exception other than `BackendError`.
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


def ask(
    backend: Backend, what: str, problem: Problem, G_Y: np.ndarray, declared: Capabilities, layout: str = "C"
) -> Answer:
    """Call `forward` or `vjp` with copies of the arrays, and check what is returned.

    The backend must not change the copies, and must return every array that is due, in the right shape.
    """
    before = {**problem.arrays, "G_Y": G_Y}
    given = {name: laid_out(M, layout) for name, M in before.items()}
    theirs = problem.with_arrays({name: given[name] for name in problem.arrays})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            out = backend.forward(theirs) if what == "forward" else backend.vjp(theirs, given["G_Y"])
        except Exception as reason:
            died = isinstance(reason, BackendError)
            return Answer(error=f"raised {type(reason).__name__}: {_short(reason)}", raised=not died)
    for name in before:
        if not np.array_equal(before[name], given[name], equal_nan=True):
            return Answer(error=f"input {name} was modified")
    answer = Answer(warned=_short(caught[0].message) if caught else "")
    for name, shape in answer_shapes(problem, what).items():
        if name == "X" and not declared.X:
            continue
        value = out.get(name) if hasattr(out, "get") else None
        if value is None:
            return Answer(error=f"returned no {name}")
        array = np.asarray(value)
        if array.dtype.kind != "f" or array.shape != shape:
            return Answer(error=f"{name} must be {shape} {problem.dtype}; got {array.shape} {array.dtype}")
        if array.dtype != problem.dtype:
            answer.note = f"{name} is {array.dtype}, but the problem is {problem.dtype}"
        answer.arrays[name] = array.astype(np.float64, copy=True)
    for name in ("converged", "iterations"):
        if what == "forward" and (value := out.get(name)) is not None:
            setattr(answer, name, np.broadcast_to(np.asarray(value), (problem.U.shape[1],)))
    return answer


def _short(reason: Any) -> str:
    text = " ".join(str(reason).split())
    return text if len(text) <= 160 else text[:157] + "…"
