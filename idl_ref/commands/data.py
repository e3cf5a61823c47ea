"""This module reads the data of the command `train`: samples and targets, divided into training and test samples."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from idl_ref import checks, classes, datasets, npz, tables
from idl_ref.columns import Columns, Table, Words
from idl_ref.delimited import DELIMITERS
from idl_ref.preprocessing import needs_float64

PADDED = re.compile(r"[+-]?0\d")  # how a number with leading zeros begins
FEW = 20  # A target of at most so many different whole numbers is a class.


class Data(NamedTuple):
    """What a model is trained on. Targets are labels (m,), or numbers (m, q) in float64."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classifies: bool
    columns: Columns | None = None
    notes: tuple[str, ...] = ()  # sentences about what was decided


def load(options: argparse.Namespace) -> Data:
    """Return the data that the options --data, --target, --task, --test, … name."""
    path = options.data
    if path is None:
        _without(options, "target", "test", "ignore")
        return _typed(options, datasets.digits(), True)
    if tables.is_table(path):
        return _of_table(options)
    _without(options, "ignore")
    if path.suffix == ".npy":
        if options.target is None or len(options.target) != 1:
            raise ValueError("--target must name the .npy file with the targets; got none: add --target y.npy.")
        y, X = npz.single(Path(options.target[0])), npz.single(path)
        return _of_arrays(options, X, y)
    _without(options, "target")
    if "x_train" not in (names := npz.names(path)) and {"X", "y"} <= set(names):
        y, X = npz.arrays(path, ["y"])["y"], npz.arrays(path, ["X"])["X"]
        return _of_arrays(options, X, y)
    _without(options, "test")
    return _typed(options, _labelled(path), True)


def _without(options: argparse.Namespace, *names: str) -> None:
    """Refuse options that do not belong to the kind of data."""
    for name in names:
        if getattr(options, name):
            kind = "the embedded digits" if options.data is None else "a .npz file with x_train"
            kind = "arrays" if options.data is not None and name == "ignore" else kind
            raise ValueError(f"--{name} is for tables; got it with {kind}: leave it out, or give --data a table.")


# --- targets ----------------------------------------------------------------------------------------------------------


def _decided(task: str, name: str, y: Any, whole_is_class: bool) -> tuple[bool, str]:
    """Return whether targets y (m,) or (m, q) are classes, and a sentence that says why."""
    words = isinstance(y, Words) or y.dtype.kind in "bUSO"
    if task == "regress" and words:
        raise ValueError(f"{name} must hold numbers for --task regress; got words: use --task classify.")
    if task != "auto":
        return task == "classify", ""
    if not words and y.ndim == 2 and y.shape[1] > 1 and y.dtype.kind in "biuf" and checks.one_hot(y):
        raise ValueError(
            f"{name} must hold one label per sample, or measured numbers; got {y.shape}, one-hot rows: make labels of "
            "them by numpy.argmax(…, axis=1), or add --task regress."
        )
    if words or (whole_is_class and y.dtype.kind in "iu"):
        return True, f"{name} holds {'words' if words else 'whole numbers'}: --task classify"
    if y.ndim == 1 and len(y) and y.dtype.kind in "iuf" and (y == np.floor(y)).all():
        K = len(np.unique(y))
        if K <= FEW:
            return True, f"{name} holds {K} different whole numbers: --task classify"
        return False, f"{name} holds {K} different whole numbers: --task regress"
    return False, f"{name} holds measured numbers: --task regress"


def _numbers(name: str, y: Any) -> np.ndarray:
    """Return targets for regression (m, q) in float64; they must be finite."""
    T = np.asarray(checks.real_array(name, y, np.dtype(np.float64)))
    T = T.reshape(-1, 1) if T.ndim == 1 else T
    checks.matrix(name, T, "(m, q)")
    return checks.finite(name, T)


def _typed(options: argparse.Namespace, parts: Sequence[np.ndarray], whole_is_class: bool) -> Data:
    """Return data from x_train, y_train, x_test and y_test."""
    x_train, y_train, x_test, y_test = parts
    classifies, note = _decided(options.task, "y_train", y_train, whole_is_class)
    if not classifies:
        y_train, y_test = _numbers("y_train", y_train), _numbers("y_test", y_test)
    notes = () if options.data is None or classifies else (note,)
    return Data(x_train, y_train, x_test, y_test, classifies, None, tuple(filter(None, notes)))


# --- arrays -----------------------------------------------------------------------------------------------------------


def _of_arrays(options: argparse.Namespace, X: np.ndarray, y: np.ndarray) -> Data:
    """Return data from all samples X (m, …) and their targets y, which are divided here."""
    X = checks.real_array("X", X)
    if X.ndim < 2 or y.ndim not in (1, 2) or len(X) != len(y) or not len(X):
        raise ValueError(
            f"X must be samples of shape (m, …) and y targets of shape (m,) or (m, q), with m ≥ 1; got {X.shape} and "
            f"{y.shape} in {checks.printable(options.data)}."
        )
    if options.test is not None:
        raise ValueError("--test is for tables; got arrays: use x_train, y_train, x_test and y_test in one .npz file.")
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    classifies, note = _decided(options.task, "y", y, False)
    if not classifies:
        y = _numbers("y", y)
    test, train = divided(y if classifies else None, len(X), options.test_size, options.seed)
    return Data(X[train], y[train], X[test], y[test], classifies, None, tuple(filter(None, (note,))))


def _labelled(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return x_train, y_train, x_test and y_test of a data file, and refuse arrays that do not fit together.

    The targets are read first, so that wrong ones are refused before anything large is read.
    """
    names = ("x_train", "y_train", "x_test", "y_test")
    y = npz.arrays(path, ("y_train", "y_test"), present=names)
    y_train, y_test = y["y_train"], y["y_test"]
    if y_train.ndim == 1 and y_train.dtype.kind in "iubUS":
        classes.index("y_test", y_test, classes.find("y_train", y_train))
    x = npz.arrays(path, ("x_train", "x_test"))
    x_train, x_test = (checks.real_array(name, x[name]) for name in ("x_train", "x_test"))
    for x_part, y_part, part in ((x_train, y_train, "train"), (x_test, y_test, "test")):
        if x_part.ndim < 2 or y_part.ndim != 1 or len(x_part) != len(y_part):
            raise ValueError(
                f"x_{part} must be samples of shape (m, …) and y_{part} labels of shape (m,); "
                f"got {x_part.shape} and {y_part.shape} in {path}."
            )
    if x_train.shape[1:] != x_test.shape[1:]:
        raise ValueError(f"x_train and x_test must have samples of one shape; got {x_train.shape} and {x_test.shape}.")
    if not len(x_train):
        raise ValueError(f"x_train must hold at least one sample; got {x_train.shape} in {path}.")
    return x_train, y_train, x_test, y_test


# --- tables -----------------------------------------------------------------------------------------------------------


def _of_table(options: argparse.Namespace) -> Data:
    """Return data from a table, divided here unless there is another table with the test samples."""
    table = tables.read(options.data, options.ignore or ())
    targets = _target_names(options, table)
    if not len(table):
        raise ValueError(f"{table.source} must hold at least one row; got none below the names of its columns.")
    columns = Columns.fit(table, targets, options.missing)
    found = [_target(table, name) for name in targets]
    y: Any = found[0] if len(found) == 1 else np.column_stack(found)
    what = f"the column {checks.printable(targets[0])}"
    classifies, note = _decided(options.task, what, y, False)
    if classifies and len(targets) == 1 and (words := _padded(options.data, targets[0], y)) is not None:
        y, note = words, f"{what} has numbers with leading zeros, which are kept as words: --task classify"
    dtype = _dtype(table, columns)
    X, _ = columns.matrix(table, dtype, consume=True)
    is_words = isinstance(y, Words)
    y = _labels(y) if classifies else _numbers("the target", y)
    if options.test is None:
        test, train = divided(y if classifies else None, len(X), options.test_size, options.seed)
        X, y, k = _reordered(X, np.concatenate([test, train])), y[np.concatenate([test, train])], len(test)
        parts = X[k:], y[k:], X[:k], y[:k]
    else:
        parts = X, y, *_test_table(options.test, columns, classifies, is_words, dtype)
    return Data(*parts, classifies, columns, tuple(filter(None, (note,))))


def _target_names(options: argparse.Namespace, table: Table) -> list[str]:
    """Return the names of the target columns, and refuse names that the table does not have."""
    listed = ", ".join(checks.printable(name)[:40] for name in list(table.columns)[:20])
    if not options.target:
        raise ValueError(f"--target must name the column to predict; got none: choose one of {listed}.")
    for name in options.target:
        if name not in table.columns or options.target.count(name) > 1:
            raise ValueError(f"--target must name columns of the table; got {checks.shown(name)}: choose of {listed}.")
    if len(options.target) == len(table.columns):
        raise ValueError("--target must leave columns to predict from; got all of them: leave some out.")
    if len(options.target) > 1 and any(isinstance(table.columns[name], Words) for name in options.target):
        raise ValueError("--target must name one column of words, or columns of numbers; got several with words.")
    return list(options.target)


def _target(table: Table, name: str) -> Any:
    """Take the target column out of a table, and refuse it if a value is missing."""
    column = table.columns.pop(name)
    absent = column.codes < 0 if isinstance(column, Words) else ~np.isfinite(column)
    if absent.any():
        raise ValueError(
            f"{table.source}: the target {checks.printable(name)} must have a value in every row; got "
            f"{int(absent.sum())} that are missing or no finite number, the first in {table.unit} "
            f"{int(table.lines[np.argmax(absent)])}: leave these rows out."
        )
    return column


def _padded(path: Path, name: str, column: Any) -> Words | None:
    """Return the labels of a file of text as words, if numbers in them have leading zeros, which are part of a name."""
    if isinstance(column, Words) or path.suffix.lower() not in DELIMITERS:
        return None
    words: Any = tables.read(path, kinds={name: "category"}).columns[name]
    return words if any(PADDED.match(word) for word in words.words) else None


def _labels(column: Any) -> np.ndarray:
    """Return a target column as labels (m,): words, or whole numbers."""
    if isinstance(column, Words):
        return np.array(column.words)[column.codes] if len(column.codes) else np.zeros(0, "U1")
    whole = column == np.floor(column)
    return column.astype(np.int64) if whole.all() and (np.abs(column) < 2**53).all() else column


def _test_table(
    path: Path, columns: Columns, classifies: bool, words: bool, dtype: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return the samples and targets of a table of test samples, whose columns are those of the training table."""
    kinds = columns.kinds | dict.fromkeys(columns.targets, "category" if words else "number")
    table = tables.read(path, kinds=kinds)
    if absent := [name for name in columns.targets if name not in table.columns]:
        raise ValueError(f"--test must have the target {', '.join(absent)}; got {table.source} without it.")
    found = [_target(table, name) for name in columns.targets]
    X, _ = columns.matrix(table, dtype, consume=True)
    y: Any = found[0] if len(found) == 1 else np.column_stack(found)
    return X, _labels(y) if classifies else _numbers("the target", y)


def _dtype(table: Table, columns: Columns) -> Any:
    """Return float32 for the inputs, or float64 if a column of numbers needs it."""
    numbers = (table.columns[name] for name, kind in columns.kinds.items() if kind == "number")
    wide = any(not isinstance(column, Words) and needs_float64(column) for column in numbers)
    return np.float64 if wide else np.float32


def _reordered(X: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return X (m, p), whose columns lie together, with its rows in another order; it is changed in place."""
    for k in range(X.shape[1]):
        X[:, k] = X[order, k]
    return X


# --- training and test samples ----------------------------------------------------------------------------------------


def divided(labels: np.ndarray | None, m: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the samples to test with, and of those to train with, by a random choice.

    With labels (m,), each class gives about the same share of its samples, and keeps at least one for the training.
    """
    checks.number("--test-size", share, 0, 1)
    rng = np.random.default_rng([checks.integer("--seed", seed, 0), 1])
    groups = [np.arange(m)] if labels is None else _groups(labels)
    chosen = [rng.permutation(group)[: min(round(share * len(group)), len(group) - 1)] for group in groups]
    test = np.sort(np.concatenate([*chosen, np.zeros(0, int)])).astype(int)
    train = np.ones(m, bool)
    train[test] = False
    return test, np.flatnonzero(train)


def _groups(labels: np.ndarray) -> list[np.ndarray]:
    """Return the numbers of the samples of each class."""
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return np.split(np.argsort(codes.reshape(-1), kind="stable"), np.cumsum(counts)[:-1])


def hidden_units(wish: str | int, p: int, q: int, m: int) -> int:
    """Return the size n of the hidden state that --hidden asks for.

    For auto it is the power of two that reaches p and q, between 32 and 128, and at most m/2 but for 8.
    """
    if wish != "auto":
        return int(wish)
    wanted = min(max(2 ** math.ceil(math.log2(max(p, q, 1))), 32), 128)
    while wanted > 8 and wanted > m / 2:
        wanted //= 2
    return wanted
