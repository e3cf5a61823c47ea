"""Weights in eight bits, and C code with a sparse A or with such weights: exact products, smaller code, true bounds."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_compose import make
from test_compress import hard
from test_export import build, needs_cc, run
from test_sparse_model import twins

import idl_ref
from idl_ref import (
    ImplicitFunction,
    ImplicitFunctionRows,
    ImplicitFunctionTriu,
    ImplicitModel,
)
from idl_ref.analysis import deviation, prune, quantise
from idl_ref.export import c, export, plan
from idl_ref.export.majorant import Majorant
from idl_ref.quantised import exactly, nearest
from idl_ref.sparse import Sparse

# --- eight bits -------------------------------------------------------------------------------------------------------


@st.composite
def matrices(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    n, k = draw(st.integers(1, 6)), draw(st.integers(1, 40))
    W = rng.standard_normal((n, k)) * draw(st.sampled_from([1e-20, 1e-3, 1, 1e9]))
    if draw(st.booleans()):
        W = np.abs(W)
    W[0] *= draw(st.booleans())
    return W.astype(draw(st.sampled_from(["float32", "float64"])))


@given(matrices())
def test_rows_are_exact_multiples_and_no_norm_grows(W):
    found = nearest(W)
    assert found.q.dtype == np.int8
    for row, q, s, w in zip(found.matrix, found.q, found.scale, W, strict=True):
        assert [Fraction(float(v)) for v in row] == [Fraction(float(s)) * int(k) for k in q]
        assert sum(abs(Fraction(float(v))) for v in row) <= sum(abs(Fraction(float(v))) for v in w)
        largest = float(np.abs(w).max())
        assert np.abs(q.astype(int)).max() == (127 if largest else 0)
        # Half a unit of rounding in each entry, which adds up in the sum that the scale is made smaller for.
        total = float(np.abs(w.astype(float)).sum())
        allowed = 0.51 * largest / 127 * (1 + len(w) * largest / total) if total else 0
        assert np.abs(row.astype(float) - w).max() <= allowed
    again = exactly(found.matrix)
    if W.shape[1] * W.itemsize > W.shape[1] + W.itemsize:
        np.testing.assert_array_equal(again.matrix, found.matrix)
        np.testing.assert_array_equal(again.q, found.q)


def test_rows_below_the_normal_numbers_become_zeros():
    for dtype in (np.float32, np.float64):
        tiny = np.finfo(dtype).tiny
        W = np.array([[1, -0.5], [100 * tiny, tiny], [200 * tiny, tiny], [0, 0]], dtype)
        found = nearest(W)
        assert np.abs(found.q).max(axis=1).tolist() == [127, 0, 127, 0]
        np.testing.assert_array_equal(nearest(found.matrix).matrix, found.matrix)


def test_other_matrices_are_not_held_in_eight_bits():
    rng = np.random.default_rng(0)
    for dtype in ("float32", "float64"):
        W = rng.standard_normal((5, 9)).astype(dtype)
        assert exactly(W) is None
        W = nearest(W).matrix
        W[3, 2] = np.nextafter(W[3, 2], 1)
        assert exactly(W) is None
    assert exactly(np.ones((4, 1), np.float32)) is None  # a byte and a scale would take more space than the number
    assert exactly(np.full((2, 9), 5e-324)) is None  # 5e-324/127 is 0


@pytest.mark.parametrize("kind", ["dense", "low rank", "sparse", "triu"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bias", [False, True])
def test_quantised_models_are_near(kind, dtype, bias):
    f = {"triu": ImplicitFunctionTriu}.get(kind, ImplicitFunctionRows)
    model = make(4, 3, 20, f, 3 if kind == "low rank" else None, bias=bias, dtype=dtype, kappa=0.5)
    model = prune(model, 0.3, sparse=True) if kind == "sparse" else model
    small, U = quantise(model), np.random.default_rng(1).standard_normal((30, 4))
    moved = np.abs(small(U).astype(float) - model(U))
    assert (moved <= deviation(model, small, U) + (1e-5 if dtype == "float32" else 0)).all()
    assert moved.max() < 0.1
    assert small.pattern == model.pattern
    for F, before in zip(
        small.effective_weights().dense().factors, model.effective_weights().dense().factors, strict=True
    ):
        assert (np.abs(F).sum(axis=1, dtype=float) <= np.abs(before).sum(axis=1, dtype=float) * (1 + 1e-7)).all()
    if bias:
        np.testing.assert_array_equal(small.parameters["B"][:, -1], model.parameters["B"][:, -1])
        np.testing.assert_array_equal(small.parameters["D"][:, -1], model.parameters["D"][:, -1])
    np.testing.assert_array_equal(quantise(small).parameters["B"], small.parameters["B"])


def test_what_cannot_be_quantised_is_refused():
    with pytest.raises(TypeError, match="model must be an ImplicitModel; got ndarray"):
        quantise(np.eye(2))
    model = hard(0)
    model.parameters["C"][0, 0] = np.inf
    with pytest.raises(ValueError, match="model must have finite weights; got NaN or inf"):
        quantise(model)


# --- C ----------------------------------------------------------------------------------------------------------------


def exported(model, folder, U, *flags):
    """Export a model to C, compile and run it, and check its outputs; return them, the plan and the source."""
    written = export(model, "c", folder)
    Y, iterations, status = run(build(folder, *flags), U)
    assert status == 0
    assert iterations <= written.plan.iterations
    exact = np.asarray(model.freeze().certified(U).error_bound).max()
    assert np.abs(Y - model(U)).max() <= written.plan.error_bound + exact
    return Y, written.plan, (folder / "idl_model.c").read_text()


@needs_cc
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["dense", "low rank", "sparse", "triu", "sparse triu"])
def test_c_code_of_small_models(kind, dtype, tmp_path):
    f = ImplicitFunctionTriu if "triu" in kind else ImplicitFunctionRows
    settings = {"bias": kind == "dense", "no_D": kind == "low rank", "tol": 1e-6, "backend": "numpy"}
    model = make(4, 3, 21, f, 3 if kind == "low rank" else None, dtype=dtype, **settings)
    if "sparse" in kind:
        model = prune(model, 0.2, sparse=True)
    U = np.random.default_rng(0).uniform(-2, 2, (20, 4)).astype(dtype)
    _, whole, source = exported(model, tmp_path, U)
    assert ("A_BEGIN" in source) == ("sparse" in kind)
    assert "signed char" not in source.replace("unsigned char", "")
    small = quantise(model)
    _, made, source = exported(small, tmp_path, U)
    assert "signed char B[" in source
    assert c.sizes_in_bytes(made)[1] < c.sizes_in_bytes(whole)[1] * (0.75 if "sparse" in kind else 0.6)


@needs_cc
def test_eight_bits_change_no_bit_of_an_output(tmp_path, monkeypatch):
    """The same model with its weights as float32 gives the same outputs, because all products with scales are exact."""
    U = np.random.default_rng(0).uniform(-2, 2, (20, 4)).astype("float32")
    for i, kind in enumerate(("dense", "low rank", "sparse", "triu")):
        f = ImplicitFunctionTriu if kind == "triu" else ImplicitFunctionRows
        model = make(4, 3, 40, f, 3 if kind == "low rank" else None, dtype="float32", tol=1e-6)
        model = quantise(prune(model, 0.2, sparse=True) if kind == "sparse" else model)
        (tmp_path / str(i)).mkdir()
        small = exported(model, tmp_path / str(i), U, "-ffp-contract=off")[0]
        with monkeypatch.context() as patch:
            patch.setattr(c, "exactly", lambda W: None)
            whole = exported(model, tmp_path / str(i), U, "-ffp-contract=off")[0]
        np.testing.assert_array_equal(small, whole)


def test_only_entries_that_are_not_zero_are_exported(tmp_path):
    _, sparse = twins(dtype="float32")
    sparse.parameters["A"][::2] = 0
    made = plan.make(sparse, "c")
    arrays = c.weights(made)
    kept = int(np.count_nonzero(sparse.effective()["A"].data))
    assert (arrays["A"].size, arrays["A_COLUMN"].size, arrays["A_BEGIN"].size) == (kept, kept, 21)
    assert arrays["A_COLUMN"].dtype == np.uint8
    assert made.fingerprint != plan.make(prune(sparse, 0.01, sparse=True), "c").fingerprint
    sparse.parameters["A"][...] = 0
    export(sparse, "c", tmp_path)  # C has no array without entries.
    export(sparse, "numpy", tmp_path)


@pytest.mark.parametrize("target", ["numpy", "onnx"])
def test_other_targets_hold_all_entries(target, tmp_path):
    if target == "onnx":
        pytest.importorskip("onnx")
    dense, sparse = twins(dtype="float32", tol=1e-5)
    ours, theirs = plan.make(sparse, target), plan.make(dense, target)
    assert ours.fingerprint == theirs.fingerprint
    assert export(sparse, target, tmp_path).files


@pytest.mark.parametrize("kappa", [0.5, 0.99])
def test_a_majorant_of_a_sparse_matrix_is_one(kappa):
    rng = np.random.default_rng(0)
    A = rng.random((40, 40)) * (rng.random((40, 40)) < 0.2)
    A *= kappa / A.sum(axis=1).max()
    ours, dense = Majorant((Sparse.of(A),), np.ones((1, 1))), Majorant((A,), np.ones((1, 1)))
    r = rng.random(40) + 0.1
    truth = np.linalg.solve(np.eye(40) - A, r)
    assert (ours.resolvent(r) >= truth).all()
    assert (ours.resolvent(r) <= 1.01 * truth).all()
    (k, w), (k_dense, _) = (M.first_below(r, 1e-6, 10**5) for M in (ours, dense))
    assert k == k_dense
    assert (w >= np.linalg.matrix_power(A, k - 1) @ r).all()
    assert np.isinf(Majorant((Sparse.of(np.eye(3)),), np.ones((1, 1))).resolvent(np.ones(3))).all()


def test_the_command_line_takes_small_models(tmp_path, capsys):
    from idl_ref.__main__ import main

    quantise(prune(ImplicitModel(4, 3, 30, seed=0), 0.1, sparse=True)).save(tmp_path / "model.npz")
    assert main(["check", str(tmp_path / "model.npz")]) == 0
    assert main(["export", str(tmp_path / "model.npz"), "--to", "c", "-o", str(tmp_path)]) == 0
    assert "90 entries" in capsys.readouterr().out


def test_a_quantised_model_that_nothing_shows_to_be_well_posed_is_refused():
    """A is 0.99 I and an antisymmetric part: monotone, though no norm shows it. Rounding takes the latter from it."""
    K = np.random.default_rng(0).standard_normal((14, 14)) * 100
    model = make(2, 1, 14, ImplicitFunction, dtype="float64")
    model.parameters["A"][...] = 0.99 * np.eye(14) + K - K.T
    with pytest.raises(ValueError, match=r"well posed as model is; .*: give the model a smaller κ"):
        quantise(model)


def test_the_digits_keep_their_accuracy():
    x, y, x_test, y_test = idl_ref.datasets.digits()
    model = ImplicitModel(64, 10, 24, kappa=0.5, bias=True, seed=0)
    idl_ref.fit(model, x, y, optimizer=idl_ref.SGD(0.1), epochs=5, batch_size=32, progress=False)
    before = (model(x_test).argmax(axis=1) == y_test).mean()
    assert before - (quantise(model)(x_test).argmax(axis=1) == y_test).mean() < 0.01
