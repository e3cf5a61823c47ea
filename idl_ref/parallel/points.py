"""This module makes the points of a sweep from a grid, and knows the data of a sweep by their checksum."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from idl_ref import checks, npz

Point = dict[str, Any]  # the arguments of `build` by name: numbers, words, truth values and None

NAMES = ("x_train", "y_train", "x_test", "y_test")
LARGEST = 2 << 20  # Arrays of more bytes do not travel with every task; a path does.


def points(grid: Any, taken: Iterable[str]) -> list[Point]:
    """Return the points of a grid in their order. The names in `taken` are refused, because the table has them.

    A mapping from names to values stands for all combinations, of which the last name varies fastest.
    """
    if isinstance(grid, Mapping):
        listed = {name: _values(name, values) for name, values in grid.items()}
        found = [dict(zip(listed, combination, strict=True)) for combination in itertools.product(*listed.values())]
    elif isinstance(grid, Sequence) and not isinstance(grid, str) and all(isinstance(p, Mapping) for p in grid):
        found = [dict(point) for point in grid]
    else:
        raise TypeError(
            f"grid must be a dict from names to lists of values, or a list of dicts; got {checks.shown(grid)}: "
            'write {"kappa": [0.5, 0.9]}.'
        )
    if not found or not found[0]:
        raise ValueError("grid must have at least one point with at least one name; got none: give each name a value.")
    found = [{_name(name, taken): _plain(name, value) for name, value in point.items()} for point in found]
    for i, point in enumerate(found):
        if point.keys() != found[0].keys():
            raise ValueError(
                f"grid must have the same names in every point; got {checks.shown(sorted(point))} in point {i} and "
                f"{checks.shown(sorted(found[0]))} in point 0: write what a point leaves out."
            )
    seen: dict[str, int] = {}
    for i, point in enumerate(found):
        if (first := seen.setdefault(key(point), i)) != i:
            raise ValueError(f"grid must not repeat a point; got {checks.shown(point)} as point {first} and as {i}.")
    return [{name: point[name] for name in found[0]} for point in found]


def key(point: Mapping[str, Any]) -> str:
    """Return a text that two points share only if they are equal; 1, 1.0 and True differ."""
    return json.dumps(point, sort_keys=True)


def _values(name: Any, values: Any) -> list[Any]:
    """Return the values of one name of a grid."""
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise TypeError(
            f"grid[{checks.shown(name)}] must be a list of values; got {checks.shown(values)}: put it into a list."
        )
    return list(values)


def _name(name: Any, taken: Iterable[str]) -> str:
    """Return the name of an argument of `build`, after checking that it may be a column of the table."""
    if not isinstance(name, str) or not name.isidentifier():
        raise TypeError(f"grid must name arguments of build; got {checks.shown(name)}: use a name without spaces.")
    if name in taken:
        raise ValueError(f"grid must not use the name {name}, which is a column of the results; got it: rename it.")
    return name


def _plain(name: str, value: Any) -> Any:
    """Return a value that JSON and CSV hold without a loss; a scalar of NumPy becomes one of Python."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
        return value
    raise TypeError(
        f"grid[{checks.shown(name)}] must hold finite numbers, words, truth values or None; got {checks.shown(value)}: "
        "give it a name, and let build look it up."
    )


class Data(NamedTuple):
    """Training and validation samples: the path of their file, or the arrays themselves, and their checksum."""

    path: str | None
    arrays: tuple[np.ndarray, ...]
    checksum: str

    @classmethod
    def of(cls, value: Any, travels: bool) -> Data:
        """Return the data of a sweep, which have at most 2 MiB if they are arrays that travel with every task."""
        if isinstance(value, (str, os.PathLike)):
            path = os.path.abspath(os.fspath(value))
            return cls(path, (), checksum(_read(path)))
        if not isinstance(value, (tuple, list)) or len(value) not in (2, 4):
            raise TypeError(
                "data must be (U, targets), (U, targets, U of the validation, targets of the validation), or the path "
                f"of an .npz file with {', '.join(NAMES)}; got {checks.shown(type(value).__name__)}."
            )
        arrays = tuple(np.asarray(array) for array in value)
        for name, array in zip(NAMES, arrays, strict=False):
            if array.dtype.hasobject:
                raise TypeError(
                    f"{name} must hold numbers or words; got Python objects: use numpy.asarray(…, dtype=str)."
                )
        size = sum(array.nbytes for array in arrays)
        if travels and size > LARGEST:
            raise ValueError(
                f"data must have at most {LARGEST:,} bytes to travel with every task; got {size:,}: write them by "
                "numpy.savez(path, x_train=…, y_train=…), where every worker can read them, and pass the path."
            )
        return cls(None, arrays, checksum(arrays))

    def load(self) -> tuple[np.ndarray, ...]:
        """Return the arrays, two or four; those of the file that this process read last are kept."""
        if self.path is None:
            return self.arrays
        if (self.path, self.checksum) not in _kept:
            arrays = _read(self.path)
            if checksum(arrays) != self.checksum:
                raise ValueError(
                    f"data must be the same for every task; got other bytes in {checks.printable(self.path)} than at "
                    "the start of the sweep: another file has this path here, or it was changed."
                )
            _kept.clear()
            _kept[self.path, self.checksum] = arrays
        return _kept[self.path, self.checksum]


_kept: dict[tuple[str, str], tuple[np.ndarray, ...]] = {}  # the file that was read last, in each process


def _read(path: str) -> tuple[np.ndarray, ...]:
    """Return the arrays of a data file: two, or four if there are validation samples."""
    found = npz.arrays(path, NAMES[:2], NAMES[2:])
    if len(found) == 3:
        raise npz.FileFormatError(
            f"{checks.printable(path)}: the file must hold x_test and y_test, or none of them; got one: add the other."
        )
    return tuple(found[name] for name in NAMES if name in found)


def checksum(arrays: Iterable[np.ndarray]) -> str:
    """Return the SHA-256 of arrays: their dtypes, their shapes and their entries."""
    state = hashlib.sha256()
    for array in arrays:
        state.update(f"{array.dtype.str}{array.shape}".encode())
        state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()
