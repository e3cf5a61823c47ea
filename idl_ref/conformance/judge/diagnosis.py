"""From wrong numbers to causes: the transformations of the exact answers that explain the failures of a whole run.

A cause must give the wrong numbers of the failures, and it must be wrong itself wherever it is said to explain one. It
is weighed by all checks of the run: those that failed and that it explains, and those that passed although it would
have failed them, unless a simple condition, such as n ≥ 33, tells the two apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np

from idl_ref.conformance.judge import counting, features, library, quantities
from idl_ref.conformance.judge.evidence import CLOSE, Evidence, Known, compared, explains, is_wrong, judged_numbers
from idl_ref.conformance.judge.features import Where
from idl_ref.conformance.judge.patterns import PATTERNS, Again, Pattern, accumulated
from idl_ref.conformance.judge.report import (
    COUNTED,
    EXCESSIVE,
    FAILED,
    LIE,
    PASSED,
    SEPARATE,
    UNEXPLAINED,
    UNFINISHED,
    UNSTARTED,
    Result,
)
from idl_ref.conformance.judge.steps import Steps
from idl_ref.conformance.judge.transformations import Change, Transformation
from idl_ref.conformance.truth.problem import Arrays, Case, Problem

SECONDS = 20.0  # the processor time that the search of causes may take, so that it finds the same on a busy machine
SCANNED, SAMPLED = 8, 40  # failures searched in the whole library, and those that weigh a cause
SAMPLES = (10, 15, 80), (SAMPLED, 61, 40)  # failures and passes that weigh a cause, and how many causes are kept
FINAL = 6  # causes that are weighed by all that passed
LARGE = 20_000  # problems with more numbers than this do not weigh causes
CAUSES = 3
FEW = 4  # a cause that explains fewer than a fourth of what nothing explains is not named first
FEWEST = 2  # a wrong array of fewer numbers is what too many mistakes give
LOOSELY = 0.15  # what CLOSE becomes for the failures on which a cause was not chosen
SENSELESS = ValueError, IndexError, ArithmeticError, TypeError  # raised by a change that makes no sense for a problem


Probe = Callable[[Evidence, str, int], bool]  # whether the backend fails the check of a case with n, … changed
LARGEST = 1100  # no fresh problem has a larger size
Measured = tuple[Evidence, dict[str, Known]]  # with the arrays that were compared


@lru_cache(maxsize=20_000)
def _answer(wrong: Transformation, case: Case, check: str) -> Arrays | None:
    try:
        return wrong.answer(case, check)
    except SENSELESS:
        return None


@dataclass
class Cause:
    """A transformation with the failures that it explains, and the condition under which it does."""

    wrong: Transformation
    explained: list[Evidence] = field(default_factory=list)
    numbers: int = FEWEST  # how many numbers the largest wrong array of these failures has
    against: list[Evidence] = field(default_factory=list)
    where: Where | None = None

    @property
    def weight(self) -> float:
        """How many failures it explains, less what speaks against it."""
        return len(self.explained) - (self.where.cost if self.where else len(self.against))

    def sentence(self, failures: int) -> str:
        """The cause and its evidence."""
        text = self.wrong.sentence + (f", {self.where.sentence}" if self.where else "")
        against = 0 if self.where else len(self.against)
        contradicts = f"; {against} that passed speak against it" if against else "; nothing that passed contradicts it"
        return f"{text} (explains {len(self.explained)} of {failures} wrong answers{contradicts})"


def diagnosed(
    results: list[Result], probe: Probe | None = None, again: Again | None = None, seconds: float = SECONDS
) -> list[Result]:
    """The results, in which every failure with numbers has the causes that explain it, or what is known about it.

    A probe, which tells whether the backend fails at another size, is asked from which size on a cause holds; `again`
    calls the backend twice, and tells which gradients the second call adds to those of the first one.
    """
    results = _of_start(results)
    failures = [r.evidence for r in results if _has_numbers(r)]
    passed = [e for e in _passed(results) if _cost(e)[1] < LARGE]
    deadline = time.process_time() + seconds
    more = [*_added(failures, again), *_remembered(results)]
    found = _search([*map(_measured, failures)], passed, more, deadline)
    found = [_from_size(cause, passed, probe, deadline) for cause in found]
    weak = _weak(found, failures)
    explained = {e.key for cause in found if cause not in weak for e in cause.explained}
    rest = _unexplained([e for e in failures if e.key not in explained], passed)
    done, located = [], _located(results)
    best = (found[0].sentence(len(failures)),) if found and found[0] not in weak else ()
    for r in results:
        if r.outcome == FAILED and r.causes:
            r = replace(r, causes=tuple(located.get(cause, cause) for cause in r.causes))
        if _has_numbers(r):
            mine = [c for c in found if any(e.key == r.evidence.key for e in c.explained)][:CAUSES]
            sentences = tuple(c.sentence(len(failures)) for c in mine)
            known = () if any(c not in weak for c in mine) else r.causes or (rest,)
            r = replace(r, causes=(*known, *sentences))
        elif r.outcome == FAILED and not r.causes and r.message.startswith(SEPARATE):
            r = replace(r, causes=best)  # a protocol that found nothing new
        done.append(replace(r, evidence=None))
    return [_inherited(r, done) for r in done]


def _of_start(results: list[Result]) -> list[Result]:
    """The results, in which columns with an X0 do not converge in time because of X0, if a protocol has shown that."""
    if not any(r.outcome == FAILED and UNSTARTED in r.causes for r in results):
        return results
    return [
        replace(r, causes=tuple(UNSTARTED if cause == UNFINISHED else cause for cause in r.causes))
        if r.outcome == FAILED and r.evidence is not None and r.evidence.case.problem.X0 is not None
        else r
        for r in results
    ]


def _weak(found: list[Cause], failures: list[Evidence]) -> list[Cause]:
    """The causes that explain few failures next to those that nothing explains: they come after these."""
    explained = {e.key for cause in found for e in cause.explained}
    left = sum(e.key not in explained for e in failures)
    return [cause for cause in found if FEW * len(cause.explained) < left]


def _from_size(cause: Cause, passed: list[Evidence], probe: Probe | None, deadline: float) -> Cause:
    """The cause with the exact size from which on the backend is wrong, by bisection with fresh problems."""
    where = cause.where
    if where is None or not where.size or probe is None or time.process_time() > deadline:
        return cause
    at = min(cause.explained, key=lambda e: features.sizes(e.case)[where.size])
    below = [v for e in passed if (v := features.sizes(e.case)[where.size]) < where.least]
    least = first(probe, at, where.size, max(below), where.least) if below else None
    if least is None:
        return cause
    return replace(cause, where=where._replace(sentence=f"wrong from {where.size} = {least} on"))


def first(probe: Probe, e: Evidence, size: str, passes: int, least: int) -> int | None:
    """The smallest size that fails, between one that passes and one that fails; None if fresh problems do not agree."""
    if least > LARGEST:
        return None
    try:
        if probe(e, size, passes) or not probe(e, size, least):
            return None
        while least - passes > 1:
            middle = (passes + least) // 2
            passes, least = (passes, middle) if probe(e, size, middle) else (middle, least)
    except ArithmeticError:
        return None  # a fresh problem of this kind has no answer
    return least


def _passed(results: list[Result]) -> list[Evidence]:
    """What passed, with numbers; a failure that was expected speaks neither for a cause nor against it."""
    return [r.evidence for r in results if r.outcome == PASSED and r.evidence is not None]


def _has_numbers(r: Result) -> bool:
    return r.outcome == FAILED and r.evidence is not None and r.evidence.got is not None


def _located(results: list[Result]) -> dict[str, str]:
    """The causes that the checks themselves named, each with the condition under which it occurs.

    Wrong numbers of iterations have the rule by which the whole run counts, if there is one.
    """
    without = [r for r in results if r.outcome == FAILED and r.evidence is not None and r.evidence.got is None]
    passed = [(e.case, e.check) for e in _passed(results)]
    out = {}
    for cause in dict.fromkeys(c for r in without for c in r.causes):
        at = [(r.evidence.case, r.evidence.check) for r in without if cause in r.causes]
        where = features.separating(at, [a for a in passed if a[1] in {check for _, check in at}])
        out[cause] = f"{cause}, {where.sentence}" if where else cause
    rule = counting.rule([r.evidence.reported for r in results if r.evidence is not None and r.evidence.reported])
    by_rule = dict.fromkeys((COUNTED, LIE + EXCESSIVE), f"the iterations are counted wrong: {rule}")
    return out | by_rule if rule else out


def _remembered(results: list[Result]) -> list[Transformation]:
    """Weights of an earlier call used again: those of the first, or the last, problem of the same kind and shapes."""
    cases = list(dict.fromkeys(r.evidence.case for r in results if r.evidence is not None))
    same_shapes = _earlier(cases, lambda p: (p.sizes[:3], *(F.shape for F in p.factors), p.dtype))
    same_map = _earlier([case for case in cases if case.problem.f != "none"],
                        lambda p: (p.f, *(F.shape for F in p.factors), p.dtype))  # fmt: skip

    def again(step: str, before: dict[Case, tuple[Case, Case]], k: int) -> Change:
        return lambda s: getattr(Steps(before.get(s.case, (s.case, s.case))[k]), step)

    kinds = {
        ("the weights A", "the same shapes"): (("F", "Ft"), same_shapes),
        ("the transposed weights Aᵀ", "the same shapes"): (("Ft",), same_shapes),
        ("the weights B", "the same shapes"): (("B",), same_shapes),
        ("the weights", "the same shapes"): (("F", "Ft", "B", "C", "D"), same_shapes),
        ("what f makes of the weights", "the same f and shapes of A"): (("F", "Ft"), same_map),
    }
    return [
        Transformation(f"{what} of {which} call with {same} used again", {name: again(name, of, k) for name in names})
        for k, which in enumerate(("an earlier", "the last"))
        for (what, same), (names, of) in kinds.items()
    ]


def _earlier(cases: list[Case], key: Callable[[Problem], Any]) -> dict[Case, tuple[Case, Case]]:
    """For each case the first one, and the one before it, whose problem has the same key; itself without one."""
    first: dict[Any, Case] = {}
    last: dict[Any, Case] = {}
    found: dict[Case, tuple[Case, Case]] = {}
    for case in cases:
        same = key(case.problem)
        found[case] = first.setdefault(same, case), last.get(same, case)
        last[same] = case
    return found


def _added(failures: list[Evidence], again: Again | None) -> list[Transformation]:
    """That gradients are added to those of earlier calls, if the smallest failure with gradients shows it."""
    of = [e for e in failures if e.check == "vjp"]
    names = again(min(of, key=_cost)) if of and again is not None else []
    return [accumulated(names)] if names else []


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
    while left and scanned < SCANNED and time.process_time() < deadline:
        scanned += 1
        matching = list(_matching(left[0], more, _half(deadline)))
        best = _left(_weighed(matching, left[:SAMPLED], passed, _half(deadline)), passed, deadline)
        best = best or [c for a in PATTERNS if (c := _recognised(a, left, passed)) is not None][:1]
        if not best:
            left = left[1:]
            continue
        for cause in best[:CAUSES]:
            if cause.weight >= 0.5 * best[0].weight:
                found.append(_complete(cause, left))
        done = {e.key for e in found[-1].explained} | {e.key for c in found for e in c.explained} | {left[0][0].key}
        left = [m for m in left if m[0].key not in done]
    return found


def _half(deadline: float) -> float:
    """The moment at which half of the time until the deadline is over."""
    now = time.process_time()
    return now + (deadline - now) / 2


def _left(causes: list[Cause], passed: list[Evidence], deadline: float) -> list[Cause]:
    """The first causes that are left when all that passed has weighed them, the best first."""
    left: list[Cause] = []
    for cause in causes:
        opposed = _opposed(cause, passed, deadline)
        if opposed is None or len(left) == FINAL:
            break
        if opposed.weight > 0:
            left.append(opposed)
    return sorted(left, key=lambda c: -c.weight)


def _cost(e: Evidence) -> tuple[bool, int]:
    """What is searched first: small problems in which no size is 1."""
    sizes = e.case.problem.sizes
    return min(sizes) < 2, sum(M.size for M in e.case.problem.arrays.values())


def _matching(m: Measured, more: list[Transformation], deadline: float) -> Iterator[Transformation]:
    """All transformations that explain one failure."""
    e, known = m
    for wrong in chain(quantities.operations(e), library.candidates(e, known), more):
        if time.process_time() > deadline:
            return
        if _fits(wrong, e, known):
            yield wrong


def _weighed(
    matching: list[Transformation], failures: list[Measured], passed: list[Evidence], deadline: float
) -> list[Cause]:
    """The causes for which more speaks than against them in samples, first a small one for all, the best first."""
    causes = [Cause(wrong) for wrong in matching]
    for some, counter, kept in SAMPLES:
        explaining = (_explaining(cause.wrong, failures[:: -(-len(failures) // some)]) for cause in causes)
        opposed = (_opposed(cause, _spread(passed, counter), deadline) for cause in explaining)
        good = (c for c in opposed if c is not None and c.weight > 0 and c.numbers >= FEWEST)
        causes = sorted(good, key=lambda c: -c.weight)[:kept]
    return causes


def _explaining(wrong: Transformation, failures: list[Measured]) -> Cause:
    explained = [(e, known) for e, known in failures if _fits(wrong, e, known)]
    return Cause(wrong, [e for e, _ in explained], max((judged_numbers(known) for _, known in explained), default=0))


def _recognised(pattern: Pattern, failures: list[Measured], passed: list[Evidence]) -> Cause | None:
    """A pattern as a cause, if it explains enough: errors of a size mean something only where nearly all have it."""
    explained = [e for e, known in failures if pattern.explains(e.case, known)]
    if len(explained) < max(pattern.least, pattern.share * len(failures)):
        return None
    of, others = ({e.case.problem.activation for e in es} for es in (explained, passed))
    where = Where(f"all of them with {min(of)}", features.anywhere) if len(of) == 1 and len(others) > 1 else None
    return Cause(pattern, explained, where=where)


def _opposed(cause: Cause, passed: list[Evidence], deadline: float) -> Cause | None:
    """The cause with what passed and speaks against it, and the condition that excludes it; None without the time."""
    against = []
    for e in passed:
        if time.process_time() > deadline:
            return None
        answer = _answer(cause.wrong, e.case, e.check)
        if answer is not None and is_wrong(answer, e):
            against.append(e)
    where = features.separating(*([(e.case, e.check) for e in es] for es in (cause.explained, against)))
    return replace(cause, against=against, where=where)


def _spread(items: list[Evidence], count: int) -> list[Evidence]:
    """About so many of them, evenly spread; an odd stride, because forward and vjp alternate."""
    return items[:: (len(items) // count) | 1]


def _complete(cause: Cause, failures: list[Measured]) -> Cause:
    """The cause with all failures that it explains; more loosely, because the sample has shown it to be right."""
    seen = {e.key for e in cause.explained}
    more = [e for e, known in failures if e.key not in seen and _fits(cause.wrong, e, known, LOOSELY)]
    explained = [*cause.explained, *more]
    where = features.separating(*([(e.case, e.check) for e in es] for es in (explained, cause.against)))
    return replace(cause, explained=explained, where=where if cause.against else cause.where)


def _fits(wrong: Transformation, e: Evidence, known: dict[str, Known], close: float = CLOSE) -> bool:
    if isinstance(wrong, Pattern):
        return wrong.explains(e.case, known)
    if e.check == "forward" and "X" in known and not _possible(wrong, e.case, known["X"], close):
        return False
    answer = _answer(wrong, e.case, e.check)
    return answer is not None and explains(answer, known, close)


def _possible(wrong: Transformation, case: Case, X: Known, close: float) -> bool:
    """Whether `explains` may find X in the answer of a transformation, which takes longer to compute than this."""
    if not np.isfinite(X.got).all():
        return True
    try:
        return wrong.may_give(case, X.got, max(1.0, close * X.ratio) * X.bound)
    except SENSELESS:
        return False


def _unexplained(failures: list[Evidence], passed: list[Evidence]) -> str:
    """What is known about failures that nothing explains."""
    if not failures:
        return UNEXPLAINED
    smallest = min(failures, key=_cost)
    where = features.separating([(e.case, e.check) for e in failures], [(e.case, e.check) for e in passed])
    text = f"{UNEXPLAINED}; in the smallest case, {smallest.case.id}: {quantities.summary(smallest)}"
    return text + (f"; {where.sentence}" if where else "")
