"""How much faster two workers predict a file than one. Usage: python tests/benchmarks/workers.py [--rows 400000]

Both pools are started and warm before the first round; rounds take turns, and the medians are compared. Each worker has
one thread. Beside them, the copies of a loop that uses no memory say whether two cores are free.
"""

import argparse
import multiprocessing
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

import idl_ref
from idl_ref.parallel import predict_file


def spin(count):
    """Use one core for a while, and return the seconds."""
    begun = time.perf_counter()
    total = 0
    for k in range(count):
        total += k
    return time.perf_counter() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--hidden", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, model = Path(name), idl_ref.ImplicitModel(64, 10, options.hidden, seed=0)
        np.save(folder / "U.npy", np.random.default_rng(0).standard_normal((options.rows, 64), np.float32))
        context = multiprocessing.get_context("spawn")
        pools = {count: ProcessPoolExecutor(count, context) for count in (1, 2)}
        seconds = {1: [], 2: []}
        free = []
        for turn in range(-1, options.rounds):  # The first turn compiles and warms.
            alone = pools[2].submit(spin, 5_000_000).result()
            free.append(2 * alone / sum(pools[2].map(spin, [5_000_000] * 2)))
            for count, pool in pools.items():
                out = folder / "out"
                shutil.rmtree(out, ignore_errors=True)
                begun = time.perf_counter()
                predict_file(model, folder / "U.npy", out, executor=pool, per_task=8, progress=False)
                if turn >= 0:
                    seconds[count].append(time.perf_counter() - begun)
        for pool in pools.values():
            pool.shutdown()
    one, two = (statistics.median(seconds[count]) for count in (1, 2))
    print(f"n = {options.hidden}, {options.rows} rows: one worker {one:.2f} s, two {two:.2f} s, {one / two:.2f} times")
    print(f"rounds: {', '.join(f'{a / b:.2f}' for a, b in zip(seconds[1], seconds[2], strict=True))}")
    print(f"two loops at once run at {100 * statistics.median(free):.0f} % of the speed of one alone")


if __name__ == "__main__":
    main()
