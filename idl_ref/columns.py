"""This module has the columns of a table, and how they become the inputs U of a model, which keeps that with its file.

A column holds numbers, or it holds words, which are called categories. A number is one input of the model as it is. A
category is as many inputs as the training data had different words in it: that of its word is 1, and the others are 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from idl_ref import checks

FEW, SAMPLES = 10, 2  # More different words than FEW must occur SAMPLES times on average, or they look like names.
MOST_INPUTS = 100_000  # The largest number of columns, and of the inputs that they become.
MOST_WORDS = 10_000  # The largest number of categories of one column.
MOST_LETTERS = 1000  # The largest length of a name or of a word.
MOST_BYTES = (
    1 << 18
)  # The largest length of all that a file holds about columns, a quarter of what its header may have.


class Words(NamedTuple):
    """A column of words: the number of the word of each row (m,), where −1 stands for a missing one, and the words."""

    codes: np.ndarray
    words: list[str]


@dataclass
class Table:
    """The columns of a table by name, as `idl_ref.tables.read` returns them.

    Attributes
    ----------
    columns : dict
        For each name a float64 array (m,), in which NaN is a missing number and ±inf is what is no finite number; or
        Words.
    lines : (m,) int array
        The line of the file in which each row begins.
    source, unit : str
        The name of the file, and what the numbers in `lines` count, for messages.
    """

    columns: dict[str, Any]
    lines: np.ndarray
    source: str = "the table"
    unit: str = "line"

    def __len__(self) -> int:
        return len(self.lines)


@dataclass(frozen=True)
class Columns:
    """The input columns of a table: what a model needs to know to take rows of a table as its inputs U.

    Parameters
    ----------
    names : tuple of str
        The names of the input columns.
    categories : tuple
        For each column its words in sorted order, or None for a column of numbers.
    fills : tuple
        For each column the number or the word that stands for a missing one, or None to refuse missing values.
    targets : tuple of str
        The names of the columns that the model predicts. A model that has columns and no classes predicts numbers.

    Raises
    ------
    ValueError, TypeError
        Names that are empty, long or repeated, words that are not sorted or repeated, or fills of another kind.

    Examples
    --------
    >>> table = Table({"age": np.array([30.0, 50.0]), "colour": Words(np.array([1, 0]), ["red", "blue"])}, np.arange(2))
    >>> columns = Columns.fit(table)
    >>> columns.features
    ['age', 'colour=blue', 'colour=red']
    >>> columns.matrix(table)[0]
    array([[30.,  1.,  0.],
           [50.,  0.,  1.]], dtype=float32)
    """

    names: tuple[str, ...]
    categories: tuple[tuple[str, ...] | None, ...]
    fills: tuple[float | str | None, ...]
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_words("columns", self.names, MOST_INPUTS)
        _check_words("targets", self.targets, MOST_INPUTS)
        if not self.names or set(self.names) & set(self.targets):
            raise ValueError(f"columns must have input columns, without the targets; got {self.names[:3]}.")
        for field in (self.categories, self.fills):
            if not isinstance(field, tuple) or len(field) != len(self.names):
                raise ValueError(f"columns must have categories and a fill for each of the {len(self.names)} names.")
        for name, words, fill in zip(self.names, self.categories, self.fills, strict=True):
            _check_column(name, words, fill)
        if self.width > MOST_INPUTS:
            raise ValueError(f"columns must become at most {MOST_INPUTS} inputs; got {self.width}: leave some out.")

    @property
    def are_counted(self) -> bool:
        """Whether the names of the columns are x0, x1, … as those of arrays are, and not those of a table."""
        return self.names == tuple(f"x{i}" for i in range(len(self.names)))

    @classmethod
    def of_numbers(cls, names: Iterable[str], q: int) -> Columns:
        """Return columns of numbers with these names, and of q targets that are called y, or y0, y1, ….

        A model of several outputs that was trained on arrays has them to tell that its outputs are numbers, and not
        those of classes.
        """
        given = tuple(names)
        targets = ("y",) if q == 1 else tuple(f"y{i}" for i in range(q))
        if set(given) & set(targets):
            targets = tuple(f"predicted {name}" for name in targets)
        return cls(given, (None,) * len(given), (None,) * len(given), targets)

    @classmethod
    def fit(cls, table: Table, targets: Iterable[str] = (), missing: str = "refuse") -> Columns:
        """Return the columns of a training table, without the targets.

        With missing="mean", the mean of a column of numbers, or the most frequent word, stands for a missing value.

        Raises
        ------
        ValueError
            A missing value with missing="refuse", a number that is not finite, a column without any value, or a column
            with so many different words that they look like names of the rows.
        """
        checks.choice("missing", missing, ("refuse", "mean"))
        targets = tuple(targets)
        names = tuple(name for name in table.columns if name not in targets)
        for name in names:
            _check_values(table, name, missing)
        found = [_summary(table.columns[name]) for name in names]
        fills = tuple(fill if missing == "mean" else None for _, fill in found)
        return cls(names, tuple(words for words, _ in found), fills, targets)

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of each column by name: "number" or "category"."""
        return {n: "number" if w is None else "category" for n, w in zip(self.names, self.categories, strict=True)}

    @property
    def width(self) -> int:
        """The number p of inputs that the columns become."""
        return sum(1 if words is None else len(words) for words in self.categories)

    @property
    def features(self) -> list[str]:
        """The names of the p inputs: that of a column of numbers, and "column=word" for each category."""
        pairs = zip(self.names, self.categories, strict=True)
        return [feature for n, words in pairs for feature in ([n] if words is None else [f"{n}={w}" for w in words])]

    def matrix(self, table: Table, dtype: Any = np.float32, consume: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return the inputs U (m, p) of a table, and which rows (m,) have a value that the model cannot take.

        All inputs of such a row are NaN, so that it has no answer. With `consume`, each column is deleted from the
        table when it is done, so that the memory holds it once.

        Raises
        ------
        ValueError
            A column that the table lacks.
        """
        self._check_names(table)
        U = np.zeros((len(table), self.width), dtype, order="F")  # The inputs of one column lie together.
        bad, place = np.zeros(len(table), bool), 0
        for name, words, fill in zip(self.names, self.categories, self.fills, strict=True):
            column = table.columns.pop(name) if consume else table.columns[name]
            values = _numbers(column, fill) if words is None else _places(column, words, fill)
            if words is None:
                bad |= ~np.isfinite(values)
                with np.errstate(over="ignore"):
                    U[:, place] = values
            else:
                bad |= values < 0
                for k in range(len(words)):
                    U[:, place + k] = values == k
            place += 1 if words is None else len(words)
        U[bad] = np.nan
        return U, bad

    def faults(self, table: Table) -> dict[int, str]:
        """Return for each row that `matrix` calls bad, by its number from 0, what is wrong with it."""
        self._check_names(table)
        found: dict[int, str] = {}
        for name, words, fill in zip(self.names, self.categories, self.fills, strict=True):
            column, shown = table.columns[name], checks.printable(name)
            missing = column.codes < 0 if isinstance(column, Words) else np.isnan(column)
            bad = ~np.isfinite(_numbers(column, fill)) if words is None else _places(column, words, fill) < 0
            for j in np.flatnonzero(bad).tolist():
                wrong = "is not a finite number" if words is None else "has a word that the training data had not"
                found.setdefault(j, f"{shown} is missing" if missing[j] else f"{shown} {wrong}")
        return found

    def _check_names(self, table: Table) -> None:
        """Refuse a table that lacks a column."""
        if absent := [name for name in self.names if name not in table.columns]:
            raise ValueError(
                f"{table.source} must have the columns of the training data; it lacks {_listed(absent)}, and has "
                f"{_listed(table.columns)}: add them, or rename its columns."
            )

    def to_header(self) -> dict[str, Any]:
        """Return the columns as JSON can hold them; ValueError is raised if they are too many for a file."""
        header: dict[str, Any] = {name: list(getattr(self, name)) for name in ("names", "fills", "targets")}
        header["categories"] = [words if words is None else list(words) for words in self.categories]
        if (size := len(json.dumps(header))) > MOST_BYTES:
            raise ValueError(
                f"the names and the categories of the columns must have at most {MOST_BYTES} characters in a file; "
                f"got {size}: leave columns with many words out."
            )
        return header

    @classmethod
    def from_header(cls, header: Any) -> Columns:
        """Return the columns that `to_header` wrote; ValueError or TypeError is raised for anything else."""
        if not isinstance(header, dict) or header.keys() != {"names", "categories", "fills", "targets"}:
            raise ValueError("columns must be an object with names, categories, fills and targets.")
        if not all(isinstance(value, list) for value in header.values()):
            raise TypeError("names, categories, fills and targets of columns must be lists.")
        named = {name: tuple(values) for name, values in header.items()}
        named["categories"] = tuple(tuple(words) if type(words) is list else words for words in header["categories"])
        return cls(**named)


def attached(value: Any, p: int) -> Columns | None:
    """Return what may become the columns of a model with p inputs, and refuse the rest."""
    if value is None or (isinstance(value, Columns) and value.width == p):
        return value
    if not isinstance(value, Columns):
        raise TypeError(f"columns must be None or Columns; got {checks.shown(value)}: use Columns.fit(table).")
    raise ValueError(
        f"columns must become {p} inputs, as many as the model has; got {value.width}: use input_dim=columns.width."
    )


# --- one column -------------------------------------------------------------------------------------------------------


def _numbers(column: Any, fill: Any) -> np.ndarray:
    """Return a column as numbers (m,); inf is what is no number, and NaN is what remains missing."""
    if isinstance(column, Words):  # Words where numbers are expected are wrong, and what is missing stays missing.
        column = np.where(column.codes < 0, np.nan, np.inf)
    return column if fill is None else np.where(np.isnan(column), fill, column)


def _places(column: Any, words: tuple[str, ...], fill: Any) -> np.ndarray:
    """Return for each row the place (m,) of its word among the sorted words, or −1."""
    places = {word: k for k, word in enumerate(words)}
    if not isinstance(column, Words):
        column = as_words(column)
    by_code = np.array([places.get(word, -1) for word in column.words] + [places.get(fill, -1)])
    return by_code[column.codes]  # The code −1 takes the last entry, which is the place of the fill.


def as_words(column: np.ndarray) -> Words:
    """Return numbers as the words that Python writes for them, whole numbers without a point; NaN is missing."""
    values, codes = np.unique(column, return_inverse=True)
    words = [str(int(v)) if v == np.floor(v) and abs(v) < 2**53 else repr(v) for v in values.tolist()]
    return Words(np.where(np.isnan(column), -1, codes), words)


def _summary(column: Any) -> tuple[tuple[str, ...] | None, float | str]:
    """Return the categories of a column, or None if it has numbers, and what stands for a missing value."""
    if not isinstance(column, Words):
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(np.nanmean(column))
        return None, mean if math.isfinite(mean) else float(np.nanmedian(column))
    counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.words))
    present = sorted(word for word, count in zip(column.words, counts, strict=True) if count)
    of = dict(zip(column.words, counts.tolist(), strict=True))
    return tuple(present), max(present, key=lambda word: of[word])


def _check_values(table: Table, name: str, missing: str) -> None:
    """Refuse a column of a training table that has no values, missing ones, infinite ones or too many words."""
    column, shown, m = table.columns[name], checks.printable(name), len(table)
    absent = column.codes < 0 if isinstance(column, Words) else np.isnan(column)
    if absent.all():
        raise ValueError(f"{table.source}: the column {shown} must have values; got none in {m} rows: leave it out.")
    if absent.any() and missing == "refuse":
        first = int(table.lines[np.argmax(absent)])
        raise ValueError(
            f"{table.source}: the column {shown} must have a value in every row; got {int(absent.sum())} missing ones, "
            f"the first in {table.unit} {first}: fill them in, or use --missing mean."
        )
    if isinstance(column, Words):
        K = len(column.words)
        if K > MOST_WORDS or (K > FEW and m < SAMPLES * K):
            raise ValueError(
                f"{table.source}: the column {shown} must hold numbers, or words that repeat; got {K} different words "
                f"in {m} rows, such as {checks.shown(column.words[0])}, which look like names of the rows: leave it "
                "out by --ignore, or turn it into numbers."
            )
    elif np.isinf(column).any():
        first = int(table.lines[np.argmax(np.isinf(column))])
        raise ValueError(
            f"{table.source}: the column {shown} must hold finite numbers; got another in {table.unit} {first}: "
            "correct it, or leave the row out."
        )


def _check_column(name: str, words: Any, fill: Any) -> None:
    """Refuse categories and a fill that do not belong together."""
    shown = checks.printable(name)
    if words is None:
        if fill is not None and not (type(fill) is float and math.isfinite(fill)):
            raise ValueError(f"the fill of the column {shown} must be a finite number; got {checks.shown(fill)}.")
        return
    _check_words(f"the categories of {shown}", words, MOST_WORDS)
    if not words or list(words) != sorted(words):
        raise ValueError(f"the categories of {shown} must be words in sorted order; got {checks.shown(words)}.")
    if fill is not None and fill not in words:
        raise ValueError(f"the fill of the column {shown} must be one of its words; got {checks.shown(fill)}.")


def _check_words(name: str, words: Any, most: int) -> None:
    """Refuse what is not a tuple of different words of limited number and length."""
    if not isinstance(words, tuple) or len(words) > most or not all(map(_is_word, words)):
        raise ValueError(
            f"{name} must be at most {most} words of 1 to {MOST_LETTERS} characters; got {checks.shown(words)}."
        )
    if len(set(words)) != len(words):
        raise ValueError(f"{name} must be different words; got {checks.shown(words)}.")


def _is_word(word: Any) -> TypeGuard[str]:
    """Tell whether a value is a word that a file may hold."""
    return isinstance(word, str) and 0 < len(word) <= MOST_LETTERS


def _listed(names: Iterable[str] | Mapping[str, Any]) -> str:
    """Return some names in words."""
    names = list(names)
    words = ", ".join(checks.printable(name)[:40] for name in names[:6])
    return words + (f", … ({len(names)} in all)" if len(names) > 6 else "") if names else "none"
