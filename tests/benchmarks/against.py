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
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

BLOCK = 0.02  # seconds
ONE = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def rows() -> dict[str, Callable[[], object]]:
    """Return the functions to be timed, by name: the workloads of the page on benchmarks, and some others."""
    from contestants import idl_ref, idl_ref_numpy
    from workloads import EPOCH, WORKLOADS, data

    import idl_ref as library

    workloads = {w.name: w for w in WORKLOADS if not w.neighbour}
    workloads[EPOCH] = replace(workloads[EPOCH], sizes=workloads[EPOCH].sizes | {"m": 6400})  # a tenth of the samples
    step = next(w for w in WORKLOADS if w.kind == "step")
    small = replace(step, sizes={"n": 32, "p": 64, "q": 10, "m": 64})
    A, Z = (data(workloads["solve, n=100, m=64, random"])[name] for name in "AZ")
    wide = A.astype(float), Z.astype(float)
    x, y, _, _ = library.datasets.digits()

    def digits() -> None:
        model = library.ImplicitModel(64, 10, 40, seed=0, backend="numba")
        library.fit(model, x, y, epochs=1, optimizer=library.SGD(0.1), progress=False)

    return {name: idl_ref(w, data(w))[0] for name, w in workloads.items()} | {
        "solve, n=100, m=64, tanh": lambda: library.solve_equilibrium(A, Z, activation="tanh", backend="numba"),
        "solve, n=100, m=64, float64": lambda: library.solve_equilibrium(*wide, backend="numba"),
        "forward + all gradients, n=32, p=64, q=10, m=64": idl_ref(small, data(small))[0],
        f"{step.name}, NumPy": idl_ref_numpy(step, data(step))[0],
        "one epoch of the digits, n=40": digits,
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
        print(f"{name:52} {statistics.median(times) * 1e6:10.1f} us   {statistics.median(ratios):.3f}", flush=True)


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["--serve"] else main()
