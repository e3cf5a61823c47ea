"""Cases about what surrounds the equation: shapes, ranks, scales, memory, what is not finite, and `f`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from idl_ref.conformance.cases import KAPPAS, both, case, clear, draw, generator, listed, perron, signed, weights
from idl_ref.conformance.problem import Arrays, Case
from idl_ref.functions import FUNCTIONS


def plain(id: str, n: int, p: int, q: int, m: int, kappa: str = "0.9", rank: int | None = None) -> Arrays:
    def build(rng):  # type: ignore[no-untyped-def]
        if rank is None:
            factors = {"A": signed(rng, n, KAPPAS[kappa])}
        else:
            # |L| (|R|ᵀ 1) ≤ κ: rows of L sum to κ, rows of Rᵀ to at most 1
            L, R = draw(rng, n, rank), draw(rng, n, rank)
            L = np.trunc(L / np.maximum(np.abs(L).sum(axis=1, keepdims=True), 1) * KAPPAS[kappa] * 1024) / 1024
            factors = {"L": L, "R": np.trunc(R / np.maximum(np.abs(R).sum(axis=0), 1) * 1024) / 1024}
        return {**factors, **weights(rng, n, p, q, m)}

    return clear(build, id)


@listed
def shapes() -> Iterator[Case]:
    for id, sizes, comment in (
        ("n-1", (1, 3, 2, 4), "one hidden unit"),
        ("p-1", (5, 1, 2, 4), "one input feature"),
        ("q-1", (5, 3, 1, 4), "one output"),
        ("all-1", (1, 1, 1, 1), "everything of size 1"),
        ("m-0", (5, 3, 2, 0), "no samples: empty answers, zero gradients"),
        ("m-1", (5, 3, 2, 1), "one sample"),
        ("m-37", (4, 2, 2, 37), "many samples, no multiple of any tile"),
        ("n-24", (24, 5, 3, 6), "more units than samples"),
        ("p-large", (3, 17, 2, 4), "more features than units"),
    ):
        yield from both(f"shape-{id}", "shapes", comment, ("shape",), plain(id, *sizes))
    for bias, no_D in ((False, True), (True, False), (True, True)):
        id = "shape" + "-bias" * bias + "-no-D" * no_D
        arrays = plain(id, 5, 3, 2, 4)
        if bias:
            arrays["U"][-1] = 1
        if no_D:
            del arrays["D"]
        comment = " and ".join(["the last row of U is the constant 1: the bias"] * bias + ["no D"] * no_D)
        yield case(id, "shapes", comment, ("bias",) * bias + ("no_D",) * no_D, arrays)


@listed
def ranks() -> Iterator[Case]:
    for rank, comment in (
        (0, "rank 0: A = 0, and ∂L, ∂R have no entry"),
        (1, "rank 1"),
        (2, "rank 2 of 5"),
        (5, "rank n: L and R square, so that swapping them shows only in the numbers"),
    ):
        yield from both(f"rank-{rank}", "ranks", comment, ("low_rank",), plain(f"rank-{rank}", 5, 3, 2, 4, rank=rank))
    id = "rank-1-slow"
    u = perron(generator(id), 1, 1.0)
    arrays = {"L": np.full((5, 1), KAPPAS["0.99"]), "R": perron(generator(id), 5, 1.0)[:1].T * u}
    rest = weights(generator(id + " w"), 5, 3, 2, 4, True)
    comment = "L Rᵀ nonnegative with row sums 0.99: slow, in one direction"
    yield case(f"{id}-float64", "ranks", comment, ("low_rank", "slow"), arrays | rest, tol=1e-9)


@listed
def precision() -> Iterator[Case]:
    base = plain("scales", 5, 3, 2, 4)
    for name, exponent in (("1e+30", 100), ("1e-30", -100)):
        arrays = {**base, "U": base["U"] * 2.0**exponent}
        comment = f"inputs of size {name}: relu is homogeneous, so the relative error is that of size 1"
        yield from both(f"scale-{name}", "precision", comment, ("scale",), arrays)
    for dtype, tiny in (("float64", 2.0**-1070), ("float32", 2.0**-145)):
        arrays = weights(generator("subnormal"), 5, 3, 2, 4, True)  # every unit active, far from its kink
        arrays |= {"A": perron(generator("subnormal A"), 5, 0.5), "B": (arrays["B"] + 1) / 2}
        arrays["U"] = np.trunc(arrays["U"] * 64) * tiny
        comment = "subnormal inputs: an absolute error of a few of the smallest numbers, no flush that loses a column"
        yield case(f"scale-subnormal-{dtype}", "precision", comment, ("scale", "subnormal"), arrays, dtype=dtype)
    arrays = {**base, "A": base["A"] + 2.0**-30 * np.sign(base["A"]) * 0.5}
    comment = "entries that float32 cannot hold: a sum in float32 shows"
    yield case("float64-digits", "precision", comment, ("accumulation",), arrays)
    id = "cancellation"
    arrays = plain(id, 5, 4, 2, 4)
    arrays["B"][:, 1] = -arrays["B"][:, 0] + 2.0**-10
    arrays["U"][1] = arrays["U"][0] = 1024.0
    comment = "large inputs that cancel in B U: the bound allows for it, nothing else does"
    yield from both(id, "precision", comment, ("scale",), arrays)


@listed
def memory() -> Iterator[Case]:
    for layout, comment in (
        ("fortran", "arrays in Fortran order"),
        ("strided", "arrays that are views of wider ones"),
        ("reversed", "arrays with negative strides"),
        ("readonly", "arrays that cannot be written"),
    ):
        for rank in (None, 2):
            id = f"memory-{layout}" + ("" if rank is None else "-low-rank")
            arrays = plain(id, 5, 3, 2, 4, rank=rank)
            yield case(f"{id}-float64", "memory", comment, ("memory",), arrays, layout=layout)


@listed
def not_finite() -> Iterator[Case]:
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        arrays = plain("not-finite", 5, 3, 2, 5)
        arrays["U"][1, 3] = value
        yield from both(
            f"not-finite-{name}", "not-finite", f"{name} in one entry of U: one column is lost, no other",
            ("confined", "column"), arrays, expect="reported", bad=(3,),
        )  # fmt: skip


@listed
def functions() -> Iterator[Case]:
    """Raw weights. 0.96875 = 31/32 is the radius: a dyadic number, so that a row can lie on the ball exactly."""
    kappa = 0.96875
    for f in ("inf", "rows", "triu"):
        for where, factor in (("inside", 0.5), ("beyond", 2.0), ("far", 23.0)):
            for rank in (None, 2):
                if f == "triu" and (rank or where == "far"):
                    continue
                id = f"f-{f}-{where}" + ("" if rank is None else "-low-rank")

                def build(rng, rank=rank, factor=factor, f=f):  # type: ignore[no-untyped-def]
                    n = 5
                    if rank is None:
                        raw = {"A": np.round(draw(rng, n, n) * factor * 1024 / n) / 1024}
                    else:
                        raw = {"L": draw(rng, n, rank) * factor / rank, "R": draw(rng, n, rank) * factor / n}
                    return {**raw, **weights(rng, n, 3, 2, 4)}

                arrays = _clear_raw(build, id, f, kappa)
                position = "far beyond" if where == "far" else where
                comment = (
                    f"f = {f}, raw weights {position} the ball of radius κ: the gradient is that of the raw weights"
                )
                yield from both(id, "functions", comment, ("f",), arrays, extra={"f": f, "kappa": kappa})
    for f in ("inf", "rows"):
        for name, top in (("on", 0.0), ("ulp-below", -(2.0**-53)), ("ulp-above", 2.0**-52)):
            id = f"f-{f}-{name}"
            arrays = plain("ball of f", 3, 3, 2, 4, "0.5")
            arrays["A"] = np.array([[0.5, -0.25, 0.21875 + top], [0.25, 0.125, -0.25], [0.0, 0.5, 0.25]])
            comment = f"f = {f} with a row {name.replace('-', ' ')} the ball: either side's derivative is accepted"
            extra = {"f": f, "kappa": kappa}
            yield case(id, "functions", comment, ("f", "ulp"), arrays, expect="acceptable", extra=extra)
    arrays = _clear_raw(_beyond, "f-straight-through", "inf", kappa)
    yield case(
        "f-inf-straight-through", "functions",
        "the declared derivative of the scaling is the identity: what torchidl does for a dense A",
        ("f", "straight_through"), arrays, extra={"f": "inf", "kappa": kappa, "straight_through": True},
    )  # fmt: skip


def _beyond(rng):  # type: ignore[no-untyped-def]
    return {"A": draw(rng, 5, 5) * 3, **weights(rng, 5, 3, 2, 4)}


def _clear_raw(build, id, f, kappa):  # type: ignore[no-untyped-def]
    """A draw whose effective equation stays away from the kinks."""
    kept = {}

    def effective(rng):  # type: ignore[no-untyped-def]
        raw = build(rng)
        kept["raw"] = raw
        low_rank = "L" in raw
        factors = (raw["L"], raw["R"].T) if low_rank else (raw["A"],)
        mapped = FUNCTIONS[f](kappa).effective(factors)
        return {**raw, **({"L": mapped[0], "R": mapped[1].T} if low_rank else {"A": mapped[0]})}

    clear(effective, id)
    return kept["raw"]
