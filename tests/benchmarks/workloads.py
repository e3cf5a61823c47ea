"""The workloads that are measured, with their data, their contestants and the ratios that are aimed at.

This file needs NumPy alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

TOL = 3e-6
SOLVERS = ("torchidl", "jax", "jaxopt", "jaxopt_anderson", "torchdeq", "torchdeq_anderson")


@dataclass(frozen=True)
class Workload:
    """One row of the table."""

    name: str
    kind: str  # what the contestants build: solve, low_rank, step, sample, frozen or epoch
    sizes: dict[str, int]
    peers: tuple[str, ...] = SOLVERS
    bars: tuple[float, float | None] = (1.0, 1.0)  # torchidl's time / ours, the best other peer's time / ours
    peak_share: float | None = None  # of the GEMM peak
    hard: bool = False
    rounds: int = field(default=0)  # at most so many; 0 means as many as are asked for


def _solve(n: int, m: int, seed: float, other: float, **more: object) -> Workload:
    return Workload(f"solve, n={n}, m={m}, random", "solve", {"n": n, "m": m}, bars=(seed, other), **more)  # type: ignore


WORKLOADS = [
    _solve(32, 32, 7, 3),
    _solve(100, 64, 10, 2),
    _solve(512, 256, 3, 1.4),
    _solve(1024, 512, 3, 1.0, peak_share=0.7),
    _solve(2048, 512, 3, 1.0, peak_share=0.7),
    Workload(
        "solve, n=512, m=256, A ≥ 0, row sums 0.99",
        "solve",
        {"n": 512, "m": 256},
        bars=(20, 8),
        hard=True,
        rounds=5,
    ),
    Workload(
        "solve low rank, n=4096, r=10, m=512", "low_rank", {"n": 4096, "r": 10, "m": 512}, ("torchidl", "jax"), (60, 3)
    ),
    Workload(
        "forward + all gradients, n=100, p=784, q=10, m=64",
        "step",
        {"n": 100, "p": 784, "q": 10, "m": 64},
        ("torchidl", "jax", "jaxopt", "torchdeq"),
        (4, 2),
    ),
    Workload(
        "one sample, n=100, p=64: model(u)",
        "sample",
        {"n": 100, "p": 64, "q": 10, "m": 1},
        ("torchidl", "jax"),
        (6, 1.2),
    ),
    Workload(
        "one sample, frozen: model.freeze()(u)",
        "frozen",
        {"n": 100, "p": 64, "q": 10, "m": 1},
        ("torchidl", "jax"),
        (12, 2),
    ),
    Workload(
        "one epoch of SGD, 60,000×784, n=100, batch 64",
        "epoch",
        {"n": 100, "p": 784, "q": 10, "m": 60_000},
        ("torchidl",),
        (3, None),
        rounds=3,
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
