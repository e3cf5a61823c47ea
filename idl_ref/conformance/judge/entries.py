"""Products with a sparse A by name: entries in wrong rows, rows cut or left out, and units solved block by block."""

# mypy: disable-error-code="misc"
# mypy infers no type of a lambda that binds the variable of a loop by a default.

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from idl_ref.conformance.judge.steps import Steps
from idl_ref.conformance.judge.transformations import Change, Transformation
from idl_ref.conformance.truth.problem import Case

LARGEST = 300  # with more units, and with A = L Rᵀ, none of these mistakes is looked for
Matrix = Callable[[np.ndarray], np.ndarray]


def small(case: Case) -> bool:
    """Whether A is dense, and not too large."""
    return case.problem.A is not None and 1 < len(case.problem.A) <= LARGEST


# --- rows of entries --------------------------------------------------------------------------------------------------


def _starts(A: np.ndarray) -> np.ndarray:
    """Where the entries of each row begin, and where those of the last one end.   (n + 1,)"""
    return np.concatenate([[0], np.cumsum(np.count_nonzero(A, axis=1))])


def _placed(A: np.ndarray, rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A matrix of these entries; those in the same place are added."""
    out = np.zeros_like(A)
    np.add.at(out, (rows, columns), values)
    return out


def _taking_next(A: np.ndarray, alone: bool = True) -> np.ndarray:
    """Rows without entries with the first entry after them; or only those before another such row."""
    (rows, columns), starts, out = np.nonzero(A), _starts(A), A.copy()
    empty = np.flatnonzero(np.diff(starts) == 0)
    for i in empty if len(rows) else ():
        if alone or (i + 1 in empty and starts[i] < len(rows)):
            k = min(int(starts[i]), len(rows) - 1)
            out[i, columns[k]] = A[rows[k], columns[k]]
    return out


def _first_to_empty(A: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(A)
    starts = _starts(A)
    first = np.arange(len(rows)) == starts[rows]
    of = np.searchsorted(starts, np.arange(len(rows)), side="left")
    return _placed(A, np.where(first, of, rows), columns, A[rows, columns])


def _last_of_before(A: np.ndarray) -> np.ndarray:
    filled, out = np.flatnonzero(A.any(axis=1)), A.copy()
    if len(filled):
        out[filled[-1] + 1 :] = A[filled[-1]]
    return out


def _cut(A: np.ndarray, width: float) -> np.ndarray:
    """The first entries of each row, so many at most."""
    place = np.cumsum(A != 0, axis=1)
    return np.where(place <= width, A, 0)


def _sorted(A: np.ndarray) -> np.ndarray:
    order = np.argsort(-np.count_nonzero(A, axis=1), kind="stable")
    return A[order][order]


def _mean(A: np.ndarray) -> float:
    return np.count_nonzero(A) / max(len(A), 1)


ROWS: dict[str, Matrix] = {
    "{row}s of A without entries take the first entry of the next {row}, as in a sum by reduceat": _taking_next,
    "{row}s of A without entries take the first entry after them where the next {row} has none either":
        lambda A: _taking_next(A, False),
    "the first entry after {row}s of A without entries counted to the first of these {row}s": _first_to_empty,
    "the last {row}s of A left with the values of the {row} before where they have no entries": _last_of_before,
    "{row}s of A cut to the mean number of entries": lambda A: _cut(A, np.ceil(_mean(A))),
    "{row}s of A cut to twice the mean number of entries": lambda A: _cut(A, np.ceil(2 * _mean(A))),
    "{row}s of A cut to the largest number of entries that the {other}s have":
        lambda A: _cut(A, np.count_nonzero(A, axis=0).max(initial=0)),
    "{row}s of A whose entries have the sum 0 taken for {row}s without entries":
        lambda A: np.where(A.sum(axis=1, keepdims=True) == 0, 0, A),
    "the {row}s of A sorted by their numbers of entries, and put back in that order and not in its inverse": _sorted,
}  # fmt: skip


def _begun(A: np.ndarray) -> np.ndarray:
    entries = np.nonzero(A.T)
    return _placed(A, np.nonzero(A)[0], entries[1], A.T[entries])


def _valued(A: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(A.T)
    return _placed(A, rows, columns, A[np.nonzero(A)])


TRANSPOSED: dict[str, Matrix] = {
    "the entries of Aᵀ kept only where A has entries": lambda A: np.where(A != 0, A.T, 0),
    "the rows of Aᵀ begun where those of A begin": _begun,
    "the entries of Aᵀ in their places, but with the values in the order of the rows of A": _valued,
}


def rows() -> Iterator[Transformation]:
    """What may be wrong with an A that is stored by its entries, in the equation and in the adjoint."""
    for text, change in ROWS.items():
        yield Transformation(text.format(row="row", other="column"), _equation(change), small)
        yield Transformation(f"{text.format(row='column', other='row')} (in the adjoint)",
                             {"Ft": lambda s, f=change: (f(s.right("Ft")[0]),)}, small)  # fmt: skip
    for text, change in TRANSPOSED.items():
        yield Transformation(f"{text} (in the adjoint)", {"Ft": lambda s, f=change: (f(s.F[0]),)}, small)
    with_inputs: Change = lambda s: (np.where(s.Z.any(axis=1, keepdims=True), s.right("F")[0], 0),)  # noqa: E731
    yield Transformation("rows of A left out where the row of B U has no entries", {"F": with_inputs}, small)
    with_entries: Change = lambda s: np.where(s.F[0].any(axis=1, keepdims=True), s.right("Z"), 0)  # noqa: E731
    yield Transformation("B U left out where the row of A has no entries", {"Z": with_entries}, small)


def _equation(change: Matrix) -> dict[str, Change]:
    def changed(s: Steps) -> Any:
        return (change(s.right("F")[0]),)

    return {"F": changed}


# --- blocks of units --------------------------------------------------------------------------------------------------


def _couplings(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The couplings between cycles of units, and which block comes earlier by its first unit.   (n, n), (n, n) bool"""
    paths = A != 0
    for _ in range(len(A).bit_length()):
        paths = paths | (paths.astype(np.float32) @ paths.astype(np.float32) > 0)
    same = paths & paths.T
    cycles = same.sum(axis=1) > 1
    first = np.where(same, np.arange(len(A)), len(A)).min(axis=1, initial=len(A))
    return paths & cycles[:, None] & cycles & ~same, first > first[:, None]


def _apart(A: np.ndarray) -> np.ndarray:
    return np.where(_couplings(A)[0], 0, A)


def _in_order(A: np.ndarray) -> np.ndarray:
    between, later = _couplings(A)
    return np.where(between & later, 0, A)


def _nearest(A: np.ndarray) -> np.ndarray:
    between = _couplings(A)[0].astype(np.float32)
    return np.where((between > 0) & (between @ between > 0), 0, A)


BLOCKS: dict[str, Matrix] = {
    "what a cycle of hidden units gets from other cycles left out": _apart,
    "cycles of hidden units solved once each, in the order of their first units and not in that of the couplings":
        _in_order,
    "what a cycle of hidden units gets from others left out where it also gets it over a third one": _nearest,
}  # fmt: skip


def blocks() -> Iterator[Transformation]:
    """Blocks of units that are solved apart, or in a wrong order."""
    for text, change in BLOCKS.items():
        yield Transformation(text, _equation(change), small)
        yield Transformation(f"{text} (in the adjoint)", {"Ft": lambda s, f=change: (f(s.F[0]).T,)}, small)
