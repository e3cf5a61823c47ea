"""Cases whose A is block triangular once its units are sorted: ‖A‖∞ is far above 1, and yet each block contracts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial

import numpy as np

from idl_ref.conformance.truth.cases import UNIT, both, case, clear, draw, perron, signed, weights
from idl_ref.conformance.truth.problem import Arrays, Case


def blocks() -> Iterator[Case]:
    """Blocks of units that feed each other, in random order.

    The Perron root of A is the largest of its blocks, so that plain iteration converges whatever the couplings are. A
    backend need not know the blocks, nor show a contraction: `converged` says that the steps have become small.
    """
    id = "blocks-cycles"
    comment = "cycles of units that feed other cycles, directly and over others, through weights far above 1"
    yield from both(id, comment, "blocks ball", clear(_cycles, id, "leaky_relu"), activation="leaky_relu")
    id = "blocks-growth"
    comment = "four pairs of units in a row: the steps of plain iteration grow many million times before they shrink"
    yield case(id, comment, "blocks ball", clear(_growth, id, margin=2.0**-40))
    id = "blocks-unrolled"
    comment = (
        "three steps of a recurrent cell, x_t = φ(A x_t + B u_t + H h_{t−1}), h_t = C x_t + D h_{t−1}, as one equation"
    )
    yield case(id, comment, "blocks transpose", clear(_unrolled, id, "leaky_relu"), activation="leaky_relu")


def _sorted_anew(rng: random.Random, arrays: Arrays) -> Arrays:
    """The same equation with its units in random order."""
    order = list(range(len(arrays["A"])))
    rng.shuffle(order)
    moved = {"A": arrays["A"][np.ix_(order, order)], "B": arrays["B"][order], "C": arrays["C"][:, order]}
    return arrays | moved


def _cycles(rng: random.Random) -> Arrays:
    """Cycles of 3, 2, 1, 2 and 3 units, and single units between them; units feed those before them."""
    sizes, A = (3, 1, 2, 1, 2, 3), np.zeros((12, 12))
    ends = np.cumsum(sizes)
    for k, (end, size) in enumerate(zip(ends, sizes, strict=True)):
        block = slice(end - size, end)
        A[block, end:] = 4 * draw(rng, size, 12 - end)
        if k != 1:  # The second one is a single unit that does not feed itself.
            A[block, block] = np.roll(np.eye(size), 1, axis=1) * 0.5 + signed(rng, size, 0.25)
    return _sorted_anew(rng, {"A": A, **weights(rng, 12)})


def _growth(rng: random.Random) -> Arrays:
    """Four pairs, each of which feeds the one before it by weights of about 200."""
    A = np.zeros((8, 8))
    for start in range(0, 8, 2):
        A[start : start + 2, start : start + 2] = perron(rng, 2, 0.5)
        A[start : start + 2, start + 2 : start + 4] = 256 * np.abs(draw(rng, 2, min(2, 6 - start), low=512))
    return _sorted_anew(rng, {"A": A, **weights(rng, 8, positive=True)})


def _unrolled(rng: random.Random, steps: int = 3, n: int = 3, p: int = 2, h: int = 2) -> Arrays:
    """A recurrent cell whose steps are the blocks: the one of step t is fed by that of step s by H Dᵗ⁻ˢ⁻¹ C."""
    eighths = partial(draw, rng, low=-7, high=8)
    cell, B = signed(rng, n, 0.5), draw(rng, n, p)
    H, C, D = (eighths(*shape) / UNIT / 8 for shape in ((n, h), (h, n), (h, h)))
    A, whole = np.kron(np.eye(steps), cell), np.kron(np.eye(steps), B)
    readout = np.zeros((h, steps * n))
    for t in range(steps):
        for s in range(t):
            A[t * n : t * n + n, s * n : s * n + n] = 2 * H @ np.linalg.matrix_power(D, t - s - 1) @ C
        readout[:, t * n : t * n + n] = np.linalg.matrix_power(D, steps - 1 - t) @ C
    arrays = {"A": A, "B": whole, "C": readout, "U": draw(rng, steps * p, 4)}
    return _sorted_anew(rng, arrays)
