"""This module reads the samples that the commands `predict` and `check` take, from a table or from arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from idl_ref import checks, datasets, npz, tables
from idl_ref.columns import Columns, Table, Words
from idl_ref.model import ImplicitModel

CHUNK = 4096  # So many samples are answered at a time.


class Rows(NamedTuple):
    """Some consecutive samples: the inputs U (m, p), and their targets, if the file has any."""

    U: np.ndarray
    truth: Any  # the targets: labels (m,) with None for a missing one, or numbers (m, …) with NaN; or None
    first: int  # the number of the first sample, from 0
    faults: dict[int, str]  # what is wrong with samples that have no inputs, by their number in U
    places: list[str]  # for each sample of a table " (line 17)"; otherwise empty


@dataclass
class Source:
    """Where samples come from: the name of the file, and arrays, or nothing for a table, which is read on the way."""

    path: Path | None
    columns: Columns | None = None
    words: bool = False  # whether the target of a table is a word
    target: str = "the targets"
    x: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    y: Any = None

    def rows(self) -> Iterator[Rows]:
        """Yield the samples, in portions that fit into the memory; at least one, which may be empty."""
        if self.columns is not None and self.path is not None:
            yield from self._of_table(self.path, self.columns)
            return
        for j in range(0, max(len(self.x), 1), CHUNK):
            y = None if self.y is None else self.y[j : j + CHUNK]
            yield Rows(self.x[j : j + CHUNK], y, j, {}, [])

    def _of_table(self, path: Path, columns: Columns) -> Iterator[Rows]:
        first, kind = 0, "category" if self.words else "number"
        for whole in tables.chunks(path, columns.kinds | dict.fromkeys(columns.targets, kind)):
            for table in _portions(whole):
                U, bad = columns.matrix(table, np.float64)
                places = [f" ({table.unit} {line})" for line in table.lines.tolist()]
                yield Rows(U, _truth(table, columns), first, columns.faults(table) if bad.any() else {}, places)
                first += len(table)


def source(model: ImplicitModel, path: Path | None) -> Source:
    """Return the samples of a file for a model, or those of the embedded digits."""
    if path is None:
        _, _, x, digits = datasets.digits()
        if model.input_dim != x.shape[1] or model.columns is not None:
            raise ValueError(
                f"--data is needed, because the model takes {model.input_dim} features; "
                f"got the embedded digits, which have {x.shape[1]}: pass a file."
            )
        return Source(path, None, False, "y_test", x, digits)
    if tables.is_table(path):
        words = model.classes is not None and model.classes.dtype.kind == "U"
        return Source(path, _columns_for(model, path), words)
    if path.suffix == ".npy":
        x, y = npz.single(path), None
        names = "X", "y"
    else:
        names = ("x_test", "y_test") if "x_test" in (found := npz.names(path)) or "X" not in found else ("X", "y")
        arrays = npz.arrays(path, names[:1], names[1:])
        x, y = arrays[names[0]], arrays.get(names[1])
    if x.ndim < 2 or (y is not None and (y.ndim < 1 or len(y) != len(x))):
        got = f"{x.shape}" + ("" if y is None else f" and {y.shape}")
        raise ValueError(
            f"{names[0]} must be samples of shape (m, …) and {names[1]}, if there is one, labels of shape (m,); "
            f"got {got} in {path}."
        )
    x = checks.real_array(names[0], x)
    x = x.reshape(len(x), math.prod(x.shape[1:]))
    return Source(path, None, False, names[1], checks.samples(names[0], x, "p", model.input_dim, x.dtype), y)


def _columns_for(model: ImplicitModel, path: Path) -> Columns:
    """Return the columns of the model, or those of the table where the model has none, or only counted them."""
    known = model.columns
    if known is None or (known.are_counted and not set(known.names) & set(tables.names(path))):
        return _columns_of(path, model.input_dim)
    return known


def _columns_of(path: Path, p: int) -> Columns:
    """Return the columns of a table of p numbers, for a model that does not know any."""
    names = tables.names(path)
    if len(names) != p:
        raise ValueError(
            f"--data must be a table of {p} columns of numbers, because the model was not trained on a table; got "
            f"{len(names)} columns: leave the others out, or pass arrays."
        )
    return Columns(tuple(names), (None,) * p, (None,) * p)


def _portions(table: Table) -> Iterator[Table]:
    """Yield a table in portions of at most CHUNK rows; at least one."""
    for j in range(0, max(len(table), 1), CHUNK):
        part = slice(j, j + CHUNK)
        columns = {
            name: Words(column.codes[part], column.words) if isinstance(column, Words) else column[part]
            for name, column in table.columns.items()
        }
        yield Table(columns, table.lines[part], table.source, table.unit)


def _truth(table: Table, columns: Columns) -> Any:
    """Return the targets of a table, if it has all of them."""
    if not columns.targets or any(name not in table.columns for name in columns.targets):
        return None
    found = [table.columns[name] for name in columns.targets]
    if isinstance(found[0], Words):
        words = np.array([*found[0].words, None], object)
        return words[found[0].codes]  # The code −1 takes the last entry.
    return np.column_stack(found)
