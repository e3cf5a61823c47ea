"""Cases whose A has few entries that are not zero, as a backend meets that stores A by its entries."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

import numpy as np

from idl_ref.conformance.truth.cases import KAPPAS, UNIT, both, clear, draw, weights
from idl_ref.conformance.truth.problem import Arrays, Case

Places = Mapping[int, tuple[int, ...]]  # the columns of the entries of each row that has some

# The first, the last and two rows after each other have no entries; row 2 has one, and those of row 4 have the sum 0.
UNEVEN: Places = {
    1: (2, 8), 2: (7,), 3: (0, 3, 10), 4: (1, 5, 9), 7: (4, 11), 8: (3, 7, 11), 9: (1, 4), 10: (2, 6, 8, 9),
}  # fmt: skip
CANCELLED = 4
# The units that have entries here feed each other, and no others feed them; row 3 has all entries that it can have.
CORE: Places = {
    1: (2, 7), 2: (3, 8), 3: (1, 2, 3, 4, 7, 8, 9), 4: (7,), 7: (4, 8), 8: (1, 9), 9: (1, 3),
}  # fmt: skip


def sparse() -> Iterator[Case]:
    """An A of which few entries are not zero, and whose rows and columns have very different numbers of them."""
    id = "sparse-rows"
    comment = (
        "rows without entries, the first, the last and two after each other; a row of one entry, one of the sum 0, "
        "and units that have no inputs"
    )
    yield from both(id, comment, "sparse", clear(_uneven_rows, id, "hardtanh"), activation="hardtanh")
    id = "sparse-columns"
    comment = (
        "columns without entries, the first, the last and two after each other; one of one entry, one of the sum 0"
    )
    arrays = clear(_uneven_columns, id, "leaky_relu")
    yield from both(id, comment, "sparse transpose", arrays, activation="leaky_relu")
    id = "sparse-full"
    comment = "one row and one column of 40 entries, where most others have two"
    yield from both(id, comment, "sparse transpose", clear(_full, id, "identity"), activation="identity")
    id = "sparse-one"
    comment = "a single entry in the whole of A: from the first unit to the last"
    yield from both(id, comment, "sparse", clear(_one, id, "leaky_relu"), activation="leaky_relu")
    id = "sparse-slow"
    comment = "nonnegative, row sums κ = 0.99 in a part that feeds itself; the other rows have one entry or none"
    yield from both(id, comment, "sparse slow", clear(_slow, id), tol=1e-9)


def _placed(rng: random.Random, n: int, places: Places, low: int = 64, high: int = 160) -> np.ndarray:
    """An A with entries of magnitude [low, high)·2⁻¹⁰ and random signs in these places."""
    A = np.zeros((n, n))
    for i, columns in places.items():
        signs = [rng.choice((-1, 1)) for _ in columns]
        A[i, list(columns)] = draw(rng, len(columns), low=low, high=high) * signs
    return A


def _uneven(rng: random.Random) -> np.ndarray:
    """The places UNEVEN filled, with entries of the sum 0 in one row."""
    A = _placed(rng, 12, UNEVEN)
    *others, last = UNEVEN[CANCELLED]
    A[CANCELLED, others] = np.abs(A[CANCELLED, others])
    A[CANCELLED, last] = -A[CANCELLED].sum() + A[CANCELLED, last]
    return A


def _uneven_rows(rng: random.Random) -> Arrays:
    """Unit 5 has inputs and no row of A, unit 8 a row and no inputs, unit 6 neither."""
    arrays = {"A": _uneven(rng), **weights(rng, 12, m=3)}
    arrays["B"][[6, 8]] = 0
    return arrays


def _uneven_columns(rng: random.Random) -> Arrays:
    return {"A": _uneven(rng).T, **weights(rng, 12, m=3)}


def _full(rng: random.Random, n: int = 40, row: int = 7, column: int = 3) -> Arrays:
    """Each row has the entry of the full column, and one or two more."""
    A = _placed(rng, n, {i: tuple(rng.sample(range(n), rng.randint(1, 2))) for i in range(n)})
    A[:, column] = draw(rng, n, low=-256, high=256)
    A[row] = draw(rng, n, low=-24, high=24)
    return {"A": A, **weights(rng, n, m=3)}


def _one(rng: random.Random) -> Arrays:
    A = np.zeros((6, 6))
    A[-1, 0] = draw(rng, 1, low=512, high=900)[0]
    return {"A": A, **weights(rng, 6, m=3)}


def _slow(rng: random.Random) -> Arrays:
    A, total = np.zeros((12, 12)), round(KAPPAS["0.99"] / UNIT)
    for i, columns in CORE.items():
        cuts = sorted(rng.sample(range(1, total), len(columns) - 1))
        A[i, list(columns)] = np.diff([0, *cuts, total]) * UNIT
    A[10, 5] = 0.5  # A chain from one of the rows without entries, beside the part that is slow.
    return {"A": A, **weights(rng, 12, m=3, positive=True)}
