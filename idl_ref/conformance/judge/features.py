"""Where a failure occurs: the sizes and settings that tell the cases that fail from those that pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import product
from typing import Any, NamedTuple

from idl_ref.conformance.truth.problem import Case

SIZES = {"n": "hidden units", "p": "features", "q": "outputs", "m": "samples", "r": "columns of L and R"}


class Where(NamedTuple):
    """A condition on a case and on the check: what it says, and whether it holds.

    `size` and `least` are set where it is n ≥ 33, or another size. `cost` is what it counts against a cause, as if so
    many failures were not explained: more for a single size, which may be a coincidence, and most for the group of
    cases, which no backend knows.
    """

    sentence: str
    holds: Callable[[Case, str], bool]
    size: str = ""
    least: int = 0
    cost: float = 0.25


def anywhere(case: Case, check: str) -> bool:
    """Every check of every case."""
    return True


def sizes(case: Case) -> dict[str, int]:
    """n, p, q, m, and r, 0 for a dense A."""
    r = case.problem.factors[0].shape[1] if case.problem.A is None else 0
    return dict(zip("npqmr", (*case.problem.sizes, r), strict=True))


def settings(case: Case, check: str) -> dict[str, Any]:
    """What kind of case it is; the keys are beginnings of sentences, where the values are their ends."""
    p = case.problem
    straight = " straight through" if p.straight_through else ""
    return {
        "in": {"float32": "float32", "float64": "float64"}.get(p.dtype.name, p.dtype.name),
        "with": p.activation,
        "for": "a dense A" if p.A is not None else "A = L Rᵀ",
        "where f is": p.f + straight,
        "in the": "gradients" if check == "vjp" else "forward pass" if check == "forward" else f"relation {check}",
        "of": "models with D" if p.D is not None else "models without D",
        "for samples": f"with{'' if with_bias(case) else 'out'} a constant feature 1 at their end",
        "of arrays": f"in {case.layout} order",
        "where": "X0 is given" if p.X0 is not None else "no X0 is given",
        "of cases": "with a column that has no answer" if case.bad else "in which every column has an answer",
        "of the group": case.group,
    }


def with_bias(case: Case) -> bool:
    """Whether the last feature is the constant 1."""
    U = case.problem.U
    return U.size > 0 and bool((U[-1] == 1).all())


At = tuple[Case, str]


def separating(inside: Iterable[At], outside: Iterable[At]) -> Where | None:
    """The first simple condition that holds for all cases inside and for none outside."""
    yes, no = list(inside), list(outside)
    if not yes or not no:
        return None
    holding = (w for w in _conditions(yes, no) if all(w.holds(*at) for at in yes))
    return next((w for w in holding if not any(w.holds(*at) for at in no)), None)


def _setting(*pairs: tuple[str, Any]) -> Where:
    """The condition that some settings have given values."""
    sentence = "only " + " ".join(f"{key} {value}" for key, value in pairs)
    return Where(sentence, lambda case, check: all(settings(case, check)[key] == value for key, value in pairs))


def _size(sentence: str, size: str, fits: Callable[[int], bool], least: int = 0) -> Where:
    return Where(sentence, lambda case, check: fits(sizes(case)[size]), size, least)


def _both(setting: Where, size: Where) -> Where:
    """The condition that a setting has a given value and a size is large enough."""
    return Where(f"{setting.sentence} {size.sentence}", lambda *at: setting.holds(*at) and size.holds(*at))


def _conditions(yes: list[At], no: list[At]) -> Iterator[Where]:
    """Conditions on one setting, then on one size, on two settings, on a setting and a size, and last on the group."""
    first = settings(*yes[0])
    *ordinary, group = first.items()
    yield from map(_setting, ordinary)
    for size in SIZES:
        least, most = (reduce(sizes(case)[size] for case, _ in yes) for reduce in (min, max))
        other = sizes(no[0][0])[size]
        yield _size(f"only for {size} ≥ {least}", size, least.__le__, least)
        yield _size(f"only for {size} ≤ {most}", size, most.__ge__)
        yield _size(f"not for {size} = {other}", size, other.__ne__)
        if least == most:
            yield _size(f"only for {size} = {least}", size, least.__eq__)._replace(cost=1.0)
    for size in SIZES:
        for d in (64, 32, 16, 8, 4, 2):
            yield _size(f"only where {size} is a multiple of {d}", size, partial(_divides, d))
            yield _size(f"only where {size} is no multiple of {d}", size, partial(_leaves, d))
    for i, pair in enumerate(ordinary[:5]):
        yield from (_setting(pair, other) for other in ordinary[i + 1 : 5])
    for (key, value), size in product(ordinary[:5], SIZES):
        least = min(sizes(case)[size] for case, _ in yes)
        yield _both(_setting((key, value)), _size(f"and for {size} ≥ {least}", size, least.__le__))
    yield _setting(group)._replace(cost=1.5)


def _divides(d: int, size: int) -> bool:
    return size > 0 and size % d == 0


def _leaves(d: int, size: int) -> bool:
    return size % d != 0
