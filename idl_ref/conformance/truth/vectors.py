"""The frozen cases in vectors.json and vectors.bin, which a hash protects; without the files the cases are computed."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from idl_ref.conformance.truth.cases import solved
from idl_ref.conformance.truth.groups import GROUPS
from idl_ref.conformance.truth.groups.sizes import sizes
from idl_ref.conformance.truth.problem import Arrays, Case, make

SCHEMA = "idl-ref-conformance-vectors-1"
SHA256 = "6ad99fae1079cd74646c36cd1f75a9d91af18af99a3d1c6155a4962166e5229a"
CHECKOUT = Path(__file__).parents[3] / "tests" / "vectors"
VARIABLE = "IDL_REF_VECTORS"


def generated() -> list[Case]:
    """Every case that is frozen in the files with its truth, computed now, in a fixed order."""
    return [solved(replace(case, group=group)) for group, function in GROUPS.items() for case in function()]


@cache
def load(directory: str | os.PathLike[str] | None = None) -> tuple[Case, ...]:
    """Every case: the frozen ones, and the large ones, which are computed when they are first asked for their arrays.

    Parameters
    ----------
    directory : path, optional
        The folder of vectors.json and vectors.bin. By default the one that the environment variable IDL_REF_VECTORS
        names, or else the one in the source checkout that this package runs from. Without a checkout the cases are
        computed, which gives the same bits and takes some seconds.

    Raises
    ------
    ValueError
        If the files are not the published ones.
    """
    chosen = directory or os.environ.get(VARIABLE) or (CHECKOUT if (CHECKOUT / "vectors.json").exists() else None)
    if chosen is None:
        return (*generated(), *sizes())
    head, body = Path(chosen) / "vectors.json", Path(chosen) / "vectors.bin"
    text, data = head.read_bytes(), body.read_bytes()
    if (got := hashlib.sha256(text).hexdigest()) != SHA256:
        raise ValueError(
            f"{head} must be the published cases of this version, sha256 {SHA256[:12]}…; got {got[:12]}…: "
            "fetch them again, or run: idl-ref conformance generate DIR"
        )
    content = json.loads(text)
    if hashlib.sha256(data).hexdigest() != content["sha256"]:
        raise ValueError(f"{body} does not go with the vectors.json beside it.")
    return (*(_case(record, data) for record in content["cases"]), *sizes())


def pack(cases: list[Case]) -> tuple[bytes, bytes]:
    """The contents of vectors.json and vectors.bin."""
    data = bytearray()

    def put(array: np.ndarray) -> list[Any]:
        array = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"))
        where = [array.dtype.name, list(array.shape), len(data)]
        data.extend(array.tobytes())
        return where

    records = []
    for case in cases:
        record = {name: getattr(case, name) for name in _PLAIN}
        record |= {"settings": case.problem.settings, "G_Y": put(case.G_Y)}
        record |= {"arrays": {name: put(value) for name, value in case.problem.arrays.items()}}
        record |= {"truths": [{name: put(value) for name, value in truth.items()} for truth in case.truths]}
        records.append(record)
    head = {"schema": SCHEMA, "byte order": "little", "array": "[dtype, shape, offset in vectors.bin]"}
    content = head | {"sha256": hashlib.sha256(data).hexdigest(), "cases": records}
    lines = json.dumps(content, ensure_ascii=False).replace(
        '{"id"', '\n{"id"'
    )  # one case per line, so that diffs can be read
    return (lines + "\n").encode(), bytes(data)


_PLAIN = ("id", "group", "comment", "flags", "expect", "facts", "bad", "layout", "strict")


def write(directory: str | os.PathLike[str]) -> str:
    """Compute the cases and write both files; return the sha256 of vectors.json."""
    text, data = pack(generated())
    Path(directory).mkdir(parents=True, exist_ok=True)
    (Path(directory) / "vectors.json").write_bytes(text)
    (Path(directory) / "vectors.bin").write_bytes(data)
    return hashlib.sha256(text).hexdigest()


def _case(record: dict[str, Any], data: bytes) -> Case:
    def get(where: list[Any]) -> np.ndarray:
        dtype, shape, offset = where
        count = int(np.prod(shape))
        return np.frombuffer(data, np.dtype(dtype).newbyteorder("<"), count, offset).reshape(shape).astype(dtype)

    arrays: Arrays = {name: get(where) for name, where in record["arrays"].items()}
    truths = tuple({name: get(where) for name, where in truth.items()} for truth in record["truths"])
    plain = {name: record[name] for name in _PLAIN} | {"flags": tuple(record["flags"]), "bad": tuple(record["bad"])}
    return Case(problem=make(arrays, record["settings"]), G_Y=get(record["G_Y"]), truths=truths, **plain)
