"""Problems and answers as files: raw little-endian arrays in C order, and their sizes as text that C can scan.

A folder with one problem holds `problem.txt`, lines of a key and a value; the same as `problem.json`; and one file per
array, `A.bin` or `L.bin` and `R.bin`, `B.bin`, `C.bin`, `D.bin` where there is one, `U.bin`, `G_Y.bin`. An answer is a
folder with `Y.bin`, `X.bin`, and of gradients `grad_A.bin` …, in the problem's dtype and the paper's shapes; where the
backend knows it, `converged.bin`, one byte per column, 1 or 0.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from idl_ref import activations
from idl_ref.conformance.problem import INPUTS, Arrays, Problem

GRADIENTS = "grad_"
_COUNT, _TRUTH = {"type": "integer", "minimum": 0}, {"type": "boolean"}
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "problem.json: one equation for a backend, X = φ(A X + B U), Y = C X + D U",
    "type": "object",
    "properties": {
        "activation": {"enum": list(activations.TABLE)},
        "dtype": {"enum": ["float32", "float64"]},
        "tol": {"type": "number", "minimum": 0},
        "max_iter": {"type": "integer", "minimum": 1},
        "f": {"enum": ["none", "inf", "rows", "triu"]},
        "kappa": {"type": "number", "minimum": 0},
        "straight_through": _TRUTH,
        **dict.fromkeys("npqm", _COUNT),
        "r": {"type": "integer", "minimum": -1, "description": "the rank of L and R; -1 for a dense A"},
        "has_D": _TRUTH,
        "has_X0": _TRUTH,
        "arrays": {
            "description": "raw little-endian numbers of dtype, by rows, in a file beside this one",
            "type": "object",
            "propertyNames": {"enum": [*INPUTS, "G_Y"]},
            "additionalProperties": {
                "type": "object",
                "properties": {"path": {"type": "string"}, "shape": {"type": "array", "items": _COUNT}},
                "required": ["path", "shape"],
            },
        },
    },
}
SCHEMA["required"] = list(SCHEMA["properties"])


def description(problem: Problem) -> dict[str, Any]:
    """Settings and sizes; r = −1 for a dense A."""
    n, p, q, m = problem.sizes
    r = -1 if problem.L is None else problem.L.shape[1]
    return problem.settings | {"n": n, "p": p, "q": q, "m": m, "r": r}


def write(folder: Path, problem: Problem, G_Y: np.ndarray) -> None:
    """One problem."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {**problem.arrays, "G_Y": G_Y}
    facts = description(problem) | {"has_D": problem.D is not None, "has_X0": problem.X0 is not None}
    text = "".join(f"{key} {int(value) if isinstance(value, bool) else value}\n" for key, value in facts.items())
    (folder / "problem.txt").write_text(text, encoding="ascii")
    files = {name: {"path": f"{name}.bin", "shape": list(M.shape)} for name, M in arrays.items()}
    (folder / "problem.json").write_text(json.dumps(facts | {"arrays": files}, indent=1) + "\n", encoding="ascii")
    for name, M in arrays.items():
        (folder / f"{name}.bin").write_bytes(np.ascontiguousarray(M, M.dtype.newbyteorder("<")).tobytes())


def read(folder: Path, problem: Problem, forward: bool) -> dict[str, Any]:
    """The answer in a folder.

    Raises
    ------
    ValueError
        A file has another size than its array.
    """
    n, _, q, m = problem.sizes
    shapes: dict[str, tuple[int, ...]] = {"Y": (q, m), "X": (n, m)}
    if not forward:
        shapes = {name: M.shape for name, M in problem.arrays.items() if name != "X0"}
    out: dict[str, Any] = {}
    for name, shape in shapes.items():
        path = folder / f"{'' if forward else GRADIENTS}{name}.bin"
        if path.exists():
            out[name] = _array(path, shape, problem.dtype)
    if forward and (path := folder / "converged.bin").exists():
        out["converged"] = _array(path, (m,), np.dtype(np.uint8)) != 0
    return out


def _array(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    data, expected = path.read_bytes(), int(np.prod(shape)) * dtype.itemsize
    if len(data) != expected:
        raise ValueError(f"{path.name} must have {expected} bytes, {shape} {dtype}; got {len(data)}")
    return np.frombuffer(data, dtype.newbyteorder("<")).reshape(shape).astype(dtype)


def digest(problem: Problem) -> tuple[Any, ...]:
    """What tells a problem from any other."""
    arrays: Arrays = problem.arrays
    return (json.dumps(problem.settings), *((name, M.shape, M.tobytes()) for name, M in sorted(arrays.items())))
