"""Compare data-parallel training by one and by two processes, on two cores that are free.

    python tests/benchmarks/ranks.py [--n 300] [--batch 8192] [--micro-batch 256] [--steps 8] [--rounds 5]

needs mpi4py and an mpiexec beside this Python. Printed are the median times of a step, and their ratio. One process has
one thread, as each of the two has.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

STEPS = """
import sys, time, numpy as np, idl_ref
from mpi4py import MPI
n, batch, leaf, steps = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
U, y = rng.standard_normal((batch, 64)).astype("float32"), rng.integers(0, 10, batch)
model = idl_ref.ImplicitModel(64, 10, n, seed=0)
options = {"batch_size": batch, "micro_batch": leaf, "comm": MPI.COMM_WORLD, "progress": False}
idl_ref.fit(model, U, y, epochs=1, optimizer=idl_ref.SGD(0.01), **options)
history = idl_ref.fit(model, U, y, epochs=steps, optimizer=idl_ref.SGD(0.01), **options)
if MPI.COMM_WORLD.Get_rank() == 0:
    print(np.median(history.seconds))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare training by one and by two processes.")
    for name, value in (("n", 300), ("batch", 8192), ("micro-batch", 256), ("steps", 8), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    asked = parser.parse_args()
    times = {1: [], 2: []}
    for _ in range(asked.rounds):
        for count in times:
            times[count].append(seconds(count, asked))
    one, two = (statistics.median(found) for found in times.values())
    print(f"a step by one process {one * 1e3:.0f} ms, by two {two * 1e3:.0f} ms: {one / two:.2f} times as fast")


def seconds(count: int, asked: argparse.Namespace) -> float:
    """Return the median time of a step on some ranks."""
    mpiexec = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or "mpiexec"
    sizes = [str(size) for size in (asked.n, asked.batch, asked.micro_batch, asked.steps)]
    one_thread = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    command = [mpiexec, "-n", str(count), sys.executable, "-c", STEPS, *sizes]
    done = subprocess.run(command, env=os.environ | one_thread, capture_output=True, text=True, check=True)
    return float(done.stdout)


if __name__ == "__main__":
    main()
