"""Compare a sparse A with the same matrix held with all its zeros.

    python tests/benchmarks/sparse.py [--n N] [--density D] [--backend numpy|numba]

Picard's method, float32, 64 columns. The best wall time of three solves, the bytes of A, and the most bytes that the
arrays of NumPy take in a solve, A included, are printed.
"""

import argparse
import time
import tracemalloc

import numpy as np
import scipy.sparse

from idl_ref import SolveOptions, solve_equilibrium


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare a sparse A with the same matrix held with all its zeros.")
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--density", type=float, default=0.01)
    parser.add_argument("--backend", default="numba")
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    A = scipy.sparse.random_array((asked.n, asked.n), density=asked.density, rng=rng, format="csr", dtype=np.float32)
    A.data = rng.standard_normal(A.data.size).astype(np.float32)
    A *= np.float32(0.9 / abs(A).sum(axis=1).max())
    Z = rng.standard_normal((asked.n, 64)).astype(np.float32)
    print(f"n = {asked.n}, density {asked.density:g}, {asked.backend}")
    for name, M, size in (
        ("sparse", A, A.data.nbytes + A.indices.nbytes + A.indptr.nbytes),
        ("dense", A.toarray(), 4 * asked.n**2),
    ):
        best = min(timed(M, Z, asked.backend) for _ in range(3))
        tracemalloc.start()
        timed(M, Z, asked.backend)
        peak = size + tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        print(f"{name:6}  {best:8.3f} s  {size / 1e6:8.2f} MB  peak {peak / 1e6:8.2f} MB")


def timed(A, Z, backend):
    started = time.perf_counter()
    solve_equilibrium(A, Z, backend=backend, options=SolveOptions(method="picard", tol=1e-6))
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
