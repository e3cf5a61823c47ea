"""From a case that a backend fails to the smallest one that it still fails, and cases as files that people can read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from idl_ref import activations, checks, npz
from idl_ref.conformance.truth.cases import solved
from idl_ref.conformance.truth.draws import unambiguous
from idl_ref.conformance.truth.problem import (
    DTYPES,
    INPUTS,
    LAYOUTS,
    SETTINGS,
    STORAGE,
    Arrays,
    Case,
    F,
    array_dtype,
    make,
    rounded,
)

SCHEMA = "idl-ref-conformance-case-1"
LIMIT = 1 << 26  # the largest file that is read, in bytes
# The axes of each array: n units, r ranks, p features, q outputs, m samples.
AXES = {"A": "nn", "L": "nr", "R": "nr", "B": "np", "C": "qn", "D": "qp", "U": "pm", "X0": "nm", "G_Y": "qm"}
PLAIN = {"layout": "C", "activation": "identity", "f": "none", "straight_through": False, "tol": 0.0}


def shrunk(case: Case, fails: Callable[[Case], bool], seconds: float = 60.0) -> Case:
    """The smallest case that can be found with `fails` still true.

    Parameters
    ----------
    case : Case
        One that fails.
    fails : callable
        Whether the backend fails a case.
    seconds : float
        When the search ends, whatever is left to try.

    Notes
    -----
    Samples, units, ranks, features and outputs are left out, in halves and then one by one; D, X0, f and the layout as
    well; then entries are replaced by shorter numbers. Each change is kept if the case still has a proved answer, no
    slope that rounding decides, and still fails. So the result is a case like any other.
    """
    end, moved = monotonic() + seconds, True
    while moved:
        moved = False
        for arrays, fields in _smaller(case):
            if monotonic() > end:
                return case
            tried = _changed(case, arrays, fields)
            if tried is not None and fails(tried):
                case, moved = tried, True
                break
    return case


def _changed(case: Case, arrays: Arrays, fields: dict[str, Any]) -> Case | None:
    """The case with other arrays and settings and with its truth, or None if it has no proved answer."""
    settings = case.problem.settings | {name: value for name, value in fields.items() if name in SETTINGS}
    problem = make({name: M for name, M in arrays.items() if name != "G_Y"}, settings)
    try:
        layout = fields.get("layout", case.layout)
        new = solved(replace(_bare(case), problem=problem, G_Y=arrays["G_Y"], layout=layout))
        return new if unambiguous(new) else None
    except (ArithmeticError, ValueError):
        return None


def _bare(case: Case) -> Case:
    return replace(case, truths=(), facts={})


def _smaller(case: Case) -> Iterator[tuple[Arrays, dict[str, Any]]]:
    """Arrays and settings of simpler cases, the largest simplification first."""
    arrays = {**case.problem.arrays, "G_Y": case.G_Y}
    for axis in "mnrpq":
        size = _size(arrays, axis)
        for part in (size // 2, 1) if size > 2 else (1,):
            for first in range(0, size if size > 1 else 0, part):
                yield {name: _without(M, AXES[name], axis, first, first + part) for name, M in arrays.items()}, {}
    for name in ("D", "X0"):
        if name in arrays:
            yield {other: M for other, M in arrays.items() if other != name}, {}
    given = {"layout": case.layout, **case.problem.settings}
    for name, value in PLAIN.items():
        if given[name] != value:
            yield arrays, {name: value}
    for name, M in arrays.items():
        for simple in _shorter(M):
            yield {**arrays, name: simple}, {}


def _size(arrays: Arrays, axis: str) -> int:
    return next((M.shape[AXES[name].index(axis)] for name, M in arrays.items() if axis in AXES[name]), 0)


def _without(M: np.ndarray, axes: str, axis: str, first: int, last: int) -> np.ndarray:
    """An array without a part of one of its axes, or of both if they are the same."""
    for position, name in enumerate(axes):
        if name == axis:
            M = np.delete(M, np.s_[first:last], position)
    return M


def _shorter(M: np.ndarray) -> Iterator[np.ndarray]:
    """The array with fewer digits, and then with one entry after the other set to 0."""
    for bits in (1, 4, 10):
        short = rounded(M, bits).astype(M.dtype)
        if not np.array_equal(short, M):
            yield short
    for at in zip(*np.nonzero(M), strict=True) if M.size <= 400 else ():
        zero = M.copy()
        zero[at] = 0
        if zero.any():  # an array of zeros would say less about what is wrong
            yield zero


# --- files ------------------------------------------------------------------------------------------------------------


def text(case: Case) -> str:
    """A case as JSON with one row of an array per line; its numbers are exact, and its truth is left out.

    Examples
    --------
    >>> from idl_ref.conformance.truth.draws import one
    >>> text(one("draw-7-0")).splitlines()[1]
    ' "id": "draw-7-0",'
    """
    head = {"schema": SCHEMA, "id": case.id, "comment": case.comment, "flags": case.flags, "layout": case.layout}
    arrays = {name: M.tolist() for name, M in ({**case.problem.arrays, "G_Y": case.G_Y}).items()}
    shapes = {name: list(M.shape) for name, M in ({**case.problem.arrays, "G_Y": case.G_Y}).items()}
    parts = [f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in head.items()]
    parts += [f'"settings": {json.dumps(case.problem.settings)}', f'"shapes": {json.dumps(shapes)}']
    rows = [f"  {json.dumps(name)}: " + json.dumps(M).replace("], [", "],\n    [") for name, M in arrays.items()]
    parts.append('"arrays": {\n' + ",\n".join(rows) + "}")
    return "{" + ",\n ".join(parts) + "}\n"


NAMES = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,99}")  # ids, which are names of files, too


def _checked(content: dict[str, Any]) -> dict[str, Any]:
    """The settings of a case from a file, after checks of all that is no array."""
    words = [content["comment"], *content["flags"]]
    if not isinstance(content["flags"], list) or not all(isinstance(word, str) for word in words):
        raise TypeError("a comment that is no text, or flags that are no list of words")
    if not isinstance(content["id"], str) or not NAMES.fullmatch(content["id"]):
        raise ValueError(f"the id {checks.shown(content['id'])}, which is no name")
    settings: dict[str, Any] = content["settings"]
    if not isinstance(settings, dict) or settings.keys() != set(SETTINGS):
        raise ValueError(f"settings that are not {', '.join(SETTINGS)}")
    checks.choice("activation", settings["activation"], activations.TABLE)
    checks.choice("f", settings["f"], ("none", *F))
    checks.choice("dtype", settings["dtype"], (*DTYPES, *STORAGE))
    checks.number("tol", settings["tol"], 0)
    checks.number("kappa", settings["kappa"], 0)
    checks.integer("max_iter", settings["max_iter"], 1)
    checks.flag("straight_through", settings["straight_through"])
    return settings


def read(path: Path) -> Case:
    """A case from a file that holds its `text`, with its truth, which is computed.

    Raises
    ------
    ValueError
        If the file holds no such case, or one without a proved answer.
    """
    try:
        content = json.loads(npz.whole(path, LIMIT))
        if content["schema"] != SCHEMA:
            raise ValueError(f"its schema is {content['schema']!r}")
        dtype = array_dtype(_checked(content)["dtype"])
        arrays = {name: np.array(content["arrays"][name], dtype).reshape(shape)
                  for name, shape in content["shapes"].items() if name in (*INPUTS, "G_Y")}  # fmt: skip
        G_Y = arrays.pop("G_Y")
        problem = make(arrays, content["settings"])
        if content["layout"] not in LAYOUTS:
            raise ValueError(f"the layout {content['layout']!r}")
        given = {name: content[name] for name in ("id", "comment", "layout")}
        return solved(Case(**given, group="draws", flags=tuple(content["flags"]), problem=problem, G_Y=G_Y))
    except (LookupError, TypeError, AttributeError, ArithmeticError, ValueError, RecursionError) as reason:
        why = str(reason).rstrip(".")
        raise ValueError(
            f"{path} must hold a case that `idl-ref conformance run --draws` wrote (schema {SCHEMA}); got {why}."
        ) from reason
