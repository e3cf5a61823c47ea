"""A group of cases about f = perron, which lets the Perron root of |A| be at most κ, whatever the norm of A is."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from idl_ref.conformance.truth.cases import UNIT, both, case, clear, weights
from idl_ref.conformance.truth.cases import perron as with_row_sums
from idl_ref.conformance.truth.problem import Arrays, Case
from idl_ref.functions import FUNCTIONS

KAPPA = 0.96875


def roots() -> Iterator[Case]:
    """Cases with raw weights whose Perron root, or whose root of it for L and Rᵀ, is known: a short binary number."""
    for where, root in (("inside", 0.75), ("beyond", 2.0), ("far", 24.0)):
        comment = f"f = perron, a Perron root of {root:g} beside κ = {KAPPA:g}, and rows of very different sums"
        yield from both(f"f-perron-{where}", comment, "f", drawn(f"f-perron-{where}", dense(root)), **settings())
        low = f"f-perron-{where}-low-rank"
        comment = f"f = perron for A = L Rᵀ: the Perron root of |L||Rᵀ| is {root:g}², beside κ²"
        yield from both(low, comment, "f low_rank", drawn(low, thin(root)), **settings())
    comment = "f = perron for a matrix of two blocks: the first one has the larger root, and alone decides"
    yield from both("f-perron-blocks", comment, "f blocks", drawn("f-perron-blocks", blocks), **settings())
    comment = "the declared derivative of f = perron is the identity"
    for id, build in (("", dense(3.0)), ("-low-rank", thin(3.0))):
        name = f"f-perron-straight-through{id}"
        yield case(name, comment, "f straight_through", drawn(name, build), **settings(straight_through=True))


def settings(**more: Any) -> dict[str, Any]:
    """The settings of the problem that all these cases share."""
    return {"f": "perron", "kappa": KAPPA, **more}


def drawn(id: str, build: Callable[[random.Random], Arrays]) -> Arrays:
    """The weights of a case, whose preactivations stay away from the kinks of φ."""
    return clear(lambda rng: build(rng) | weights(rng), id, f=FUNCTIONS["perron"](KAPPA))


def scales(rng: random.Random, n: int) -> np.ndarray:
    """v > 0, powers of two, which becomes the right vector of the root.   (n, 1)"""
    return np.array([[2.0 ** rng.randint(-2, 2)] for _ in range(n)])


def positive(rng: random.Random, rows: int, columns: int, total: float) -> np.ndarray:
    """A matrix of positive multiples of UNIT, each of whose rows has the given sum."""
    size = max(rows, columns)
    W = with_row_sums(rng, size, total - columns * UNIT)[:rows]
    W[:, columns - 1] += W[:, columns:].sum(axis=1)
    return W[:, :columns] + UNIT


def signs(rng: random.Random, *shape: int) -> np.ndarray:
    """A matrix of random signs."""
    return np.array([rng.choice((-1.0, 1.0)) for _ in range(int(np.prod(shape)))]).reshape(shape)


def dense(root: float, n: int = 5) -> Callable[[random.Random], Arrays]:
    """A with |A| v = root·v: |A| = diag(v) W diag(v)⁻¹, and every row of W has the sum `root`."""

    def build(rng: random.Random) -> Arrays:
        v = scales(rng, n)
        return {"A": signs(rng, n, n) * v * positive(rng, n, n, root) / v.T}

    return build


def thin(root: float, n: int = 5, r: int = 2) -> Callable[[random.Random], Arrays]:
    """L and R with |L| 1 = root·v and |Rᵀ| v = root·1, so that |L||Rᵀ| v = root²·v."""

    def build(rng: random.Random) -> Arrays:
        v = scales(rng, n)
        L = signs(rng, n, r) * v * positive(rng, n, r, root)
        Rt = signs(rng, r, n) * positive(rng, r, n, root) / v.T
        return {"L": L, "R": Rt.T}

    return build


def blocks(rng: random.Random) -> Arrays:
    """Two blocks with the roots 2 and 1/2, of which the first one also takes what the second one gives."""
    A = np.zeros((5, 5))
    A[:3, :3], A[3:, 3:] = dense(2.0, 3)(rng)["A"], dense(0.5, 2)(rng)["A"]
    A[:3, 3:] = signs(rng, 3, 2) * positive(rng, 3, 2, 1.0)
    return {"A": A}
