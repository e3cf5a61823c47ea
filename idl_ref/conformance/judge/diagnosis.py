"""From wrong numbers to causes: the transformations of the exact answers that explain the failures of a whole run.

A cause must give the wrong numbers of the failures, and it must be wrong itself wherever it is said to explain one. It
is weighed by all checks of the run: those that failed and that it explains, and those that passed although it would
have failed them, unless a simple condition, such as n ≥ 33, tells the two apart.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from idl_ref.conformance.judge import features, library, quantities
from idl_ref.conformance.judge.evidence import CLOSE, Evidence, Known, compared, explains, is_wrong
from idl_ref.conformance.judge.features import Where
from idl_ref.conformance.judge.report import FAILED, UNEXPLAINED, Result
from idl_ref.conformance.judge.steps import Steps
from idl_ref.conformance.judge.transformations import Change, Transformation
from idl_ref.conformance.truth.problem import Arrays, Case

SECONDS = 10.0  # the time that the search of causes may take
SCANNED, SAMPLED, COUNTER = 8, 40, 60  # failures searched in the whole library; failures and passes that weigh a cause
CAUSES = 3
LOOSELY = 0.15  # what CLOSE becomes for the failures on which a cause was not chosen


Measured = tuple[Evidence, dict[str, Known]]  # with the arrays that were compared


@lru_cache(maxsize=20_000)
def _answer(wrong: Transformation, case: Case, check: str) -> Arrays | None:
    try:
        return wrong.answer(case, check)
    except (ValueError, IndexError, ArithmeticError, TypeError):
        return None  # this change makes no sense for this problem


@dataclass
class Cause:
    """A transformation with the failures that it explains, and the condition under which it does."""

    wrong: Transformation
    explained: list[Evidence] = field(default_factory=list)
    against: list[Evidence] = field(default_factory=list)
    where: Where | None = None

    @property
    def weight(self) -> float:
        """How many failures it explains, less what speaks against it."""
        return len(self.explained) - 0.25 * (self.where is not None) - (0 if self.where else len(self.against))

    def sentence(self, failures: int) -> str:
        """The cause and its evidence."""
        text = self.wrong.sentence + (f", {self.where.sentence}" if self.where else "")
        against = 0 if self.where else len(self.against)
        contradicts = f"; {against} that passed speak against it" if against else "; nothing that passed contradicts it"
        return f"{text} (explains {len(self.explained)} of {failures} wrong answers{contradicts})"


def diagnosed(results: list[Result], seconds: float = SECONDS) -> list[Result]:
    """The results, in which every failure with numbers has the causes that explain it, or what is known about it."""
    failures = [r.evidence for r in results if _has_numbers(r)]
    passed = [r.evidence for r in results if r.outcome != FAILED and r.evidence is not None]
    deadline = time.monotonic() + seconds
    found = _search([*map(_measured, failures)], passed, _remembered(results), deadline)
    explained = {e.key for cause in found for e in cause.explained}
    rest = _unexplained([e for e in failures if e.key not in explained], passed)
    done, located = [], _located(results)
    for r in results:
        if r.outcome == FAILED and r.causes:
            r = replace(r, causes=tuple(located.get(cause, cause) for cause in r.causes))
        if _has_numbers(r):
            mine = [c.sentence(len(failures)) for c in found if any(e.key == r.evidence.key for e in c.explained)]
            r = replace(r, causes=tuple(mine[:CAUSES]) or (rest,))
        done.append(replace(r, evidence=None))
    return [_inherited(r, done) for r in done]


def _has_numbers(r: Result) -> bool:
    return r.outcome == FAILED and r.evidence is not None and r.evidence.got is not None


def _located(results: list[Result]) -> dict[str, str]:
    """The causes that the checks themselves named, each with the condition under which it occurs."""
    without = [r for r in results if r.outcome == FAILED and r.evidence is not None and r.evidence.got is None]
    passed = [(r.evidence.case, r.evidence.check) for r in results if r.outcome != FAILED and r.evidence is not None]
    out = {}
    for cause in dict.fromkeys(c for r in without for c in r.causes):
        at = [(r.evidence.case, r.evidence.check) for r in without if cause in r.causes]
        where = features.separating(at, [a for a in passed if a[1] in {check for _, check in at}])
        out[cause] = f"{cause}, {where.sentence}" if where else cause
    return out


def _remembered(results: list[Result]) -> list[Transformation]:
    """Weights of an earlier call used again: those of the first, or the last, problem of the same kind and shapes."""
    first: dict[Any, Case] = {}
    before: dict[Case, tuple[Case, Case]] = {}
    last: dict[Any, Case] = {}
    for r in results:
        if r.evidence is not None and r.evidence.case not in before:
            case, p = r.evidence.case, r.evidence.case.problem
            key = p.sizes[:3], *(F.shape for F in p.factors), p.dtype
            before[case] = first.setdefault(key, case), last.get(key, case)
            last[key] = case

    def again(step: str, k: int) -> Change:
        return lambda s: getattr(Steps(before.get(s.case, (s.case, s.case))[k]), step)

    kinds = {"the weights A": ("F", "Ft"), "the weights B": ("B",), "the weights": ("F", "Ft", "B", "C", "D")}
    return [
        Transformation(
            f"{what} of {which} call with the same shapes used again", {name: again(name, k) for name in names}
        )
        for k, which in enumerate(("an earlier", "the last"))
        for what, names in kinds.items()
    ]


def _inherited(relation: Result, results: list[Result]) -> Result:
    """A failed relation is evidence, not a cause: it has the causes of the failures of its own case, if any."""
    if relation.outcome != FAILED or relation.ratio is None or relation.check in ("forward", "vjp"):
        return relation
    same = [r for r in results if r.case == relation.case and r.check in ("forward", "vjp") and r.outcome == FAILED]
    return replace(relation, causes=same[0].causes) if same and same[0].causes else relation


def _measured(e: Evidence) -> Measured:
    return e, compared(e)


def _search(
    failures: list[Measured], passed: list[Evidence], more: list[Transformation], deadline: float
) -> list[Cause]:
    """The best causes, until every failure that can be explained is, or the time is over."""
    found: list[Cause] = []
    left, scanned = sorted(failures, key=lambda m: _cost(m[0])), 0
    while left and scanned < SCANNED and time.monotonic() < deadline:
        scanned += 1
        matching = list(_matching(left[0], more, deadline))
        weighed = [_weighed(wrong, left, passed, deadline) for wrong in matching]
        best = sorted((c for c in weighed if c is not None), key=lambda c: -c.weight)
        if not best:
            left = left[1:]
            continue
        for cause in best[:CAUSES]:
            if cause.weight >= 0.5 * best[0].weight:
                found.append(_complete(cause, left))
        done = {e.key for e in found[-1].explained} | {e.key for c in found for e in c.explained} | {left[0][0].key}
        left = [m for m in left if m[0].key not in done]
    return found


def _cost(e: Evidence) -> tuple[bool, int]:
    """What is searched first: small problems in which no size is 1."""
    sizes = e.case.problem.sizes
    return min(sizes) < 2, sum(M.size for M in e.case.problem.arrays.values())


def _matching(m: Measured, more: list[Transformation], deadline: float) -> Iterator[Transformation]:
    """All transformations that explain one failure."""
    e, known = m
    for wrong in (*quantities.operations(e), *more, *library.candidates(e, known)):
        if time.monotonic() > deadline:
            return
        if _fits(wrong, e, known):
            yield wrong


def _weighed(wrong: Transformation, failures: list[Measured], passed: list[Evidence], deadline: float) -> Cause | None:
    """A cause with a sample of what speaks for it and against it; None if more speaks against it."""
    cause = Cause(wrong)
    for e, known in failures[:SAMPLED]:
        if _fits(wrong, e, known):
            cause.explained.append(e)
    for e in _spread(passed, COUNTER):
        if time.monotonic() > deadline:
            break
        answer = _answer(wrong, e.case, e.check)
        if answer is not None and is_wrong(answer, e):
            cause.against.append(e)
    if cause.against:
        cause.where = features.separating(*(((e.case, e.check) for e in es) for es in (cause.explained, cause.against)))
    return cause if cause.explained and cause.weight > 0 else None


def _spread(items: list[Evidence], count: int) -> Iterable[Evidence]:
    """At most so many of them, evenly spread, the small ones preferred."""
    small = [e for e in items if _cost(e)[1] < 20_000]
    return small[:: max(1, -(-len(small) // count))]


def _complete(cause: Cause, failures: list[Measured]) -> Cause:
    """The cause with all failures that it explains; more loosely, because the sample has shown it to be right."""
    seen = {e.key for e in cause.explained}
    more = [e for e, known in failures if e.key not in seen and _fits(cause.wrong, e, known, LOOSELY)]
    return replace(cause, explained=[*cause.explained, *more])


def _fits(wrong: Transformation, e: Evidence, known: dict[str, Known], close: float = CLOSE) -> bool:
    answer = _answer(wrong, e.case, e.check)
    return answer is not None and explains(answer, known, close)


def _unexplained(failures: list[Evidence], passed: list[Evidence]) -> str:
    """What is known about failures that nothing explains."""
    if not failures:
        return UNEXPLAINED
    smallest = min(failures, key=_cost)
    where = features.separating([(e.case, e.check) for e in failures], [(e.case, e.check) for e in passed])
    text = f"{UNEXPLAINED}; in the smallest case, {smallest.case.id}: {quantities.summary(smallest)}"
    return text + (f"; {where.sentence}" if where else "")
