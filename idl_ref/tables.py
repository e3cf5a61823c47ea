"""This module reads tables: .csv and .tsv files by `idl_ref.delimited`, and .parquet files by pyarrow or pandas.

A column holds numbers if each of its fields is one, or is missing; else it holds words. Spaces around a field do not
count. A missing number is an empty field or one of the words in MISSING; of a column of words, only an empty field is
missing, because NA may be a word there.
"""

from __future__ import annotations

import mmap
import os
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from idl_ref import checks, delimited, npz
from idl_ref.columns import Columns, Table, Words
from idl_ref.delimited import DELIMITERS, Part
from idl_ref.npz import FileFormatError

__all__ = ["Columns", "Table", "Words", "chunks", "read"]

MISSING = frozenset(["", "NA", "N/A", "NaN", "nan", "null", "NULL"])
MAPPED = 1 << 16  # A column of at least so many numbers has a memory map of its own.
TOO_MANY = 1 << 16  # A column of training data may have at most so many different words.

Kinds = Mapping[str, str]  # "number" or "category" by the name of a column


def is_table(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file is a table, by the ending of its name."""
    return _ending(path) in (*DELIMITERS, ".parquet")


def read(path: str | os.PathLike[str], ignore: Collection[str] = (), kinds: Kinds | None = None) -> Table:
    """Return a table of training data, without the columns in `ignore`.

    What a column holds is seen from its fields, unless `kinds` are given; then there are no other columns than these,
    and a field of a column of numbers that is none becomes inf.

    Raises
    ------
    FileFormatError
        The file is not a table. The message names the file and, for a .csv file, the line.
    ValueError
        The table lacks a column in `ignore`, or a column has more than 65,536 different words.
    OSError, ImportError
        The file cannot be opened, or is a .parquet file and neither pyarrow nor pandas is installed.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from pathlib import Path
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "people.csv"
    ...     _ = path.write_text("age,colour\\n30,red\\n,blue\\n", encoding="utf-8")
    ...     read(path).columns
    {'age': array([30., nan]), 'colour': Words(codes=array([0, 1], dtype=int32), words=['red', 'blue'])}
    """
    known = {} if kinds is None else dict(kinds)
    while True:  # At most twice: the second time, every column is known that has numbers first, and a word later.
        columns = _Builder(known)
        for part in _parts(path, lambda: columns.numbers):  # noqa: B023 (the generator does not outlive the turn)
            if absent := [name for name in ignore if name not in part.names]:
                raise ValueError(
                    f"--ignore must name columns of {_shown(path)}; got {', '.join(absent)}: see its head."
                )
            columns.add(part, [n for n in part.names if n not in ignore and (kinds is None or n in kinds)])
            columns.refuse_names(_shown(path))
        if not columns.mistaken:
            return columns.table(_shown(path))
        known = dict.fromkeys(columns.mistaken, "category")


def chunks(path: str | os.PathLike[str], kinds: Kinds) -> Iterator[Table]:
    """Yield the columns whose kinds are given, as far as the file has them: first without rows, then some rows a time.

    A field of a column of numbers that is none becomes inf.
    """
    numeric = [name for name, kind in kinds.items() if kind == "number"]
    for part in _parts(path, lambda: numeric):
        columns = _Builder(kinds)
        columns.add(part, [name for name in part.names if name in kinds])
        yield columns.table(_shown(path))


def names(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of the columns of a table."""
    return next(_parts(path, lambda: ())).names


def _shown(path: str | os.PathLike[str]) -> str:
    """Return the name of a file for messages."""
    return checks.printable(os.fspath(path))


def _ending(path: str | os.PathLike[str]) -> str:
    """Return the ending of the name of a file, in small letters."""
    return os.path.splitext(os.fspath(path))[1].lower()


# --- from rows to columns ---------------------------------------------------------------------------------------------


class _Builder:
    """Collects parts of a table in arrays that grow in place, so that no part is held twice."""

    def __init__(self, kinds: Kinds) -> None:
        self.kinds = kinds
        self.numbers: dict[str, _Growing] = {}
        self.words: dict[str, tuple[array[int], dict[str, int]]] = {}
        self.mistaken: list[str] = []  # the columns that have numbers first, and a word later
        self.lines, self.unit = array("q"), "line"
        self.names: list[str] = []

    def add(self, part: Part, names: Collection[str]) -> None:
        """Append the rows of a part, with the columns of the given names."""
        first, self.names, self.unit = not self.lines, list(names), part.unit
        for name, fields in zip(part.names, part.columns, strict=True):
            if name not in names or name in self.mistaken:
                continue
            kind = self.kinds.get(name)
            numbers = None if kind == "category" or name in self.words else _numbers(fields, kind == "number")
            if isinstance(fields, np.ndarray) and name not in self.words:
                numbers = fields
            if numbers is not None:
                self.numbers.setdefault(name, _Growing()).extend(numbers)
            elif first or name in self.words:
                self.numbers.pop(name, None)
                _append_words(*self.words.setdefault(name, (array("i"), {})), fields)
            else:
                self.mistaken.append(name)
                del self.numbers[name]
        self.lines.frombytes(np.asarray(part.lines, np.int64).tobytes())

    def refuse_names(self, source: str) -> None:
        """Refuse a column with so many words that they cannot be categories, before they fill the memory."""
        for name, (_, known) in self.words.items():
            if len(known) > TOO_MANY:
                raise ValueError(
                    f"{source}: the column {checks.printable(name)} must hold numbers, or words that repeat; got more "
                    f"than {TOO_MANY} different words, which look like names of the rows: leave it out by --ignore."
                )

    def table(self, source: str) -> Table:
        """Return what was collected."""
        columns: dict[str, Any] = {}
        for name in self.names:
            if name in self.words:
                codes, known = self.words[name]
                columns[name] = Words(np.frombuffer(codes, np.int32), list(known))
            else:
                columns[name] = self.numbers[name].values()
        return Table(columns, np.frombuffer(self.lines, np.int64), source, self.unit)


class _Growing:
    """A column of numbers that grows in place.

    Memory of the heap that is freed while other memory is allocated after it often stays with the process. A large
    column hence has a map of its own, of which unused pages cost nothing, and which is given back when it is freed.
    """

    def __init__(self) -> None:
        self.size, self.space = 0, np.empty(0)

    def extend(self, numbers: np.ndarray) -> None:
        """Append numbers; if the space is used up, take twice as much."""
        end = self.size + len(numbers)
        if end > len(self.space):
            space = _space(max(end, 2 * len(self.space)))
            space[: self.size] = self.space[: self.size]
            self.space = space
        self.space[self.size : end] = numbers
        self.size = end

    def values(self) -> np.ndarray:
        """Return the numbers."""
        return self.space[: self.size]


def _space(size: int) -> np.ndarray:
    """Return an array for so many numbers, which is a map of its own if it is large."""
    return np.empty(size) if size < MAPPED else np.frombuffer(mmap.mmap(-1, 8 * size), np.float64)


def _append_words(codes: array[int], known: dict[str, int], fields: Iterable[str]) -> None:
    """Append the code of each field, and give new words the next numbers; a missing word has the code −1."""
    for field in fields:
        word = field.strip()
        codes.append(known.setdefault(word, len(known)) if word else -1)


def _numbers(fields: Any, every: bool) -> np.ndarray | None:
    """Return fields as numbers (m,) with NaN for missing ones; None if one is a word, or with `every` inf for it."""
    if isinstance(fields, np.ndarray):
        return fields
    text = "".join(fields)
    if text.isascii() and "_" not in text:  # float takes 1_000 and the digits of all scripts, which are words here.
        try:
            return np.array(list(map(float, fields)))
        except ValueError:
            pass
    numbers = [_number(field.strip()) for field in fields]
    if not every and None in numbers:
        return None
    return np.array([np.inf if number is None else number for number in numbers])


def _number(field: str) -> float | None:
    """Return the number in a field, NaN for a missing one, or None for a word."""
    if field in MISSING:
        return np.nan
    try:
        return float(field) if field.isascii() and "_" not in field else None
    except ValueError:
        return None


# --- files ------------------------------------------------------------------------------------------------------------


def _parts(path: str | os.PathLike[str], numeric: Callable[[], Collection[str]]) -> Iterator[Part]:
    """Yield the parts of a file, first one without rows. Numbers may stand for text in columns of `numeric`."""
    ending = _ending(path)
    if ending in DELIMITERS:
        yield from delimited.parts(path, DELIMITERS[ending], numeric)
    elif ending == ".parquet":
        yield from _parquet(path)
    else:
        raise ValueError(f"a table must end in .csv, .tsv or .parquet; got {_shown(path)}: choose another file.")


def _parquet(path: str | os.PathLike[str]) -> Iterator[Part]:
    """Yield the parts of a .parquet file, by pyarrow or else by pandas."""
    try:
        from pyarrow import parquet
    except ImportError:
        yield from _parquet_by_pandas(path)
        return
    with npz.reading(path, "a .parquet file") as stream:
        file = parquet.ParquetFile(stream)
        names, rows = delimited.checked_names(list(file.schema_arrow.names)), file.metadata.num_rows
        _check_size(rows * len(names), npz.regular(path))
        yield Part(names, [()] * len(names), (), "row")
        columns = (file.read([name]).column(0).to_numpy() for name in names)  # one after the other
        yield Part(names, map(_values, names, columns), range(1, rows + 1), "row")


def _parquet_by_pandas(path: str | os.PathLike[str]) -> Iterator[Part]:
    """Yield the parts of a .parquet file, by pandas and the library that it has for such files."""
    try:
        import pandas
    except ImportError:
        raise ImportError(".parquet files need pyarrow or pandas: pip install pyarrow, or use a .csv file.") from None
    with npz.reading(path, "a .parquet file"):
        frame = pandas.read_parquet(os.fspath(path))
        names = [str(name) for name in frame.columns]
        yield Part(delimited.checked_names(names), [()] * len(names), (), "row")
        columns = (frame.iloc[:, k].to_numpy() for k in range(len(names)))
        yield Part(names, map(_values, names, columns), range(1, len(frame) + 1), "row")


def _check_size(cells: int, size: int) -> None:
    """Refuse a file that would become much larger in the memory than it is."""
    limit = npz.FREE + npz.RATIO * size
    if 8 * cells > limit:
        raise FileFormatError(
            f"the table must have at most {limit // 8:,} values in a file of this size; got {cells:,}: write it "
            "without compression, or as .csv."
        )


def _values(name: str, values: np.ndarray) -> Any:
    """Return the values of a column of another library as numbers, or as fields of text."""
    if values.dtype.kind in "iuf":
        return values.astype(np.float64)
    if values.dtype.kind in "bUO":
        fields = ["" if value is None or value != value else value for value in values.tolist()]
        if all(isinstance(field, (str, bool)) for field in fields):
            return [str(field) for field in fields]
        if all(isinstance(field, (int, float)) or field == "" for field in fields):
            return np.array([np.nan if field == "" else float(field) for field in fields])
    raise FileFormatError(
        f"the column {checks.printable(name)} must hold numbers or text; got {values.dtype}: convert it."
    )
