"""Dask gives the same bits as this process: lazy arrays, a LocalCluster, and a cluster started by commands."""

import os
import signal
import sys
import threading
import time

import clusters
import numpy as np
import pytest
import sweep_cases

import idl_ref
from idl_ref import parallel
from idl_ref.parallel import lazy

dask = pytest.importorskip("dask", reason="Dask comes with the extra dask")
pytest.importorskip("distributed", reason="Dask's cluster comes with the extra dask")
import dask.array as da  # noqa: E402

pytestmark = pytest.mark.engine
FIELDS = ("Y", "error_bound", "status", "iterations", "step")
GRID = {"kappa": [0.5, 0.9], "seed": [0, 1, 2]}
BACKENDS = ["numpy", *(["numba"] if idl_ref.available_backends()["numba"] == "available" else [])]


def inputs(m=5003, p=4):
    U = np.random.default_rng(0).standard_normal((m, p)).astype(np.float32)
    U[min(m - 1, 77)] = np.nan
    return U


def predictor(backend="numpy", **settings):
    return idl_ref.ImplicitModel(4, 3, 20, seed=0, backend=backend, **settings).freeze()


def all_of(prediction):
    return dask.compute(*(getattr(prediction, name) for name in FIELDS))


# --- lazy arrays ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("chunks", [(700, 2), (5003, 4), (97, 4), (2048, 1), (1024, 4), ((5000, 3), (1, 3))])
def test_the_bits_are_those_of_the_blocks_of_rows(backend, chunks):
    frozen, U = predictor(backend), inputs()
    prediction = parallel.certified(frozen, da.from_array(U, chunks=chunks))
    parts = [frozen.certified(U[first : first + 1024]) for first in range(0, len(U), 1024)]
    for name, found in zip(FIELDS, all_of(prediction), strict=True):
        expected = np.concatenate([getattr(part, name) for part in parts])
        lazily = getattr(prediction, name)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape) == (lazily.dtype, lazily.shape)
        np.testing.assert_array_equal(found, expected)
    assert all(size % 1024 == 0 for size in prediction.Y.chunks[0][:-1])
    assert all_of(prediction)[2].max() == int(idl_ref.Status.NONFINITE)


def test_hard_equations_have_the_same_bits_and_true_bounds():
    n = 24
    A = np.random.default_rng(1).random((n, n))
    model = idl_ref.ImplicitModel(
        4, 3, n, f=idl_ref.ImplicitFunction, dtype="float64", seed=0, tol=1e-9, backend="numpy"
    )
    model.parameters["A"][...] = 0.99 * A / A.sum(axis=1, keepdims=True)
    model.parameters["B"][...] = np.abs(model.parameters["B"])
    U = np.abs(inputs(300))[:70]
    X = np.linalg.solve(np.eye(n) - model.parameters["A"], model.parameters["B"] @ U.T)  # relu cuts off nothing
    exact = (model.parameters["C"] @ X + model.parameters["D"] @ U.T).T
    Y, bound, status, *_ = all_of(parallel.certified(model.freeze(), da.from_array(U, chunks=(9, 4)), rows=16))
    assert (status <= int(idl_ref.Status.PRECISION_LIMIT)).all()
    assert (np.abs(Y - exact).max(axis=1) <= bound + 1e-10).all()


@pytest.mark.parametrize("m", [0, 1, 1024, 1025])
def test_few_rows(m):
    frozen, U = predictor(), inputs()[:m]
    found = all_of(parallel.certified(frozen, da.from_array(U, chunks=(10, 4))))
    parts = [frozen.certified(U[:1024]), frozen.certified(U[1024:])]
    for name, array in zip(FIELDS, found, strict=True):
        np.testing.assert_array_equal(array, np.concatenate([getattr(part, name) for part in parts]))


def test_raw_images_are_flattened_and_standardised():
    model = idl_ref.ImplicitModel(4, 3, 9, seed=0, backend="numpy")
    model.preprocessing = idl_ref.preprocessing.Standardise(100.0, 50.0)
    frozen, images = model.freeze(), np.random.default_rng(0).integers(0, 255, (40, 2, 2), dtype=np.uint8)
    found = all_of(parallel.certified(frozen, da.from_array(images, chunks=(7, 1, 2)), rows=40))
    for name, array in zip(FIELDS, found, strict=True):
        np.testing.assert_array_equal(array, getattr(frozen.certified(images), name))


def test_nothing_is_computed_before_it_is_asked_for_and_then_once(monkeypatch):
    calls, certified = [], idl_ref.Predictor.certified
    monkeypatch.setattr(idl_ref.Predictor, "certified", lambda self, U: calls.append(len(U)) or certified(self, U))
    prediction = parallel.certified(predictor(), da.from_array(inputs(), chunks=(5003, 4)))
    assert calls == []
    all_of(prediction)
    assert sorted(calls) == [907, 1024, 1024, 1024, 1024]


def test_the_predictor_stands_once_in_the_graph():
    large = idl_ref.ImplicitModel(4, 3, 300, seed=0, backend="numpy").freeze()
    graph = dict(parallel.certified(large, da.zeros((100_000, 4), chunks=(1024, 4))).Y.dask)
    assert sum(str(key).startswith("('certify_rows") for key in graph) == 98
    assert sum("Predictor" in str(key) for key in graph) == 1
    import cloudpickle

    assert len(cloudpickle.dumps(graph)) < 3 * 300 * 300 * 4


REFUSALS = {
    "a model": (idl_ref.ImplicitModel(4, 3, 9), da.zeros((3, 4)), TypeError, "must be a Predictor; .* model.freeze()"),
    "an array": (predictor(), np.zeros((3, 4)), TypeError, "got ndarray: use dask.array.from_array"),
    "a list": (predictor(), [[1.0]], TypeError, "U must be a dask.array; got list"),
    "columns": (predictor(), da.zeros((4, 3)), ValueError, r"with p = 4; got \(4, 3\): samples are rows"),
    "images": (predictor(), da.zeros((3, 2, 2)), ValueError, r"flatten each sample, U.reshape\(len\(U\), 4\)"),
    "one sample": (predictor(), da.zeros(4), ValueError, r"must have shape \(m, p\)"),
    "complex": (predictor(), da.zeros((3, 4), dtype=complex), TypeError, "real numbers .* complex128"),
    "unknown": (predictor(), da.zeros((3, 4))[da.zeros(3) < 1], ValueError, "compute_chunk_sizes"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_refused(case):
    frozen, U, kind, text = REFUSALS[case]
    with pytest.raises(kind, match=text):
        parallel.certified(frozen, U)
    with pytest.raises(ValueError, match="rows must be a whole number"):
        parallel.certified(predictor(), da.zeros((3, 4)), rows=0)


def test_without_dask_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask.array", None)
    with pytest.raises(ImportError, match=r'pip install "idl-ref\[dask\]", or use parallel.predict_file'):
        lazy.certified(predictor(), None)


# --- a cluster of processes -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client():
    with clusters.local() as client:
        yield client


def swept(build=sweep_cases.plain, grid=GRID, data=None, **options):
    return parallel.sweep(build, grid, sweep_cases.data() if data is None else data, progress=False, **options)


def prefixes(client):
    return client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.task_prefixes))


@pytest.mark.parametrize("per_task", [1, 4])
def test_a_sweep_is_the_same_and_its_tasks_have_names(client, per_task):
    assert swept(executor=client.get_executor(), per_task=per_task, in_flight=3).to_csv() == swept().to_csv()
    assert "fit-points" in prefixes(client)


def test_points_with_long_words_do_not_share_a_name(client):
    grid = {"note": ["x" * 80 + "a", "x" * 80 + "b"], "seed": [0]}
    found = swept(sweep_cases.noted, grid, executor=client.get_executor(), per_task=1)
    assert found.rows == swept(sweep_cases.noted, grid).rows
    assert found.rows[0]["digest"] != found.rows[1]["digest"]


def test_a_lazy_prediction_is_the_same_and_its_tasks_have_names(client):
    U = inputs(3000)
    prediction = parallel.certified(predictor(), da.from_array(U, chunks=(1024, 4)))
    expected = dask.compute(*(getattr(prediction, name) for name in FIELDS), scheduler="sync")
    for found, array in zip(all_of(prediction), expected, strict=True):
        np.testing.assert_array_equal(found, array)
    assert {"certify_rows", "take_field"} <= set(prefixes(client))


def test_a_point_that_always_fails_is_a_row(client):
    table = swept(grid={"kappa": [0.5, 1.5], "seed": [0]}, executor=client.get_executor(), per_task=1)
    assert [row["error"][:10] for row in table.rows] == ["", "ValueError"]


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced(client, tmp_path, monkeypatch):
    monkeypatch.setenv("IDL_REF_DRIVER", str(os.getpid()))
    grid = {"folder": [str(tmp_path)], "seed": list(range(8))}
    table = swept(sweep_cases.killed_once, grid, executor=client.get_executor(), per_task=1)
    assert (tmp_path / "killed").exists()
    assert table.rows == swept(sweep_cases.killed_once, grid).rows


@pytest.mark.slow
def test_a_point_that_kills_four_workers_fails_alone(client, monkeypatch):
    monkeypatch.setenv("IDL_REF_DRIVER", str(os.getpid()))
    grid = {"seed": list(range(6))}
    table = swept(sweep_cases.deadly, grid, executor=client.get_executor(), per_task=1, in_flight=1)
    assert [row["seed"] for row in table.failed] == [3]
    assert table.failed[0]["error"].startswith("KilledWorker: ")
    rows = swept(sweep_cases.deadly, grid).rows
    assert [row for row in table.rows if not row["error"]] == [row for row in rows if row["seed"] != 3]


def a_file(folder, m=20_000):
    """Return the files of a model, whose nonnegative rows need many iterations, and of inputs with one NaN."""
    model = idl_ref.ImplicitModel(4, 3, 24, seed=0, mitr=3000, f=idl_ref.ImplicitFunction)
    A = np.abs(model.parameters["A"])
    model.parameters["A"][...] = 0.99 * A / A.sum(axis=1, keepdims=True)
    model.parameters["B"][...] = np.abs(model.parameters["B"])
    model.save(folder / "model.npz")
    np.save(folder / "U.npy", inputs(m))
    return folder / "model.npz", folder / "U.npy"


def predicted(folder, out, **options):
    """Predict the file in small tasks, and return the bytes of all outputs."""
    options = {"rows": 256, "per_task": 1, "progress": False} | options
    parallel.predict_file(folder / "model.npz", folder / "U.npy", folder / out, **options)
    return [(folder / out / f"{name}.npy").read_bytes() for name in FIELDS]


def killing(out, kill):
    """Start a thread that kills a worker when a quarter of the rows is done; it returns how many were not."""
    left = []

    def watch():
        while True:
            time.sleep(0.01)
            if (out / "status.npy").exists() and (out / "status.npy").stat().st_size > 128:
                undone = np.load(out / "status.npy", mmap_mode="r") == -1
                if undone.mean() < 0.75:
                    kill()
                    left.append(int(undone.sum()))
                    return

    thread = threading.Thread(target=watch)
    thread.start()
    return thread, left


@pytest.mark.slow
def test_a_file_is_predicted_the_same_although_a_worker_is_killed(client, tmp_path):
    a_file(tmp_path)
    alone = predicted(tmp_path, "alone", per_task=7)
    assert predicted(tmp_path, "whole", executor=client.get_executor()) == alone
    assert {"predict-rows", "compare-bits"} <= set(prefixes(client))
    victim = next(iter(client.run(os.getpid).values()))
    thread, left = killing(tmp_path / "out", lambda: os.kill(victim, signal.SIGKILL))
    assert predicted(tmp_path, "out", executor=client.get_executor(), in_flight=4) == alone
    thread.join()
    assert left[0] > 0
    client.wait_for_workers(2, timeout=600)
    assert victim not in client.run(os.getpid).values()


# --- a cluster started by commands ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_sweep_on_a_cluster_of_commands_outlives_a_worker(tmp_path):
    x, y, x_test, y_test = sweep_cases.data()
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    (tmp_path / "pids").mkdir()
    grid = {"folder": [str(tmp_path / "pids")], "seed": list(range(16))}
    with clusters.commands(tmp_path) as (client, (_, victim, _)):

        def kill():
            while len(os.listdir(tmp_path / "pids")) < 3:  # this process and both workers have begun
                time.sleep(0.02)
            os.killpg(victim.pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        table = swept(
            sweep_cases.slow,
            grid,
            tmp_path / "data.npz",
            executor=client.get_executor(),
            per_task=1,
            out=tmp_path / "out",
        )
        killer.join()
        assert victim.wait(20) == -signal.SIGKILL
        assert len(client.scheduler_info()["workers"]) == 1
    assert table.rows == swept(sweep_cases.slow, grid).rows


@pytest.mark.slow
def test_a_file_on_a_cluster_of_commands_outlives_a_worker(tmp_path):
    a_file(tmp_path)
    alone = predicted(tmp_path, "alone", per_task=7)
    with clusters.commands(tmp_path) as (client, (_, victim, _)):
        thread, left = killing(tmp_path / "out", lambda: os.killpg(victim.pid, signal.SIGKILL))
        assert predicted(tmp_path, "out", executor=client.get_executor(), in_flight=4) == alone
        thread.join()
        assert left[0] > 0
        assert victim.wait(20) == -signal.SIGKILL


@pytest.mark.slow
def test_the_command_line_predicts_on_a_cluster(tmp_path, capsys):
    from idl_ref.__main__ import main

    a_file(tmp_path, 3000)
    alone = predicted(tmp_path, "alone", rows=1024)
    with clusters.commands(tmp_path, 1) as (client, _):
        words = ["--data", str(tmp_path / "U.npy"), "--dask", client.scheduler.address, "--out", str(tmp_path / "out")]
        assert main(["predict", str(tmp_path / "model.npz"), *words]) in (0, 1)  # 1, because one row is NaN
    assert [(tmp_path / "out" / f"{name}.npy").read_bytes() for name in FIELDS] == alone
