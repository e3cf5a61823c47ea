"""A predictor gives the model's answers with valid bounds; it is immutable, and safe with threads and after forks."""

import copy
import itertools
import multiprocessing
import os
import pickle
import threading
import tracemalloc
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import ACTIVATIONS

import idl_ref
from idl_ref import (
    ImplicitFunction,
    ImplicitFunctionInf,
    ImplicitFunctionRows,
    ImplicitFunctionTriu,
    ImplicitModel,
)
from idl_ref import predictor as predictor_module

TWINS = [name for name in ("numpy", "numba") if idl_ref.available_backends()[name] == "available"]
FUNCTIONS = (ImplicitFunctionInf, ImplicitFunctionRows, ImplicitFunctionTriu, ImplicitFunction)


def hard_model(backend, **settings):
    """Return a model with A ≥ 0, row sums κ and positive Z, which takes thousands of Picard steps."""
    model = ImplicitModel(3, 2, 20, kappa=0.999, seed=1, backend=backend, **settings)
    model.parameters["A"][...] = 1
    for name in "BCD":
        model.parameters[name][...] = np.abs(model.parameters[name])
    return model


def exact(model, U):
    """Return Ŷ in float64, with a tolerance far below every bound."""
    settings = replace(
        model.settings, dtype="float64", tol=1e-15, mitr=100_000, method="auto", on_failure="raise", backend="numpy"
    )
    double = ImplicitModel.from_parameters(
        replace(settings, f=ImplicitFunction), {name: W.astype(np.float64) for name, W in model.effective().items()}
    )
    return double(np.asarray(U, model.dtype).astype(np.float64))


@settings(max_examples=30)
@given(
    st.sampled_from(TWINS), st.sampled_from(FUNCTIONS), st.sampled_from(ACTIVATIONS), st.sampled_from([None, 1, 3]),
    st.booleans(), st.booleans(), st.sampled_from(["float32", "float64"]),
    st.sampled_from(["auto", "picard", "anderson"]), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_it_predicts_what_the_model_does_within_its_certificate(
    twin, f, activation, rank, no_D, bias, dtype, method, seed
):
    rng = np.random.default_rng(seed)
    n, p, q = rng.integers(3, 20, 3)
    rank = None if f is ImplicitFunctionTriu else rank
    settings = {"is_low_rank": rank is not None, "rank": rank, "activation": activation, "dtype": dtype}
    settings |= {"no_D": no_D, "bias": bias, "method": method, "backend": twin, "mitr": 3000}
    model = ImplicitModel(int(p), int(q), int(n), f, seed=seed, kappa=0.9, **settings)
    predictor = model.freeze()
    for m in (1, 3):
        U = rng.standard_normal((m, p)) * 10.0 ** rng.integers(-3, 3)
        Y, prediction = predictor(U), predictor.certified(U)
        assert prediction.converged
        np.testing.assert_array_equal(Y, prediction.Y)
        truth = exact(model, U)
        error = np.abs(Y - truth).max(axis=1)
        assert (error <= prediction.error_bound).all()
        assert (np.abs(model(U) - Y).max(axis=1) <= 2 * prediction.error_bound).all()
        assert (prediction.error_bound < 1e-3 * (1 + np.abs(U).max()) * n * p).all()


@pytest.mark.parametrize("twin", TWINS)
def test_slow_samples_go_to_the_accelerated_solver(twin):
    model = hard_model(twin)
    prediction = model.freeze().certified(np.ones((1, 3)))
    assert prediction.converged
    assert prediction.iterations[0] < 40
    np.testing.assert_allclose(prediction.Y, exact(model, np.ones((1, 3))), rtol=1e-3)


@pytest.mark.parametrize("twin", TWINS)
def test_what_fails_is_reported_as_the_model_does(twin):
    U = np.ones((1, 3))
    with pytest.raises(idl_ref.NotConvergedError, match="1 of 1 samples not converged after 2 iterations"):
        hard_model(twin, mitr=2, on_failure="raise").freeze()(U)
    with pytest.warns(idl_ref.ConvergenceWarning, match="Raise mitr") as caught:
        hard_model(twin, mitr=2).freeze()(U)
    assert caught[0].filename == __file__
    predictor = hard_model(twin, mitr=2, on_failure="ignore").freeze()
    np.testing.assert_allclose(predictor(U), predictor.certified(U).Y)
    assert predictor.certified(U).status[0] == idl_ref.Status.MAX_ITER
    U[0, 1] = np.nan
    for samples in (U, np.ones((3, 3)) * U):
        prediction = hard_model(twin).freeze().certified(samples)
        assert (prediction.status == idl_ref.Status.NONFINITE).all()
        assert np.isnan(prediction.Y).all()
        assert np.isinf(prediction.error_bound).all()


@pytest.mark.parametrize("twin", TWINS)
def test_the_bound_is_infinite_where_nothing_contracts(twin):
    model = ImplicitModel(2, 1, 2, ImplicitFunction, backend=twin, seed=0)
    model.parameters["A"][...] = [[0.0, -1.5], [1.5, 0.0]]
    model.parameters["B"][...] = 1
    for m in (1, 2):
        prediction = model.freeze().certified(np.full((m, 2), -1.0))  # With relu, x = 0 is an equilibrium.
        assert prediction.converged
        assert np.isinf(prediction.error_bound).all()


@pytest.fixture
def clock(monkeypatch):
    """Replace the clock of the predictor by one that advances by one second at each reading."""
    readings = itertools.count()
    monkeypatch.setattr(predictor_module, "time", SimpleNamespace(perf_counter=lambda: float(next(readings))))
    return readings


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("m", [1, 5])
def test_a_time_limit_returns_the_best_iterate_with_its_certificate(twin, m, clock):
    model = hard_model(twin, method="picard", mitr=10**6, tol=1e-7, dtype="float64", on_failure="raise")
    U = np.ones((m, 3))
    truth, predictor = exact(model, U), model.freeze()
    hurried = predictor.certified(U, seconds=0)
    assert (hurried.iterations == 1).all()
    bounds = [hurried.error_bound.max()]
    for seconds in (6, 60):
        prediction = predictor.certified(U, seconds)
        assert (np.abs(prediction.Y - truth).max(axis=1) <= prediction.error_bound).all()
        bounds.append(prediction.error_bound.max())
    assert bounds[0] > bounds[1] > bounds[2]
    assert prediction.converged
    with pytest.raises(ValueError, match="seconds must be a number ≥ 0"):
        predictor.certified(U, seconds=-1)


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize(
    ("seconds", "iterations"),
    [
        (0, [1]),
        # An application takes one second, so that a second application would leave no time for Ŷ.
        (2, [1]),
        (3, [1, 1]),
        # At two applications per second, four would fit into the last two seconds, but one is reserved for Ŷ.
        (4, [1, 2, 3, 2]),
        (10, [1, 2, 4, 8, 16, 32, 64, 128, 255, 254]),
    ],
)
def test_a_time_limit_is_kept(twin, seconds, iterations, clock):
    """Picard's iteration oscillates without converging; at the time limit, the best iterate is returned."""
    model = ImplicitModel(
        2, 1, 2, ImplicitFunction, activation="identity", backend=twin, mitr=10**9, method="picard", seed=0
    )
    model.parameters["A"][...] = [[0.0, -1.0], [1.0, 0.0]]
    prediction = model.freeze().certified(np.ones((1, 2)), seconds)
    assert prediction.status[0] == idl_ref.Status.MAX_ITER
    assert prediction.iterations[0] == sum(iterations)
    assert next(clock) == len(iterations) + 1  # The clock is read at the start and after each chunk.
    assert len(iterations) <= max(seconds, 1)
    assert np.isfinite(prediction.Y).all()


def test_inputs_in_any_layout_and_of_any_kind():
    predictor = ImplicitModel(4, 2, 8, seed=0).freeze()
    u = np.linspace(-1, 1, 4, dtype=np.float32).reshape(1, 4)
    Y = predictor(u)
    frozen = u.copy()
    frozen.flags.writeable = False
    for same in (u.tolist(), u.astype(float), np.repeat(u, 2, axis=1)[:, ::2], np.asfortranarray(u), frozen):
        np.testing.assert_array_equal(predictor(same), Y)
    assert predictor(np.empty((0, 4))).shape == (0, 2)
    for wrong in (u[0], u[:, :3], u[None]):
        with pytest.raises(ValueError, match=r"U must have shape \(m, p\) with p = 4"):
            predictor(wrong)
    with pytest.raises(TypeError, match="real numbers"):
        predictor(u * 1j)


def test_it_is_immutable_and_apart_from_the_model():
    model = ImplicitModel(4, 2, 8, bias=True, seed=0)
    u, predictor = np.ones((1, 4)), model.freeze()
    Y = predictor(u).copy()
    for parameter in model.parameters.values():
        parameter += 1
    np.testing.assert_array_equal(predictor(u), Y)
    for change in (lambda: setattr(predictor, "settings", None), lambda: delattr(predictor, "weights")):
        with pytest.raises(AttributeError, match="cannot be changed"):
            change()
    with pytest.raises(ValueError, match="read-only"):
        predictor.weights["B"][0, 0] = 1
    for twin in (copy.deepcopy(predictor), pickle.loads(pickle.dumps(predictor)), copy.copy(predictor)):
        np.testing.assert_array_equal(twin(u), Y)
    assert "Predictor(4, 2, 8" in repr(predictor)
    model.parameters["B"][0, 0] = np.nan
    with pytest.raises(ValueError, match="B must be finite for predictions"):
        model.freeze()
    with pytest.raises(ValueError, match=r"serves on the CPU|is not available"):
        ImplicitModel(4, 2, 8, backend="cuda").freeze()


@pytest.mark.parametrize("twin", TWINS)
def test_sixteen_threads_get_what_one_gets(twin):
    predictor = ImplicitModel(6, 3, 30, backend=twin, seed=0).freeze()
    U = np.random.default_rng(0).standard_normal((64, 6)).astype(np.float32)
    alone = [predictor(U[i : i + 1]) for i in range(64)]
    whole, failures, barrier = predictor(U), [], threading.Barrier(16)

    def work(seed):
        barrier.wait()
        for i in np.random.default_rng(seed).integers(0, 64, 300):
            if not np.array_equal(predictor(U[i : i + 1]), alone[i]):
                failures.append(i)
            if i < 4 and not np.array_equal(predictor(U), whole):
                failures.append("all")

    threads = [threading.Thread(target=work, args=[seed]) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(predictor._one.free) <= 16


def in_child(predictor, U, results):
    results.put((predictor(U[:1]), predictor(U)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("twin", TWINS)
def test_after_a_fork(twin):
    predictor = ImplicitModel(6, 3, 300, backend=twin, seed=0).freeze()
    U = np.random.default_rng(0).standard_normal((500, 6)).astype(np.float32)
    here = predictor(U[:1]), predictor(U)  # Several threads have run before the fork.
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    with warnings.catch_warnings():
        # Python 3.12 and later warn of a fork in a process with threads, which is what this test is about.
        warnings.simplefilter("ignore", DeprecationWarning)
        children = [context.Process(target=in_child, args=[predictor, U, results]) for _ in range(3)]
        for child in children:
            child.start()
    for _ in children:
        for there, expected in zip(results.get(timeout=600), here, strict=True):
            np.testing.assert_array_equal(there, expected)
    for child in children:
        child.join(60)
        assert child.exitcode == 0


@pytest.mark.slow
@pytest.mark.parametrize(("twin", "calls"), [(twin, {"numba": 1_000_000, "numpy": 50_000}[twin]) for twin in TWINS])
def test_memory_does_not_grow(twin, calls):
    predictor, u = ImplicitModel(2, 1, 2, backend=twin, seed=0).freeze(), np.ones((1, 2), np.float32)
    predictor(u)
    resident = resident_bytes()
    for _ in range(calls):
        predictor(u)
    assert resident_bytes() - resident < 2 << 20
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(1000):
            predictor(u)
            predictor.certified(u)
        assert tracemalloc.get_traced_memory()[0] - before < 4096
    finally:
        tracemalloc.stop()


def resident_bytes():
    """Return the resident memory of this process in bytes, or 0 if the system does not report it."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("activation", idl_ref.activations.RANGES)
def test_no_bound_of_a_prediction_exceeds_what_the_range_of_phi_allows(twin, activation):
    """The state of a bounded φ is known to within its range, however inaccurate the equation is."""
    low, high = idl_ref.activations.get(activation).range
    model = idl_ref.ImplicitModel(
        2, 1, 3, idl_ref.ImplicitFunction, activation=activation, backend=twin, seed=0, no_D=True, on_failure="ignore"
    )
    model.parameters["A"][...] = 5
    for U in (np.ones((1, 2)), np.full((3, 2), 1e30)):
        limit = np.abs(model.parameters["C"]).sum() * (high - low) * (1 + 1e-5) + 1e-5
        assert (model.freeze().certified(U).error_bound <= limit).all()
        assert (model.equilibrium(U).error_bound <= (high - low) * (1 + 1e-5)).all()
