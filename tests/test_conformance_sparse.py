"""The kit's cases about a sparse A: their truth by SciPy, right backends that store entries, and planted bugs."""

import numpy as np
import pytest
from scipy.sparse import csr_array, diags_array, eye_array
from scipy.sparse.linalg import spsolve

from idl_ref import activations
from idl_ref.backends import twin
from idl_ref.conformance import check_backend
from idl_ref.conformance.adapters import IdlRef, Plain
from idl_ref.conformance.bugs import BUGS, diagnosis
from idl_ref.conformance.bugs.entries import Entries
from idl_ref.conformance.judge import detection
from idl_ref.conformance.truth import vectors
from idl_ref.solution import SolveOptions
from idl_ref.sparse import Sparse
from idl_ref.weights import Options, Weights

CASES = [case for case in vectors.load() if case.group == "sparse"]
BY_ID = {case.id: case for case in CASES}


# --- cases ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_truth_about_a_sparse_A_is_that_of_scipy(case):
    """Products by SciPy's CSR format, and its sparse elimination on the pieces of φ and for the adjoint."""
    p, truth, phi = case.problem, case.truths[0], activations.get(case.problem.activation)
    A, Z = csr_array(p.A.astype(float)), p.B.astype(float) @ p.U.astype(float)
    X = np.zeros_like(Z)
    for _ in range(4000):
        X = phi.phi(A @ X + Z)
    S, G, eye = phi.slope(A @ X + Z), p.C.T.astype(float) @ case.G_Y, eye_array(len(p.A))
    V = [spsolve((eye - diags_array(s) @ A.T).tocsc(), s * g) for s, g in zip(S.T, G.T, strict=True)]
    V = np.stack(V, axis=1)
    for name, M in {"X": X, "V": V, "A": V @ X.T, "B": V @ p.U.T.astype(float)}.items():
        np.testing.assert_allclose(M, truth[name], rtol=1e-11, atol=1e-13 * np.abs(truth[name]).max())


def _lengths(id, axis):
    return np.count_nonzero(BY_ID[id].problem.A, axis=axis).tolist()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_rows_and_columns_are_as_uneven_as_the_cases_say(dtype):
    for id, axis in ((f"sparse-rows-{dtype}", 1), (f"sparse-columns-{dtype}", 0)):
        lengths, A = _lengths(id, axis), BY_ID[id].problem.A
        assert [i for i, length in enumerate(lengths) if length == 0] == [0, 5, 6, 11]
        assert lengths[2] == 1
        assert A.sum(axis=axis)[4] == 0 != lengths[4]
    B = BY_ID[f"sparse-rows-{dtype}"].problem.B
    assert [i for i, row in enumerate(B) if not row.any()] == [6, 8]
    for axis in (0, 1):
        first, *others = sorted(_lengths(f"sparse-full-{dtype}", axis), reverse=True)
        assert first == 40 > 5 * others[0]
    assert _lengths(f"sparse-one-{dtype}", 1) == [0, 0, 0, 0, 0, 1]
    slow = BY_ID[f"sparse-slow-{dtype}"]
    assert slow.facts["perron"] == pytest.approx(slow.facts["norm"]) == pytest.approx(0.99, abs=1e-3)
    assert slow.problem.A.min() == 0
    assert _lengths(slow.id, 1).count(0) == 4


# --- right backends ---------------------------------------------------------------------------------------------------


class ByEntries(IdlRef):
    """A twin whose A is a `Sparse`. It gives ∂A on the pattern, so that V Xᵀ fills the array that is due."""

    capabilities = IdlRef.capabilities | {"low_rank": False}

    def _layer(self, problem):
        options = SolveOptions(tol=problem.tol, max_iter=problem.max_iter, on_failure="ignore")
        weights = Weights((Sparse.of(problem.A),), problem.B, problem.C, problem.D)
        return twin(self.backend).Layer(weights, activations.get(problem.activation), Options(options, options))

    def vjp(self, problem, G_Y):
        layer = self._layer(problem)
        forward = layer.forward(problem.U, None)
        back = layer.backward(forward, G_Y, inputs=True)
        A, held = back.solution.X @ forward.solution.X.T, back.factors[0]
        np.testing.assert_allclose(held.data, A[problem.A != 0], rtol=1e-4)
        return {"A": A, "B": back.B, "C": back.C, "D": back.D, "U": back.U}


@pytest.mark.parametrize("name", ["numpy", pytest.param("numba", marks=pytest.mark.slow)])
def test_twins_that_hold_A_by_its_entries_pass(name):
    report = check_backend(ByEntries(name), groups=["sparse"])
    assert report.failed == []
    assert len(report.passed) == 2 * len(CASES)


class Summed(Plain):
    """The plain backend with the products of `Sparse` without SciPy: reduceat over the rows that have entries."""

    def apply(self, factors, X):
        return Sparse.of(factors[0]).sums(X) if len(factors) == 1 else super().apply(factors, X)


def test_a_backend_with_sums_by_reduceat_passes():
    report = check_backend(Summed(), groups=["sparse", "contraction-zero-rows-0.5-float64", "kink-relu-exact"])
    assert report.failed == []
    assert len(report.passed) == 2 * len(CASES) + 4


# --- bugs -------------------------------------------------------------------------------------------------------------

SPARSE = {
    "EmptyRowTakesNext": "sparse-rows-float32:forward",
    "EmptyRowsInARow": "sparse-rows-float64:forward",
    "FirstEntryToEmptyRow": "sparse-rows-float64:forward",
    "LastRowOfBefore": "sparse-rows-float64:forward",
    "LongRowsCut": "sparse-full-float32:forward",
    "CancelledRows": "sparse-rows-float32:forward",
    "RowsByLength": "sparse-columns-float64:forward",
    "RowsWithoutInputs": "sparse-rows-float64:forward",
    "InputsOfEmptyRows": "sparse-slow-float64:forward",
    "AdjointTakesNext": "sparse-columns-float32:vjp",
    "AdjointCutToRows": "sparse-columns-float64:vjp",
    "TransposedOnPattern": "sparse-slow-float32:vjp",
    "TransposedByRowLengths": "sparse-full-float64:vjp",
    "TransposedWithoutValues": "sparse-full-float32:vjp",
    "AdjointCancelledColumns": "sparse-columns-float64:vjp",
    "GradientOnPattern": "sparse-one-float64:vjp",
}


def test_every_bug_of_a_sparse_product_is_listed():
    planted = {name for name, bug in BUGS.items() if bug.__module__ == Entries.__module__}
    assert set(SPARSE) == planted


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", SPARSE)
def test_bugs_of_sparse_products_are_found_by_sparse_cases(name):
    (result,) = check_backend(BUGS[name](), groups=[SPARSE[name]]).failed
    assert result.id == SPARSE[name]


@pytest.mark.long
@pytest.mark.parametrize("name", ["EmptyRowsInARow", "LongRowsCut", "AdjointCancelledColumns"])
def test_bugs_of_sparse_products_are_found_by_nothing_else(name):
    others = detection.Hunt(case for case in vectors.load() if case.group != "sparse")
    assert others.first(BUGS[name]()) is None


def test_a_gradient_on_the_pattern_alone_is_named():
    ((cause, explained),) = check_backend(BUGS["GradientOnPattern"](), groups=["sparse"]).causes
    assert diagnosis("GradientOnPattern") in cause
    assert len(explained) == len(CASES)


def test_entries_are_those_of_the_matrix():
    rng = np.random.default_rng(0)
    for density in (0.0, 0.1, 1.0):
        A = rng.normal(size=(7, 7)) * (rng.random((7, 7)) < density)
        entries = Entries.of(A)
        np.testing.assert_array_equal(entries.dense(), A)
        assert entries.starts.tolist() == Sparse.of(A).indptr.tolist()
        assert all(entries.places < entries.lengths[entries.rows])
