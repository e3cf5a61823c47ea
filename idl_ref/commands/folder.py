"""The command `predict` with workers: the outputs of all rows of large files go to a folder, from several processes."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from idl_ref import checks, labels
from idl_ref.parallel import predict_file
from idl_ref.solution import Status

CHUNK = 1 << 20  # So many rows are judged at a time.


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options that make `predict` write a folder."""
    group = parser.add_argument_group(
        "large files",
        "With one of these options, --data may be a folder of files or a .zarr array, too, and --out names a folder, "
        "which gets Y.npy, error_bound.npy, iterations.npy, step.npy and status.npy. The same command again does only "
        "what is left.",
    )
    group.add_argument("--workers", type=int, metavar="N", help="predict in so many processes of this machine")
    dask = "predict on a Dask cluster: the address of its scheduler, tcp://…, or the scheduler file, ….json"
    group.add_argument("--dask", metavar="ADDRESS", help=dask)


def asked(options: argparse.Namespace) -> bool:
    """Tell whether the options ask for a folder."""
    return options.workers is not None or options.dask is not None


def run(options: argparse.Namespace) -> int:
    """Run the command `predict` with workers."""
    for name, what in (("data", "files"), ("out", "a folder")):
        if getattr(options, name) is None:
            raise ValueError(f"--{name} must name {what} with --workers or --dask; got none: add --{name}.")
    if options.workers is not None and options.dask is not None:
        raise ValueError(
            "--workers starts processes here, and --dask uses those of a cluster; got both: leave one out."
        )
    with _executor(options) as executor:
        found = predict_file(options.model, options.data, options.out, executor=executor)
    print(f"wrote {checks.printable(options.out)}")
    return _judge(found.status, found.Y)


def _judge(status: np.ndarray, Y: np.ndarray) -> int:
    """Print how many rows have no answer, and return the exit status."""
    failed, first, why = 0, 0, ""
    for start in range(0, len(status), CHUNK):
        part = status[start : start + CHUNK]
        bad = (part > int(Status.PRECISION_LIMIT)) | ~np.isfinite(Y[start : start + CHUNK]).all(axis=1)
        if bad.any() and not failed:
            first = start + int(np.argmax(bad))
            why = labels.reason(status[first]).removesuffix(".")
        failed += int(bad.sum())
    if failed:
        print(f"{failed} of {len(status)} rows failed and have no answer; the first is row {first}: {why}.")
    else:
        print(f"{len(status)} rows, all converged")
    return 1 if failed else 0


@contextmanager
def _executor(options: argparse.Namespace) -> Iterator[Executor | None]:
    """Start the executor that the options ask for; one worker is this process."""
    if options.dask is not None:
        with _client(options.dask) as client:
            yield client.get_executor()
    elif checks.integer("--workers", options.workers, 1) == 1:
        yield None
    else:
        context = multiprocessing.get_context("spawn")  # A fork would copy the threads' locks of this process.
        with ProcessPoolExecutor(options.workers, context, _begin) as pool:
            yield pool


def _begin() -> None:
    """Prepare a worker: Ctrl-C is for the process that started it, and it ends with this process, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # Nobody waits for the results of this process any more.


def _client(address: str) -> Any:
    """Return a client of a Dask cluster."""
    try:
        from distributed import Client
    except ImportError:
        raise ImportError(
            '--dask needs the package distributed: pip install "idl-ref[dask]", or use --workers N.'
        ) from None
    if address.endswith(".json"):
        if not Path(address).is_file():
            raise FileNotFoundError(f"--dask must name a scheduler file; there is no file {checks.printable(address)}.")
        return Client(scheduler_file=address)
    return Client(address)
