"""Tests of the CUDA twin that need a device: realistic sizes, concurrent streams, and a table of times."""

import time

import numpy as np
import pytest
from strategies import DTYPES, matrix, pair

import idl_ref
from idl_ref import SolveOptions, solve_adjoint, solve_equilibrium

pytestmark = pytest.mark.gpu
REASON = idl_ref.available_backends()["cuda"]
if REASON != "available":
    pytest.skip(f"backend cuda: {REASON}", allow_module_level=True)
from idl_ref.backends.cuda import api as cuda_api  # noqa: E402

if cuda_api.SIMULATED or not hasattr(cuda_api.cuda, "gpus") or not cuda_api.cuda.is_available():
    pytest.skip("backend cuda: the kernels are simulated or interpreted on the CPU", allow_module_level=True)


def problem(n, m, dtype, r=0):
    """Return A with ‖A‖∞ ≤ 0.9, dense or of rank r, and a random Z (n, m)."""
    rng = np.random.default_rng(n)
    A = pair(n, r, 0.9, rng, dtype) if r else matrix("random", n, 0.9, rng, dtype)
    return A, rng.standard_normal((n, m)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "r"), [(128, 0), (200, 0), (512, 0), (1024, 0), (512, 16), (4096, 64)])
@pytest.mark.parametrize("method", ["picard", "anderson", "auto"])
def test_real_sizes(method, n, r, dtype):
    A, Z = problem(n, 512, dtype, r)
    how = {"options": SolveOptions(method=method, tol=1e-5 if dtype is np.float32 else 1e-11)}
    ours, theirs = (solve_equilibrium(A, Z, **how, backend=backend) for backend in ("cuda", "numpy"))
    tolerance = 1e-4 if dtype is np.float32 else 1e-10
    np.testing.assert_allclose(ours.X, theirs.X, atol=tolerance)
    assert abs(ours.iterations - theirs.iterations).max() <= 1
    S = np.random.default_rng(0).uniform(0, 1, Z.shape).astype(dtype)
    ours, theirs = (solve_adjoint(A, S, Z, **how, backend=backend) for backend in ("cuda", "numpy"))
    np.testing.assert_allclose(ours.X, theirs.X, atol=tolerance)


def test_more_than_48_kb_of_shared_memory_are_granted():
    A, Z = problem(200, 64, np.float32)  # A alone is 160 KB
    ours, theirs = (solve_equilibrium(A, Z, backend=backend) for backend in ("cuda", "numpy"))
    np.testing.assert_allclose(ours.X, theirs.X, atol=1e-4)


def test_streams_at_the_same_time_get_their_own_answers():
    from concurrent.futures import ThreadPoolExecutor

    problems = [problem(100 + k, 64, np.float32) for k in range(8)]

    def solve(k):
        stream = cuda_api.cuda.stream()
        A, Z = problems[k]
        how = SolveOptions(stream=stream if k % 2 else int(stream))
        return solve_equilibrium(A, Z, options=how, backend="cuda").X

    with ThreadPoolExecutor(4) as pool:
        for X, (A, Z) in zip(pool.map(solve, range(8)), problems, strict=True):
            np.testing.assert_allclose(X, solve_equilibrium(A, Z, backend="numpy").X, atol=1e-4)


def test_times(capsys):
    """Measure microseconds per iteration for the table of docs/gpu.md: Picard, float32, A and Z on the device.

    The difference between 110 and 10 iterations removes the constant time of a solve.
    """
    rows = []
    for n, r in ((128, 0), (512, 0), (1024, 0), (4096, 0), (512, 16)):
        for m in (64, 512, 4096):
            A, Z = problem(n, m, np.float32, r)
            d_A = tuple(cuda_api.cuda.to_device(F) for F in A) if r else cuda_api.cuda.to_device(A)
            d_Z = cuda_api.cuda.to_device(Z)
            taken = {}
            for steps in (10, 110):
                how = SolveOptions(method="picard", tol=0, max_iter=steps, on_failure="ignore")
                best = np.inf
                for _ in range(5):
                    started = time.perf_counter()
                    solution = solve_equilibrium(d_A, d_Z, options=how, backend="cuda")
                    best = min(best, time.perf_counter() - started)
                taken[steps] = best, solution.iterations.max()
            (short, few), (long, many) = taken.values()
            rows.append(f"n = {n:4} r = {r:2} m = {m:4}: {1e6 * (long - short) / max(many - few, 1):9.2f} µs")
    with capsys.disabled():
        print("\n" + "\n".join(rows))
