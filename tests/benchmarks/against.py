"""Compare the speed of this tree with that of another one, row by row.

    python tests/benchmarks/against.py FOLDER [--pairs 60] [--threads 1] [--row NAME …]

FOLDER is a checkout of another commit. Each tree runs in a process of its own, which lives on, and the two take turns
of 20 ms, in random order, so that both meet the same neighbours. Printed are the median time of a call in this tree,
and the median of the ratios of the pairs, this tree over the other one. BLAS has one thread, and Numba those asked for.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BLOCK = 0.02  # seconds
ONE = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def rows():
    """Return the functions to be timed, by name."""
    import numpy as np

    import idl_ref

    rng = np.random.default_rng(0)

    def solve(n, m, activation="relu", dtype="float32", kappa=0.9, rank=None, positive=False):
        A = rng.standard_normal((n, n)) if rank is None else None
        if positive:
            A = np.abs(A)
        if rank is None:
            A = (kappa * A / np.abs(A).sum(axis=1, keepdims=True)).astype(dtype)
        else:
            L, R = rng.standard_normal((2, n, rank))
            A = tuple((M * (kappa / np.abs(L @ R.T).sum(axis=1).max()) ** 0.5).astype(dtype) for M in (L, R))
        Z = rng.standard_normal((n, m)).astype(dtype)
        return lambda: idl_ref.solve_equilibrium(A, Z, activation=activation, backend="numba")

    def model(n, backend="numba"):
        return idl_ref.ImplicitModel(64, 10, n, seed=0, backend=backend)

    U, labels = rng.standard_normal((64, 64)).astype("float32"), rng.integers(0, 10, 64)
    x, y, _, _ = idl_ref.datasets.digits()

    def epoch():
        idl_ref.fit(model(40), x, y, epochs=1, optimizer=idl_ref.SGD(0.1), progress=False)

    m100, m32, slow = model(100), model(32), model(100, "numpy")
    f100, f32 = m100.freeze(), m32.freeze()
    return {
        "solve 32 x 32": solve(32, 32),
        "solve 100 x 64": solve(100, 64),
        "solve 100 x 64, tanh": solve(100, 64, "tanh"),
        "solve 200 x 64, A >= 0": solve(200, 64, kappa=0.99, positive=True),
        "solve 512 x 256": solve(512, 256),
        "solve 100 x 64, float64": solve(100, 64, dtype="float64"),
        "solve 1024 x 64, rank 16": solve(1024, 64, rank=16),
        "model(u), n = 100": lambda: m100(U[:1]),
        "model(u), n = 32": lambda: m32(U[:1]),
        "frozen(u), n = 100": lambda: f100(U[:1]),
        "frozen(u), n = 32": lambda: f32(U[:1]),
        "gradients, n = 100": lambda: m100.loss_and_gradients(U, labels),
        "gradients, n = 32": lambda: m32.loss_and_gradients(U, labels),
        "gradients, n = 100, NumPy": lambda: slow.loss_and_gradients(U, labels),
        "epoch of the digits": epoch,
    }


def serve() -> None:
    """Time rows for the other process: a name comes in, and the seconds of one call go out."""
    functions = rows()
    for function in functions.values():
        function()
    print(json.dumps(list(functions)), flush=True)
    for name in map(str.strip, sys.stdin):
        function, count, started = functions[name], 0, time.perf_counter()
        while time.perf_counter() - started < BLOCK:
            function()
            count += 1
        print((time.perf_counter() - started) / count, flush=True)


class Tree:
    """A process that times the rows with the package in a folder."""

    def __init__(self, folder: Path, cache: str, threads: int) -> None:
        own = {"PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": cache, "NUMBA_NUM_THREADS": str(threads)}
        environment = os.environ | ONE | own
        command = [sys.executable, __file__, "--serve"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=environment, cwd="/", stdin=pipe, stdout=pipe, text=True)
        self.names = json.loads(self.process.stdout.readline())

    def timed(self, name: str) -> float:
        """Return the seconds of one call."""
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the speed of this tree with that of another one.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--row", nargs="*")
    asked = parser.parse_args()
    folders = Path(__file__).parents[2], asked.folder.resolve()
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        trees = (Tree(folder, cache, asked.threads) for folder, cache in zip(folders, (one, other), strict=True))
        compare(asked, *trees)


def compare(asked: argparse.Namespace, ours: Tree, theirs: Tree) -> None:
    """Print the rows of two trees."""
    for name in asked.row or ours.names:
        ratios, times = [], []
        for _ in range(asked.pairs):
            found = {}
            for tree in random.sample([ours, theirs], 2):
                found[tree] = tree.timed(name)
            times.append(found[ours])
            ratios.append(found[ours] / found[theirs])
        print(f"{name:28} {statistics.median(times) * 1e6:10.1f} us   {statistics.median(ratios):.3f}", flush=True)


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["--serve"] else main()
