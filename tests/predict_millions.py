"""Predict a million rows by every engine, kill runs at random, and measure the memory of workers. Takes minutes.

Usage: python tests/predict_millions.py [engines] [kills] [memory] [--rows 1000003] [--kills 30] [--folder DIR]

engines   one process, a pool of the standard library, loky, Dask and MPI give five equal hashes of every output; then a
          worker is killed in the middle: Dask ends unaided, pools raise a sentence, and the second call does the rest
kills     whole runs of `idl-ref predict --workers 2` are killed at random and called again: all hashes are equal
memory    private memory per worker of a pool, for so many rows and for four times as many
"""

import argparse
import contextlib
import hashlib
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

import idl_ref
from idl_ref.parallel import WorkersLostError, predict_file

FIELDS = ("Y", "error_bound", "iterations", "status", "step")
P, N, Q = 64, 100, 10
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
MPI = """
import sys
from mpi4py.futures import MPIPoolExecutor
from idl_ref.parallel import predict_file
if __name__ == "__main__":
    with MPIPoolExecutor() as executor:
        predict_file(*sys.argv[1:4], executor=executor, progress=False)
"""


def model(folder):
    """Return the file of a model, whose A has nonnegative rows with the sum 0.5: some dozen iterations a row."""
    found = idl_ref.ImplicitModel(P, Q, N, kappa=0.9, seed=0)
    found.parameters["A"][...] = np.abs(found.parameters["A"])
    found.parameters["A"] *= 0.5 / found.parameters["A"].sum(axis=1, keepdims=True)
    found.save(folder / "model.npz")
    return folder / "model.npz"


def source(folder, m):
    """Return the file of m inputs, one of them NaN, written a part at a time."""
    path, rng = folder / f"U{m}.npy", np.random.default_rng(m)
    if not path.exists():
        U = np.lib.format.open_memmap(path, "w+", np.float32, (m, P))
        for k in range(0, m, 1 << 16):
            U[k : k + (1 << 16)] = rng.standard_normal(U[k : k + (1 << 16)].shape, np.float32)
        U[m // 3, 5] = np.nan
        U.flush()
    return path


def hashes(out):
    """Return a digest of every output."""
    found = []
    for name in FIELDS:
        digest = hashlib.sha256()
        with open(out / f"{name}.npy", "rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
        found.append(digest.hexdigest()[:12])
    return found


def pool(workers=2):
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))


@contextlib.contextmanager
def loky_pool(workers=2):
    import loky

    executor = loky.ProcessPoolExecutor(workers)
    try:
        yield executor
    finally:
        executor.shutdown(kill_workers=True)


@contextlib.contextmanager
def dask(workers=2):
    import distributed

    with (
        distributed.LocalCluster(workers, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client.get_executor()


def children():
    """Return the processes below this one."""
    found, result = [os.getpid()], []
    while found:
        process = found.pop()
        for task in Path(f"/proc/{process}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                below = [int(word) for word in task.read_text().split()]
                found += below
                result += below
    return result


def workers():
    """Return the processes below this one that have loaded the compiled library: the workers."""
    found = []
    for process in children():
        with contextlib.suppress(OSError):
            if "llvmlite" in Path(f"/proc/{process}/maps").read_text():
                found.append(process)
    return found


def killing(out, m, share):
    """Kill one worker when a share of the rows is done, from a thread."""

    def watch():
        while True:
            time.sleep(0.05)
            with contextlib.suppress(OSError, ValueError):
                if (np.load(out / "status.npy", mmap_mode="r") >= 0).sum() > share * m and (found := workers()):
                    os.kill(found[0], signal.SIGKILL)
                    return

    threading.Thread(target=watch, daemon=True).start()


def engines(folder, m):
    """Compare the engines, then kill a worker of each."""
    file, U, found = model(folder), source(folder, m), {}
    for name, engine in {"one process": contextlib.nullcontext, "pool": pool, "loky": loky_pool, "dask": dask}.items():
        out, begun = folder / name, time.perf_counter()
        shutil.rmtree(out, ignore_errors=True)
        with engine() as executor:
            predict_file(file, U, out, executor=executor, progress=False)
        found[name] = hashes(out)
        print(f"{name:<12}{time.perf_counter() - begun:6.1f} s  {found[name]}", flush=True)
    out, begun = folder / "mpi", time.perf_counter()
    shutil.rmtree(out, ignore_errors=True)
    mpiexec = Path(sys.executable).with_name("mpiexec")
    (folder / "by_mpi.py").write_text(MPI, encoding="utf-8")
    command = [mpiexec, "-n", "3", sys.executable, "-m", "mpi4py.futures", folder / "by_mpi.py", file, U, out]
    subprocess.run([*map(str, command)], check=True, env={**os.environ, **ONE_THREAD})
    found["mpi"] = hashes(out)
    print(f"{'mpi':<12}{time.perf_counter() - begun:6.1f} s  {found['mpi']}", flush=True)
    reference = found["one process"]
    status = np.load(folder / "one process" / "status.npy")
    assert set(np.flatnonzero(status > 1)) == {m // 3}
    assert all(value == reference for value in found.values()), "the hashes differ"
    for name, engine in {"pool": pool, "loky": loky_pool, "dask": dask}.items():
        out = folder / "killed"
        shutil.rmtree(out, ignore_errors=True)
        killing(out, m, 0.4)
        try:
            with engine() as executor:
                predict_file(file, U, out, executor=executor, progress=False)
            ended = "ended unaided"
        except WorkersLostError as error:
            left = int((np.load(out / "status.npy") < 0).sum())
            ended = f"raised «{error}», with {left} rows left"
            with engine() as executor:
                predict_file(file, U, out, executor=executor, progress=False)
        assert hashes(out) == reference, f"{name}: the hashes differ after a kill"
        print(f"{name:<12}killed at 40 %: {ended}; same hash", flush=True)


def kills(folder, m, count):
    """Kill whole runs at random, and call them again until one ends."""
    file, U, out = model(folder), source(folder, m), folder / "runs"
    command = [
        sys.executable,
        "-m",
        "idl_ref",
        "predict",
        *map(str, (file, "--data", U, "--out", out)),
        "--workers",
        "2",
    ]

    def start():
        return subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)

    for _ in range(2):  # The first run compiles, and the second one tells how long a run takes.
        shutil.rmtree(out, ignore_errors=True)
        begun = time.perf_counter()
        assert start().wait() == 1  # A row has no answer.
        whole, reference = time.perf_counter() - begun, hashes(out)
    rng, same, hit, tried = random.Random(0), 0, 0, 0
    while hit < count:
        shutil.rmtree(out, ignore_errors=True)
        process = start()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.2, whole))
        tried, running = tried + 1, process.poll() is None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        left = "not known"
        with contextlib.suppress(OSError, ValueError):
            left = int((np.load(out / "status.npy") < 0).sum())
        assert start().wait() == 1
        hit += running
        same += hashes(out) == reference
        print(f"kill {tried}: {same} of {tried} identical; rows left at the kill: {left}", flush=True)
    assert same == tried
    print(f"{same} of {tried} identical, {hit} of them killed before the end; a whole run takes {whole:.1f} s")


def private(process):
    """Return the private memory of a process in MB: what it does not share with files or other processes."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        return (
            sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024
            - sum(int(line.split()[1]) for line in lines if line.startswith("Private_Clean")) / 1024
        )
    return 0.0


def memory(folder, m):
    """Measure the largest private memory of the workers, and of the process that hands out the tasks."""
    file, found = model(folder), {}
    for rows in (m, 4 * m):
        out, U, most, ended = folder / "memory", source(folder, rows), {}, threading.Event()
        shutil.rmtree(out, ignore_errors=True)

        def watch(most=most, ended=ended):
            while not ended.wait(0.1):
                for process in workers():
                    most[process] = max(most.get(process, 0.0), private(process))
                most["here"] = max(most.get("here", 0.0), private(os.getpid()))

        thread = threading.Thread(target=watch)
        thread.start()
        with pool() as executor:
            predict_file(file, U, out, executor=executor, progress=False)
        ended.set()
        thread.join()
        here = most.pop("here")
        found[rows] = max(most.values())
        sizes = ", ".join(f"{value:.1f}" for value in most.values())
        print(f"{rows} rows: private memory of the workers {sizes} MB, of this process {here:.1f} MB", flush=True)
    small, large = found.values()
    assert large <= 1.1 * small, "the memory grows"
    print(f"from {m} to {4 * m} rows: {100 * (large / small - 1):+.1f} %")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["engines", "kills", "memory"])
    parser.add_argument("--rows", type=int, default=1_000_003)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/predict_millions"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if "engines" in options.what:
        engines(options.folder, options.rows)
    if "kills" in options.what:
        kills(options.folder, options.rows, options.kills)
    if "memory" in options.what:
        memory(options.folder, options.rows)


if __name__ == "__main__":
    main()
