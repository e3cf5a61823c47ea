"""Time "auto" against every other method, and SciPy's Newton–Krylov, on equations on which plain iteration is slow.

    python tests/benchmarks/methods.py [--backend numba] [--dtype float32] [--only PART_OF_A_NAME]

Each row compares times at equal true error: every method, "auto" included, has the loosest of several tolerances with
which its largest error is at most TARGET, relative to the largest entry of X. A dash means that no tolerance reaches
that. The last column is the ratio of "auto" to the fastest other method, the median over calls in turn. SciPy solves
column by column.
"""

import argparse
import time
import warnings
from statistics import median

import numpy as np
from scipy.optimize import NoConvergence, root

from idl_ref import SolveOptions, activations, solve_equilibrium, warmup

METHODS = ("auto", "picard", "anderson", "newton")
TARGET = {"float32": 1e-4, "float64": 1e-8}
TOLERANCES = [3 * 10.0**-k for k in range(2, 13)]
KRYLOV = "scipy krylov"
LIMIT = 30.0  # A method that takes more seconds than this for one solve is not tried with another tolerance.


def equal_rows(A, kappa):
    """Scale every row of A to the absolute sum κ."""
    return A * (kappa / np.abs(A).sum(axis=1, keepdims=True))


def families():
    """Yield a name, A, Z and an activation."""
    rng, n = np.random.default_rng(0), 50
    cyclic, path, d = np.roll(np.eye(n), 1, axis=0), 0.4999 * (np.eye(n, k=1) + np.eye(n, k=-1)), np.logspace(-2, 2, n)
    random = rng.standard_normal((n, n))
    chattering = 0.99 * cyclic * np.where(rng.random(n) < 0.5, -1, 1)
    jordan = 0.5 * np.eye(n) + 0.49 * np.eye(n, k=1)
    for m in (1, 64):
        Z = rng.standard_normal((n, m))
        yield f"permutation .99, m={m}", 0.99 * np.eye(n)[rng.permutation(n)], Z, "relu"
        yield f"permutation .999 tanh, m={m}", 0.999 * np.eye(n)[rng.permutation(n)], Z, "tanh"
        yield f"delay line .99, m={m}", 0.99 * cyclic, Z, "relu"
        yield f"cyclic .999, m={m}", 0.999 * cyclic, np.abs(Z), "relu"
        yield f"diagonal to ±.999, m={m}", np.diag(np.linspace(-0.999, 0.999, n)), Z, "relu"
        yield f"diagonal to .999 linear, m={m}", np.diag(np.linspace(0, 0.999, n)), Z, "identity"
        yield f"path .9998, m={m}", path, np.abs(Z), "relu"
        yield f"mixed signs .99, m={m}", equal_rows(random, 0.99), Z, "relu"
        yield f"nonnegative .99, m={m}", equal_rows(np.abs(random), 0.99), np.abs(Z), "relu"
        yield f"chattering .99, m={m}", chattering, Z, "relu"
        yield f"nonnormal D J D⁻¹ tanh, m={m}", d[:, None] * equal_rows(random, 0.99) / d, Z, "tanh"
        yield f"nonnormal Jordan, m={m}", jordan, Z, "identity"
    n = 500
    Q = np.eye(n)[rng.permutation(n)]
    upper = np.triu(rng.random((n, n)), 1) / np.maximum(np.arange(n)[::-1, None], 1)
    Z = rng.standard_normal((n, 4))
    yield "nilpotent, n=500", 1.98 * Q @ upper @ Q.T, Z, "relu"
    yield "nilpotent delay line, n=500", 0.99 * Q @ np.eye(n, k=1) @ Q.T, np.abs(Z), "relu"
    yield "permutation .99, n=500", 0.99 * Q, Z, "relu"


def krylov(A, Z, activation, tol):
    """Solve one column after the other by SciPy; NaN where it gives up.   -> (n, m)"""
    phi, X = activations.get(activation).phi, np.full_like(Z, np.nan)
    for j in range(Z.shape[1]):
        z = Z[:, j]
        try:
            X[:, j] = root(lambda x: phi(A @ x + z) - x, np.zeros_like(z), method="krylov", options={"fatol": tol}).x  # noqa: B023
        except (NoConvergence, ValueError, FloatingPointError):
            break
    return X


def timed(solve, most=30):
    """Return the median of the times of some calls, and the answer of the last one."""
    times, start = [], time.perf_counter()
    while len(times) < min(3, most) or (len(times) < most and time.perf_counter() - start < 0.3):
        before = time.perf_counter()
        X = solve()
        times.append(time.perf_counter() - before)
        if times[-1] > 1:
            break
    return median(times), X


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="numba")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    warmup(backend=arguments.backend)  # No row shall contain the time that the kernels take to compile.
    print("| equation | " + " | ".join((*METHODS, KRYLOV)) + " | auto / best |")
    print("|---|" + "---|" * (len(METHODS) + 2))
    for name, A, Z, activation in families():
        if arguments.only not in name:
            continue
        with np.errstate(all="ignore"):
            row(name, A.astype(arguments.dtype), Z.astype(arguments.dtype), activation, arguments.backend)


def row(name, A, Z, activation, backend):
    """Print one row of the table."""

    def solve(method, tol, A=A, Z=Z):
        options = SolveOptions(tol=tol, max_iter=100_000, method=method, on_failure="ignore")
        return solve_equilibrium(A, Z, activation=activation, options=options, backend=backend)

    def call(method, tol):
        return krylov(A, Z, activation, tol) if method == KRYLOV else solve(method, tol).X

    truth = solve("newton", 1e-15, A.astype(np.float64), Z.astype(np.float64)).X
    allowed, found = TARGET[A.dtype.name] * np.abs(truth).max(), {}
    for method in (*METHODS, KRYLOV):
        for tol in TOLERANCES:
            seconds, X = timed(lambda: call(method, tol))  # noqa: B023
            if np.abs(X - truth).max() <= allowed:
                found[method] = tol, seconds
            if method in found or seconds > LIMIT:
                break
    times = {method: seconds for method, (_, seconds) in found.items()}
    ratio = np.inf
    if "auto" in times and len(times) > 1:  # The ratio is that of calls in turn, because the machine's speed changes.
        best = min(times.keys() - {"auto"}, key=times.__getitem__)
        turns = [[timed(lambda: call(m, found[m][0]), 1)[0] for m in ("auto", best)] for _ in range(15)]  # noqa: B023
        ratio = median(mine / other for mine, other in turns)
    cells = [f"{1e3 * times[method]:.3g} ms" if method in times else "—" for method in (*METHODS, KRYLOV)]
    print(f"| {name} | {' | '.join(cells)} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
