"""This module reads .csv and .tsv files strictly, and says in which line they are wrong.

A file is read in blocks of whole lines. In a block without quotes and missing values, NumPy parses the columns of
numbers; any other block goes through the module `csv` of Python, field by field. Both ways give the same. Nothing is
guessed: a row with another number of fields, a quote that is not closed, a byte that is not UTF-8, an empty line
between rows, and a name that is empty or repeated are refused.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from idl_ref import npz
from idl_ref.npz import FileFormatError

BLOCK = 1 << 20  # A file is read in blocks of about this many bytes.
LONGEST = 1 << 26  # The largest length of a line in bytes.
DELIMITERS = {".csv": ",", ".tsv": "\t"}


class Part(NamedTuple):
    """Some consecutive rows: the names, the columns as numbers or as fields, and the line where each row begins."""

    names: list[str]
    columns: Iterable[Any]  # for each name an array of numbers, or a sequence of text; taken once
    lines: Iterable[int]  # (m,)
    unit: str = "line"


def parts(path: str | os.PathLike[str], delimiter: str, numeric: Callable[[], Collection[str]]) -> Iterator[Part]:
    """Yield the rows of a file a block at a time, after a part without rows.

    `numeric` is asked before each block, and names the columns in which numbers may stand for their text.
    """
    with npz.reading(path, "a table") as stream:
        lines = _Lines(stream, delimiter)
        names = checked_names(lines.head())
        yield Part(names, [()] * len(names), ())
        while True:
            if lines.pending:
                rows, begins = lines.rows(len(names))
                yield Part(names, list(zip(*rows, strict=True)) or [()] * len(names), begins)
            if not (block := lines.block()):
                return
            columns = None if lines.blank else _quickly(block, delimiter, names, numeric())
            if columns is None:
                lines.decode(block)
            else:
                yield Part(names, columns, range(lines.number + 1, lines.number + 1 + len(columns[0])))
                lines.number += len(columns[0])


def checked_names(names: list[str]) -> list[str]:
    """Refuse names of columns that are empty or repeated."""
    if not names:
        raise FileFormatError("the table must begin with the names of its columns; got an empty file.")
    known: set[str] = set()
    for place, name in enumerate(names, 1):
        if not name:
            raise FileFormatError(f"the table must have a name for each column; got none for column {place}: add it.")
        if name in known:
            raise FileFormatError(f"the table must have different names of columns; got {name[:40]} twice: rename one.")
        known.add(name)
    return names


class _Lines:
    """The lines of a file for the module csv, with their numbers."""

    def __init__(self, stream: BinaryIO, delimiter: str) -> None:
        self.stream, self.rest, self.delimiter = stream, b"", delimiter
        self.number = 0  # that of the last line that was taken
        self.blank = 0  # that of the first empty line, after which no row may follow
        self.pending: list[str] = []  # lines that are decoded, from the last to the next
        self.reader = csv.reader(self, delimiter=delimiter, strict=True)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if not self.pending and not self.decode(self.block()):
            raise StopIteration
        self.number += 1
        return self.pending.pop()

    def block(self) -> bytes:
        """Return the next block of whole lines, which is empty at the end of the file."""
        block, cut = self.rest, 0
        while not cut:
            piece = self.stream.read(BLOCK)
            block += piece
            at_end = len(piece) < BLOCK
            cut = len(block) if at_end else block.rfind(b"\n") + 1
            if len(block) > LONGEST and not cut:
                raise FileFormatError(f"line {self.number + 1} must have at most {LONGEST} bytes; got more.")
            if at_end:
                break
        self.rest = block[cut:]
        return block[:cut]

    def decode(self, block: bytes) -> bool:
        """Make the lines of a block pending, and tell whether there are any."""
        if not self.number:
            block = block.removeprefix(b"\xef\xbb\xbf")  # the mark that some programs put before UTF-8
        try:
            text = block.decode("utf-8")
        except UnicodeDecodeError as reason:
            line = self.number + 1 + block.count(b"\n", 0, reason.start)
            raise FileFormatError(
                f"line {line} must be text in UTF-8; got the byte {block[reason.start]:#04x}: save the file as UTF-8."
            ) from None
        if (place := text.find("\0")) >= 0:
            raise FileFormatError(
                f"line {self.number + 1 + text.count(chr(10), 0, place)} must be text; got a NUL byte."
            )
        self.pending = io.StringIO(text, newline="\n").readlines()[::-1]
        return bool(self.pending)

    def row(self) -> list[str]:
        """Return the fields of the next row."""
        begin = self.number + 1
        try:
            return next(self.reader)
        except StopIteration:
            return []
        except csv.Error as reason:
            words = str(reason)
            if "unexpected end" in words or "field limit" in words:
                words = "a quote that is not closed"
            raise FileFormatError(f"line {begin} must be fields of a table; got {words}: correct the line.") from None

    def head(self) -> list[str]:
        """Return the names of the columns."""
        names = [name.strip() for name in self.row()]
        if len(names) == 1 and self.delimiter == "," and (names[0].count(";") or names[0].count("\t")):
            wrong, way_out = (";", "write it with commas") if ";" in names[0] else ("a tab", "name it .tsv")
            raise FileFormatError(f"line 1 must separate the names of columns by commas; got {wrong}: {way_out}.")
        return names

    def rows(self, width: int) -> tuple[list[list[str]], list[int]]:
        """Return the rows that begin in the pending lines, each with `width` fields, and the line of each."""
        rows, begins = [], []
        while self.pending:
            begin = self.number + 1
            row = self.row()
            if row and self.blank:
                raise FileFormatError(f"line {self.blank} must be a row; got an empty line between rows: delete it.")
            if row and len(row) != width:
                raise FileFormatError(f"line {begin} must have {width} fields, as line 1; got {len(row)}: correct it.")
            if row:
                rows.append(row)
                begins.append(begin)
            else:
                self.blank = self.blank or begin
        return rows, begins


def _quickly(block: bytes, delimiter: str, names: list[str], numeric: Collection[str]) -> list[Any] | None:
    """Return the columns of a block of lines without quotes; None if one is not what its place in `numeric` says.

    NumPy and Python parse a number by the same function, but NumPy takes no number for a missing one.
    """
    block = block.replace(b"\r\n", b"\n").removesuffix(b"\n")
    if not numeric or b'"' in block or b"\r" in block or b"\0" in block or b"\n\n" in b"\n" + block + b"\n":
        return None
    places = [k for k, name in enumerate(names) if name in numeric]
    try:
        text = block.decode("utf-8")
        rows = [line.split(delimiter) for line in text.split("\n")] if len(places) < len(names) else []
        if any(len(row) != len(names) for row in rows):
            return None
        numbers = np.loadtxt(
            io.StringIO(text), delimiter=delimiter, comments=None, ndmin=2, usecols=places if rows else None
        )
    except ValueError:  # UnicodeDecodeError is one, too.
        return None
    if numbers.shape[1] != len(places):
        return None
    columns: list[Any] = list(numbers.T)
    for k, name in enumerate(names):
        if name not in numeric:
            columns.insert(k, [row[k] for row in rows])
    return columns
