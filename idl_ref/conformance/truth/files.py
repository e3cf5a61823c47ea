"""A problem and its answer as plain files, for backends in other languages than Python.

The folder of a problem holds `problem.txt`, whose lines are a key and a value, so that C can scan them; `problem.json`
with the same content; and one file per array, with little-endian numbers in C order: `A.bin`, or `L.bin` and `R.bin`;
`B.bin`; `C.bin`; `D.bin` where the problem has D; `U.bin`; `G_Y.bin`. An answer is a folder with `Y.bin` and `X.bin`,
and for gradients `grad_A.bin` …, in the dtype of the problem and the paper's shapes. It may also hold `converged.bin`,
with one byte per column, 1 or 0. Where the dtype is bfloat16, every number is written as the float32 of the same value.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from idl_ref import activations, npz
from idl_ref.conformance.truth.problem import DTYPES, INPUTS, STORAGE, Case, F, Problem, answer_shapes

_COUNT, _TRUTH = {"type": "integer", "minimum": 0}, {"type": "boolean"}
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "problem.json: one equation for a backend, X = φ(A X + B U), Y = C X + D U",
    "type": "object",
    "properties": {
        "activation": {"enum": list(activations.TABLE)},
        "dtype": {"enum": [*DTYPES, *STORAGE]},
        "tol": {"type": "number", "minimum": 0},
        "max_iter": {"type": "integer", "minimum": 1},
        "f": {"enum": ["none", *F]},
        "kappa": {"type": "number", "minimum": 0},
        "straight_through": _TRUTH,
        **dict.fromkeys("npqm", _COUNT),
        "r": {"type": "integer", "minimum": -1, "description": "the rank of L and R; -1 for a dense A"},
        "has_D": _TRUTH,
        "has_X0": _TRUTH,
        "arrays": {
            "description": "raw little-endian numbers of dtype, row by row, in a file beside this one",
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


def write_problem(folder: Path, problem: Problem, G_Y: np.ndarray) -> None:
    """Write a problem and the cotangent G_Y to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {**problem.arrays, "G_Y": G_Y}
    facts = {**problem.settings, **dict(zip("npqm", problem.sizes, strict=True))}
    facts["r"] = -1 if problem.L is None else problem.L.shape[1]
    facts |= {"has_D": problem.D is not None, "has_X0": problem.X0 is not None}
    text = "".join(f"{key} {int(value) if isinstance(value, bool) else value}\n" for key, value in facts.items())
    (folder / "problem.txt").write_text(text, encoding="ascii")
    files = {name: {"path": f"{name}.bin", "shape": list(M.shape)} for name, M in arrays.items()}
    (folder / "problem.json").write_text(json.dumps(facts | {"arrays": files}, indent=1) + "\n", encoding="ascii")
    for name, M in arrays.items():
        (folder / f"{name}.bin").write_bytes(np.ascontiguousarray(M, M.dtype.newbyteorder("<")).tobytes())


def read_answer(folder: Path, problem: Problem, what: str) -> dict[str, Any]:
    """The arrays of the answer to "forward" or "vjp" whose files exist.

    ValueError or OSError if one of them is no regular file of the right size.
    """
    prefix = "" if what == "forward" else "grad_"
    files = {name: (f"{prefix}{name}", shape, problem.dtype) for name, shape in answer_shapes(problem, what).items()}
    if what == "forward":
        files["converged"] = "converged", problem.U.shape[1:], np.dtype(np.uint8)
    out = {}
    for name, (stem, shape, dtype) in files.items():
        path, expected = folder / f"{stem}.bin", math.prod(shape) * dtype.itemsize
        if os.path.lexists(path):
            data = npz.exactly(path, expected, f"{expected} bytes, {shape} {dtype}")
            out[name] = np.frombuffer(data, dtype.newbyteorder("<")).reshape(shape).astype(dtype)
    return out


def digest(problem: Problem) -> tuple[Any, ...]:
    """A key by which problems are told apart: the settings, and the bytes of every array."""
    arrays = sorted(problem.arrays.items())
    return (json.dumps(problem.settings), *((name, M.shape, M.tobytes()) for name, M in arrays))


def export(folder: Path, cases: Iterable[Case], sha256: str) -> int:
    """Write each case to a folder of its own, and their ids to index.txt; return the number of cases."""
    cases = list(cases)
    for case in cases:
        write_problem(folder / case.id, case.problem, case.G_Y)
    (folder / "index.txt").write_text("".join(f"{case.id}\n" for case in cases), encoding="ascii")
    text = json.dumps(SCHEMA, indent=1, ensure_ascii=False) + "\n"
    (folder / "problem.schema.json").write_text(text, encoding="utf-8")
    (folder / "vectors.sha256").write_text(sha256 + "\n", encoding="ascii")
    return len(cases)
