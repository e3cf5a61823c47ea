"""A problem as plain files, for backends that are not Python.

A folder with one problem holds `problem.txt`, lines of a key and a value, which C can scan; the same as `problem.json`;
and one file per array, little-endian numbers in C order: `A.bin`, or `L.bin` and `R.bin`; `B.bin`; `C.bin`; `D.bin`
where there is one; `U.bin`; `G_Y.bin`. An answer is a folder with `Y.bin`, `X.bin`, and of gradients `grad_A.bin` …, in
the problem's dtype and the paper's shapes; where the backend knows it, `converged.bin`, one byte per column, 1 or 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from idl_ref import activations
from idl_ref.conformance.truth.problem import DTYPES, INPUTS, Case, F, Problem, answer_shapes

_COUNT, _TRUTH = {"type": "integer", "minimum": 0}, {"type": "boolean"}
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "problem.json: one equation for a backend, X = φ(A X + B U), Y = C X + D U",
    "type": "object",
    "properties": {
        "activation": {"enum": list(activations.TABLE)},
        "dtype": {"enum": DTYPES},
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


def write_problem(folder: Path, problem: Problem, G_Y: np.ndarray) -> None:
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
    """What a folder holds of the answer to "forward" or "vjp"; ValueError where a file is of another size."""
    prefix = "" if what == "forward" else "grad_"
    files = {name: (f"{prefix}{name}", shape, problem.dtype) for name, shape in answer_shapes(problem, what).items()}
    if what == "forward":
        files["converged"] = "converged", problem.U.shape[1:], np.dtype(np.uint8)
    out = {}
    for name, (stem, shape, dtype) in files.items():
        path, expected = folder / f"{stem}.bin", math.prod(shape) * dtype.itemsize
        if not path.exists():
            continue
        data = path.read_bytes()
        if len(data) != expected:
            raise ValueError(f"{path.name} must have {expected} bytes, {shape} {dtype}; got {len(data)}")
        out[name] = np.frombuffer(data, dtype.newbyteorder("<")).reshape(shape).astype(dtype)
    return out


def digest(problem: Problem) -> tuple[Any, ...]:
    """What tells a problem from any other."""
    arrays = sorted(problem.arrays.items())
    return (json.dumps(problem.settings), *((name, M.shape, M.tobytes()) for name, M in arrays))


def export(folder: Path, cases: Iterable[Case], sha256: str) -> int:
    """Every case in a folder of its own, and index.txt with their ids; returns how many there are."""
    cases = list(cases)
    for case in cases:
        write_problem(folder / case.id, case.problem, case.G_Y)
    (folder / "index.txt").write_text("".join(f"{case.id}\n" for case in cases), encoding="ascii")
    text = json.dumps(SCHEMA, indent=1, ensure_ascii=False) + "\n"
    (folder / "problem.schema.json").write_text(text, encoding="utf-8")
    (folder / "vectors.sha256").write_text(sha256 + "\n", encoding="ascii")
    return len(cases)
