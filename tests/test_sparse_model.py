"""A model whose A is sparse computes, learns, is saved, frozen and exported as the dense model with the same zeros."""

import copy
import os
import pickle
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

import idl_ref
from idl_ref import (
    ImplicitFunction,
    ImplicitFunctionInf,
    ImplicitFunctionMonotone,
    ImplicitFunctionPerron,
    ImplicitFunctionRows,
    ImplicitFunctionTriu,
    ImplicitModel,
)
from idl_ref.analysis import add, cascade, deviation, prune, rescale
from idl_ref.analysis.robust import margins
from idl_ref.npz import FileFormatError
from idl_ref.sparse import Pattern, Sparse
from idl_ref.wellposed import norm_inf, perron_root

FUNCTIONS = (ImplicitFunction, ImplicitFunctionInf, ImplicitFunctionRows)
MIX = ["relu"] * 8 + ["tanh"] * 6 + ["hardtanh"] * 6


def twins(f=ImplicitFunctionRows, backend="numpy", dtype="float64", n=20, seed=0, scale=3.0, **settings):
    """Return a dense model with zeros in A, and the sparse model with the same weights.

    The raw rows are nonnegative and lie outside the ball of `f`, and one row and one column are empty.
    """
    exact = {"tol": 1e-13, "grad_tol": 1e-13, "mitr": 3000, "grad_mitr": 3000} if dtype == "float64" else {}
    settings = {"kappa": 0.99, "bias": True, **exact, **settings}
    model = ImplicitModel(4, 3, n, f=f, dtype=dtype, seed=seed, backend=backend, **settings)
    rng = np.random.default_rng(seed)
    A = rng.random((n, n)) * (rng.random((n, n)) < 0.3)
    A[n // 2], A[:, n // 3] = 0, 0
    A *= (0.95 if f is ImplicitFunction else scale) / A.sum(axis=1).max()
    model.parameters["A"][...] = A
    held = Sparse.of(model.parameters["A"])
    parameters = {name: W.copy() for name, W in model.parameters.items()} | {"A": held.data}
    return model, ImplicitModel.from_parameters(replace(model.settings, pattern=held.pattern), parameters)


def data(m=9, seed=1, dtype="float64"):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((m, 4)).astype(dtype), rng.integers(0, 3, m)


# --- outputs, gradients, training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["relu", "tanh", MIX], ids=["relu", "tanh", "mix"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("f", FUNCTIONS)
def test_outputs_and_gradients_are_those_of_the_dense_model(f, backend, dtype, activation):
    dense, sparse = twins(f, backend, dtype, activation=activation)
    U, labels = data(dtype=dtype)
    # Both solutions stop at the tolerance of float32, 3e-6, which κ = 0.99 may multiply by 100.
    close = {"rtol": 0, "atol": 1e-10 if dtype == "float64" else 1e-4}
    np.testing.assert_allclose(sparse(U), dense(U), **close)
    G, G_dense = (model.loss_and_gradients(U, labels)[1] for model in (sparse, dense))
    assert G["A"].shape == sparse.parameters["A"].shape
    np.testing.assert_allclose(G["A"], G_dense["A"][dense.parameters["A"] != 0], **close)
    for name in "BCDU":
        np.testing.assert_allclose(G[name], G_dense[name], **close)
    found, truth = sparse.equilibrium(U), dense.equilibrium(U)
    assert (np.abs(found.X - truth.X).max(axis=0) <= found.error_bound + truth.error_bound).all()


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("f", FUNCTIONS)
def test_training_changes_the_entries_and_leaves_all_others_zero(f, backend):
    """A step of the sparse model is a step of the dense one along the gradient on the pattern, by hand."""
    dense, sparse = twins(f, backend, kappa=0.8)
    U, labels = data(30)
    zero, pattern, rule = dense.parameters["A"] == 0, sparse.pattern, idl_ref.SGD(0.1, momentum=0.0)
    for some in [slice(j, j + 10) for j in (0, 10, 20)] * 3:
        G = dense.loss_and_gradients(U[some], labels[some])[1]
        G["A"][zero] = 0
        for name, W in dense.parameters.items():
            W -= 0.1 * G[name]
        dense.project()
        idl_ref.fit(sparse, U[some], labels[some], optimizer=rule, epochs=1, batch_size=10, progress=False)
    assert sparse.pattern is pattern
    assert sparse.parameters["A"].shape == (pattern.entries,)
    np.testing.assert_allclose(sparse.parameters["A"], dense.parameters["A"][~zero], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(sparse.parameters["B"], dense.parameters["B"], rtol=1e-9, atol=1e-12)
    if f is not ImplicitFunction:
        assert norm_inf(sparse.effective()["A"].dense()) <= 0.8


@pytest.mark.sampled(3)
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("f", FUNCTIONS)
def test_gradients_pass_the_check(f, backend):
    _, sparse = twins(f, backend, kappa=0.9, scale=1.7)
    assert idl_ref.check_gradients(sparse, *data(5)).passed


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_training_goes_on_from_a_checkpoint_with_the_same_bits(backend, tmp_path):
    U, labels = data(40)
    run = {"batch_size": 8, "progress": False, "optimizer": None}
    whole, parts = twins(backend=backend)[1], twins(backend=backend)[1]
    run["optimizer"] = idl_ref.Adam(0.01)
    idl_ref.fit(whole, U, labels, epochs=4, **run)
    for epochs in (2, 4):
        run["optimizer"] = idl_ref.Adam(0.01)
        idl_ref.fit(parts, U, labels, epochs=epochs, checkpoint=tmp_path / "kept.npz", **run)
    for name, W in whole.parameters.items():
        np.testing.assert_array_equal(parts.parameters[name], W)


def test_a_model_can_begin_sparse():
    """Initial weights on a pattern have the norm 3κ/4, as those of dense models have."""
    pattern = Sparse.of((np.random.default_rng(0).random((20, 20)) < 0.2).astype(np.float32)).pattern
    settings = replace(ImplicitModel(4, 3, 20).settings, pattern=pattern)
    model = ImplicitModel.from_parameters(settings, settings.initial_parameters(np.random.default_rng(0)))
    assert norm_inf(model.effective()["A"].dense()) == pytest.approx(0.75 * 0.99)
    assert model(np.ones((2, 4))).shape == (2, 3)


def test_a_pattern_without_entries_is_a_model_without_memory():
    pattern = Pattern(np.zeros(0, int), np.zeros(21, int), 20)
    for backend in ("numpy", "numba"):
        settings = replace(ImplicitModel(4, 3, 20, backend=backend).settings, pattern=pattern)
        model = ImplicitModel.from_parameters(settings, settings.initial_parameters(np.random.default_rng(0)))
        P, U = model.parameters, np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)
        expected = np.maximum(U @ P["B"].T, 0) @ P["C"].T + U @ P["D"].T
        np.testing.assert_allclose(model(U), expected, atol=1e-5)
        assert model.loss_and_gradients(U, [0, 1, 2, 0, 1])[1]["A"].shape == (0,)
        assert model.freeze()(U).shape == (5, 3)


# --- files, serving ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
@pytest.mark.parametrize("f", FUNCTIONS)
def test_files_hold_the_entries_and_where_they_are(f, ending, tmp_path):
    if ending == "safetensors":
        pytest.importorskip("safetensors")
    _, sparse = twins(f, dtype="float32")
    path, U = tmp_path / f"model.{ending}", data(dtype="float32")[0]
    sparse.save(path)
    loaded = idl_ref.load(path, backend="numpy", tol=1e-5)
    assert loaded.pattern == sparse.pattern
    assert loaded.tol == 1e-5
    np.testing.assert_array_equal(idl_ref.load(path, backend="numpy")(U), sparse(U))


def test_a_file_shrinks_with_the_entries(tmp_path):
    model = ImplicitModel(4, 3, 400, seed=0)
    model.save(tmp_path / "dense.npz")
    prune(model, 0.02, sparse=True).save(tmp_path / "sparse.npz")
    sizes = [os.path.getsize(tmp_path / f"{name}.npz") for name in ("dense", "sparse")]
    # An entry takes 8 bytes in the place of 4; B, C, D and the header are the same.
    assert sizes[1] < 0.02 * 2 * 4 * 400**2 + 4 * (400 * 8) + 20_000 < sizes[0] / 6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"A_indices": [0, 1, 20]}, "pattern of A is none: indices must be columns from 0 to 19"),
        ({"A_indices": [1, 0, 2]}, "pattern of A is none: the columns of each row must ascend"),
        ({"A_indptr": [0] * 20 + [2]}, "pattern of A is none: indptr must ascend from 0 to 3"),
        ({"A_indptr": [0, 3]}, r"A_indptr must have shape \(21,\)"),
        ({"A_indices": [0.0, 1.0, 2.0]}, "A_indices must have shape .* dtype int32"),
        ({"entries": 401}, "entries must be"),
        ({"entries": "3"}, "entries must be"),
        ({"entries": 2}, r"A must have shape \(2,\)"),
    ],
)
def test_a_file_with_a_wrong_pattern_is_refused(change, words, tmp_path, monkeypatch):
    from idl_ref import io
    from idl_ref.interface import described

    pattern = Pattern([0, 1, 2], [0] * 20 + [3], 20)
    settings = replace(ImplicitModel(4, 3, 20).settings, pattern=pattern)
    model = ImplicitModel.from_parameters(settings, settings.initial_parameters(np.random.default_rng(0)))
    header, arrays = described(model, model.parameters)
    for name, value in change.items():
        if name == "entries":
            header["settings"]["entries"] = value
        else:
            array = np.array(value)
            arrays[name] = array if array.dtype == float else array.astype(np.int32)
    io.write(tmp_path / "model.npz", header, arrays)
    with pytest.raises(FileFormatError, match=words):
        idl_ref.load(tmp_path / "model.npz")


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_frozen_model_gives_the_same_answers_and_true_bounds(backend):
    dense, sparse = twins(backend=backend, dtype="float32")
    exact = ImplicitModel.from_parameters(
        replace(dense.settings, dtype="float64", tol=1e-13, mitr=5000, backend="numpy"),
        {name: W.astype(float) for name, W in dense.parameters.items()},
    )
    U = data(20, dtype="float32")[0]
    frozen, truth = sparse.freeze(), exact(U)
    np.testing.assert_array_equal(frozen(U), sparse(U))
    certified = frozen.certified(U)
    assert certified.converged
    # The float32 rounding of the map `f` is part of the weights, and is not bounded by the certificate.
    assert (np.abs(certified.Y - truth).max(axis=1) <= certified.error_bound + 1e-5).all()
    assert frozen.certified(U, seconds=1.0).converged
    sparse.parameters["A"][...] = 0
    np.testing.assert_array_equal(frozen(U), certified.Y)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(frozen))(U), certified.Y)


def test_copies_and_pickles():
    _, sparse = twins()
    U = data()[0]
    for other in (copy.deepcopy(sparse), pickle.loads(pickle.dumps(sparse))):
        np.testing.assert_array_equal(other(U), sparse(U))
        assert other.settings == sparse.settings
        assert hash(other.pattern) == hash(sparse.pattern)
        other.parameters["A"][...] *= 0.5
        assert np.abs(other(U) - sparse(U)).max() > 1e-6
    assert sparse.pattern != Pattern([0], [0] * 20 + [1], 20)
    assert sparse.pattern != "pattern"
    assert f", {sparse.pattern.entries} entries" in repr(sparse)
    with pytest.raises(ValueError, match="read-only"):
        sparse.pattern.indices[0] = 1


def test_memory_and_time_grow_with_the_entries(tmp_path):
    """Nothing of a model with n = 4,000 fills an n × n matrix, which would take 64 MB in float32."""
    n, rng = 4000, np.random.default_rng(0)
    columns = np.sort(rng.integers(0, n, (n, 4)), axis=1)
    columns += np.arange(4)  # ascending without a repetition
    pattern = Pattern(np.minimum(columns, n - 4 + np.arange(4)).ravel(), 4 * np.arange(n + 1), n)
    settings = replace(ImplicitModel(4, 3, 1, f=ImplicitFunctionRows).settings, hidden_dim=n, pattern=pattern)
    tracemalloc.start()
    model = ImplicitModel.from_parameters(settings, settings.initial_parameters(rng))
    U, labels = data(8, dtype="float32")
    model.loss_and_gradients(U, labels)
    idl_ref.fit(model, U, labels, optimizer=idl_ref.SGD(0.1), epochs=1, batch_size=4, progress=False)
    model.save(tmp_path / "model.npz")
    idl_ref.load(tmp_path / "model.npz").freeze().certified(U)
    idl_ref.export.export(model, "c", tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


# --- what is made of sparse models ------------------------------------------------------------------------------------


def test_pruning_makes_sparse_models_and_dense_ones_again():
    model = ImplicitModel(4, 3, 20, f=ImplicitFunctionRows, dtype="float64", seed=0, bias=True)
    U = data()[0]
    zeros, sparse = prune(model, 0.2), prune(model, 0.2, sparse=True)
    assert sparse.pattern.entries == 80
    assert sparse.f is ImplicitFunctionRows
    np.testing.assert_array_equal(sparse.effective()["A"].dense(), zeros.effective()["A"])
    np.testing.assert_allclose(sparse(U), zeros(U), atol=1e-5)
    assert (np.abs(model(U) - sparse(U)) <= deviation(model, sparse, U)).all()
    again = prune(sparse, 1)
    assert again.pattern is None
    np.testing.assert_array_equal(again.parameters["A"], zeros.parameters["A"])
    assert prune(sparse, 0.1, sparse=True).pattern.entries == 40
    perron = ImplicitModel(4, 3, 20, f=ImplicitFunctionPerron, seed=0)
    assert prune(perron, 0.2, sparse=True).f is ImplicitFunction
    low = ImplicitModel(4, 3, 20, is_low_rank=True, rank=3, seed=0)
    assert prune(low, 0.2, sparse=True).pattern.entries == 80


def test_compositions_robustness_and_rescaling_take_sparse_models():
    dense, sparse = twins(kappa=0.5)
    U, labels = data()
    third = ImplicitModel(3, 2, 5, dtype="float64", seed=3)
    np.testing.assert_allclose(cascade(third, sparse)(U), cascade(third, dense)(U), atol=1e-5)
    np.testing.assert_allclose(add(sparse, dense)(U), 2 * dense(U), atol=1e-5)
    for method in ("interval", "crown"):
        ours, theirs = (margins(model, U, labels, 0.01, method=method, clip=None).lower for model in (sparse, dense))
        np.testing.assert_allclose(ours, theirs, atol=1e-8)
    np.testing.assert_allclose(rescale(sparse).parameters["A"], rescale(dense).parameters["A"], atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_bounds_of_the_perron_root_hold_for_the_whole_matrix(seed):
    rng = np.random.default_rng(seed)
    A = rng.random((30, 30)) * (rng.random((30, 30)) < 0.06)
    truth = np.abs(np.linalg.eigvals(A)).max()
    found = perron_root(Sparse.of(A))
    assert found.lower <= truth + 1e-9
    assert truth * (1 - 1e-9) <= found.upper <= truth * 1.1 + 0.05
    assert perron_root(Sparse.of(np.zeros((3, 3)))) == (0, 0)
    assert perron_root(Sparse(np.array([np.nan]), [0], [0, 1], (1, 1))).upper == np.inf


def test_the_report_says_why_a_sparse_model_is_well_posed():
    from idl_ref import activations, reasons

    dense, sparse = twins(kappa=0.9)
    for f in (dense, sparse):
        assert reasons.strongest(f.effective_weights().factors, activations.get("relu")).name == "norm"
    big = Sparse(np.array([0.5, 3.0]), [1, 2], [0, 1, 2, *[2] * 4998], (5000, 5000))
    assert reasons.strongest((big,), activations.get("relu")).name == "Perron root"


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"is_low_rank": True, "rank": 2}, "a sparse A has no factors L and R"),
        (
            {"f": ImplicitFunctionPerron},
            "f=ImplicitFunctionPerron needs a dense A, because .*; got a sparse A: use Impl",
        ),
        ({"f": ImplicitFunctionMonotone}, "f=ImplicitFunctionMonotone needs a dense A"),
        ({"f": ImplicitFunctionTriu}, "f=ImplicitFunctionTriu needs a dense A"),
        ({"backend": "cuda"}, 'backend "cuda" needs a dense A; got a sparse one'),
        ({"method": "blocks"}, 'method "blocks" needs a dense A; got a sparse one: use method="auto"'),
        ({"pattern": "diagonal"}, "pattern must be a Pattern of 20 rows; got 'diagonal'"),
        ({"pattern": Pattern([0], [0, 1], 1)}, r"pattern must be a Pattern of 20 rows; got Pattern\(1 of 1 × 1"),
    ],
)
def test_what_a_sparse_model_cannot_be_is_refused(change, words):
    _, sparse = twins()
    with pytest.raises(ValueError, match=words):
        replace(sparse.settings, **change)


def test_wrong_entries_are_refused():
    _, sparse = twins()
    sparse.parameters["A"] = np.zeros((20, 20))
    with pytest.raises(ValueError, match=r"parameter A must be \(\d+,\) float64; got \(20, 20\) float64"):
        sparse(data()[0])
    with pytest.raises(ValueError, match="indices must be columns from 0 to 1"):
        Pattern([2], [0, 1, 1], 2)
    _, sparse = twins()
    sparse.parameters["A"][0] = np.nan
    with pytest.raises(ValueError, match="A must be finite for predictions"):
        sparse.freeze()
    with pytest.raises(ValueError, match="A must be finite to be exported"):
        idl_ref.export.export(sparse, "c", ".")
