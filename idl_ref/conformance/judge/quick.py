"""The quick cases: few and small, but with something of everything that the cases are about."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator

from idl_ref.conformance.truth.problem import Case, Deferred, Problem

STEP = 3000  # multiplications that take as long as what a step of an iteration costs besides
TIMES = 2  # how many of the quick cases have each feature, as far as there are so many


def quick(cases: Iterable[Case]) -> list[Case]:
    """The cheapest cases among which every feature occurs at least twice, in the order of the cases.

    A feature is one of the bugs that a case is meant to find, with the dtype, with the activation and the kind of
    weights, or with the map f; a group; a layout in memory; a map f that changes the weights, or not; whether there is
    D, or a start X0; and what is expected. Most large cases are left out.
    """
    cases = [case for case in cases if not isinstance(case, Deferred) or case.light]
    seen: Counter[object] = Counter()
    chosen = set()
    for case in sorted(cases, key=work):
        new = [feature for feature in features(case) if seen[feature] < TIMES]
        if new:
            chosen.add(case.id)
            seen.update(features(case))
    return [case for case in cases if case.id in chosen]


def features(case: Case) -> Iterator[object]:
    """What a case has, in the sense of `quick`."""
    problem = case.problem
    dtype, dense = problem.storage, problem.A is not None
    for kind in (dtype, (problem.activation, dense), (problem.f, problem.straight_through)):
        yield from ((flag, kind) for flag in case.flags)
    yield "activation", problem.activation, dense
    yield "group", case.group, dtype, dense
    yield "memory", case.layout, dense
    yield "f", problem.f, problem.straight_through, _mapped(problem), dense
    yield "D", problem.D is None, dtype
    yield "X0", problem.X0 is not None
    yield "expected", case.group, case.expect, case.strict


def _mapped(problem: Problem) -> bool:
    """Whether f changes the weights."""
    if problem.f == "none":
        return False
    mapped = problem.function.effective(problem.factors)
    return any((E != F).any() for E, F in zip(mapped, problem.factors, strict=True))


def work(case: Case) -> float:
    """About how many multiplications a plain iteration needs for a case."""
    n, p, q, m = case.problem.sizes
    width = n if case.problem.L is None else 2 * case.problem.L.shape[1]
    root = case.facts.get("perron", 1)  # decides where no norm shows that the iteration converges
    condition = case.facts.get("condition") or (1 / (1 - root) if root < 1 else math.inf)
    steps = min(case.problem.max_iter, 30 * condition)
    return steps * (n * width * m + STEP) + n * (p + q) * m
