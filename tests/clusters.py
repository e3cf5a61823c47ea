"""Dask clusters for tests, as people start them: a LocalCluster of processes, or both parts by commands."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import idl_ref

TESTS = Path(__file__).parent
ROOT = Path(idl_ref.__file__).parents[1]
PATHS = os.pathsep.join([str(ROOT), str(TESTS)])  # so that workers can import idl_ref and the functions of the tests
# Each worker is one of several on its machine, and must not start a thread per core.
PINNED = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


def all_started(executor, workers=2):
    """Return a new pool of processes when all of its workers run.

    A pool starts them one by one, with its first tasks. In CPython 3.11, the shutdown of a broken pool never ends if it
    starts one while it finds out that another was killed, so that a test that kills one would hang now and then.
    """
    for begun in [executor.submit(time.sleep, 0) for _ in range(workers)]:
        begun.result()
    return executor


@contextmanager
def local(workers=2):
    """Start a LocalCluster of processes, each with one thread, and yield a client of it."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",
            env={**PINNED, "PYTHONPATH": PATHS},
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def commands(folder, workers=2):
    """Start `dask scheduler` and `dask worker` as processes, and yield a client and the processes."""
    from distributed import Client

    environment = {**os.environ, **PINNED, "PYTHONPATH": PATHS, "DASK_DISTRIBUTED__WORKER__DAEMON": "False"}
    dask = [sys.executable, "-m", "dask"]
    place = ["--scheduler-file", str(folder / "scheduler.json")]
    with open(folder / "log.txt", "wb") as log:
        started = [
            subprocess.Popen(
                [*dask, *words, *place], env=environment, stdout=log, stderr=log, cwd=folder, start_new_session=True
            )
            for words in (
                ["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"],
                *(
                    ["worker", "--nthreads", "1", "--no-dashboard", "--local-directory", str(folder)]
                    for _ in range(workers)
                ),
            )
        ]
        try:
            deadline = time.monotonic() + 60
            while not (folder / "scheduler.json").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            with Client(scheduler_file=str(folder / "scheduler.json"), timeout=600) as client:
                client.wait_for_workers(workers, timeout=600)
                yield client, started
        finally:
            for process in reversed(started):
                process.terminate()
            for process in reversed(started):
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
