"""Groups of cases about solving the equation: contraction, φ, the stopping rule, well-posedness, and kinks of φ."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from idl_ref import activations as act
from idl_ref.conformance.truth.cases import (
    KAPPAS,
    POSITIVE,
    TOL,
    UNIT,
    both,
    case,
    clear,
    digits,
    draw,
    generator,
    member,
    perron,
    signed,
    weights,
)
from idl_ref.conformance.truth.problem import Arrays, Case

COMMENTS = {
    "random": "random signs: easy whatever the norm, because the spectral radius is small",
    "permutation": "a scaled cyclic shift: every eigenvalue on the circle of radius κ, nothing contracts faster",
    "perron": "nonnegative, all row sums κ, positive inputs: the slow case of plain iteration",
    "nilpotent": "strictly upper triangular: exact after n applications, upper part dense",
    "antisymmetric": "A = −Aᵀ: the adjoint without its transpose has the wrong sign, the oscillation is slow",
    "rank1": "one direction only, of mixed signs",
    "zero-rows": "two rows and one column of zeros",
}


def contraction() -> Iterator[Case]:
    """Cases that contract at different rates κ, with matrices A of different structure."""
    for kappa in KAPPAS:
        for family, comment in COMMENTS.items():
            if kappa == "0" and family != "random":
                continue
            flags = "contraction"
            rest: dict[str, Any] = {"max_iter": 30_000} if kappa == "0.999" else {}
            if family in POSITIVE and kappa in ("0.99", "0.999"):
                flags += " slow"
                rest["tol"] = 1e-9 if kappa == "0.99" else 1e-4
            if family in ("antisymmetric", "nilpotent"):
                flags += " transpose"
            id = f"contraction-{family}-{kappa}"
            arrays = member(id, kappa=kappa, family=family)
            yield case(f"{id}-float64", comment, flags, arrays, **rest)
            if kappa in ("0.9", "0.99"):
                yield case(f"{id}-float32", comment, flags, arrays, "float32")


def activations() -> Iterator[Case]:
    """Cases for each φ: ordinary, slowly contracting, and with large preactivations."""
    for phi in act.TABLE:
        for rank in (None, 2):

            def build(rng: random.Random, rank: int | None = rank) -> Arrays:
                rest = weights(rng) | {"U": draw(rng, 3, 4, low=-2048, high=2048)}
                A = signed(rng, 5, KAPPAS["0.9"])
                if rank is None:
                    return {"A": A, **rest}
                return {"L": A[:, :rank], "R": signed(rng, 5, 0.5)[:, :rank], **rest}

            id = f"activation-{phi}-{'dense' if rank is None else 'low-rank'}"
            yield from both(id, f"φ = {phi} and its slope", "activation", clear(build, id, phi), activation=phi)
    for phi in ("sigmoid", "softplus"):
        id = f"activation-{phi}-zero-column"
        arrays = member(id)
        arrays["U"][:, 2] = 0
        comment = f"φ = {phi} for a sample of zeros, whose equilibrium is not 0 because φ(0) is not"
        yield from both(id, comment, "activation column", arrays, activation=phi)
    for phi in ("tanh", "identity", "leaky_relu", "softplus"):
        low = 1 if phi == "identity" else -64  # small inputs, for which tanh has a slope near 1

        def slow(rng: random.Random, low: int = low) -> Arrays:
            U = draw(rng, 3, 4, low=low, high=64)
            return {"A": perron(rng, 5, KAPPAS["0.99"]), **weights(rng, positive=True), "U": U}

        id = f"activation-{phi}-slow"
        comment = f"φ = {phi} where it hardly contracts: small inputs, nonnegative rows, κ = 0.99"
        yield case(f"{id}-float64", comment, "activation slow", clear(slow, id, phi), activation=phi, tol=1e-9)
    for phi in ("tanh", "sigmoid", "softplus", "elu", "softsign"):
        id = f"activation-{phi}-large"
        arrays = member(id)
        arrays["U"] = np.round(arrays["U"] * 600)
        comment = f"φ = {phi} at preactivations of some hundred: no overflow on either side"
        yield from both(id, comment, "activation overflow", arrays, activation=phi)


def stopping() -> Iterator[Case]:
    """Cases that distinguish stopping rules, and the last iterate from the one before."""
    A = np.full((4, 4), 1 / 32)  # κ = 1/8 and rank 1: each step is an eighth of the one before
    comment = "a loose tolerance and κ = 1/8: the last application of the map is κ times nearer than the iterate before"
    for phi in ("relu", "tanh", "softplus"):
        arrays = {"A": A, **weights(generator(f"stopping {phi}"), 4, 2, 2, 3, positive=True)}
        id = f"stopping-last-application-{phi}"
        yield case(id, comment, "stale stopping", arrays, tol=4e-2, activation=phi, strict=True)
    A = np.diag([1 / 128] * 3, 1)  # x₄ → x₃ → x₂ → x₁, weakly coupled: two applications meet the tolerance
    comment = "a chain of units and a loose tolerance: the slopes of the iterate before the last are far off"
    for phi in ("tanh", "softplus"):
        arrays = {"A": A, **weights(generator(f"chain {phi}"), 4, 2, 2, 3, positive=True)}
        arrays["B"], arrays["U"] = arrays["B"] + 0.5, arrays["U"] / 2  # where φ is most curved
        id = f"stopping-slopes-{phi}"
        yield case(id, comment, "stale stopping", arrays, tol=2.0**-7, activation=phi, strict=True)

    def slow(id: str, m: int = 4, kappa: str = "0.9") -> Arrays:
        return {"A": perron(generator(id), 5, KAPPAS[kappa]), **weights(generator(id), m=m, positive=True)}

    id = "stopping-slow-column"
    arrays = slow(id, 9, "0.99")
    arrays["B"][:, 1:] = 0
    arrays["U"][0, :] = 2.0**-9  # eight columns have small inputs, and one has inputs of full size
    arrays["U"][0, 4] = 1.0
    comment = "one column needs ten times the steps of its eight mates; a mean over columns hides it"
    yield case(id, comment, "column slow", arrays, tol=1e-6)
    id = "stopping-small-column"
    arrays = slow(id)
    arrays["U"][:, 2] *= 2.0**-30
    comment = "one column of inputs a thousand million times smaller than its mates', to the same accuracy"
    yield case(id, comment, "column small", arrays, tol=1e-6)
    id = "stopping-small-cotangent"
    G_Y = digits(generator(id + " G_Y"), 2, 4) * 2.0**-60
    comment = "a cotangent of size 1e-18: the adjoint is linear, so the relative error is that of size 1"
    yield case(id, comment, "small", slow(id), tol=1e-9, G_Y=G_Y)
    yield from _hidden_by_a_mean()
    id = "stopping-tol-zero"
    comment = "tol = 0: as near as rounding lets it come, and then an end"
    yield from both(id, comment, "stopping", slow(id), tol=0.0)


def _hidden_by_a_mean() -> Iterator[Case]:
    """Cases in which a mean over the units or over the batch hides what is left to be done."""
    id = "stopping-slow-unit"
    A = np.diag([KAPPAS["0.99"], *[0.0] * 15])
    A[1:, 0] = 2.0**-6  # fifteen units see the slow one, and have nothing else to wait for
    arrays = {"A": A, **weights(generator(id), 16, 3, 2, 3, positive=True)}
    yield from both(id, "one unit of 16 is slow: a mean over the units hides it", "unit slow", arrays, tol=1e-5)
    id = "stopping-adjoint-slow-column"
    arrays = {"A": perron(generator(id), 4, KAPPAS["0.99"]), **weights(generator(id), 4, 2, 2, 24, positive=True)}
    arrays["U"][:, np.arange(24) != 7] *= -1
    comment = "every unit is active in one column and in none of its 23 mates: only that adjoint needs iterations"
    yield from both(id, comment, "cotangent slow", arrays, tol=1e-5)
    id = "stopping-adjoint-small-column"
    arrays = {"A": perron(generator(id), 4, KAPPAS["0.9"]), **weights(generator(id), 4, 2, 2, 6, positive=True)}
    G_Y = digits(generator(f"{id} G_Y"), 2, 6) * np.where(np.arange(6) == 2, 2.0**-30, 1.0)
    comment = "the cotangent of one column is a thousand million times smaller than its mates'"
    yield from both(id, comment, "cotangent small", arrays, tol=1e-6, G_Y=G_Y)


def counts() -> Iterator[Case]:
    """Cases in which plain iteration makes the same exact numbers in any precision, so that its steps are known.

    facts["iterations"] has, for each column, the number of applications of the map after which its step is within tol,
    or max_iter.
    """
    rest = {"B": np.eye(6), "C": np.ones((1, 6)), "D": np.zeros((1, 6))}
    starts = np.zeros((6, 4))
    starts[5, 0], starts[2, 1], starts[0, 2] = 1.0, -0.5, 2.0
    chain = {"A": np.diag([0.5] * 5, 1), **rest, "U": starts}
    halves = {"A": np.diag([0.5] * 6), **rest, "U": np.outer(np.ones(6), [1.0, 4.0, 0.25, 0.0])}
    chained = "a chain of 6 units, of which columns start the last, the third, the first, and none"
    halved = "x = x/2 + z: each step is half of the one before, down to 1.5·2⁻¹⁰"
    settings: dict[str, Any]
    for name, arrays, comment, known, settings in (
        ("chain", chain, chained, [7, 4, 2, 1], {"activation": "identity"}),
        ("halving", halves, halved, [11, 13, 11, 1], {"activation": "identity", "tol": 1.5 * UNIT}),
    ):
        for cap, more in ((2000, ""), (max(known), ": max_iter just allows the slowest"), (5, ", and max_iter = 5")):
            bad = tuple(j for j, count in enumerate(known) if count > cap)
            flags, facts = "count" + " limit" * (cap < 2000), {"iterations": [min(cap, count) for count in known]}
            settings = {**settings, "max_iter": cap, "expect": "reported" if bad else "valid", "bad": bad}
            yield case(f"counts-{name}-{cap}", comment + more, flags, arrays, facts=facts, **settings)
    X = np.linalg.solve(np.eye(6) - chain["A"], starts)  # sums of powers of two, without any rounding
    comment = "a start at the equilibrium: the first step is 0, and one application suffices"
    settings = {"max_iter": 1, "activation": "identity", "facts": {"iterations": [1] * 4}}
    yield case("counts-start", comment, "count start limit", chain | {"X0": X}, **settings)
    yield _led_off()


def _led_off() -> Case:
    """A chain of relu units from starts with a negative entry, which a start from φ(X0) would not have."""
    A, U = np.diag([0.5] * 5, 1), np.ones((6, 4))
    U[5, 0], U[2:, 1], U[4:, 3] = 0.0, 0.0, 0.0
    X0 = np.linalg.solve(np.eye(6) - A, U)  # the equilibrium, without any rounding
    X0[5, 0], X0[2, 1], X0[4, 3] = -1.0, -1.0, -1.0
    comment = "an entry of X0 is negative, and no state of relu is: the step there leads its followers off first"
    arrays = {"A": A, "B": np.eye(6), "C": np.ones((1, 6)), "D": np.zeros((1, 6)), "U": U, "X0": X0}
    return case("counts-start-negative", comment, "count start", arrays, facts={"iterations": [7, 4, 1, 6]})


def ball() -> Iterator[Case]:
    """Cases with ‖A‖∞ next to 1, and far above it with a Perron root below 1."""
    for name, total, comment in (
        ("ulp-below", np.nextafter(1, 0), "‖A‖∞ one unit in the last place below 1"),
        ("on", 1.0, "‖A‖∞ = 1 exactly: not a contraction in this norm, well posed by its Perron root"),
        ("ulp-above", np.nextafter(1, 2), "‖A‖∞ one unit in the last place above 1, well posed by its Perron root"),
    ):
        id = f"ball-{name}"
        A = np.triu(perron(generator(id), 5, 1.0), 1)
        A[0] = [0, 0.25, 0.25, 0.25, 0.25 + (total - 1.0)]
        A[4, 0] = 2.0**-6
        arrays = clear(partial(_around, A, False), id)
        yield case(id, comment, "ball" if name == "on" else "ball ulp", arrays)
    for name, factor in (("10", 8.0), ("1000", 1024.0)):
        id = f"ball-beyond-{name}"
        scale = np.diag([1.0, factor, 1.0, factor, 1.0])
        A = scale @ perron(generator(id), 5, 0.75) @ np.linalg.inv(scale)
        comment = f"D A D⁻¹ of a contraction: ‖A‖∞ of about {name}, Perron root 0.75, as well posed as before"
        arrays = clear(partial(_around, A, True), id, margin=UNIT**2)
        yield case(id, comment, "ball perron", arrays)

    arrays = {"A": np.zeros((3, 3)), "B": np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]), "C": np.ones((1, 3))}
    arrays["A"][0, 1], arrays["A"][1, 2], arrays["A"][2, 0] = 1024.0, 2.0**-21, 2.0**-24
    arrays |= {"D": np.zeros((1, 2)), "U": np.array([[1.0, 0.75], [0.5, 1.5]]).T}
    comment = "x̂ meets the tolerance and g(x̂) is a thousand times off it: the answer that is returned must be judged"
    yield case("ball-judged", comment, "ball judged", arrays, activation="identity", tol=2e-6)


def _around(A: np.ndarray, positive: bool, rng: random.Random) -> Arrays:
    return {"A": A, **weights(rng, positive=positive)}


def ill_posed() -> Iterator[Case]:
    """Cases in which columns have no solution, or need more iterations than max_iter."""
    rest = {"C": np.ones((1, 2)), "D": np.zeros((1, 1)), "U": np.array([[1.0, 2.0, 0.5]])}
    for name, A, B, comment in (
        ("no-solution", [[1.5, 0.0], [0.0, 0.0]], [1.0, 0.0],
         "x = max(0, 1.5 x + 1) has no solution: the iteration grows for ever"),
        ("two-cycle", [[0.0, -2.0], [-2.0, 0.0]], [1.0, 1.0],
         "x₁ = max(0, 1 − 2 x₂), x₂ = max(0, 1 − 2 x₁): plain iteration cycles"),
        ("blow-up", [[0.0, 3.0], [3.0, 0.0]], [1.0, 0.0], "an eigenvalue of 3: the iteration overflows"),
    ):  # fmt: skip
        arrays = {"A": np.array(A), "B": np.array(B)[:, None], **rest}
        yield case(f"ill-posed-{name}", comment, "reported", arrays, expect="reported", bad=(0, 1, 2), max_iter=500)
    arrays = {"A": np.zeros((4, 4)), **weights(generator("one column w"), 4, 2, 2, 5)}
    arrays["A"][0, 0] = 1.5  # x₁ = max(0, 1.5 x₁ + u₁) has no solution for u₁ > 0
    arrays["A"][1:, 1:] = signed(generator("one column"), 3, KAPPAS["0.9"])
    arrays["B"][0] = [1, 0]
    arrays["B"][1:, 0] = 0
    arrays["U"][0] = [-1, -1, 1, -1, -1]
    yield case(
        "ill-posed-one-column", "column 2 has no solution, the others do not know of it", "reported column", arrays,
        expect="reported", bad=(2,), max_iter=500, facts={"still": [0]},
    )  # fmt: skip
    arrays = member("iteration cap", kappa="0.999", family="perron")
    for cap, allowed in ((1, "one application"), (50, "fifty applications")):
        comment = f"{allowed} allowed where thousands are needed"
        yield case(
            f"iteration-cap-{cap}", comment, "reported cap", arrays, expect="reported", bad=(0, 1, 2, 3), max_iter=cap
        )


def kinks() -> Iterator[Case]:
    """Cases at kinks of φ.

    B = I, and all entries are dyadic, so that preactivations are exact in either dtype, whatever the order of a sum.
    """
    arrays = {"A": np.full((3, 3), -0.0), "B": np.eye(3), "C": np.array([[1.0, -0.5, 0.25], [0.5, 1.0, -1.0]])}
    arrays["D"] = np.zeros((2, 3))
    for phi, at in (("relu", 0.0), ("leaky_relu", 0.0), ("hardtanh", 1.0), ("hardtanh", -1.0)):
        name = f"kink-{phi}{'' if not at else f'{at:+.0f}'}"
        U = np.array([[at, -0.5, 0.25], [at, 0.75, at], [at, at, 0.5]]).T
        comment = f"preactivations exactly at the kink {at:g} of {phi}: its slope is a convention"
        yield case(f"{name}-exact", comment, "kink", arrays | {"U": U}, activation=phi, expect="acceptable")
        for side, to in (("above", np.inf), ("below", -np.inf)):
            comment = f"one unit in the last place {side} the kink {at:g} of {phi}: the slope is no convention there"
            for dtype in TOL:
                beside = U.astype(dtype)
                beside[beside == at] = np.nextafter(beside.dtype.type(at), beside.dtype.type(to))
                flags = "kink ulp" if at else "kink ulp subnormal"
                yield case(f"{name}-{side}-{dtype}", comment, flags, arrays | {"U": beside}, dtype, activation=phi)
    arrays = {
        "A": np.array([[0.0, 0.5, 0.0], [0.25, 0.0, 0.0], [0.5, 0.25, 0.0]]),
        "B": np.eye(3),
        "C": np.ones((1, 3)),
        "D": np.zeros((1, 3)),
        "U": np.array([[0.0, 0.0, 0.0], [1.0, -0.25, -0.625], [0.0, 0.0, 0.0], [-1.0, -1.0, 0.0]]).T,
    }
    comment = "columns that share a kink with their mates, and one of zeros"
    yield case("kink-ties", comment, "kink column", arrays, expect="acceptable")
