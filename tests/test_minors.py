"""These tests check that unique_relu decides by principal minors what brute force over sets of active units finds."""

from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
import rational
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

import idl_ref
from idl_ref.wellposed import perron_root, unique_relu

small = st.integers(1, 5)
SCALES = st.sampled_from([1e-200, 0.3, 0.7, 1.5, 1e10])


@given(small, seeds, SCALES)
def test_the_minors_are_determinants(n, seed, scale):
    A = np.random.default_rng(seed).standard_normal((n, n)) * scale
    found, M = unique_relu(A), rational.combine(1, rational.identity(n), -1, rational.matrix(A))
    minors = {rows: rational.determinant(part(M, rows)) for k in range(1, n + 1) for rows in combinations(range(n), k)}
    assert bool(found) == found.holds == (min(minors.values()) > 0)
    assert minors[found.rows] == found.least
    if found:
        assert found.least == min(minors.values())


@given(st.integers(1, 4), seeds, st.sampled_from([0.5, 1.0, 2.0]))
def test_it_decides_how_many_states_there_are(n, seed, scale):
    """If a minor is negative, and no minor inside it is, then some z of its rows alone has no state, or several.

    z = M x with x > 0 has the state x, of index −1, and z < 0 has the state 0, of index +1. The sum of all indices is
    the same for every z, so that each of them cannot be alone.
    """
    rng = np.random.default_rng(seed)
    A = np.round(scale * rng.standard_normal((n, n)) * 8) / 8
    M = rational.combine(1, rational.identity(n), -1, rational.matrix(A))
    if unique_relu(A):
        inside, right = tuple(range(n)), np.round(rng.standard_normal((30, n)) * 1024) / 1024
        expected = {1}
    else:
        sets = [rows for k in range(1, n + 1) for rows in combinations(range(n), k)]
        inside = next(rows for rows in sets if rational.determinant(part(M, rows)) <= 0)
        k = len(inside)
        x = np.round(rng.uniform(0.5, 2, (4, k)) * 64) / 64
        right = np.vstack([x @ (np.eye(n) - A)[np.ix_(inside, inside)].T, -x])  # exact, as all numbers are short
        expected = None if rational.determinant(part(M, inside)) == 0 else {1}
    states = [count_states(part(M, inside), [Fraction(float(x)) for x in z]) for z in right]
    counts = {count for count in states if count is not None}
    if unique_relu(A):
        assert counts <= expected
    elif expected:
        assert counts - expected


def part(M, rows):
    return [[M[i][j] for j in rows] for i in rows]


def count_states(M, z):
    """Count the x ≥ 0 with w = M x − z ≥ 0 and x w = 0, exactly; None where a system is singular."""
    n, count = len(z), 0
    for on in product((False, True), repeat=n):
        S = [i for i in range(n) if on[i]]
        matrix = [[M[i][j] for j in S] for i in S]
        if (det := rational.determinant(matrix)) == 0:
            return None
        x = [Fraction(0)] * n
        for k, j in enumerate(S):  # Cramer's rule
            swapped = [[z[i] if column == k else M[i][c] for column, c in enumerate(S)] for i in S]
            x[j] = rational.determinant(swapped) / det
        w = [sum(M[i][j] * x[j] for j in range(n)) - z[i] for i in range(n)]
        count += all(x[i] > 0 for i in S) and all(w[i] > 0 for i in range(n) if i not in S)
    return count


def test_every_other_criterion_implies_this_one():
    rng, seen = np.random.default_rng(0), {"Perron root": 0, "monotone": 0, "neither": 0}
    for _ in range(300):
        n = rng.integers(2, 6)
        A = rng.standard_normal((n, n)) * rng.uniform(0.1, 0.9)
        root, m = perron_root(A).upper, idl_ref.wellposed.monotone(A).m
        if root < 1 or m > 0:
            assert unique_relu(A)
        seen["Perron root"] += root < 1
        seen["monotone"] += m > 0
        seen["neither"] += bool(unique_relu(A)) and root >= 1 and m <= 0
    assert min(seen.values()) > 10


def test_a_known_bistable_pair_and_its_border():
    assert unique_relu([[0.0, -1 + 2**-52], [-1.0, 0.0]])
    assert not unique_relu([[0.0, -1.0], [-1.0, 0.0]])
    assert unique_relu([[0.0, -1.0], [-1.0, 0.0]]).least == 0
    assert unique_relu(np.zeros((0, 0))).holds
    assert unique_relu(np.diag([1.0, 0.0, 0.0])).rows == (0,)  # A minor of 0 is no divisor of the next ones.
    # Three units in a cycle: the minors of order 1 and 2 are 1, and that of order 3 is 1 − 8.
    found = unique_relu(2 * np.roll(np.eye(3), 1, axis=1))
    assert not found
    assert (found.least, found.rows) == (-7, (0, 1, 2))


def test_other_slopes():
    """sigmoid has slopes of at most 1/4."""
    A = np.array([[0.0, 2.0], [2.0, 0.0]])
    assert not unique_relu(A)
    assert unique_relu(A, 0.25)


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"at most 16 rows.*got 17: use perron_root"):
        unique_relu(np.zeros((17, 17)))
    with pytest.raises(ValueError, match="A must be finite; got NaN or inf"):
        unique_relu([[np.nan]])
    with pytest.raises(ValueError, match="square"):
        unique_relu(np.zeros((2, 3)))
