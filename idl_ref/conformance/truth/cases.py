"""How a case is made, and what is computed about it. Everything here is exact and reproducible.

Most A consist of multiples of 2⁻¹⁰, whose rows have exact sums; B, C, D, U and G_Y have all digits of their dtype, so
that a shorter one shows. All are drawn from Python's own random generator, whose bits do not depend on the machine.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np

from idl_ref import activations
from idl_ref.conformance.truth import exact
from idl_ref.conformance.truth.problem import PHI0, SETTINGS, Arrays, Case, Problem, make, spread, stored
from idl_ref.functions import ImplicitFunction

UNIT = 2.0**-10
KAPPAS = {"0": 0.0, "0.5": 0.5, "0.9": 922 / 1024, "0.99": 1014 / 1024, "0.999": 1023 / 1024}
TOL = {"float64": 1e-12, "float32": 1e-6}
STORED_TOL = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
IDENTITY = ImplicitFunction()


def generator(name: str) -> random.Random:
    return random.Random(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))


def draw(rng: random.Random, *shape: int, low: int = -1024, high: int = 1024) -> np.ndarray:
    """Random multiples of 2⁻¹⁰ in [low, high)·2⁻¹⁰; 0 is replaced by 2⁻¹⁰."""
    values = [rng.randrange(low, high) or 1 for _ in range(int(np.prod(shape)))]
    return np.array(values, float).reshape(shape) * UNIT


def digits(rng: random.Random, *shape: int) -> np.ndarray:
    """Random numbers of magnitude 1/16 to 1 with all 53 significant bits, so that no shorter format holds them."""
    values = [rng.choice((-1, 1)) * (rng.randrange(2**49, 2**53) | 1) for _ in range(int(np.prod(shape)))]
    return np.array([math.ldexp(value, -53) for value in values]).reshape(shape)


def scaled(rng: random.Random, arrays: Arrays, G_Y: np.ndarray, low: int = -23, high: int = 10) -> np.ndarray:
    """Give features and outputs scales between 2^low and 2^high, in place; return G_Y with its scales.

    B, C and D get the scales and U and G_Y their inverses, so that each weight, however small, counts as much as any.
    """
    s, t = (np.exp2([rng.randint(low, high) for _ in range(k)]) for k in (len(arrays["U"]), len(G_Y)))
    s[0], t[-1] = 2.0**high, 2.0**low
    arrays["B"], arrays["U"], arrays["C"] = arrays["B"] * s, arrays["U"] / s[:, None], arrays["C"] * t[:, None]
    if "D" in arrays:
        arrays["D"] = arrays["D"] * s * t[:, None]
    return G_Y / t[:, None]


# --- matrices with a given ∞-norm -------------------------------------------------------------------------------------


def perron(rng: random.Random, n: int, kappa: float) -> np.ndarray:
    """A nonnegative matrix with all row sums κ: its Perron root is κ, and iteration converges at the rate κ."""
    A = np.zeros((n, n))
    total = round(kappa / UNIT)
    for i in range(n):
        cuts = sorted(rng.randrange(total + 1) for _ in range(n - 1))
        A[i] = np.diff([0, *cuts, total])
    return A * UNIT


def signed(rng: random.Random, n: int, kappa: float) -> np.ndarray:
    """A matrix with random signs, in which the magnitudes of each row sum to κ."""
    signs = np.array([rng.choice((-1, 1)) for _ in range(n * n)], float).reshape(n, n)
    return perron(rng, n, kappa) * signs


def permutation(rng: random.Random, n: int, kappa: float) -> np.ndarray:
    return kappa * np.roll(np.eye(n), 1, axis=1)


def nilpotent(rng: random.Random, n: int, kappa: float) -> np.ndarray:
    """A strictly upper triangular matrix: iteration is exact after n applications, whatever the norm."""
    return np.triu(signed(rng, n, kappa), 1)


def antisymmetric(rng: random.Random, n: int, kappa: float) -> np.ndarray:
    S = np.triu(draw(rng, n, n), 1)
    S = S - S.T
    return np.round(S * (kappa / np.abs(S).sum(axis=1).max()) / UNIT - 0.5) * UNIT * (S != 0)


def rank_one(rng: random.Random, n: int, kappa: float) -> np.ndarray:
    u = np.array([rng.choice((-1.0, 1.0)) for _ in range(n)])
    return u[:, None] * perron(rng, n, kappa)[:1]


def zero_rows(rng: random.Random, n: int, kappa: float) -> np.ndarray:
    A = signed(rng, n, kappa)
    A[[0, n // 2]] = 0
    A[:, -1] = 0
    return A


FAMILIES = {
    "random": signed, "permutation": permutation, "perron": perron, "nilpotent": nilpotent,
    "antisymmetric": antisymmetric, "rank1": rank_one, "zero-rows": zero_rows,
}  # fmt: skip
POSITIVE = (
    "perron",
    "permutation",
)  # families that converge slowly only if every unit is active, so Z must be positive


# --- building ---------------------------------------------------------------------------------------------------------


def weights(rng: random.Random, n: int = 5, p: int = 3, q: int = 2, m: int = 4, positive: bool = False) -> Arrays:
    """Random B, C, D and U; `positive` makes B and U positive, which keeps every unit active."""
    arrays = {"B": digits(rng, n, p), "C": digits(rng, q, n), "D": digits(rng, q, p), "U": digits(rng, p, m)}
    return arrays | {name: np.abs(arrays[name]) for name in ("B", "U") if positive}


def case(
    id: str,
    comment: str,
    flags: str,
    arrays: Arrays,
    dtype: str = "float64",
    G_Y: np.ndarray | None = None,
    **rest: Any,
) -> Case:
    """A case without its group and its truth; `rest` holds settings of the problem and fields of the case."""
    settings = {"activation": "relu", "dtype": dtype, "tol": (TOL | STORED_TOL)[dtype], "max_iter": 10_000}
    settings |= {name: rest.pop(name) for name in SETTINGS if name in rest}
    problem = make({name: stored(M, dtype) for name, M in arrays.items()}, settings)
    if G_Y is None:
        _, _, q, m = problem.sizes
        # Where φ is 1 but for its last digit, long numbers would lie between two floats, and have no proved rounding.
        G_Y = (draw if {"saturated", "overflow"} & set(flags.split()) else digits)(generator(f"{id} G_Y"), q, m)
    return Case(id, "", comment, tuple(flags.split()), problem, stored(G_Y, dtype), **rest)


def both(id: str, comment: str, flags: str, arrays: Arrays, **rest: Any) -> Iterator[Case]:
    """The same case in float64 and in float32."""
    for dtype in TOL:
        yield case(f"{id}-{dtype}", comment, flags, arrays, dtype, **rest)


def clear(
    build: Callable[[random.Random], Arrays], name: str, activation: str = "relu", margin: float = 2 * UNIT,
    f: ImplicitFunction = IDENTITY,
) -> Arrays:  # fmt: skip
    """The first random draw whose preactivations stay away from every kink of φ, so that rounding cannot change φ′.

    `build` makes raw weights, B, C, D and U from a generator; the preactivations are those of the weights after `f`.
    """
    kinks = np.array(activations.get(activation).kinks)
    for attempt in range(200):
        arrays = build(generator(f"{name} {attempt}"))
        factors = f.effective((arrays["A"],) if "A" in arrays else (arrays["L"], arrays["R"].T))
        A, Z = reduce(np.matmul, factors), arrays["B"] @ arrays["U"]
        P = A @ exact.guess(A, Z, activation) + Z
        if not kinks.size or np.abs(P[..., None] - kinks).min(initial=np.inf) > margin * np.abs(P).max(initial=1.0):
            return arrays
    raise ArithmeticError(f"{name}: no draw stays away from the kinks")


def member(
    id: str, n: int = 5, p: int = 3, q: int = 2, m: int = 4, kappa: str = "0.9", family: str = "random"
) -> Arrays:
    """The arrays of a case with a dense A from one of the FAMILIES."""

    def build(rng: random.Random) -> Arrays:
        return {"A": FAMILIES[family](rng, n, KAPPAS[kappa]), **weights(rng, n, p, q, m, family in POSITIVE)}

    return clear(build, id)


def solved(case: Case) -> Case:
    """The case with its truths and its facts."""
    problem, good = case.problem, case.good
    if case.bad:
        problem = problem.with_arrays({"U": np.ascontiguousarray(problem.U[:, good])})
    conventions = PHI0 if case.expect == "acceptable" and case.group == "kinks" else PHI0[:1]
    answers = [exact.answer(problem, case.G_Y[:, good], phi0) for phi0 in conventions]
    if case.expect == "acceptable" and case.group == "functions":
        # Both one-sided derivatives of f: inside the ball, where f is the identity, and outside it, computed with a
        # radius that is smaller than the norm by a factor of 1 − 2⁻²⁰⁰.
        norm = max(sum(map(abs, row)) for row in exact.numbers(problem.factors[0], exact.Fraction))
        beyond: Any = norm * (1 - exact.Fraction(1, 2**200))
        sides = replace(problem, straight_through=True), replace(problem, kappa=beyond)
        answers += [exact.answer(side, case.G_Y[:, good]) for side in sides]
    truths = tuple(spread(a.arrays, good) for a in answers)
    margin = answers[0].kink_margin
    known = {"kink_margin": margin if np.isfinite(margin) else None, "provenance": answers[0].provenance}
    return replace(case, truths=truths, facts={**describe(problem), **known, **case.facts})


def describe(problem: Problem) -> dict[str, Any]:
    """‖A‖∞ and ρ(A) of the effective A, the Perron root of |A|, and 1/(1 − Lip(φ)‖A‖∞), None unless Lip(φ)‖A‖∞ < 1."""
    raw = tuple(exact.numbers(F, exact.Fraction) for F in problem.factors)
    A = reduce(np.matmul, (F.astype(float) for F in exact.effective(raw, problem)))
    lipschitz = activations.get(problem.activation).lipschitz
    norm = float(np.abs(A).sum(axis=1).max(initial=0.0))
    perron, radius = (round(float(np.abs(np.linalg.eigvals(M)).max(initial=0.0)), 6) for M in (np.abs(A), A))
    return {
        "norm": norm,
        "perron": perron,
        "spectral_radius": radius,
        "condition": round(1 / (1 - lipschitz * norm), 6) if lipschitz * norm < 1 else None,
    }
