"""Large cases, which are computed when they are first needed: they lie in no file."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from idl_ref import activations
from idl_ref.conformance.truth import copies
from idl_ref.conformance.truth.cases import TOL, case, clear, digits, generator, scaled, signed
from idl_ref.conformance.truth.copies import Copies
from idl_ref.conformance.truth.problem import Arrays, Case, Deferred

SMALL, COLUMNS = 6, 5  # units and columns of the small equations
KAPPA = 0.45  # the ∞-norm of their A: scales of 1 and 2 at most double it


def shares(count: int) -> np.ndarray:
    """Powers of two that sum to 1, as equal as they can be."""
    deep = max(count - 1, 0).bit_length()
    coarse = 2**deep - count
    return np.array([2.0 ** (1 - deep)] * coarse + [2.0**-deep] * (count - coarse))


def circulant(rng: random.Random, count: int) -> np.ndarray:
    """A circulant matrix of multiples of 2⁻¹³ with row sums 1, none of which is 0."""
    cuts = [0, *sorted(rng.sample(range(1, 2**13), count - 1)), 2**13]
    first = np.diff(cuts) / 2**13
    return np.stack([np.roll(first, k) for k in range(count)])


def chosen(rng: random.Random, n: int, m: int, coupling: str, phi: str) -> Copies:
    """How n units and m columns are made, in random order and with random scales.

    The small equation has SMALL units, of which as many copies are made as n holds, and one more, which fills n.
    """
    count = (n - 1) // SMALL
    unit = np.array([*range(SMALL)] * count + [SMALL] * (n - SMALL * count))
    copy = np.array([k for k in range(count) for _ in range(SMALL)] + [*range(n - SMALL * count)])
    weight, T = coupled(rng, unit == SMALL, copy, coupling)
    order = rng.sample(range(n), n)
    scales = (1.0, 2.0) if phi in copies.HOMOGENEOUS else (1.0, -1.0) if phi in copies.ODD else (1.0,)
    sizes = (0.25, 0.5, 1.0, 2.0) if phi in copies.HOMOGENEOUS else (1.0,)
    column = [*range(min(COLUMNS, m)), *(rng.randrange(COLUMNS) for _ in range(m - COLUMNS))]
    picks = ((scales, n), (sizes, m), ((0.5, 1.0, 2.0), m))
    scale, size, cotangent = (np.array([rng.choice(values) for _ in range(number)]) for values, number in picks)
    T = None if T is None else T[np.ix_(order, order)]
    return Copies(unit[order], scale, weight[order], np.array(column), size, cotangent, T)


def coupled(
    rng: random.Random, single: np.ndarray, copy: np.ndarray, coupling: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """The weights c and the coupling T of units, of which some are copies of the single one."""
    alike = single[:, None] == single
    parts = [int(copy[of].max()) + 1 for of in (~single, single)]
    if coupling == "spread":
        return np.where(single, *(shares(count)[copy % count] for count in reversed(parts))), None
    if coupling == "circulant":
        of_blocks, of_singles = (circulant(rng, count)[np.ix_(copy % count, copy % count)] for count in parts)
        return np.ones(len(copy)), np.where(single, of_singles, of_blocks) * alike
    weights = np.array([rng.choice((0.5, 1.0, 2.0)) for _ in range(sum(parts))])
    return weights[copy + parts[0] * single], np.where(copy[:, None] == copy, 1.0, 0.0) * alike


def rows_of(M: np.ndarray, norms: float | np.ndarray) -> np.ndarray:
    """M with rows whose magnitudes sum to `norms`; by sums that have the same bits on every machine."""
    return M / np.array([[math.fsum(map(abs, row))] for row in M]) * norms


def small(rng: random.Random, p: int, q: int, rank: int | None, coupling: str, slow: bool = False) -> Arrays:
    """The arrays of a small equation. A has few digits where the coupling has many, and otherwise all of them."""
    n = SMALL + 1
    rest = {"B": digits(rng, n, p) / math.sqrt(p), "C": digits(rng, q, n), "D": digits(rng, q, p)}
    rest["U"] = digits(rng, p, COLUMNS)
    if rank is not None:
        return {"L": rows_of(digits(rng, n, rank), KAPPA), "R": rows_of(digits(rng, rank, n), 1.0).T, **rest}
    A = np.zeros((n, n))
    A[:SMALL, :SMALL] = signed(rng, SMALL, KAPPA) if coupling == "circulant" else digits(rng, SMALL, SMALL)
    if coupling == "spread":
        A = digits(rng, n, n)
    A[SMALL, SMALL] = 63 / 64 if slow else A[SMALL, SMALL] or KAPPA
    if slow:  # The slow unit is active in the last column, and in no other.
        rest["U"] *= np.sign(rest["B"][SMALL] @ rest["U"]) * np.where(np.arange(COLUMNS) == COLUMNS - 1, 1, -1)
    if coupling == "circulant":
        return {"A": np.trunc(A * 1024) / 1024, **rest}
    norms = np.array([[KAPPA]] * SMALL + [[63 / 64 if slow else KAPPA]])
    return {"A": rows_of(A, norms), **rest}


class Size(NamedTuple):
    """The sizes of a large case, its φ and rank, and how its copies are coupled."""

    n: int = 13
    p: int = 3
    q: int = 2
    m: int = 5
    phi: str = "relu"
    rank: int | None = None
    coupling: str = "spread"
    dtype: str = "float64"
    slow: bool = False


def large(id: str, comment: str, size: Size) -> Case:
    """A large case with its truth."""
    (n, p, q, m, phi, rank, coupling, dtype, slow), rng = size, generator(id)
    arrays = clear(lambda rng: small(rng, p, q, rank, coupling, slow), id, phi)
    G_Y = scaled(rng, arrays, digits(rng, q, COLUMNS))
    base = case(id, comment, "", arrays, dtype, G_Y, activation=phi, tol=1e-4 if slow else TOL[dtype])
    how = chosen(rng, n, m, coupling, phi)
    if slow:
        how = how._replace(column=np.sort(how.column))
    truth, of = copies.truth(base.problem, base.G_Y, how)
    problem, G_Y = copies.enlarged(base.problem, base.G_Y, how)
    return replace(base, problem=problem, G_Y=G_Y, truths=(truth,), facts=copies.facts(base.problem, how, of))


def _units() -> Iterator[Later]:
    """Numbers of units beside those of vectors, tiles and blocks."""
    for n, coupling in (
        (31, "circulant"), (32, "circulant"), (33, "spread"), (63, "spread"), (64, "circulant"), (65, "copies"),
        (127, "copies"), (128, "spread"), (255, "spread"), (256, "copies"), (257, "circulant"), (512, "spread"),
    ):  # fmt: skip
        comment = f"{n} units: copies of a small equation in random order, {COUPLINGS[coupling]}"
        for dtype in TOL:
            yield "units", f"n-{n}-{dtype}", comment, {"n": n, "coupling": coupling, "dtype": dtype}
    for n, m, coupling, dtype in ((1025, 3, "spread", "float64"), (2048, 3, "circulant", "float32")):
        comment = f"{n} units: copies of a small equation in random order, {COUPLINGS[coupling]}"
        yield "units", f"n-{n}-{dtype}", comment, {"n": n, "m": m, "coupling": coupling, "dtype": dtype}


def _samples() -> Iterator[Later]:
    """Numbers of samples beside multiples of 64 and of 1,024."""
    for m, phi in (
        (63, "relu"), (64, "tanh"), (65, "relu"), (129, "softplus"), (1023, "hardtanh"), (1024, "relu"),
        (1025, "relu"), (2050, "tanh"), (4097, "relu"),
    ):  # fmt: skip
        for dtype in TOL:
            how = {"m": m, "phi": phi, "dtype": dtype, "coupling": "copies"}
            yield "batch", f"m-{m}-{dtype}", f"{m} samples: chunks of 64 or 1,024, and what is left", how


def _features() -> Iterator[Later]:
    """Numbers of features and outputs beyond the width of vectors."""
    for p, q in ((18, 4), (33, 5), (64, 8), (65, 9), (130, 17), (257, 33)):
        for dtype in TOL:
            comment = f"{p} features and {q} outputs, in scales from 10⁻⁷ to 10³"
            yield "features", f"p-{p}-q-{q}-{dtype}", comment, {"p": p, "q": q, "dtype": dtype}


def _square() -> Iterator[Later]:
    """n = p = q = m: a shape taken the wrong way round shows only in the numbers."""
    for n in (13, 16, 17, 32, 33, 64):
        for dtype in TOL:
            comment = f"n = p = q = m = {n}: a shape taken the wrong way round shows in the numbers alone"
            yield "square", f"square-{n}-{dtype}", comment, dict.fromkeys("npqm", n) | {"dtype": dtype}
    for n, q in ((33, 17), (20, 65)):
        comment = f"q = m = {q}: Y and its cotangent are square"
        yield "square", f"q-m-{q}", comment, {"n": n, "q": q, "m": q, "phi": "tanh"}


def _ranks() -> Iterator[Later]:
    """Ranks beyond the width of vectors, with more than 16 units."""
    for n, rank, phi in (
        (17, 6, "relu"), (20, 7, "tanh"), (24, 8, "leaky_relu"), (33, 9, "relu"), (33, 16, "hardtanh"),
        (65, 17, "tanh"), (65, 33, "relu"), (257, 12, "relu"),
    ):  # fmt: skip
        for dtype in TOL:
            how = {"n": n, "rank": rank, "phi": phi, "dtype": dtype}
            yield "ranks low_rank", f"rank-{rank}-{dtype}", f"rank {rank} and {n} units", how


def _functions() -> Iterator[Later]:
    """Every φ with more than 16 units, dense and of low rank."""
    for k, phi in enumerate(activations.TABLE):
        for dtype in TOL:
            how = {"n": (17, 33, 40)[k % 3], "phi": phi, "dtype": dtype}
            yield "units activation", f"{phi}-{dtype}", f"φ = {phi} with {how['n']} units", how
        how = {"n": 21, "rank": 4, "phi": phi}
        yield "units activation low_rank", f"{phi}-low-rank", f"φ = {phi} with 21 units and rank 4", how


def _slow() -> Iterator[Later]:
    """Few slow units among many quick ones, which are active in the last samples alone."""
    for dtype in TOL:
        how = {"coupling": "copies", "slow": True, "dtype": dtype}
        comment = "5 of 257 units contract by 1/64 in a step, all others quickly: a mean over the units hides them"
        yield "units unit", f"slow-units-{dtype}", comment, how | {"n": 257}
        comment = "the last of 200 samples need many more steps than all before them, forward and back"
        yield "batch column cotangent", f"slow-samples-{dtype}", comment, how | {"m": 200}


Later = tuple[str, str, str, dict[str, Any]]  # flags, id, comment and fields of Size
COUPLINGS = {
    "copies": "which do not know of each other",
    "spread": "each coupled with all by a matrix of rank 1",
    "circulant": "each coupled with all by a circulant matrix",
}


LIGHT = ("n-33", "m-65", "p-33", "square-16", "rank-6", "tanh-low-rank")  # one of each family, small ones


def sizes() -> Iterator[Case]:
    """Every large case, not yet computed."""
    for family in (_units, _samples, _features, _square, _ranks, _functions, _slow):
        for flags, name, comment, how in family():
            id = f"size-{name}"
            compute = partial(large, id, comment, Size(**how))
            yield Deferred(id, "sizes", comment, tuple(flags.split()), compute, light=name.startswith(LIGHT))
