"""The equations of the protocols, solved exactly at their first use."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from idl_ref.conformance.truth import bounds as bnd
from idl_ref.conformance.truth.backend import Capabilities
from idl_ref.conformance.truth.cases import KAPPAS, TOL, case, clear, draw, generator, perron, signed, solved, weights
from idl_ref.conformance.truth.problem import Arrays, Case

SUBJECTS = ("dense", "low-rank")
SIZES = 6, 4, 3, 5  # n, p, q, m: no case has them, so that nothing remembered from the cases fits


class Subject(NamedTuple):
    """What a protocol calls a backend with.

    Attributes
    ----------
    name : str
    first : Case
    others : tuple of (Case, str)
        Equations that are solved between calls about the first, each with its difference from it.
    changes : tuple of (str, Case)
        The first equation with one array after the other replaced by that of another, and the name of the array.
    square : Case
        An equation all of whose arrays have the same shape.
    roles : tuple of tuple of str
        The arrays of `square` that are equal.
    slow : Case
        An equation that plain iteration solves slowly from 0.
    loose : Case
        The first equation with a tolerance that rounding is far below.
    quick : tuple of Case
        Two equations of the same sizes that are solved in a few steps, so that the last ones are a large part.
    """

    name: str
    first: Case
    others: tuple[tuple[Case, str], ...]
    changes: tuple[tuple[str, Case], ...]
    square: Case
    roles: tuple[tuple[str, ...], ...]
    slow: Case
    loose: Case
    quick: tuple[Case, Case]


def subject(name: str, declared: Capabilities) -> Subject:
    """The subject of this name, in a dtype and with an activation that are declared."""
    dtypes = [dtype for dtype in ("float64", "float32") if dtype in declared.dtypes] or ["float64"]
    phis = [str(phi) for phi in ("relu", "leaky_relu", "tanh") if phi in declared.activations]
    phis += [phi for phi in declared.activations if phi not in phis] or ["relu"]
    return _subject(name, dtypes[0], phis[0], phis[-1] if len(phis) < 2 else phis[1])


@cache
def bounds(case: Case) -> Arrays:
    """The largest error that each entry of a correct answer may have."""
    return bnd.bounds(case, case.truths[0])


@cache
def _subject(name: str, dtype: str, phi: str, other_phi: str) -> Subject:
    low_rank, about = name == "low-rank", {"dtype": dtype, "activation": phi}
    n, p, q, m = SIZES

    def arrays(id: str, samples: int = m) -> Arrays:
        def build(rng: random.Random) -> Arrays:
            return {**_factors(rng, n, 3, low_rank), **weights(rng, n, p, q, samples)}

        return clear(build, f"protocol {name} {id}", phi)

    def equation(id: str, arrays: Arrays, **more: Any) -> Case:
        return solved(replace(case(f"protocol-{name}-{id}", "", "memory", arrays, **{**about, **more}), group=""))

    one, two, wide = arrays("one"), arrays("two"), arrays("wide", m + 2)
    first = equation("one", one)
    others = [
        (equation("two", two), "other weights of the same shapes"),
        (equation("batch", one | {"U": two["U"]}), "another batch of the same shape"),
        (equation("fewer", one | {"U": one["U"][:, :2]}), "fewer samples"),
        (equation("more", one | {"U": np.hstack([one["U"], two["U"]])}), "more samples"),
        (equation("no-D", {k: M for k, M in one.items() if k != "D"}), "the same weights, but no D"),
        (equation("phi", one, activation=other_phi), f"φ = {other_phi}"),
        (equation("dtype", wide, dtype=next(d for d in TOL if d != dtype)), "arrays of another dtype"),
        (equation("back", wide), "arrays of the same shapes that had another dtype before"),
    ]
    changes, now = [], dict(one)
    for which in one:
        now[which] = two[which]
        changed = case(f"protocol-{name}-changed-{which}", "", "memory", now, G_Y=first.G_Y, **about)
        changes.append((which, solved(changed)))
    square, roles = _square(low_rank)
    id = f"protocol {name} slow"
    slow = {"A": perron(generator(id), n, KAPPAS["0.99"]), **weights(generator(f"{id} w"), n, p, q, m, positive=True)}
    if low_rank:
        slow = {"L": np.full((n, 1), KAPPAS["0.99"]), "R": perron(generator(id), n, 1.0)[:1].T, **slow}
        del slow["A"]
    return Subject(
        name, first, tuple(others), tuple(changes), equation("square", square, G_Y=square["U"]), roles,
        equation("slow", slow, tol=1e-4 if dtype == "float32" else 1e-6), equation("loose", one, tol=2.0**-10),
        (equation("quick-one", _quartered(one), tol=2.0**-10), equation("quick-two", _quartered(two), tol=2.0**-10)),
    )  # fmt: skip


def _factors(rng: random.Random, n: int, rank: int, low_rank: bool) -> Arrays:
    """A with ‖A‖∞ = 0.9, or L and R with ‖L‖∞ ‖Rᵀ‖∞ ≤ 0.9."""
    A = signed(rng, n, KAPPAS["0.9"])
    return (
        {"L": A[:, :rank], "R": signed(rng, rank, 1.0)[np.arange(n) % rank] / -(-n // rank)} if low_rank else {"A": A}
    )


def _quartered(arrays: Arrays) -> Arrays:
    """The arrays with A divided by 4."""
    return {name: M / 4 if name in ("A", "L") else M for name, M in arrays.items()}


def _square(low_rank: bool) -> tuple[Arrays, tuple[tuple[str, ...], ...]]:
    """Arrays of four units, features, outputs and samples, in which one array has several roles."""

    def build(rng: random.Random) -> Arrays:
        first, second, third = signed(rng, 4, 0.5), draw(rng, 4, 4), draw(rng, 4, 4)
        factors = {"L": first, "R": first} if low_rank else {"A": first}
        return {**factors, "B": first, "C": second, "D": second, "U": third}

    roles = (("L", "R", "B") if low_rank else ("A", "B")), ("C", "D"), ("U", "G_Y")
    return clear(build, f"protocol square {low_rank}"), roles
