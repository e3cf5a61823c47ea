"""The workloads that are measured, with their data, their contestants and the ratios that are aimed at.

This file needs NumPy alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

TOL = 3e-6
EPOCH, EPOCH_SIZES = "one epoch of SGD, 60,000×784, n=100, batch 64", {"n": 100, "p": 784, "q": 10, "m": 60_000}
SOLVERS = ("torchidl", "jax", "jaxopt", "jaxopt_anderson", "torchdeq", "torchdeq_anderson")


@dataclass(frozen=True)
class Workload:
    """One row of the table."""

    name: str
    kind: str  # what the contestants build: solve, low_rank, step, sample, frozen or epoch
    sizes: dict[str, int]
    peers: tuple[str, ...] = SOLVERS
    bars: tuple[float | None, float | None] = (1.0, 1.0)  # torchidl's time / ours, the best other peer's time / ours
    peak_share: float | None = None  # of the machine's limit
    hard: bool = False
    rounds: int = field(default=0)  # at most so many; 0 means as many as are asked for
    neighbour: bool = False  # another process burns one core meanwhile

    def least(self, applications: int) -> tuple[float, float]:
        """The flops, and the bytes that are read and written once, for so many products with A, summed over columns."""
        n, m, p, q = (self.sizes.get(name, 0) for name in "nmpq")
        if self.kind in ("solve", "low_rank"):
            r = self.sizes.get("r")
            weights = 2 * n * r if r else n * n
            return 2 * weights * applications, 4 * (weights + 2 * n * m)
        weights = n * p + q * n + q * p
        flops = 2 * n * n * applications + 2 * m * weights  # `applications` counts those of the adjoint equation too
        if self.kind in ("sample", "frozen"):
            return flops, 4 * (n * n + weights)
        flops += 2 * m * (n * n + q * n) + 2 * m * (n * n + weights)  # A X + Z and Cᵀ G_Y, and the gradients
        if self.kind == "step":  # U too has a gradient
            return flops + 2 * m * (n * p + q * p), 4 * (2 * (n * n + weights) + 2 * m * p)
        # Each step reads its samples, and reads and writes weights and velocities.
        return flops, 4 * (m * p + -(-m // 64) * 4 * (n * n + weights))


def _solve(n: int, m: int, seed: float, other: float, **more: object) -> Workload:
    return Workload(f"solve, n={n}, m={m}, random", "solve", {"n": n, "m": m}, bars=(seed, other), **more)  # type: ignore


WORKLOADS = [
    _solve(32, 32, 9, 2.5),
    _solve(100, 64, 5, 1.5),
    _solve(512, 256, 3, 1.5),
    _solve(1024, 512, 3, 1.3, peak_share=0.7),
    _solve(2048, 512, 2.5, 1.1, peak_share=0.7),
    Workload(
        "solve, n=512, m=256, A ≥ 0, row sums 0.99",
        "solve",
        {"n": 512, "m": 256},
        bars=(300, 3.3),
        hard=True,
        rounds=5,
    ),
    Workload(
        "solve low rank, n=4096, r=10, m=512", "low_rank", {"n": 4096, "r": 10, "m": 512}, ("torchidl", "jax"), (100, 2)
    ),
    Workload(
        "forward + all gradients, n=100, p=784, q=10, m=64",
        "step",
        {"n": 100, "p": 784, "q": 10, "m": 64},
        ("torchidl", "jax", "jaxopt", "torchdeq"),
        (5, 2),
    ),
    Workload(
        "one sample, n=100, p=64: model(u)",
        "sample",
        {"n": 100, "p": 64, "q": 10, "m": 1},
        ("torchidl", "jax"),
        (10, 3),
    ),
    Workload(
        "one sample, frozen: model.freeze()(u)",
        "frozen",
        {"n": 100, "p": 64, "q": 10, "m": 1},
        ("torchidl", "jax"),
        (27, 7),
    ),
    Workload(EPOCH, "epoch", EPOCH_SIZES, ("torchidl", "jax"), (5, 2), peak_share=0.45, rounds=3),
    Workload(
        f"{EPOCH}, beside a busy neighbour",
        "epoch",
        EPOCH_SIZES,
        ("torchidl", "jax"),
        (None, None),
        rounds=3,
        neighbour=True,
    ),
]


def data(workload: Workload) -> dict[str, np.ndarray]:
    """float32 arrays; the same in every process."""
    rng = np.random.default_rng(0)
    n, m = workload.sizes["n"], workload.sizes["m"]
    if workload.kind == "low_rank":
        L, R = rng.standard_normal((2, n, workload.sizes["r"]))
        L *= 0.95 / (np.abs(L) @ np.abs(R).T).sum(axis=1).max()  # so that torchidl leaves both as they are
        balance = np.sqrt(np.abs(R.T).sum(axis=1).max() / np.abs(L).sum(axis=1).max())
        return _float32(L=L, R=R, Z=rng.standard_normal((n, m)), balance=np.array(balance))
    A = rng.random((n, n)) if workload.hard else rng.standard_normal((n, n))
    rows = np.abs(A).sum(axis=1, keepdims=True)
    A *= 0.99 / rows if workload.hard else 0.95 / rows.max()
    if workload.kind == "solve":
        return _float32(A=A, Z=rng.random((n, m)) if workload.hard else rng.standard_normal((n, m)))
    p, q = workload.sizes["p"], workload.sizes["q"]
    B, C, D = (rng.standard_normal(shape) / shape[1] ** 0.5 for shape in ((n, p), (q, n), (q, p)))
    U = rng.standard_normal((m, p), dtype=np.float32)
    return _float32(A=A, B=B, C=C, D=D, U=U) | {"targets": rng.integers(0, q, m)}


def _float32(**arrays: np.ndarray) -> dict[str, np.ndarray]:
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def truth(workload: Workload, given: dict[str, np.ndarray]) -> np.ndarray:
    """The equilibrium in float64, from plain iteration until nothing changes any more."""
    given = {name: array.astype(np.float64) for name, array in given.items()}
    factors = (given["L"], given["R"].T) if workload.kind == "low_rank" else (given["A"],)
    X = np.zeros_like(given["Z"])
    for _ in range(10_000):
        Y = X
        for F in reversed(factors):
            Y = F @ Y
        Y = np.maximum(Y + given["Z"], 0)
        step, X = np.abs(Y - X).max(), Y
        if step < 1e-12:
            return X
    raise RuntimeError(f"no equilibrium of {workload.name} in 10,000 steps")
