"""This module tells by exact arithmetic whether x = max(0, A x + z) has one solution for every z.

It has one if and only if I − A is a P-matrix: det (I − A)[S, S] > 0 for every nonempty set S of rows. All of these
minors are pivots of one elimination without fractions, which keeps or leaves out each row in turn. Let a be the pivot
before, 1 at first. To keep the row k is to replace every later entry by

    M_ij ← (M_kk M_ij − M_ik M_kj) / a,

a division without remainder by Sylvester's identity, after which M_ij is a minor of I − A, and M_ii a principal one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from idl_ref import checks

if TYPE_CHECKING:
    from fractions import Fraction

MOST = 16  # 2ⁿ minors of n = 16 rows take a few seconds; each further row doubles the time.
Minor = tuple[int, tuple[int, ...]]


@dataclass(frozen=True)
class PMatrix:
    """Whether all principal minors of I − A are positive; the object counts as this truth value.

    Attributes
    ----------
    holds : bool
        Whether x = max(0, A x + z) has one solution for every z.
    least : Fraction
        The smallest principal minor, if all are positive; otherwise the first that was found not to be.
    rows : tuple of int
        The rows S of the minor det (I − A)[S, S] = least.
    """

    holds: bool
    least: Fraction
    rows: tuple[int, ...]

    def __bool__(self) -> bool:
        return self.holds


def unique_relu(A: np.ndarray, lipschitz: float = 1.0) -> PMatrix:
    """Tell whether x = max(0, A x + z) has exactly one solution for every z: whether I − A is a P-matrix.

    Parameters
    ----------
    A : (n, n) array
        A matrix of at most 16 rows, whose numbers count as exact.
    lipschitz : float
        The Lipschitz constant c of another φ, which must not decrease. If I − c A is a P-matrix, x = φ(A x + z) has
        one solution for every z, too; but it may have one although I − c A is no P-matrix.

    Returns
    -------
    PMatrix
        True or false as a condition, `if unique_relu(A):`. If false, `rows` are the units among which a state is not
        unique, or missing, for some z.

    Raises
    ------
    ValueError, TypeError
        An A that is not a square matrix of finite real numbers, or has more than 16 rows.

    Notes
    -----
    All 2ⁿ − 1 minors are computed in integers, without rounding. To decide the question is co-NP-complete, so that no
    method is known that is quick for large n; for these, `perron_root` and `monotone` show uniqueness where they can.
    Cost: about 6·2ⁿ operations with integers of up to n·53 bits, more if the entries have very different magnitudes.
    Source: Samelson, Thrall and Wesler, A partition theorem for Euclidean n-space, Proc. AMS 9 (1958); Tsatsomeros and
    Li, A recursive test for P-matrices, BIT 40 (2000).

    Examples
    --------
    Two units that inhibit each other by more than 1 let either of them win, and two that excite and inhibit do not:

    >>> unique_relu(np.array([[0.0, -2.0], [-2.0, 0.0]]))
    PMatrix(holds=False, least=Fraction(-3, 1), rows=(0, 1))
    >>> bool(unique_relu(np.array([[0.0, -2.0], [2.0, 0.0]])))
    True
    """
    from fractions import Fraction  # A prediction does without it.

    c = Fraction(checks.number("lipschitz", lipschitz, 0, why="It is a bound of the slopes of φ."))
    A = checks.real_array("A", A, np.float64)
    checks.matrix("A", A, "(n, n)")
    checks.shape("A", A, (len(A), len(A)), "square")
    if len(A) > MOST:
        raise ValueError(
            f"A must have at most {MOST} rows, because a P-matrix has 2ⁿ − 1 minors; got {len(A)}: use perron_root(A) "
            "or monotone(A), which show uniqueness for many larger A."
        )
    if not np.isfinite(A).all():
        raise ValueError("A must be finite; got NaN or inf: look for what diverged.")
    M = [[int(i == j) - c * Fraction(float(a)) for j, a in enumerate(row)] for i, row in enumerate(A)]
    unit = max((entry.denominator for row in M for entry in row), default=1)  # All of them are powers of two.
    found = _minors([[int(entry * unit) for entry in row] for row in M], range(len(A)), 1, ())
    least, rows = min(((Fraction(minor, unit ** len(rows)), rows) for minor, rows in found), default=(Fraction(1), ()))
    return PMatrix(least > 0, least, rows)


def _minors(M: list[list[int]], left: range, before: int, kept: tuple[int, ...]) -> Iterator[Minor]:
    """Yield the principal minors of all sets that consist of the `kept` rows and at least one of those that are left.

    M holds the entries of the rows that are left, and `before` is the minor of the rows that are kept. After the first
    minor that is not positive, nothing more is yielded.
    """
    pending = [(M, left, before, kept)]
    while pending:
        M, left, before, kept = pending.pop()
        if not left:
            continue
        k, pivot = left[0], M[0][0]
        yield pivot, (*kept, k)
        if pivot <= 0:
            return
        after = [[(pivot * M[i][j] - M[i][0] * M[0][j]) // before for j in range(1, len(M))] for i in range(1, len(M))]
        pending.append(([row[1:] for row in M[1:]], left[1:], before, kept))
        pending.append((after, left[1:], pivot, (*kept, k)))
