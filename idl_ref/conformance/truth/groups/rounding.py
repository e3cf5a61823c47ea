"""Groups of cases about rounding that a norm hides: rows of very different size, saturated φ, and last-digit cycles."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np

from idl_ref.conformance.truth.cases import KAPPAS, UNIT, both, case, clear, draw, generator, perron, signed, weights
from idl_ref.conformance.truth.problem import Arrays, Case


def _some_huge(build: Arrays, size: float, units: int) -> Arrays:
    """The arrays with a first feature of about `size` that the first units see alone, with weights of both signs."""
    n = len(build["B"])
    build["B"][:, 0] = np.where(np.arange(n) < units, 1.0 - 2.0 * (np.arange(n) % 2), 0.0)
    build["U"][0] = size + np.arange(build["U"].shape[1])
    return build


def rows() -> Iterator[Case]:
    """Cases in which one row is much larger than the others, or φ saturates in one row."""
    pair = np.array([[0.0, KAPPAS["0.9"]], [KAPPAS["0.9"], 0.0]])
    arrays = {"A": pair, "B": np.eye(2), "C": np.array([[1.0, -0.5]]), "D": np.zeros((1, 2))}
    arrays["U"] = np.array([[-1e7, 0.5], [1e7, 0.375], [-2e7, -0.25]]).T
    comment = (
        "|z| = 10⁷ in one row saturates tanh, and the other row depends on it: two applications are needed, not one"
    )
    yield from both("rows-tanh-pair", comment, "rows saturated", arrays, activation="tanh")
    id = "rows-tanh-one"
    arrays = {"A": perron(generator(id), 6, KAPPAS["0.99"]), **weights(generator(f"{id} w"), 6, 3, 2, 3)}
    arrays["B"][1:, 1:] = np.abs(arrays["B"][1:, 1:]) / 16
    comment = "one z of 10⁵ among entries of some tenths: its rounding is larger than what the other rows still move"
    yield from both(id, comment, "rows saturated", _some_huge(arrays, 1e5, 1), activation="tanh")
    id = "rows-timestamp"
    arrays = {"A": signed(generator(id), 12, KAPPAS["0.99"]), **weights(generator(f"{id} w"), 12, 3, 2, 3)}
    comment = "a feature of size 10⁶, such as a time in seconds, that 2 of 12 units see"
    yield from both(id, comment, "rows saturated", _some_huge(arrays, 2.0**20, 2), activation="tanh")
    arrays = {"A": np.diag([0.5, KAPPAS["0.9"]]), "B": np.eye(2), "C": np.eye(2), "D": np.zeros((2, 2))}
    arrays["U"] = np.array([[1e4, 205 * UNIT], [2e4, 102 * UNIT]]).T
    comment = "two units that do not know of each other, with z = 10⁴ and z = 0.2: each to the digits of its own size"
    yield from both("rows-relu-decoupled", comment, "rows", arrays)
    for phi in ("hardtanh", "sigmoid", "softsign"):

        def saturated(rng: random.Random) -> Arrays:
            return _some_huge({"A": signed(rng, 6, KAPPAS["0.99"]), **weights(rng, 6, 3, 2, 3)}, 1e5, 2)

        id = f"rows-saturated-{phi}"
        comment = f"{phi} with |z| = 10⁵ in two rows of both signs, on which the others depend"
        arrays = clear(saturated, id, phi, margin=UNIT**2 / 32)
        yield from both(id, comment, "rows saturated", arrays, activation=phi)


def cycles() -> Iterator[Case]:
    """Cases in which plain iteration never stops by tol, because rounding keeps it in a cycle, or in a long decay."""
    for name, n, A, comment in (
        ("one", 1, [[-1.0]], "x = z − 0.99 x: float32 keeps a cycle of period 2"),
        ("permutation", 5, np.roll(-np.eye(5), 1, axis=1), "a cyclic shift of the negative: periods up to 10"),
        ("rotation", 2, [[0.0, -1.0], [1.0, 0.0]], "a rotation by a right angle: a cycle of period 4"),
    ):
        rest = {"B": np.eye(n), "C": draw(generator(f"cycle {name} C"), 1, n), "D": np.zeros((1, n))}
        arrays = {"A": np.array(A) * KAPPAS["0.99"], **rest, "U": 1000 + draw(generator(f"cycle {name} U"), n, 3)}
        phi = "identity" if name == "rotation" else "relu"
        comment += " in the last digits, which no tol below its steps ends"
        yield case(f"cycle-{name}", comment, "cycle", arrays, "float32", tol=1e-9, activation=phi)
    id = "start-zero-column"
    arrays = {"A": signed(generator(id), 4, 0.5), **weights(generator(f"{id} w"), 4, 2, 2, 3, positive=True)}
    arrays["U"][:, 1] = 0
    arrays["X0"] = np.ones((4, 3))
    comment = "a column with z = 0 that starts at 1: it decays to 0 by the smallest numbers, where no tol holds"
    yield case(id, comment, "cycle", arrays, "float32", activation="identity")
