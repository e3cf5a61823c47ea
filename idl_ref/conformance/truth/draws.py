"""New cases, drawn from a seed, so that no backend can be fitted to the frozen ones.

Their sizes, φ, dtypes, ranks, maps f, tolerances and layouts are random; their truth is as exact as that of the frozen
cases. A draw is thrown away, and drawn anew, where rounding could decide a slope of φ or of f.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import count as counting
from typing import Any

import numpy as np

from idl_ref import activations as act
from idl_ref import factors as fac
from idl_ref.conformance.truth import bounds, exact
from idl_ref.conformance.truth.cases import FAMILIES, TOL, UNIT, case, digits, generator, scaled, solved
from idl_ref.conformance.truth.groups.sizes import Size, large
from idl_ref.conformance.truth.problem import DTYPES, Arrays, Case, Deferred, Problem

GROUP = "draws"
LARGE = 0.08  # the fraction of draws that are large
MARGIN = 1e-3  # relative distance of raw weights from where f changes its derivative
COMMENT = "a draw: sizes, φ, f, dtype, tolerance and layout are random"


def drawn(count: int, seed: int) -> Iterator[Case]:
    """New cases, each of which is computed when it is first needed.

    Parameters
    ----------
    count : int
        How many.
    seed : int
        The same seed gives the same cases, whatever the count.

    Yields
    ------
    Case
        With the id ``draw-SEED-NUMBER``, in the group "draws".

    Examples
    --------
    >>> [case.id for case in drawn(2, seed=7)]
    ['draw-7-0', 'draw-7-1']
    """
    for index in range(count):
        id = f"draw-{seed}-{index}"
        yield Deferred(id, GROUP, COMMENT, (), partial(one, id))


def one(id: str) -> Case:
    """The case of an id, which is all that it depends on."""
    for attempt in counting():
        rng = generator(f"{id} {attempt}")
        try:
            drawn_case = _large(id, rng) if rng.random() < LARGE else solved(_small(id, rng))
        except (ArithmeticError, ValueError):  # no proof of the rounding, no bound, or no draw away from the kinks
            continue
        if unambiguous(drawn_case):
            return drawn_case
    raise AssertionError("there are always more attempts")


def _large(id: str, rng: random.Random) -> Case:
    """Copies of a small equation, in sizes beyond those of vectors."""
    how: dict[str, Any] = {
        "n": rng.randint(8, 50),
        "m": rng.choice((5, rng.randint(5, 200))),
        "phi": rng.choice(list(act.TABLE)),
        "dtype": rng.choice(DTYPES),
        "p": rng.randint(1, 20),
        "q": rng.randint(1, 9),
        "coupling": rng.choice(("spread", "circulant", "copies")),
        "rank": rng.choice((None, rng.randint(1, 12))),
    }
    if how["rank"]:
        how["coupling"] = "spread"
    return replace(large(f"{id} {rng.random()}", COMMENT, Size(**how)), id=id, group=GROUP, flags=("units",))


def _small(id: str, rng: random.Random) -> Case:
    n, p, q = rng.randint(1, 8), rng.randint(1, 5), rng.randint(1, 4)
    m = 0 if rng.random() < 0.02 else rng.randint(1, 7)
    phi, dtype = rng.choice(list(act.TABLE)), rng.choice(DTYPES)
    arrays = _weights(rng, n) | {"B": digits(rng, n, p), "C": digits(rng, q, n), "U": digits(rng, p, m)}
    if rng.random() < 0.8:
        arrays["D"] = digits(rng, q, p)
    G_Y = digits(rng, q, m)
    if rng.random() < 0.4:
        G_Y = scaled(rng, arrays, G_Y, rng.randint(-20, 0), rng.randint(1, 10))
    if rng.random() < 0.3:
        arrays["U"][-1] = 1
    if rng.random() < 0.2:
        arrays["X0"] = digits(rng, n, m)
    settings = _function(rng, arrays, phi) | {"tol": rng.choice((TOL[dtype], TOL[dtype], 1e-5, 0.0))}
    settings["layout"] = rng.choice(("C", "C", "fortran", "strided", "reversed", "readonly"))
    flags = "low_rank" if "L" in arrays else "contraction"
    return replace(case(id, COMMENT, flags, arrays, dtype, G_Y, activation=phi, **settings), group=GROUP)


def _weights(rng: random.Random, n: int) -> Arrays:
    """A, or L and R, with ‖A‖∞ below 1."""
    kappa = rng.randint(1, 973) * UNIT
    if rng.random() < 0.35:
        rank = rng.randint(1, n)
        L, R = digits(rng, n, rank), digits(rng, n, rank)
        return {"L": _normed(L, kappa), "R": _normed(R.T, 1.0).T}
    family = rng.choice([*FAMILIES, "digits"])
    if family == "digits":
        return {"A": _normed(digits(rng, n, n), kappa)}
    return {"A": FAMILIES[family](rng, n, kappa) if n > 1 else np.array([[kappa * rng.choice((-1, 1))]])}


def _normed(M: np.ndarray, norm: float) -> np.ndarray:
    """M scaled so that the magnitudes of each row sum to at most `norm`."""
    return M * np.array([[norm / math.fsum(map(abs, row))] for row in M]) * (1 - 2.0**-20)


def _function(rng: random.Random, arrays: Arrays, phi: str) -> dict[str, Any]:
    """A map f for piecewise linear φ, with raw weights inside the ball or beyond it."""
    if phi not in exact.PIECES or rng.random() < 0.6:
        return {}
    f = rng.choice(("inf", "rows") if "L" in arrays else ("inf", "rows", "triu"))
    stretch = rng.choice((0.5, 1.0, 3.0, 20.0))
    for name in "ALR":
        if name in arrays:
            arrays[name] = arrays[name] * stretch
    return {"f": f, "kappa": rng.randint(64, 973) * UNIT, "straight_through": f != "triu" and rng.random() < 0.2}


# --- whether rounding decides -----------------------------------------------------------------------------------------


def unambiguous(case: Case) -> bool:
    """Whether every right answer has the slopes of φ and the derivative of f that the truth has."""
    problem, truth = case.problem, case.truths[0]
    if problem.f != "none" and not all(_apart(F.astype(np.float64), problem) for F in problem.factors):
        return False
    eq, kinks = bounds.equation(problem), act.get(problem.activation).kinks
    if not kinks:
        return True
    P = fac.apply(eq.factors, truth["X"]) + eq.Z
    E = eq.size @ bounds.bounds(case, truth)["X"]
    E = E + 4 * bounds.unit(problem.storage).gamma(eq.terms + problem.B.shape[1] + 2) * (np.abs(P) + eq.Z_size)
    return all(bool((np.abs(P - kink) > E).all()) for kink in kinks)


def _apart(M: np.ndarray, problem: Problem) -> bool:
    """Whether raw weights are away from where the derivative of f jumps."""
    if problem.f == "triu":
        return True
    norms, kappa, size = np.abs(M).sum(axis=1), problem.kappa, np.abs(M).max()
    if problem.f == "inf":
        top = np.sort(norms)[::-1]
        first = top[0] - max([kappa, *top[1:2]])
        return bool(abs(top[0] - kappa) > MARGIN * kappa and (top[0] < kappa or first > MARGIN * top[0]))
    moved = np.abs(problem.function.effective((M,))[0])
    shifts = (np.abs(M) - moved).max(axis=1, keepdims=True)
    near = (norms > kappa)[:, None] & (np.abs(np.abs(M) - shifts) < MARGIN * size)
    return bool((np.abs(norms - kappa) > MARGIN * kappa).all() and not near.any())
