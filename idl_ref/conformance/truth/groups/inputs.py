"""Groups of cases about the arrays that are given: sizes, rank, scale, memory layout, NaN and inf, and raw weights."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from idl_ref import activations as act
from idl_ref.conformance.truth.cases import (
    KAPPAS,
    UNIT,
    both,
    case,
    clear,
    digits,
    draw,
    generator,
    member,
    permutation,
    perron,
    scaled,
    signed,
    weights,
)
from idl_ref.conformance.truth.problem import STORAGE, Arrays, Case
from idl_ref.functions import FUNCTIONS


def low_rank(id: str, rank: int) -> Arrays:
    """A case with A = L Rᵀ. Magnitudes sum to at most 0.9 in each row of L and 1 in each row of Rᵀ, so ‖A‖∞ ≤ 0.9."""

    def build(rng: random.Random) -> Arrays:
        L, R = draw(rng, 5, rank), draw(rng, 5, rank)
        L = np.trunc(L / np.maximum(np.abs(L).sum(axis=1, keepdims=True), 1) * KAPPAS["0.9"] * 1024) / 1024
        R = np.trunc(R / np.maximum(np.abs(R).sum(axis=0), 1) * 1024) / 1024
        return {"L": L, "R": R, **weights(rng)}

    return clear(build, id)


def shapes() -> Iterator[Case]:
    """Cases with sizes 0 and 1, with many samples or units, without D, and with a bias."""
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
        ("q-m", (5, 3, 4, 4), "q = m: Y and its cotangent are square"),
        ("all-4", (4, 4, 4, 4), "n = p = q = m: a shape taken the wrong way round shows in the numbers alone"),
    ):
        yield from both(f"shape-{id}", comment, "shape", member(id, *sizes))
    constant = "the last row of U is the constant 1: the bias"
    for id, comment, flags in (
        ("shape-no-D", "no D", "no_D"),
        ("shape-bias", constant, "bias"),
        ("shape-bias-no-D", f"{constant} and no D", "bias no_D"),
        ("shape-bias-square", f"{constant}, and n = m: it may be added along the wrong axis", "bias square"),
    ):
        arrays = member(id, *(4, 3, 2, 4)) if "square" in flags else member(id)
        if "bias" in flags:
            arrays["U"][-1] = 1
        if "no_D" in flags:
            del arrays["D"]
        yield case(id, comment, flags, arrays)


def ranks() -> Iterator[Case]:
    """Cases with A = L Rᵀ of rank 0, 1, 2 and n."""
    for rank, comment in (
        (0, "rank 0: A = 0, and ∂L, ∂R have no entry"),
        (1, "rank 1"),
        (2, "rank 2 of 5"),
        (5, "rank n: L and R square, so that swapping them shows only in the numbers"),
    ):
        id = f"rank-{rank}"
        yield from both(id, comment, "low_rank", low_rank(id, rank))
    id = "rank-1-slow"
    arrays = {"L": np.full((5, 1), KAPPAS["0.99"]), "R": perron(generator(id), 5, 1.0)[:1].T}
    arrays |= weights(generator(id + " w"), positive=True)
    comment = "L Rᵀ nonnegative with row sums 0.99: slow, in one direction"
    yield case(f"{id}-float64", comment, "low_rank slow", arrays, tol=1e-9)


def precision() -> Iterator[Case]:
    """Cases with very large, very small and subnormal inputs, and with cancellation."""
    base = member("scales")
    for name, exponent in (("1e+30", 100), ("1e-30", -100)):
        comment = f"inputs of size {name}: relu is homogeneous, so the relative error is that of size 1"
        yield from both(f"scale-{name}", comment, "scale", base | {"U": base["U"] * 2.0**exponent})
    for dtype, tiny in (("float64", 2.0**-1070), ("float32", 2.0**-145)):
        arrays = weights(
            generator("subnormal"), positive=True
        )  # positive, so every unit is active and far from its kink
        arrays |= {"A": perron(generator("subnormal A"), 5, 0.5), "B": (arrays["B"] + 1) / 2}
        arrays["U"] = np.trunc(arrays["U"] * 64) * tiny
        comment = "subnormal inputs: an absolute error of a few of the smallest numbers, no flush that loses a column"
        yield case(f"scale-subnormal-{dtype}", comment, "scale subnormal", arrays, dtype)
    comment = "entries that float32 cannot hold: a sum in float32 shows"
    yield case("float64-digits", comment, "accumulation", base | {"A": base["A"] + 2.0**-31 * np.sign(base["A"])})
    arrays = member("cancellation", p=4)
    arrays["B"][:, 1] = UNIT - arrays["B"][:, 0]
    arrays["U"][:2] = 1024.0
    comment = "large inputs that cancel in B U: the bound allows for it, nothing else does"
    yield from both("cancellation", comment, "scale", arrays)


def scales() -> Iterator[Case]:
    """Cases with scales from 10⁻⁷ to 10³ and all digits, in which each weight counts as much as any."""
    for name, rank, phi in (("relu", None, "relu"), ("tanh", None, "tanh"), ("low-rank", 2, "relu")):
        id = f"scales-{name}"
        if rank:
            arrays = low_rank(id, rank)
        else:
            arrays = clear(lambda rng: {"A": signed(rng, 5, KAPPAS["0.9"]), **weights(rng, 5, 4, 3)}, id, phi)
        G_Y = scaled(generator(id), arrays, digits(generator(f"{id} G_Y"), len(arrays["C"]), 4))
        comment = "features and outputs in scales from 10⁻⁷ to 10³, with every digit of the dtype"
        yield from both(id, comment, "digits", arrays, G_Y=G_Y, activation=phi)
    id = "scales-units"
    arrays = {"A": np.abs(np.triu(digits(generator(id), 5, 5))) / 8, **weights(generator(f"{id} w"), positive=True)}
    d = np.exp2([-22, -14, -6, 2, 10])
    arrays["A"], arrays["B"], arrays["C"] = arrays["A"] * d[:, None] / d, arrays["B"] * d[:, None], arrays["C"] / d
    comment = "units in scales from 10⁻⁷ to 10³: entries of A of 10⁻¹⁰ that count as much as any"
    yield from both(id, comment, "digits", arrays, activation="leaky_relu", tol=0.0)


def storage() -> Iterator[Case]:
    """Cases whose inputs and answers are numbers of float16 or bfloat16; given only to backends that declare these."""
    kinds: tuple[tuple[str, str, int | None, dict[str, Any]], ...] = (
        ("relu", "relu", None, {}), ("leaky-relu-low-rank", "leaky_relu", 2, {}), ("tanh", "tanh", None, {}),
        ("softplus-low-rank", "softplus", 3, {}), ("identity", "identity", None, {"layout": "strided"}),
        ("f-inf", "relu", None, {"f": "inf", "kappa": 0.5}), ("f-rows", "identity", None, {"f": "rows", "kappa": 0.5}),
    )  # fmt: skip
    for dtype in STORAGE:
        for name, phi, rank, rest in kinds:
            id = f"storage-{name}-{dtype}"
            rng, positive = generator(id), phi in ("relu", "leaky_relu")
            arrays = weights(rng, 5, 3, 2, 4, positive)
            if rank is None:
                arrays["A"] = permutation(rng, 5, 0.5) + perron(rng, 5, 1.0 if "f" in rest else 0.125)
            else:
                arrays |= {"L": perron(rng, 5, 0.75)[:, :rank], "R": digits(rng, 5, rank) / 4}
            if name == "relu":
                arrays["U"][-1] = 1
            elif name == "tanh":
                del arrays["D"]
            comment = f"inputs and answers in {dtype}, whatever the backend computes in: {phi}"
            yield case(id, comment, "storage", arrays, dtype, activation=phi, **rest)


def memory() -> Iterator[Case]:
    """Cases whose arrays have different layouts in memory."""
    id = "memory-start"
    X = 1 + np.abs(draw(generator(id), 4, 4))  # the equilibrium: Z = X − A X is exact, and every unit is active
    A = perron(generator(f"{id} A"), 4, KAPPAS["0.99"])
    start = {
        "A": A,
        "B": np.eye(4),
        "C": digits(generator(f"{id} C"), 4, 4),
        "D": np.zeros((4, 4)),
        "U": X - A @ X,
        "X0": X,
    }
    for layout, comment in (
        ("fortran", "arrays in Fortran order"),
        ("strided", "arrays that are views of wider ones"),
        ("reversed", "arrays with negative strides"),
        ("readonly", "arrays that cannot be written"),
    ):
        id = f"memory-{layout}"
        yield case(f"{id}-float64", comment, "memory", member(id), layout=layout)
        id += "-low-rank"
        yield case(f"{id}-float64", comment, "memory", low_rank(id, 2), layout=layout)
        comment += ", and a start at the equilibrium, read in another order far from it"
        yield case(f"memory-start-{layout}", comment, "memory start", start, layout=layout, max_iter=3, tol=1e-9)


def not_finite() -> Iterator[Case]:
    """Cases with NaN or inf in one column of U."""
    arrays = member("not-finite", m=5)
    for name in ("nan", "inf"):
        arrays["U"][1, 3] = float(name)
        comment = f"{name} in one entry of U: one column is lost, no other"
        yield from both(f"not-finite-{name}", comment, "confined column", arrays, expect="reported", bad=(3,))
    arrays["U"][1, 3] = np.nan
    del arrays["D"]
    comment = "NaN in one entry of U and no D, through which it would reach Y: φ must keep it"
    for phi in act.TABLE:
        rest: dict[str, Any] = {"expect": "reported", "bad": (3,), "activation": phi, "max_iter": 1000}
        yield case(f"not-finite-{phi}-no-D", comment, "confined no_D", arrays, **rest)


def functions() -> Iterator[Case]:
    """Cases with raw weights. The radius 0.96875 = 31/32 is dyadic, so that a row can lie exactly on the ball."""
    kappa = 0.96875
    for f in ("inf", "rows", "triu"):
        for where, factor in (("inside", 0.5), ("beyond", 2.0), ("far", 23.0)):
            for rank in (None, 2):
                if f == "triu" and (rank or where == "far"):
                    continue

                def build(rng: random.Random, rank: int | None = rank, factor: float = factor) -> Arrays:
                    if rank is None:
                        raw = {"A": np.round(draw(rng, 5, 5) * factor * 1024 / 5) / 1024}
                    else:
                        raw = {"L": draw(rng, 5, rank) * factor / rank, "R": draw(rng, 5, rank) * factor / 5}
                    return {**raw, **weights(rng)}

                id = f"f-{f}-{where}" + ("" if rank is None else "-low-rank")
                position = "far beyond" if where == "far" else where
                comment = (
                    f"f = {f}, raw weights {position} the ball of radius κ: the gradient is that of the raw weights"
                )
                yield from both(id, comment, "f", clear(build, id, f=FUNCTIONS[f](kappa)), f=f, kappa=kappa)
    arrays = member("ball of f", n=3, kappa="0.5")
    for f in ("inf", "rows"):
        for name, top in (("on", 0.0), ("ulp-below", -(2.0**-53)), ("ulp-above", 2.0**-52)):
            arrays["A"] = np.array([[0.5, -0.25, 0.21875 + top], [0.25, 0.125, -0.25], [0.0, 0.5, 0.25]])
            comment = f"f = {f} with a row {name.replace('-', ' ')} the ball: either side's derivative is accepted"
            yield case(f"f-{f}-{name}", comment, "f ulp", arrays, expect="acceptable", f=f, kappa=kappa)
    comment = "the declared derivative of f is the identity: what torchidl does for a dense A"
    for f in ("inf", "rows"):
        for rank in (None, 2):

            def beyond(rng: random.Random, rank: int | None = rank) -> Arrays:
                raw = {"A": draw(rng, 5, 5) * 3} if rank is None else {name: draw(rng, 5, rank) * 3 for name in "LR"}
                return {**raw, **weights(rng)}

            id = f"f-{f}-straight-through" + ("" if rank is None else "-low-rank")
            arrays = clear(beyond, id, f=FUNCTIONS[f](kappa))
            yield case(id, comment, "f straight_through", arrays, f=f, kappa=kappa, straight_through=True)
