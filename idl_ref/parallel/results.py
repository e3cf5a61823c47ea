"""This module has the table of a sweep, and the folder in which it is kept and from which a sweep resumes."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idl_ref import checks, files, npz
from idl_ref.parallel.points import Point, key

FORM, VERSION = "idl_ref sweep", 1
LIMIT = 1 << 30  # The largest file that is read, in bytes.
PAUSE = 1.0  # The files are written at most once in so many seconds, and at the end.
JSON, CSV = "sweep.json", "sweep.csv"
# What is known about one fit, beside the names of the grid.
COLUMNS = (
    *("epochs_done", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy"),
    *("unconverged", "iterations", "norm", "digest", "error"),
)

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Sweep:
    """The table of a sweep, one row per point of the grid, in the order of the grid.

    Attributes
    ----------
    rows : list of dict
        The point, and what is known about its fit: `epochs_done`; `train_loss`, `train_accuracy`, `validation_loss`,
        `validation_accuracy`, `unconverged`, the mean forward `iterations` and the `norm` ‖A‖∞ after the last epoch;
        `digest`, the SHA-256 of the trained parameters; and `error`, a sentence if there is no fit, else "". What does
        not apply is None.
    """

    rows: list[Row]

    @property
    def failed(self) -> list[Row]:
        """The rows that have an error."""
        return [row for row in self.rows if row["error"]]

    def best(self, column: str = "validation_loss", largest: bool = False) -> Row:
        """Return the row with the smallest, or the largest, finite number in a column; the first one of equals.

        Raises
        ------
        ValueError
            No such column, or no row with a number in it.
        """
        names = list(self.rows[0]) if self.rows else []
        checks.choice("column", column, names)
        rows = [row for row in self.rows if _is_number(row[column])]
        if not rows:
            raise ValueError(
                f"column must hold a finite number in at least one row; got none in {column}: pass validation data, "
                "or see the column error."
            )
        return min(rows, key=lambda row: -row[column] if largest else row[column])

    def to_csv(self) -> str:
        """Return the table as CSV, with a head; None is an empty field, and every digit of a number is written."""
        stream = io.StringIO()
        if self.rows:
            writer = csv.DictWriter(stream, list(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        return stream.getvalue()

    def to_json(self) -> str:
        """Return the table as JSON, a list of objects."""
        return _lines(self.rows) + "\n"


def _is_number(value: Any) -> bool:
    """Tell whether a field holds a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _lines(rows: Sequence[Row]) -> str:
    """Return rows as a JSON list with one line each."""
    return "[\n" + ",\n".join(json.dumps(row, allow_nan=False, ensure_ascii=False) for row in rows) + "\n]"


class Folder:
    """The folder of a sweep: what is done stands in sweep.json, from which a sweep resumes, and in sweep.csv.

    Both files are replaced as a whole or not at all, so that a call that is killed loses the last second at most. With
    `path` None, nothing is kept.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, fingerprint: Mapping[str, Any], points: list[Point]
    ) -> None:
        self.path = None if path is None else Path(path)
        self.fingerprint, self.points = dict(fingerprint), points
        self.bits: str | None = None  # those of the machine that began, which all others must have
        self.done: dict[str, Row] = {}
        self.written = time.monotonic()
        if self.path is None:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        files.probe(self.path / JSON)
        if (self.path / JSON).exists():
            self.done = self._resumed()

    def missing(self) -> list[Point]:
        """Return the points that are not done; one whose fit ended with an error is tried again."""
        return [p for p in self.points if key(p) not in self.done or self.done[key(p)]["error"]]

    def add(self, rows: Iterable[Row]) -> None:
        """Take the results of some points, and write the files if they were not written for a second."""
        for row in rows:
            self.done[key({name: row[name] for name in self.points[0]})] = row
        if time.monotonic() - self.written >= PAUSE:
            self.write()

    def table(self) -> Sweep:
        """Return the rows that are done, in the order of the grid."""
        return Sweep([self.done[key(point)] for point in self.points if key(point) in self.done])

    def write(self) -> None:
        """Write both files."""
        if self.path is None:
            return
        table = self.table()
        head = {"format": FORM, "version": VERSION, "fingerprint": self.fingerprint, "bits": self.bits}
        text = json.dumps(head, ensure_ascii=False)[:-1] + f',\n"rows": {_lines(table.rows)}}}\n'
        files.replace_all({self.path / JSON: text.encode(), self.path / CSV: table.to_csv().encode()})
        self.written = time.monotonic()

    def _resumed(self) -> dict[str, Row]:
        """Return the rows of sweep.json by their points, after checking that they belong to this sweep."""
        assert self.path is not None
        path = self.path / JSON
        text = npz.whole(path, LIMIT)
        with npz.reading(path, "the table of a sweep"):
            head = json.loads(text)
            if head["format"] != FORM or head["version"] != VERSION:
                raise npz.FileFormatError(f"the file must be an {FORM} of version {VERSION}: choose another folder.")
            found, self.bits = dict(head["fingerprint"]), str(head["bits"])
        shown = checks.printable(path)
        for name, value in self.fingerprint.items():
            if found.get(name) != value:
                raise ValueError(
                    f"out must belong to the sweep that resumes; the {name} of {shown} is "
                    f"{checks.shown(found.get(name))}, and that of this call is {checks.shown(value)}: choose another "
                    "folder, or delete the file."
                )
        names = list(self.points[0])
        with npz.reading(path, "the table of a sweep"):
            rows = [_row(row, names) for row in head["rows"]]
        done = {key({name: row[name] for name in names}): row for row in rows}
        if others := done.keys() - {key(point) for point in self.points}:
            raise ValueError(
                f"grid must have every point that out holds already, and may have more; got none for {min(others)} of "
                f"{shown}: choose another folder, or add the points."
            )
        return done


def _row(row: Mapping[str, Any], names: list[str]) -> Row:
    """Return a row of the file in the order of the columns, and refuse one with other columns or with a nest."""
    columns = [*names, *COLUMNS]
    if set(row) != set(columns) or not all(isinstance(v, (int, float, str, type(None))) for v in row.values()):
        raise npz.FileFormatError(
            f"each row must have the columns {', '.join(columns)}; got {checks.shown(list(row))}."
        )
    return {name: row[name] for name in columns}
