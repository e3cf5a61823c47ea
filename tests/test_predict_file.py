"""Files of rows are predicted with the same bits by every executor, source and interruption, and nothing is lost."""

import hashlib
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import clusters
import numpy as np
import pytest

import idl_ref
from idl_ref import ImplicitModel
from idl_ref.__main__ import main
from idl_ref.columns import Columns
from idl_ref.parallel import OtherBitsError, RowsFailedError, WorkersLostError, outputs, predict_file, workers
from idl_ref.preprocessing import Standardise
from idl_ref.tables import read

ROOT = Path(idl_ref.__file__).parents[1]
FIELDS = ("Y", "error_bound", "iterations", "status", "step")
M, P = 1037, 6
RNG = np.random.default_rng(7)
U = RNG.standard_normal((M, P))
U[77] = np.nan
U[800, 2] = np.inf


def make(**settings):
    """Return a hard model: nonnegative rows of A with the sum κ = 0.99, and positive inputs of the states."""
    found = ImplicitModel(P, 3, 12, seed=0, mitr=3000, **settings)
    A, B = np.abs(found.parameters["A"]), found.parameters["B"]
    found.parameters["A"][...] = 0.99 * A / A.sum(axis=1, keepdims=True)
    B[...] = np.abs(B)
    return found


MODEL = make()


@pytest.fixture
def file(tmp_path):
    np.save(tmp_path / "U.npy", U)
    return tmp_path / "U.npy"


def predicted(file, out, model=MODEL, **options):
    return predict_file(model, file, out, **{"rows": 50, "per_task": 3, "progress": False} | options)


def content(out):
    """Return the bytes of all files of a folder that are not hidden, by name."""
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.name[0] != "."}


def digest(out):
    """Return one hash of all outputs."""
    whole = content(out)
    return hashlib.sha256(b"".join(whole[f"{name}.npy"] for name in FIELDS)).hexdigest()


def same(found, expected):
    for name in FIELDS:
        a, b = getattr(found, name), getattr(expected, name)
        assert a.dtype == (np.int64 if name == "iterations" else b.dtype)
        np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.fixture(scope="module")
def processes():
    """A pool of two processes, which start once."""
    with ProcessPoolExecutor(2, get_context("spawn")) as executor:
        yield executor


class Recording(ThreadPoolExecutor):
    """A pool of one thread that keeps what it is given, and calls `before` with each task of rows."""

    def __init__(self, before=lambda start: None):
        super().__init__(1)
        self.tasks, self.before = [], before

    def submit(self, function, *task):
        self.tasks.append((function, task))
        return super().submit(self.run, function, *task)

    def run(self, function, *task):
        if function is workers.rows:
            self.before(task[2])
        return function(*task)

    @property
    def ranges(self):
        """The ranges of rows of the tasks."""
        return [task[2:4] for function, task in self.tasks if function is workers.rows]


# --- the answer -------------------------------------------------------------------------------------------------------


def test_each_row_is_that_of_the_predictor(file, tmp_path):
    predictor = MODEL.freeze()
    found = predicted(file, tmp_path / "out")
    same(found, predictor.certified(U))
    assert found.iterations.max() > 20
    assert list(np.flatnonzero(found.status > 1)) == [77, 800]
    for j in (0, 49, 50, 77, M - 1):  # Numba: a row alone, with no batch mates.
        assert predictor.certified(U[j : j + 1]).Y.tobytes() == found.Y[j].tobytes()


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("backend", "dtype"),
    [("numba", "float32"), ("numpy", "float64"), pytest.param("numba", "float64", marks=pytest.mark.slow)],
)
def test_one_hash_for_every_executor_and_size_of_tasks(file, tmp_path, processes, backend, dtype):
    model, out = make(backend=backend, dtype=dtype), tmp_path / "out"
    predicted(file, out, model)
    reference = digest(out)
    with ThreadPoolExecutor(3) as threads:
        for executor, per_task, in_flight in (
            (processes, 1, None),
            (processes, 1000, 1),
            (threads, 2, 4),
            (None, 7, 1),
        ):
            shutil.rmtree(out)
            predicted(file, out, model, executor=executor, per_task=per_task, in_flight=in_flight)
            assert digest(out) == reference


def test_the_blocks_are_those_of_the_whole_file(file, tmp_path):
    """With NumPy, bits depend on the block: each is computed alone here, at its absolute place."""
    from idl_ref.blas import OneThread

    model = make(backend="numpy", dtype="float64")
    predictor = model.freeze()
    with OneThread(True):
        blocks = [predictor.certified(U[k : k + 50].copy()) for k in range(0, M, 50)]
    found = predicted(file, tmp_path / "out", model, per_task=4)
    for name in FIELDS:
        expected = np.concatenate([getattr(block, name) for block in blocks])
        np.testing.assert_array_equal(getattr(found, name), expected, err_msg=name)


@pytest.mark.slow
def test_loky(file, tmp_path):
    loky = pytest.importorskip("loky")
    predicted(file, tmp_path / "here")
    executor = loky.ProcessPoolExecutor(2)
    try:
        predicted(file, tmp_path / "out", executor=executor)
    finally:
        executor.shutdown(kill_workers=True)
    assert digest(tmp_path / "out") == digest(tmp_path / "here")


@pytest.mark.parametrize("m", [0, 1, 49, 50, 51])
def test_few_rows(tmp_path, m):
    np.save(tmp_path / "few.npy", U[:m])
    found = predicted(tmp_path / "few.npy", tmp_path / "out")
    same(found, MODEL.freeze().certified(U[:m]))
    assert found.Y.shape == (m, 3)


def test_a_model_by_its_file_and_one_with_preprocessing(tmp_path):
    images = RNG.integers(0, 255, (M, 2, 3), np.uint8)
    model = make()
    model.preprocessing = Standardise.fit(images)
    model.save(tmp_path / "model.npz")
    np.save(tmp_path / "images.npy", images)
    found = predicted(tmp_path / "images.npy", tmp_path / "out", tmp_path / "model.npz")
    same(found, model.freeze().certified(images))


# --- sources ----------------------------------------------------------------------------------------------------------


def compressed(folder):
    np.savez_compressed(folder / "c.npz", X=U, y=np.arange(M))
    return folder / "c.npz"


def named_member(folder):
    np.savez(folder / "n.npz", other=np.zeros(3), rows=U)
    return folder / "n.npz", "rows"


def compressed_member(folder):
    np.savez_compressed(folder / "n.npz", other=np.zeros(3), rows=U)
    return folder / "n.npz", "rows"


def only_member(folder):
    np.savez(folder / "n.npz", rows=np.asfortranarray(U))
    return folder / "n.npz"


def fortran(folder):
    np.save(folder / "f.npy", np.asfortranarray(U))
    return folder / "f.npy"


def big_endian(folder):
    np.save(folder / "b.npy", U.astype(">f8"))
    return folder / "b.npy"


def three_axes(folder):
    np.save(folder / "3.npy", U)
    return np.load(folder / "3.npy", mmap_mode="r")


def map_of_a_view(folder):
    """Every second row and column, backwards, of a file with a head of 4,099 bytes."""
    whole = np.memmap(folder / "raw.bin", np.float64, "w+", 4099, (2 * M + 3, 2 * P))
    whole[...] = RNG.standard_normal(whole.shape)
    view = whole[3::2, ::2][::-1]
    view[...] = U
    return view


def folder_of_files(folder):
    """The rows of files of different kinds, whose borders are inside blocks; other names are left out."""
    rows = folder / "rows"
    rows.mkdir()
    np.save(rows / "0.npy", U[:333])
    np.savez_compressed(rows / "1.npz", X=U[333:334])
    np.save(rows / "2.npy", np.empty((0, P)))
    np.save(rows / "3.npy", np.asfortranarray(U[334:]))
    (rows / "_SUCCESS").write_text("")
    (rows / ".hidden").write_text("")
    return rows


def zarr_array(folder):
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(folder / "U.zarr", shape=U.shape, chunks=(100, P), dtype="f8")
    array[...] = U
    return folder / "U.zarr"


SOURCES = (
    *(compressed, named_member, compressed_member, only_member, fortran, big_endian, three_axes, map_of_a_view),
    *(folder_of_files, zarr_array),
)


@pytest.mark.parametrize("write", SOURCES, ids=lambda write: write.__name__)
def test_sources(tmp_path, write):
    expected = MODEL.freeze().certified(U)
    source = write(tmp_path)
    same(predicted(source, tmp_path / "out"), expected)
    with ThreadPoolExecutor(2) as executor:
        same(predicted(source, tmp_path / "by_threads", executor=executor), expected)
    assert not [path for path in (tmp_path / "out").iterdir() if path.name[0] == "."], "copies are left"


def test_dtypes(tmp_path):
    for dtype in ("f2", "i1", "u8", "?", "<f4"):
        rows = RNG.integers(0, 2, (70, P)).astype(dtype)
        np.save(tmp_path / "U.npy", rows)
        same(predicted(tmp_path / "U.npy", tmp_path / f"out {dtype.strip('<?')}"), MODEL.freeze().certified(rows))


def test_tables(tmp_path):
    """Rows of tables are the inputs that their columns become; a row that lacks a value is NONFINITE."""
    lines = [f"{x:.3f},{['red', 'blue', 'green'][k % 3]}" for k, x in enumerate(RNG.standard_normal(210))]
    lines[17] = ",red"
    lines[30] = '0.5,"bl""ue"'
    training = tmp_path / "training.csv"
    training.write_text("x,colour\n" + "\n".join(lines[50:]) + "\n", encoding="utf-8")
    columns = Columns.fit(read(training))
    model = ImplicitModel(columns.width, 2, 9, seed=0)
    model.columns = columns
    rows = tmp_path / "rows"
    rows.mkdir()
    for name, part in {"a.csv": lines[:101], "b.csv": lines[101:]}.items():
        (rows / name).write_text("colour,x\n" + "\n".join(",".join(line.rsplit(",", 1)[::-1]) for line in part) + "\n")
    inputs, bad = columns.matrix(read(rows / "a.csv"), np.float64)
    assert list(np.flatnonzero(bad)) == [17, 30]
    found = predicted(rows, tmp_path / "out", model)
    same(
        type(found)(*(getattr(found, name)[:101] for name in found.__dataclass_fields__)),
        model.freeze().certified(inputs),
    )
    assert list(np.flatnonzero(found.status == 3)) == [17, 30]


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    import pandas

    pandas.DataFrame(U, columns=list("abcdef")).to_parquet(tmp_path / "U.parquet")
    same(predicted(tmp_path / "U.parquet", tmp_path / "out"), MODEL.freeze().certified(U))


def test_what_travels_are_names(file, tmp_path):
    big = RNG.standard_normal((5000, P))
    np.save(file, big)
    with Recording() as executor:
        predicted(np.load(file, mmap_mode="r"), tmp_path / "out", executor=executor)
    assert executor.ranges == [(a, min(a + 150, 5000)) for a in range(0, 5000, 150)]
    assert max(len(pickle.dumps(task)) for task in executor.tasks) < 800


def refuse(match, source, out, kind=(ValueError, TypeError, OSError), **options):
    with pytest.raises(kind, match=match):
        predicted(source, out, **options)


def test_refused_sources(file, tmp_path):
    out = tmp_path / "out"
    np.save(tmp_path / "wide.npy", U[:, :5])
    np.save(tmp_path / "flat.npy", U[0])
    np.save(tmp_path / "words.npy", np.full((3, P), "x"))
    np.save(tmp_path / "objects.npy", U.astype(object))
    np.savez(tmp_path / "two.npz", a=U, b=U)
    (tmp_path / "short.npy").write_bytes(file.read_bytes()[:-1])
    (tmp_path / "U.txt").write_text("1 2")
    (tmp_path / "empty").mkdir()
    refuse(r"shape \(m, p\) with p = 6; got \(1037, 5\)", tmp_path / "wide.npy", out)
    refuse(r"p = 6; got \(6,\)", tmp_path / "flat.npy", out)
    refuse("must hold real numbers", tmp_path / "words.npy", out)
    refuse("got Python objects", tmp_path / "objects.npy", out)
    refuse(r"x_test or X, or one array; got a, b: name the array", tmp_path / "two.npz", out)
    refuse("must hold c; got a, b", (tmp_path / "two.npz", "c"), out)
    refuse("in an .npz file only", (file, "c"), out)
    refuse("an array of numbers, and all of it; got a file of", tmp_path / "short.npy", out)
    refuse(r"must end in \.npy.*take it out of the folder", tmp_path, out)
    refuse("at least one file", tmp_path / "empty", out)
    refuse("there is no file", tmp_path / "none.npy", out)
    refuse("numpy.save", U, out)
    refuse("mode 'c'", np.load(file, mmap_mode="c"), out)
    assert not out.exists(), "something was written for a source that was refused"


def test_refused_arguments(file, tmp_path):
    for name, value in (("rows", 0), ("per_task", 1.5), ("in_flight", 0), ("progress", 1), ("executor", 2)):
        refuse(name if name != "executor" else "concurrent.futures.Executor", file, tmp_path / "out", **{name: value})
    refuse("ImplicitModel or the name of its file", file, tmp_path / "out", model=MODEL.freeze())
    broken = make()
    broken.parameters["C"][0, 0] = np.nan
    refuse("must be finite", file, tmp_path / "out", model=broken)
    assert not (tmp_path / "out").exists(), "something was written by a call that was refused"


# --- the folder -------------------------------------------------------------------------------------------------------


def test_a_folder_belongs_to_one_model_source_grid_and_version(file, tmp_path, monkeypatch):
    out = tmp_path / "out"
    predicted(file, out)
    before = content(out)
    other = make()
    other.parameters["A"][0, 0] = np.nextafter(other.parameters["A"][0, 0], np.float32(0))
    refuse("the model of .* is .* and that of this call is", file, out, model=other)
    refuse("the rows of", file, out, rows=51)
    refuse("the model of", file, out, model=make(tol=1e-5))
    os.utime(file, ns=(1, 1))
    refuse("the source of", file, out)
    np.save(tmp_path / "more.npy", U[:-1])
    refuse("the source of", tmp_path / "more.npy", out)
    assert content(out) == before


def test_another_version(file, tmp_path, monkeypatch):
    predicted(file, tmp_path / "out")
    monkeypatch.setattr("idl_ref.parallel.prediction.__version__", "9.0")
    refuse("the version of .* is '0.*and that of this call is '9.0'", file, tmp_path / "out")


def test_foreign_folders_are_left_alone(file, tmp_path):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "Y.npy").write_text("precious")
    refuse("new folder, an empty one, or one of an earlier call; got .* with Y.npy", file, out)
    refuse("is a file", file, file)
    assert content(out) == {"Y.npy": b"precious"}
    for text in ("", "[]", '{"form": "other"}', "\0"):
        (out / "predict.json").write_text(text)
        refuse("whole predict.json", file, out)
    assert content(out) == {"Y.npy": b"precious", "predict.json": b"\0"}


HARMS = ("truncated", "longer", "missing", "no head", "another dtype", "another length")
# Without status nothing is done, and status says what the length is: then the others are refused.
HARMLESS = {("status", "missing"), ("status", "another length")}


@pytest.mark.parametrize(("name", "harm"), [(n, h) for n in FIELDS for h in HARMS if (n, h) not in HARMLESS])
def test_damaged_outputs_are_refused(file, tmp_path, name, harm):
    out = tmp_path / "out"
    predicted(file, out)
    path = out / f"{name}.npy"
    data, array = path.read_bytes(), np.load(path)
    if harm == "missing":
        path.unlink()
    elif harm == "another dtype":
        np.save(path, array.astype("f2"))
    elif harm == "another length":
        np.save(path, array[:-1])
    else:
        path.write_bytes({"truncated": data[:-1], "longer": data + b"\0", "no head": data[:9]}[harm])
    before = content(out)
    refuse(f"{name}.npy of out must be.*delete the folder", file, out, kind=ValueError)
    assert content(out) == before


def test_a_call_that_finds_work_done_does_only_the_rest(file, tmp_path):
    out = tmp_path / "out"
    predicted(file, out)
    reference = digest(out)
    status, Y = (np.load(out / f"{name}.npy", mmap_mode="r+") for name in ("status", "Y"))
    for k in (49, 50, 51, 999, M - 1):  # rows of the blocks 0, 1, 19 and 20
        status[k], Y[k] = -1, 99
    status.flush()
    Y.flush()
    with Recording() as executor:
        predicted(file, out, executor=executor)
    assert executor.ranges == [(0, 100), (950, M)]
    assert digest(out) == reference
    with Recording() as executor:
        predicted(file, out, executor=executor)
    assert executor.tasks == []


def test_status_is_written_when_all_else_is_on_the_disk(file, tmp_path, monkeypatch):
    out, order, sync = tmp_path / "out", [], os.fsync
    predicted(file, out)
    reference, found = digest(out), predicted(file, out)
    arrays = {name: getattr(found, name)[100:150].copy() for name in FIELDS}
    status = np.load(out / "status.npy", mmap_mode="r+")
    status[100:150] = -1

    def watched(number):
        order.append(Path(os.readlink(f"/proc/self/fd/{number}")).stem if Path("/proc/self/fd").exists() else "")
        if len(order) < len(FIELDS):
            assert (np.load(out / "status.npy")[100:150] == -1).all()
        sync(number)

    monkeypatch.setattr(outputs.os, "fsync", watched)
    outputs.write(str(out), 100, arrays)
    assert len(order) == len(FIELDS)
    assert order[-1] in ("status", "")
    assert digest(out) == reference


def test_a_creation_that_was_killed_begins_anew(file, tmp_path):
    out = tmp_path / "out"
    predicted(file, out)
    reference, whole = digest(out), content(out)
    order = ["predict.json", "model.npz", "Y.npy", "error_bound.npy", "iterations.npy", "step.npy"]
    for k in range(1, len(order) + 1):
        shutil.rmtree(out)
        out.mkdir()
        for name in order[:k]:
            (out / name).write_bytes(whole[name])
        predicted(file, out)
        assert digest(out) == reference


# --- failures ---------------------------------------------------------------------------------------------------------


def test_a_poisonous_task_fails_alone_and_is_reported_by_rows(file, tmp_path):
    predicted(file, tmp_path / "whole")
    out = tmp_path / "out"

    def before(start):
        if start in (300, 750):
            raise MemoryError(f"cannot allocate for {start}")

    with Recording(before) as executor, pytest.raises(RowsFailedError) as caught:
        predicted(file, out, executor=executor)
    assert "2 failed tasks with 300 of 1037 rows, the first being rows 300 to 449 (MemoryError: cannot" in str(
        caught.value
    )
    assert [failure[:2] for failure in caught.value.failures] == [(300, 450), (750, 900)]
    assert [failure[:2] for failure in pickle.loads(pickle.dumps(caught.value)).failures] == [(300, 450), (750, 900)]
    assert list(np.flatnonzero(np.load(out / "status.npy") == -1)) == [*range(300, 450), *range(750, 900)]
    predicted(file, out)
    assert digest(out) == digest(tmp_path / "whole")


def test_a_source_that_changes_meanwhile(file, tmp_path):
    """The tasks that see another file fail; when the old file is back, the rest is done."""
    out, times = tmp_path / "out", os.stat(file)
    predicted(file, tmp_path / "whole")

    def before(start):
        if start == 450:
            os.truncate(file, 5000)

    data = file.read_bytes()
    with Recording(before) as executor, pytest.raises(RowsFailedError, match="was changed meanwhile"):
        predicted(file, out, executor=executor)
    refuse("all of it", file, out)
    file.write_bytes(data)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    predicted(file, out)
    assert digest(out) == digest(tmp_path / "whole")


class Murderous(ProcessPoolExecutor):
    """A pool in which a worker is killed when so many tasks are done."""

    def __init__(self, after):
        super().__init__(2, get_context("spawn"))
        self.after = 0
        clusters.all_started(self)
        self.after = after

    def submit(self, function, *task):
        future = super().submit(function, *task)
        future.add_done_callback(self.count)
        return future

    def count(self, future):
        self.after -= 1
        if self.after == 0:
            os.kill(next(iter(self._processes)), getattr(signal, "SIGKILL", signal.SIGTERM))


@pytest.mark.parametrize("after", [9, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 2, 20))])
def test_a_killed_worker_of_a_pool(file, tmp_path, processes, after):
    out, model = tmp_path / "out", make(backend="numpy")
    predicted(file, tmp_path / "whole", model)
    with pytest.raises(WorkersLostError, match="call again"), Murderous(after) as executor:
        predicted(file, out, model, executor=executor, per_task=1, in_flight=3)
    left = int((np.load(out / "status.npy") == -1).sum()) if after > 1 else M  # The first task compares bits.
    assert left > 0
    predicted(file, out, model, executor=processes)
    assert digest(out) == digest(tmp_path / "whole")


def test_a_machine_that_computes_other_bits_is_refused(file, tmp_path):
    out = tmp_path / "out"
    predicted(file, out)
    reference, label = content(out), json.loads((out / "predict.json").read_text())
    assert re.fullmatch("(numba|numpy) [0-9a-f]{32}", label["bits"])
    status = np.load(out / "status.npy", mmap_mode="r+")
    status[500:] = -1
    (out / "predict.json").write_text(json.dumps(label | {"bits": "numba " + "0" * 32}))
    for executor in (None, ThreadPoolExecutor(1)):
        with pytest.raises(OtherBitsError, match="machines of one kind"):
            predicted(file, out, executor=executor)
        assert (np.load(out / "status.npy")[500:] == -1).all()
    (out / "predict.json").write_bytes(reference["predict.json"])
    predicted(file, out)
    assert content(out) == reference


def test_bits_tell_backends_apart(tmp_path):
    found = set()
    for backend in ("numpy", "numba"):
        model = make(backend=backend)
        (tmp_path / backend).mkdir()
        model.save(tmp_path / backend / "model.npz")
        found.add(
            workers.bits(
                workers.Job(str(tmp_path / backend), workers.digest(model), 64, False, (("backend", backend),))
            ).split()[0]
        )
    assert found == {"numpy", "numba"}


def python(code, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=600
    )


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
def test_a_full_disk_is_refused_and_nothing_is_lost(file, tmp_path):
    """A limit for the size of files stands for a full disk: while files are created, and while a task writes."""
    model = make(backend="numpy")
    code = (
        "import resource, sys, idl_ref, idl_ref.parallel as parallel\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)\n"
        "model = idl_ref.load(sys.argv[4], backend='numpy', mitr=3000)\n"
        "parallel.predict_file(model, *sys.argv[1:3], rows=50, per_task=3, progress=False)\n"
    )
    predicted(file, tmp_path / "whole", model)
    out = tmp_path / "out"
    model.save(tmp_path / "model.npz")
    found = python(code, file, out, 9000, tmp_path / "model.npz")
    assert "out must have space for 1037 rows; Y.npy" in found.stderr
    assert "call again" in found.stderr
    assert not (out / "status.npy").exists()
    predicted(file, out, model)
    assert digest(out) == digest(tmp_path / "whole")
    for name, value in (("Y", 99), ("status", -1)):
        np.load(out / f"{name}.npy", mmap_mode="r+")[...] = value
    found = python(
        code, file, out, 9000, tmp_path / "model.npz"
    )  # The space is taken, but not all of it can be written.
    assert re.search("RowsFailedError: .*File too large.*call again", found.stderr)
    left = (np.load(out / "status.npy") == -1).sum()
    assert 0 < left < M
    predicted(file, out, model)
    assert digest(out) == digest(tmp_path / "whole")


def test_two_calls_for_one_folder_at_a_time(file, tmp_path):
    out = tmp_path / "out"

    def before(start):
        if start == 900:  # Another call creates the arrays anew, after this one has done most rows.
            np.save(out / "draft.npy", np.full(M, -1, np.int8))
            os.replace(out / "draft.npy", out / "status.npy")

    with Recording(before) as executor, pytest.raises(RowsFailedError, match="one call at a time"):
        predicted(file, out, executor=executor)
    predicted(file, tmp_path / "whole")
    predicted(file, out)
    assert digest(out) == digest(tmp_path / "whole")


# --- the command line -------------------------------------------------------------------------------------------------


def test_command_line(file, tmp_path, capsys):
    predicted(file, tmp_path / "whole", rows=1024)
    MODEL.save(tmp_path / "model.npz")
    out = tmp_path / "out"
    command = ["predict", str(tmp_path / "model.npz"), "--data", str(file), "--out", str(out)]
    assert main([*command, "--workers", "2"]) == 1
    assert digest(out) == digest(tmp_path / "whole")
    text = capsys.readouterr().out
    assert f"wrote {out}" in text
    assert "2 of 1037 rows failed and have no answer; the first is row 77: an input is not finite" in text
    assert main([*command, "--workers", "1"]) == 1
    np.save(file, U[100:700])
    assert main([*command, "--workers", "1"]) == 2
    assert "the source of" in capsys.readouterr().err
    shutil.rmtree(out)
    assert main([*command, "--workers", "1"]) == 0
    assert "600 rows, all converged" in capsys.readouterr().out


def test_command_line_refuses(file, tmp_path, capsys):
    MODEL.save(tmp_path / "model.npz")
    command = ["predict", str(tmp_path / "model.npz")]
    for words, message in (
        (["--workers", "2"], "--data must name files with --workers or --dask"),
        (["--workers", "2", "--data", str(file)], "--out must name a folder"),
        (["--workers", "0", "--data", str(file), "--out", "x"], "--workers must be a whole number, at least 1"),
        (["--workers", "2", "--dask", "a", "--data", str(file), "--out", "x"], "leave one out"),
        (["--dask", "no.json", "--data", str(file), "--out", "x"], ""),
    ):
        assert main([*command, *words]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs POSIX")
def test_workers_end_with_the_process_that_started_them(tmp_path):
    """kill -9 of the command alone leaves no process behind."""
    code = (
        "import sys, time, multiprocessing\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from idl_ref.commands.folder import _begin\n"
        "import os\n"
        "pool = ProcessPoolExecutor(2, multiprocessing.get_context('spawn'), _begin)\n"
        "print(*{pool.submit(os.getpid).result() for _ in range(20)}, flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True) as process:
        found = [int(word) for word in process.stdout.readline().split()]
        process.kill()
    assert found
    for _ in range(100):
        if not any(Path(f"/proc/{number}").exists() and "Z" not in state(number) for number in found):
            return
        time.sleep(0.1)
    pytest.fail("workers are left")


def state(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_zip_is_checked(tmp_path):
    """A byte that changed in a compressed array is seen, and the copy is not kept."""
    source = compressed(tmp_path)
    data = bytearray(source.read_bytes())
    data[len(data) // 3] ^= 1
    source.write_bytes(data)
    with pytest.raises((zipfile.BadZipFile, ValueError, OSError)):
        predicted(source, tmp_path / "out")
    assert not (tmp_path / "out" / "status.npy").exists()


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_workers_have_one_thread(file, tmp_path, monkeypatch, backend):
    """BLAS has one thread wherever NumPy serves, and so has a worker with Numba; one process alone keeps them all."""
    import numba
    from threadpoolctl import threadpool_info

    certified, counts = idl_ref.Predictor.certified, set()

    def watched(self, rows):
        blas = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
        counts.add((max(blas, default=1), numba.get_num_threads()))
        return certified(self, rows)

    monkeypatch.setattr(idl_ref.Predictor, "certified", watched)
    numba_threads = numba.get_num_threads()
    for executor in (None, ThreadPoolExecutor(1)):
        counts.clear()
        predicted(file, tmp_path / f"out{executor is None}", make(backend=backend), executor=executor)
        if backend == "numpy":
            assert {blas for blas, _ in counts} == {1}
        else:
            assert {threads for _, threads in counts} == {numba_threads if executor is None else 1}
    assert numba.get_num_threads() == numba_threads
