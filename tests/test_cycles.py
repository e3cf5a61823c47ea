"""Strongly connected components, against SciPy's, against reachability by powers, and on matrices with known ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idl_ref import blocks as ordering
from idl_ref.cycles import components, cyclic, levels


@st.composite
def graphs(draw):
    n, density = draw(st.integers(0, 14)), draw(st.sampled_from([0.03, 0.1, 0.2, 0.5]))
    return np.random.default_rng(draw(st.integers(0, 2**31))).random((n, n)) < density


@given(graphs())
def test_components_are_what_reaches_each_other(edges):
    n = len(edges)
    reach = np.linalg.matrix_power(np.eye(n, dtype=object) + edges.astype(object), max(n, 1)) > 0 if n else edges
    mutual = reach & reach.T
    number = components(edges)
    np.testing.assert_array_equal(number[:, None] == number, mutual)
    found = cyclic(edges)
    expected = {tuple(np.flatnonzero(row)) for row in mutual}
    expected = sorted(units for units in expected if len(units) > 1 or edges[units[0], units[0]])
    assert [tuple(units) for units in found] == expected


@pytest.mark.parametrize("n", [1, 2, 60, 300])
def test_large_matrices_of_known_form(n):
    scipy = pytest.importorskip("scipy.sparse.csgraph")
    rng = np.random.default_rng(n)
    order = rng.permutation(n)
    pairs = np.kron(np.eye(-(-n // 2)), np.ones((2, 2)))[:n, :n] > 0
    for edges in (
        np.ones((n, n), bool),
        np.triu(np.ones((n, n)), 1) > 0,
        np.eye(n) > 0,
        pairs | (np.eye(n, k=1) > 0),
        (pairs | (np.triu(rng.random((n, n))) > 0.98))[np.ix_(order, order)],
        rng.random((n, n)) < 1.5 / n,
        np.roll(pairs, 1, axis=0),
        pairs | (np.arange(n)[:, None] == 0),  # one pair that depends on all others
        pairs | (np.arange(n) == 0),
    ):
        number, truth = components(edges), scipy.connected_components(edges, connection="strong")[1]
        np.testing.assert_array_equal(number[:, None] == number, truth[:, None] == truth)


def test_levels_are_the_longest_chains():
    edges = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1]], bool)
    assert levels(edges, 4).tolist() == [0, 1, 2, -1]
    assert levels(edges, 1).tolist() == [0, 1, -1, -1]


def test_many_cycles_apart_take_no_longer_than_a_chain_of_them():
    """Each cycle is looked at once: the work is counted, because times vary."""
    n, seen = 600, []
    pairs = np.kron(np.eye(n // 2), np.ones((2, 2))) > 0

    class Watched(np.ndarray):
        def __getitem__(self, index):
            part = super().__getitem__(index)
            seen.append(np.size(part))
            return part

    assert len(set(components(pairs.view(Watched)).tolist())) == n // 2
    assert sum(seen) < 20 * n * n
    assert ordering.pays(pairs.astype(float)) == ()
