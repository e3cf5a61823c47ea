"""Cases about solving the equation: how it contracts, with which φ, how well posed, at which kinks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from idl_ref import activations
from idl_ref.conformance.cases import (
    FAMILIES,
    KAPPAS,
    POSITIVE,
    UNIT,
    both,
    case,
    clear,
    draw,
    generator,
    listed,
    perron,
    rank_one,
    signed,
    weights,
)
from idl_ref.conformance.problem import Arrays, Case

COMMENTS = {
    "random": "random signs: easy whatever the norm, because the spectral radius is small",
    "permutation": "a scaled cyclic shift: every eigenvalue on the circle of radius κ, nothing contracts faster",
    "perron": "nonnegative, all row sums κ, positive inputs: the slow case of plain iteration",
    "nilpotent": "strictly upper triangular: exact after n applications, upper part dense",
    "antisymmetric": "A = −Aᵀ: the adjoint without its transpose has the wrong sign, the oscillation is slow",
    "rank1": "one direction only, of mixed signs",
    "zero-rows": "two rows and one column of zeros",
}


def member(family: str, kappa: str, id: str, n: int = 5, p: int = 3, q: int = 2, m: int = 4) -> Arrays:
    def build(rng):  # type: ignore[no-untyped-def]
        return {"A": FAMILIES[family](rng, n, KAPPAS[kappa]), **weights(rng, n, p, q, m, family in POSITIVE)}

    return clear(build, id)


@listed
def contraction() -> Iterator[Case]:
    for kappa in KAPPAS:
        for family, comment in COMMENTS.items():
            if kappa == "0" and family != "random":
                continue
            slow = ("slow",) if family in POSITIVE and kappa in ("0.99", "0.999") else ()
            flags = ("contraction", *slow, *(("transpose",) if family in ("antisymmetric", "nilpotent") else ()))
            tol = {"0.99": 1e-9, "0.999": 1e-4}.get(kappa) if family in POSITIVE else None
            id = f"contraction-{family}-{kappa}"
            arrays = member(family, kappa, id)
            limit = 30_000 if kappa == "0.999" else 10_000
            yield case(f"{id}-float64", "contraction", comment, flags, arrays, tol=tol, max_iter=limit)
            if kappa in ("0.9", "0.99"):
                yield case(f"{id}-float32", "contraction", comment, flags, arrays, dtype="float32")


@listed
def activation() -> Iterator[Case]:
    for phi in activations.TABLE:
        for rank in (None, 2):
            id = f"activation-{phi}-{'dense' if rank is None else 'low-rank'}"

            def build(rng, rank=rank):  # type: ignore[no-untyped-def]
                n, p, q, m = 5, 3, 2, 4
                rest = weights(rng, n, p, q, m) | {"U": draw(rng, p, m, low=-2048, high=2048)}
                if rank is None:
                    return {"A": signed(rng, n, KAPPAS["0.9"]), **rest}
                return {"L": signed(rng, n, KAPPAS["0.9"])[:, :rank], "R": signed(rng, n, 0.5)[:, :rank], **rest}

            arrays = clear(build, id, phi)
            yield from both(id, "activations", f"φ = {phi} and its slope", ("activation",), arrays, activation=phi)
    for phi in ("tanh", "identity", "leaky_relu", "softplus"):
        id = f"activation-{phi}-slow"
        lean = 1 if phi == "identity" else -64  # small inputs: tanh is steep there

        def slow(rng, lean=lean):  # type: ignore[no-untyped-def]
            small = draw(rng, 3, 4, low=1 if lean > 0 else lean, high=64)
            return {"A": perron(rng, 5, KAPPAS["0.99"]), **weights(rng, 5, 3, 2, 4, True), "U": small}

        comment = f"φ = {phi} where it hardly contracts: small inputs, nonnegative rows, κ = 0.99"
        arrays = clear(slow, id, phi)
        yield case(f"{id}-float64", "activations", comment, ("activation", "slow"), arrays, activation=phi, tol=1e-9)

    for phi in ("tanh", "sigmoid", "softplus", "elu", "softsign"):
        id = f"activation-{phi}-large"
        arrays = member("random", "0.9", id)
        arrays["U"] = np.round(arrays["U"] * 600)
        comment = f"φ = {phi} at preactivations of some hundred: no overflow on either side"
        yield from both(id, "activations", comment, ("activation", "overflow"), arrays, activation=phi)


@listed
def stopping() -> Iterator[Case]:
    A = np.full((4, 4), 1 / 32)  # κ = 1/8 and one direction: each step is an eighth of the one before
    for phi in ("relu", "tanh", "softplus"):
        rest = weights(generator(f"stopping {phi}"), 4, 2, 2, 3, True)
        yield case(
            f"stopping-last-application-{phi}", "stopping",
            "a loose tolerance and κ = 1/8: the last application of the map is κ times nearer than the iterate before",
            ("stale", "stopping"), {"A": A, **rest}, tol=4e-2, activation=phi, strict=True,
        )  # fmt: skip
    chain = np.diag([1 / 128] * 3, 1)  # x₄ → x₃ → x₂ → x₁, each weakly: two applications are within the tolerance
    for phi in ("tanh", "softplus"):
        rest = weights(generator(f"chain {phi}"), 4, 2, 2, 3, True)
        yield case(
            f"stopping-slopes-{phi}", "stopping",
            "a chain of units and a loose tolerance: the slopes of the iterate before the last are far off",
            ("stale", "stopping"), {"A": chain, **rest, "B": rest["B"] + 0.5}, tol=2.0**-7, activation=phi, strict=True,
        )  # fmt: skip
    id = "stopping-slow-column"
    rest = weights(generator(id), 5, 3, 2, 9, True)
    rest["B"][:, 1:] = 0
    rest["U"][0, :] = 2.0**-9  # eight columns of small inputs, and one at full size
    rest["U"][0, 4] = 1.0
    yield case(
        id, "stopping", "one column needs ten times the steps of its eight mates; a mean over columns hides it",
        ("column", "slow"), {"A": perron(generator(id), 5, KAPPAS["0.99"]), **rest}, tol=1e-6,
    )  # fmt: skip
    id = "stopping-small-column"
    rest = weights(generator(id), 5, 3, 2, 4, True)
    rest["U"][:, 2] *= 2.0**-30
    yield case(
        id, "stopping", "one column of inputs a thousand million times smaller than its mates', to the same accuracy",
        ("column", "small"), {"A": perron(generator(id), 5, KAPPAS["0.9"]), **rest}, tol=1e-6,
    )  # fmt: skip
    id = "stopping-small-cotangent"
    rest = weights(generator(id), 5, 3, 2, 4, True)
    rest["G_Y"] = draw(generator(id + " G_Y"), 2, 4) * 2.0**-60
    yield case(
        id, "stopping", "a cotangent of size 1e-18: the adjoint is linear, so the relative error is that of size 1",
        ("small",), {"A": perron(generator(id), 5, KAPPAS["0.9"]), **rest}, tol=1e-9, G_Y=rest.pop("G_Y"),
    )  # fmt: skip
    id = "stopping-tol-zero"
    rest = weights(generator(id), 5, 3, 2, 4, True)
    yield from both(
        id, "stopping", "tol = 0: as near as rounding lets it come, and then an end",
        ("stopping",), {"A": perron(generator(id), 5, KAPPAS["0.9"]), **rest}, tol=0.0,
    )  # fmt: skip


@listed
def ball() -> Iterator[Case]:
    for name, total, comment in (
        ("ulp-below", float(np.nextafter(1, 0)), "‖A‖∞ one unit in the last place below 1"),
        ("on", 1.0, "‖A‖∞ = 1 exactly: not a contraction in this norm, well posed by its Perron root"),
        (
            "ulp-above",
            float(np.nextafter(1, 2)),
            "‖A‖∞ one unit in the last place above 1, well posed by its Perron root",
        ),
    ):
        id = f"ball-{name}"
        A = np.triu(perron(generator(id), 5, 1.0), 1)
        A[0] = [0, 0.25, 0.25, 0.25, 0.25 + (total - 1.0)]
        A[4, 0] = 2.0**-6
        yield case(id, "ball", comment, ("ball", *(("ulp",) if name != "on" else ())), clear(_with(A), id))
    for name, factor in (("10", 8.0), ("1000", 1024.0)):
        id = f"ball-beyond-{name}"
        scale = np.diag([1.0, factor, 1.0, factor, 1.0])
        A = scale @ perron(generator(id), 5, 0.75) @ np.linalg.inv(scale)
        comment = f"D A D⁻¹ of a contraction: ‖A‖∞ of about {name}, Perron root 0.75, as well posed as before"
        yield case(id, "ball", comment, ("ball", "perron"), clear(_with(A, True), id, margin=UNIT**2))


def _with(A, positive=False):  # type: ignore[no-untyped-def]
    return lambda rng: {"A": A, **weights(rng, len(A), 3, 2, 4, positive)}


@listed
def ill_posed() -> Iterator[Case]:
    ones = {
        "C": np.ones((1, 2)),
        "D": np.zeros((1, 1)),
        "B": np.array([[1.0], [0.0]]),
        "U": np.array([[1.0, 2.0, 0.5]]),
    }
    for name, rows, comment in (
        (
            "no-solution",
            [[1.5, 0.0], [0.0, 0.0]],
            "x = max(0, 1.5 x + 1) has no solution: the iteration grows for ever",
        ),
        (
            "two-cycle",
            [[0.0, -2.0], [-2.0, 0.0]],
            "x₁ = max(0, 1 − 2 x₂), x₂ = max(0, 1 − 2 x₁): plain iteration cycles",
        ),
        ("blow-up", [[0.0, 3.0], [3.0, 0.0]], "an eigenvalue of 3: the iteration overflows"),
    ):
        arrays = {"A": np.array(rows), **ones}
        if name == "two-cycle":
            arrays["B"] = np.array([[1.0], [1.0]])
        yield case(
            f"ill-posed-{name}", "ill-posed", comment, ("reported",), arrays, expect="reported", bad=(0, 1, 2),
            max_iter=500,
        )  # fmt: skip
    A = np.zeros((4, 4))
    A[0, 0] = 1.5  # has no solution where it is excited
    A[1:, 1:] = signed(generator("one column"), 3, KAPPAS["0.9"])
    rest = weights(generator("one column w"), 4, 2, 2, 5)
    rest["B"][0] = [1, 0]
    rest["B"][1:, 0] = 0
    rest["U"][0] = [-1, -1, 1, -1, -1]
    yield case(
        "ill-posed-one-column", "ill-posed", "column 2 has no solution, the others do not know of it",
        ("reported", "column"), {"A": A, **rest}, expect="reported", bad=(2,), max_iter=500,
        facts={"still": [0]},
    )  # fmt: skip
    slow = member("perron", "0.999", "iteration cap")
    for cap, word in ((1, "one application"), (50, "fifty applications")):
        yield case(
            f"iteration-cap-{cap}", "ill-posed", f"{word} allowed where thousands are needed",
            ("reported", "cap"), slow, expect="reported", bad=(0, 1, 2, 3), max_iter=cap,
        )  # fmt: skip


@listed
def kinks() -> Iterator[Case]:
    """B = I and dyadic numbers: preactivations are exact in either dtype, whatever the order of a sum."""
    A = np.array([[0.0, 0.5, 0.0], [0.25, 0.0, 0.0], [0.5, 0.25, 0.0]])
    for phi, at in (("relu", 0.0), ("leaky_relu", 0.0), ("hardtanh", 1.0), ("hardtanh", -1.0)):
        rank = rank_one(generator("kink"), 3, 0.5) * 0
        rest = {"B": np.eye(3), "C": np.array([[1.0, -0.5, 0.25], [0.5, 1.0, -1.0]]), "D": np.zeros((2, 3))}
        name = f"kink-{phi}{'' if not at else f'{at:+.0f}'}"
        U = np.array([[at, -0.5, 0.25], [at, 0.75, at], [at, at, 0.5]]).T
        flags, comment = ("kink",), f"preactivations exactly at the kink {at:g} of {phi}: its slope is a convention"
        yield case(
            f"{name}-exact", "kinks", comment, flags, {"A": rank, **rest, "U": U}, activation=phi, expect="acceptable"
        )
        for side, to in (("above", np.inf), ("below", -np.inf)):
            comment = f"one unit in the last place {side} the kink {at:g} of {phi}: the slope is no convention there"
            hunted = ("kink", "ulp", *(("subnormal",) if at == 0 else ()))
            for dtype in ("float64", "float32"):
                beside = U.astype(dtype)
                beside[beside == at] = np.nextafter(np.dtype(dtype).type(at), np.dtype(dtype).type(to))
                yield case(
                    f"{name}-{side}-{dtype}", "kinks", comment, hunted, {"A": rank, **rest, "U": beside},
                    activation=phi, dtype=dtype,
                )  # fmt: skip
    rest = {"B": np.eye(3), "C": np.ones((1, 3)), "D": np.zeros((1, 3))}
    U = np.array([[0.0, 0.0, 0.0], [1.0, -0.25, -0.625], [0.0, 0.0, 0.0], [-1.0, -1.0, 0.0]]).T
    yield case(
        "kink-ties", "kinks", "columns that share a kink with their mates, and one of zeros", ("kink", "column"),
        {"A": A, **rest, "U": U}, expect="acceptable",
    )  # fmt: skip
