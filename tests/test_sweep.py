"""A sweep trains what `fit` trains, in any order and on any executor; it resumes, and refuses what is not its own."""

import csv
import hashlib
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import clusters
import numpy as np
import pytest
import sweep_cases

import idl_ref
from idl_ref import datasets, parallel
from idl_ref.parallel import points, results

GRID = {"kappa": [0.5, 0.9], "seed": [0, 1, 2]}
ROOT = Path(idl_ref.__file__).parents[1]


def swept(build=sweep_cases.plain, grid=GRID, data=None, **options):
    return parallel.sweep(build, grid, sweep_cases.data() if data is None else data, progress=False, **options)


@pytest.fixture(scope="module")
def expected():
    return swept().to_csv()


@pytest.fixture(scope="module")
def pool():
    """Two processes that share nothing with this one."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as executor:
        yield executor


# --- what is in the table ---------------------------------------------------------------------------------------------


def test_a_row_is_what_fit_returns():
    x, y, *validation = sweep_cases.data()
    rows = swept().rows
    assert [(row["kappa"], row["seed"]) for row in rows] == [(k, s) for k in (0.5, 0.9) for s in (0, 1, 2)]
    for row in rows:
        model, options = sweep_cases.plain(row["kappa"], row["seed"])
        history = idl_ref.fit(model, x, y, validation=tuple(validation), progress=False, **options)
        assert row["train_loss"] == history.loss[-1]
        assert row["train_accuracy"] == history.accuracy[-1]
        assert row["validation_loss"] == history.validation_loss[-1]
        assert row["validation_accuracy"] == history.validation_accuracy[-1]
        assert row["iterations"] == history.forward_iterations[-1][0]
        assert (row["norm"], row["unconverged"], row["epochs_done"]) == (history.norm[-1], 0, 2)
        state = hashlib.sha256()
        for name in sorted(model.parameters):
            W = model.parameters[name]
            state.update(f"{name}{W.shape}{W.dtype.str}".encode() + W.tobytes())
        assert (row["digest"], row["error"]) == (state.hexdigest()[:16], "")


def test_hard_columns_are_counted_and_do_not_warn():
    table = swept(sweep_cases.hard, [{"kappa": 0.99, "loss": "cross_entropy", "seed": s} for s in range(2)])
    assert table.failed == []
    assert all(0.98 < row["norm"] <= 0.99 * (1 + 1e-12) for row in table.rows)
    assert all(row["iterations"] > 3 for row in table.rows)


def test_what_does_not_converge_is_counted_and_does_not_warn():
    (row,) = swept(sweep_cases.few_iterations, {"seed": [0]}).rows
    assert row["unconverged"] > 0
    assert row["error"] == ""


def test_csv_and_json_hold_every_digit(expected):
    rows = swept().rows
    read = list(csv.DictReader(io.StringIO(expected)))
    assert list(read[0]) == [*GRID, *results.COLUMNS]
    for row, fields in zip(rows, read, strict=True):
        assert {name: float(fields[name]) for name in ("train_loss", "norm", "kappa")} == {
            name: row[name] for name in ("train_loss", "norm", "kappa")
        }
        assert fields["digest"] == row["digest"]
    assert json.loads(swept().to_json()) == rows


def test_the_best_row():
    table = swept()
    losses = [row["validation_loss"] for row in table.rows]
    assert table.best() is table.rows[int(np.argmin(losses))]
    assert table.best("train_accuracy", largest=True)["train_accuracy"] == max(r["train_accuracy"] for r in table.rows)
    with pytest.raises(ValueError, match="column must hold a finite number in at least one row; got none in error"):
        table.best("error")
    with pytest.raises(ValueError, match=r"column must be one of 'kappa', .*; got 'loss'"):
        table.best("loss")


def test_without_validation_and_without_epochs():
    x, y = datasets.two_moons(20)
    (row,) = swept(grid={"kappa": [0.5], "seed": [0]}, data=(x, y)).rows
    assert row["validation_loss"] is None
    assert row["train_loss"] > 0


# --- the same on every executor ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_task", [1, 4, 100])
def test_grouping_and_threads_change_nothing(expected, per_task):
    assert swept(per_task=per_task).to_csv() == expected
    with ThreadPoolExecutor(3) as executor:
        assert swept(executor=executor, per_task=per_task, in_flight=2).to_csv() == expected


def test_the_order_changes_nothing(expected):
    listed = [{"kappa": k, "seed": s} for k in GRID["kappa"] for s in GRID["seed"]]
    assert sorted(swept(grid=listed[::-1], per_task=1).to_csv().splitlines()) == sorted(expected.splitlines())


def test_processes_change_nothing(expected, pool, tmp_path):
    assert swept(executor=pool, per_task=2).to_csv() == expected
    x, y, x_test, y_test = sweep_cases.data()
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    assert swept(executor=pool, data=tmp_path / "data.npz").to_csv() == expected


def test_the_compiled_twin_is_the_same_in_processes(pool):
    pytest.importorskip("numba")
    grid = {"seed": [0, 1]}
    assert swept(sweep_cases.compiled, grid, executor=pool, per_task=1).rows == swept(sweep_cases.compiled, grid).rows


def test_loky_changes_nothing(expected):
    loky = pytest.importorskip("loky")
    executor = loky.ProcessPoolExecutor(2)
    try:
        assert swept(executor=executor, per_task=2).to_csv() == expected
    finally:
        executor.shutdown(kill_workers=True)


@pytest.mark.slow
def test_fits_in_threads_do_not_share_an_optimizer():
    grid = {"seed": list(range(8))}
    with ThreadPoolExecutor(4) as executor:
        found = swept(sweep_cases.shared_optimizer, grid, executor=executor, per_task=1)
    assert found.rows == swept(sweep_cases.shared_optimizer, grid).rows


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_fit_has_one_thread(backend):
    numba = pytest.importorskip("numba")
    pytest.importorskip("threadpoolctl")
    before = numba.get_num_threads()
    if before == 1:
        pytest.skip("this machine has one core")
    with ThreadPoolExecutor(1) as executor:
        for where in (None, executor):
            (row,) = swept(sweep_cases.threads, [{"backend": backend, "seed": 0}], executor=where).rows
            assert row["train_loss"] == (101 if backend == "numba" else 1 + 100 * before)
    assert numba.get_num_threads() == before


# --- a sweep that is interrupted --------------------------------------------------------------------------------------


def files(folder):
    return [(folder / name).read_bytes() for name in (results.JSON, results.CSV)]


def test_a_sweep_resumes_with_what_is_missing(tmp_path, expected, monkeypatch):
    swept(out=tmp_path / "whole")
    assert files(tmp_path / "whole")[1].decode() == expected
    swept(grid={"kappa": [0.5], "seed": [0, 1, 2]}, out=tmp_path / "part")
    sweep_cases.CALLS.clear()
    assert swept(out=tmp_path / "part").to_csv() == expected  # a grid with more points than before
    assert sweep_cases.CALLS[2:] == [(0.9, 0), (0.9, 1), (0.9, 2)]  # after the two models that are compared
    assert files(tmp_path / "part") == files(tmp_path / "whole")
    sweep_cases.CALLS.clear()
    assert swept(out=tmp_path / "part").to_csv() == expected
    assert len(sweep_cases.CALLS) == 2


@pytest.mark.parametrize(("pause", "writes"), [(0.0, 7), (1000.0, 1)])
def test_the_files_are_written_now_and_then_and_at_the_end(tmp_path, monkeypatch, pause, writes):
    calls, replace_all = [], results.files.replace_all
    monkeypatch.setattr(results, "PAUSE", pause)
    monkeypatch.setattr(results.files, "replace_all", lambda contents: calls.append(1) or replace_all(contents))
    swept(out=tmp_path, per_task=1)
    assert len(calls) == writes


def test_ctrl_c_keeps_what_is_done_and_no_half_of_a_fit(tmp_path):
    flag = tmp_path / "flag"
    flag.touch()
    grid = {"flag": [str(flag)], "seed": [0, 1, 2, 3]}
    with pytest.raises(KeyboardInterrupt):
        swept(sweep_cases.interrupted, grid, out=tmp_path / "out", per_task=1)
    done = json.loads((tmp_path / "out" / results.JSON).read_text(encoding="utf-8"))["rows"]
    assert [row["seed"] for row in done] == [0, 1]
    flag.unlink()
    again = swept(sweep_cases.interrupted, grid, out=tmp_path / "out")
    assert again.rows == swept(sweep_cases.interrupted, grid).rows
    assert [row["epochs_done"] for row in again.rows] == [2] * 4


SCRIPT = """
    import sys, sweep_cases
    from idl_ref import parallel
    from idl_ref.parallel import results
    results.PAUSE = 0.0
    parallel.sweep(sweep_cases.plain, {grid}, sweep_cases.data(), out=sys.argv[1], per_task=1, progress=False)
"""


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path, expected):
    """Each folder is left by two kills, at moments within the time of a whole run, and then gets its rest."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}"}
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT).format(grid=GRID)]
    times = []
    for name in ("first", "second"):  # The first run may have to compile.
        started = time.perf_counter()
        subprocess.run([*command, str(tmp_path / name)], env=environment, check=True)
        times.append(time.perf_counter() - started)
    killed = 0
    for k, part in enumerate(np.random.default_rng(0).uniform(0.3, 0.95, (8, 2))):
        out = tmp_path / str(k)
        for wait in part * times[1]:
            process = subprocess.Popen([*command, str(out)], env=environment)
            try:
                process.wait(wait)
            except subprocess.TimeoutExpired:
                process.kill()
                killed += process.wait() == -signal.SIGKILL
        subprocess.run([*command, str(out)], env=environment, check=True)
        assert (out / results.CSV).read_text(encoding="utf-8") == expected
        assert sorted(os.listdir(out)) == [results.CSV, results.JSON]
    assert killed >= 3


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_worker_breaks_the_pool_and_a_second_call_does_the_rest(tmp_path, monkeypatch):
    monkeypatch.setenv("IDL_REF_DRIVER", str(os.getpid()))
    grid = {"folder": [str(tmp_path)], "seed": list(range(8))}
    with (
        pytest.raises(RuntimeError, match="call again with a new executor"),
        clusters.all_started(ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))) as executor,
    ):
        swept(sweep_cases.killed_once, grid, executor=executor, out=tmp_path / "out", per_task=1)
    done = len(json.loads((tmp_path / "out" / results.JSON).read_text(encoding="utf-8"))["rows"])
    assert done < 8
    again = swept(sweep_cases.killed_once, grid, out=tmp_path / "out")
    assert again.failed == []
    assert again.rows == swept(sweep_cases.killed_once, grid).rows


def test_a_poisonous_point_fails_alone_and_is_tried_again(tmp_path, expected):
    grid = {"kappa": [0.5, 1.5, 0.9], "seed": [0, 1, 2]}
    table = swept(grid=grid, out=tmp_path)
    assert [row["kappa"] for row in table.failed] == [1.5] * 3
    assert all(row["error"].startswith("ValueError: kappa must be") for row in table.failed)
    rows = [row for row in table.rows if not row["error"]]
    assert results.Sweep(rows).to_csv() == expected
    sweep_cases.CALLS.clear()
    assert swept(grid=grid, out=tmp_path).rows == table.rows
    assert sweep_cases.CALLS[2:] == [(1.5, seed) for seed in range(3)]


# --- what is refused --------------------------------------------------------------------------------------------------


def local(kappa, seed):
    return sweep_cases.plain(kappa, seed)


X, Y = datasets.two_moons(20)
REFUSALS = {
    "a lambda": ({"build": lambda kappa: None}, TypeError, "build must be a function of a module"),
    "a class": ({"build": idl_ref.ImplicitModel}, TypeError, "build must be a function of a module"),
    "no seed": ({"build": sweep_cases.without_a_seed, "grid": {"kappa": [0.5]}}, ValueError, "other weights"),
    "a shared model": ({"build": sweep_cases.shared, "grid": {"kappa": [0.5]}}, ValueError, "one model for two calls"),
    "no model": ({"build": sweep_cases.no_model, "grid": {"kappa": [0.5]}}, TypeError, "must return an ImplicitModel"),
    "a checkpoint": (
        {"build": sweep_cases.with_a_checkpoint, "grid": {"kappa": [0.5]}}, TypeError, "must not set checkpoint of fit"
    ),
    "no point builds": ({"grid": {"kappa": [1.5], "seed": [0]}}, ValueError, "kappa must be"),
    "an unknown name": ({"grid": {"kapa": [0.5], "seed": [0]}}, TypeError, "kapa"),
    "no points": ({"grid": {"kappa": [], "seed": [0]}}, ValueError, "at least one point"),
    "no names": ({"grid": [{}]}, ValueError, "at least one point"),
    "a word for a list": ({"grid": {"kappa": "0.5"}}, TypeError, r"grid\['kappa'\] must be a list of values"),
    "a number": ({"grid": 3}, TypeError, "grid must be a dict from names to lists"),
    "an array": ({"grid": {"kappa": [np.ones(2)]}}, TypeError, "must hold finite numbers"),
    "NaN": ({"grid": {"kappa": [np.nan]}}, TypeError, "must hold finite numbers"),
    "twice": ({"grid": {"kappa": [0.5, 0.5], "seed": [0]}}, ValueError, "must not repeat a point; got .* 0 and as 1"),
    "a column": ({"grid": {"digest": [1]}}, ValueError, "must not use the name digest"),
    "other names": ({"grid": [{"kappa": 1, "seed": 0}, {"kappa": 1}]}, ValueError, "the same names in every point"),
    "three arrays": ({"data": (X, Y, X)}, TypeError, "data must be"),
    "objects": ({"data": (X, np.array([None] * 20))}, TypeError, "y_train must hold numbers or words"),
    "no file": ({"data": "nowhere.npz"}, FileNotFoundError, "nowhere.npz"),
    "nothing a task": ({"per_task": 0}, ValueError, "per_task must be a whole number, at least 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_refused(case):
    arguments, kind, text = REFUSALS[case]
    with pytest.raises(kind, match=text) as caught:
        swept(**arguments)
    assert len(str(caught.value)) < 500


def test_numpy_scalars_are_numbers_and_1_is_not_true():
    assert points.points({"a": np.array([1, 2]), "b": [True]}, ()) == [{"a": 1, "b": True}, {"a": 2, "b": True}]
    assert len(points.points({"a": [1, 1.0, True]}, ())) == 3


def test_large_arrays_travel_by_their_path():
    U = np.zeros((5000, 400))
    with ThreadPoolExecutor(1) as executor, pytest.raises(ValueError, match=r"2,097,152 bytes .* pass the path"):
        swept(data=(U, np.zeros(5000, int)), executor=executor)


def test_data_that_change_under_way_are_refused(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x_train=X, y_train=Y)
    data = points.Data.of(path, True)
    np.savez(path, x_train=2 * X, y_train=Y)
    points._kept.clear()
    with pytest.raises(ValueError, match="data must be the same for every task"):
        data.load()
    np.savez(path, x_train=X, y_train=Y, x_test=X)
    with pytest.raises(idl_ref.FileFormatError, match="x_test and y_test, or none of them"):
        points.Data.of(path, True)


def test_another_sweep_in_the_folder_is_refused(tmp_path):
    swept(out=tmp_path)
    before = files(tmp_path)
    with pytest.raises(ValueError, match="out must belong to the sweep that resumes; the data of"):
        swept(out=tmp_path, data=sweep_cases.data(50))
    with pytest.raises(ValueError, match=r"the build of .*sweep_cases.plain.* is 'test_sweep.local|the build of"):
        swept(local, out=tmp_path)
    with pytest.raises(ValueError, match="grid must have every point that out holds already"):
        swept(grid={"kappa": [0.5], "seed": [0]}, out=tmp_path)
    with pytest.raises(idl_ref.FileFormatError, match="each row must have the columns seed"):
        swept(grid=[{"seed": 0, "kappa": 0.5, "backend": "numpy"}], out=tmp_path)
    assert files(tmp_path) == before


def test_a_machine_with_other_last_bits_is_refused(tmp_path):
    swept(grid={"kappa": [0.5], "seed": [0]}, out=tmp_path)
    path = tmp_path / results.JSON
    table = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**table, "bits": "0123456789abcdef"}), encoding="utf-8")
    with pytest.raises(parallel.OtherBitsError, match=r"the same bits; got \w{16} on .* and 0123456789abcdef in"):
        swept(grid={"kappa": [0.5, 0.9], "seed": [0]}, out=tmp_path)
    assert json.loads(path.read_text(encoding="utf-8"))["rows"] == table["rows"]


@pytest.mark.parametrize("damage", ["half", "[]", "{}", '{"format": "idl_ref sweep", "version": 9, "fingerprint": {}}'])
def test_a_damaged_file_is_refused_and_kept(tmp_path, damage):
    swept(out=tmp_path)
    path = tmp_path / results.JSON
    text = path.read_text(encoding="utf-8")
    path.write_text(text[: len(text) // 2] if damage == "half" else damage, encoding="utf-8")
    before = path.read_bytes()
    with pytest.raises(idl_ref.FileFormatError, match=r"sweep\.json"):
        swept(out=tmp_path)
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_refused_before_the_first_fit(tmp_path):
    (tmp_path / "file").touch()
    sweep_cases.CALLS.clear()
    with pytest.raises(OSError, match="file"):
        swept(out=tmp_path / "file" / "out")
    assert len(sweep_cases.CALLS) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_loses_nothing(tmp_path, monkeypatch, expected):
    swept(grid={"kappa": [0.5], "seed": [0, 1, 2]}, out=tmp_path)
    before = files(tmp_path)

    def full(contents):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(results.files, "replace_all", full)
        with pytest.raises(OSError, match="No space left"):
            swept(out=tmp_path)
    assert files(tmp_path) == before
    assert swept(out=tmp_path).to_csv() == expected
