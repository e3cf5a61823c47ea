"""The runner: one result for every check of every case, in a report or as tests of pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import numpy as np

from idl_ref.conformance.judge import protocols, report, thresholds, verdicts
from idl_ref.conformance.judge.call import STOPS
from idl_ref.conformance.judge.diagnosis import diagnosed
from idl_ref.conformance.judge.quick import quick
from idl_ref.conformance.judge.relations import RELATIONS
from idl_ref.conformance.judge.report import FAILED, SKIPPED, Report, Result
from idl_ref.conformance.judge.text import short
from idl_ref.conformance.truth import vectors
from idl_ref.conformance.truth.backend import Backend, Capabilities
from idl_ref.conformance.truth.draws import GROUP, drawn
from idl_ref.conformance.truth.problem import Case

DIRECTIONS = ("forward", "vjp")
Run = Callable[[], Result]
RELATED = (  # the cases on which relations are checked
    "contraction-random-0.9-float64", "contraction-perron-0.99-float64", "contraction-zero-rows-0.9-float32",
    "activation-tanh-dense-float64", "activation-softplus-low-rank-float64", "rank-2-float64", "rank-5-float32",
    "shape-bias-no-D", "shape-m-37-float64",
)  # fmt: skip


def check_backend(
    backend: Backend,
    groups: Iterable[str] | None = None,
    expected_failures: Mapping[str, str] = {},
    *,
    vectors_directory: Any = None,
    progress: Callable[[Result], None] | None = None,
    fast: bool = False,
    draws: int = 0,
    seed: int = 0,
    more: Iterable[Case] = (),
) -> Report:
    """Check a backend against exact answers, derived bounds, and the relations between its own answers.

    Parameters
    ----------
    backend : Backend
        Any object with `name`, `capabilities`, `forward(problem)` and `vjp(problem, G_Y)`.
    groups : iterable of str, optional
        Names of groups, or patterns of the ids of cases such as ``kink-*``, or of checks such as ``kink-*:vjp``.
        Default: all groups.
    expected_failures : mapping of str to str
        The reason of each known failure, by the id of the check or a pattern of ids. The run is not ok if such a check
        passes, or if a pattern matches no check that was run.
    vectors_directory : path, optional
        The folder of the frozen cases; see `load_cases`.
    progress : callable, optional
        A function that is called with each result, before its causes are known.
    fast : bool
        Whether to check small cases only, as few as have something of everything.
    draws, seed : int
        How many new cases are drawn into the group "draws", and from which seed. If there are any and `groups` is None,
        no other cases are checked.
    more : iterable of Case
        Other cases of that group.

    Returns
    -------
    Report
        `passed`, `failed`, `skipped`, `expected`; `ok`; `to_json`, `to_junit`, `to_markdown`, `to_html`.

    Notes
    -----
    A check passes if the residual of X, recomputed in float64, and the errors of X, Y and every gradient are within
    their bounds, and the backend reports the columns that do not converge. An exception fails the check, except in a
    case without an answer, where it counts as that report. Ctrl-C ends the run, and the report has what was done. A
    call has no time limit; run a backend that may hang as a process, by ``idl-ref conformance run --command``. A
    compiled backend takes some seconds.

    Examples
    --------
    >>> from idl_ref.conformance import adapters, check_backend
    >>> report = check_backend(adapters.IdlRef("numpy"), groups=["kinks", "ranks"])
    >>> report.ok, len(report.failed)
    (True, 0)
    """
    declared, unused, new = _declared(backend), set(expected_failures), (*drawn(draws, seed), *more)
    results: list[Result] = []
    done = False
    with suppress(*STOPS), np.errstate(**USUAL):
        for result in judged(backend, chosen(groups, fast, vectors_directory, new)):
            results.append(_as_expected(result, expected_failures, unused))
            if progress is not None:
                progress(results[-1])
        done = True
    unused = unused if done else set()
    notes = [f"declared, but not known to this kit: {', '.join(declared.unknown)}"] * bool(declared.unknown)
    results = _explained(results, backend, declared, notes)
    return Report(
        short(backend.name, 100), tuple(results), tuple(_problems(results, unused)), tuple(notes), vectors.SHA256,
        declared=described(declared), interrupted=not done,
    )  # fmt: skip


USUAL: Any = {"divide": "warn", "over": "warn", "invalid": "warn", "under": "ignore"}  # NumPy's own, whatever was set


def chosen(
    groups: Iterable[str] | str | None, fast: bool = False, directory: Any = None, new: Iterable[Case] = ()
) -> dict[str, list[Case]]:
    """What `select` chooses of all cases, or of the quick ones, and of new ones; or all new ones if groups is None."""
    new = list(new)
    if new and groups is None:
        return select(new, [GROUP])
    cases = vectors.load(directory)
    of = select((*cases, *new), groups)
    few = {case.id for case in (*(quick(cases) if fast else cases), *new)}
    return {name: [case for case in some if case.id in few] for name, some in of.items()}


def about(chosen: Mapping[str, list[Case]]) -> dict[str, Case]:
    """The chosen cases by id."""
    return {case.id: case for cases in chosen.values() for case in cases}


def judged(backend: Backend, chosen: Mapping[str, list[Case]]) -> Iterator[Result]:
    """The result of every chosen check."""
    cases = about(chosen)
    for ident, run in checks(backend, chosen):
        yield safely(ident, run, cases.get(ident.rpartition(":")[0]))


def safely(ident: str, run: Run, case: Case | None) -> Result:
    """The result of a check, with the comment of its case. An error of the kit itself fails the check."""
    try:
        result = run()
    except STOPS:
        raise
    except BaseException as reason:
        text = f"this kit could not judge the answer: {type(reason).__name__}: {short(reason)}; please report it"
        result = Result(ident, case.group if case else "", FAILED, message=text)
    return replace(result, comment=case.comment) if case else result


def _explained(results: list[Result], backend: Backend, declared: Capabilities, notes: list[str]) -> list[Result]:
    """The results with their causes; without them after Ctrl-C, or after an error of the search, which is noted."""
    try:
        return diagnosed(results, thresholds.probe(backend, declared), thresholds.again(backend, declared))
    except STOPS:
        notes.append("the search of causes was interrupted")
    except Exception as reason:
        notes.append(f"the search of causes failed: {type(reason).__name__}: {short(reason)}; please report it")
    return [replace(r, evidence=None) for r in results]


def _problems(results: list[Result], unused: set[str]) -> Iterator[str]:
    """What is wrong with the run as a whole."""
    for pattern in sorted(unused):
        yield f"expected failure {pattern!r} matches no check that was run: remove it from the expected failures"
    for r in results:
        if r.message == _XPASS:
            yield f"{r.id} {_XPASS}: remove it from the expected failures"
    if all(r.outcome == SKIPPED for r in results):
        yield "nothing was asserted: every check was skipped, or none was chosen"


def described(declared: Capabilities) -> str:
    """What is declared that differs from the default, as text; empty if nothing does."""
    words = []
    for of in fields(declared):
        value = getattr(declared, of.name)
        if of.name == "unknown" or value == of.default:
            continue
        if isinstance(value, bool):
            words.append(of.name if value else f"no {of.name}")
        else:
            words.append(f"{of.name} {' '.join(map(str, value)) or 'none' if isinstance(value, tuple) else value}")
    return "; ".join(words)


_XPASS = "passed, but was expected to fail"


def _as_expected(result: Result, expected: Mapping[str, str], unused: set[str]) -> Result:
    """The result, changed if it is a known failure; patterns that match it are removed from `unused`."""
    for pattern, reason in expected.items() if result.outcome != SKIPPED else ():
        if fnmatchcase(result.id, pattern) or fnmatchcase(result.case, pattern):
            unused.discard(pattern)
            if result.outcome == FAILED:
                return replace(result, outcome=report.EXPECTED, message=f"{reason} ({result.message})")
            if result.id == pattern:
                return replace(result, outcome=FAILED, message=_XPASS)
    return result


def select(cases: Iterable[Case], groups: Iterable[str] | str | None) -> dict[str, list[Case]]:
    """The cases that `groups` chooses: under "" all that are to be solved, and under each check's name those for it.

    The checks of protocols have no cases: their ids are keys. ValueError if a name or pattern matches nothing.
    """
    cases = list(cases)
    patterns = ["*"] if groups is None else [groups] if isinstance(groups, str) else list(groups)
    found: set[str] = set()

    def wanted(*names: str) -> bool:
        hits = {p for p in patterns if any(p == name or fnmatchcase(name, p) for name in names)}
        found.update(hits)
        return bool(hits)

    chosen = {
        check: [case for case in cases if wanted(case.group, case.id, f"{case.id}:{check}")] for check in DIRECTIONS
    }
    solved = {case.id for of in chosen.values() for case in of}
    chosen[""] = [case for case in cases if case.id in solved]
    for name in (*RELATIONS, "adjoint"):
        fits = [case for case in cases if case.id in RELATED and (name == "adjoint" or RELATIONS[name].fits(case))]
        everywhere = wanted("relations", f"relation-{name}")
        chosen[name] = [case for case in fits if wanted(f"{case.id}:{name}") or everywhere]
    chosen |= {id: [] for id in protocols.IDS if wanted(protocols.GROUP, id.partition(":")[0], id)}
    if lost := [pattern for pattern in patterns if pattern not in found]:
        known = [*dict.fromkeys(case.group for case in cases), "relations", protocols.GROUP]
        raise ValueError(
            f"groups must be among {', '.join(known)}, or ids of cases or checks, or patterns of these; "
            f"got {', '.join(map(repr, lost))}."
        )
    return chosen


def _declared(backend: Backend) -> Capabilities:
    return Capabilities.declared(getattr(backend, "capabilities", None))


def checks(backend: Backend, chosen: Mapping[str, list[Case]]) -> Iterator[tuple[str, Run]]:
    """Every check of the chosen cases: its id, and a function that runs it and returns the result."""
    declared = _declared(backend)
    forward, vjp = ({case.id for case in chosen[check]} for check in DIRECTIONS)
    for case in chosen[""]:
        if case.group == "storage" and case.problem.storage not in declared.dtypes:
            continue
        if case.id in forward:
            yield f"{case.id}:forward", partial(verdicts.forward, backend, case, declared)
        if case.id in vjp and case.has_gradients:
            yield f"{case.id}:vjp", partial(verdicts.vjp, backend, case, declared)
    for name, rule in RELATIONS.items():
        for case in chosen[name]:
            yield f"{case.id}:{name}", partial(verdicts.relation, backend, case, declared, rule)
    for case in chosen["adjoint"]:
        yield f"{case.id}:adjoint", partial(verdicts.adjoint_identity, backend, case, declared)
    yield from protocols.checks(backend, declared, [id for id in protocols.IDS if id in chosen])


# --- under pytest -----------------------------------------------------------------------------------------------------


def parametrize(
    backend: Backend, groups: Iterable[str] | None = None, expected_failures: Mapping[str, str] = {}
) -> Callable[[Any], Any]:
    """A decorator that turns a function of one argument, `check`, into one test of pytest per check.

    Parameters
    ----------
    backend, groups, expected_failures
        As for `check_backend`; an expected failure that passes fails the test.

    Returns
    -------
    decorator
        The mark `pytest.mark.parametrize`; the test calls its argument `check`, which raises if the check fails.

    Examples
    --------
    >>> from idl_ref.conformance import adapters, parametrize
    >>> @parametrize(adapters.IdlRef("numpy"), groups=["kinks"])
    ... def test_kinks(check):
    ...     check()
    """
    import pytest

    rows = []
    for ident, run in checks(backend, select(vectors.load(), groups)):
        reasons = [why for pattern, why in expected_failures.items() if fnmatchcase(ident, pattern)]
        marks = [pytest.mark.xfail(reason=reasons[0], strict=True)] if reasons else []
        rows.append(pytest.param(partial(_test, ident, run), id=ident, marks=marks))
    return pytest.mark.parametrize("check", rows)


def _test(ident: str, run: Run) -> None:
    import pytest

    (result,) = diagnosed([safely(ident, run, None)])
    if result.outcome == SKIPPED:
        pytest.skip(result.message)
    if result.outcome == FAILED:
        causes = [f"error matches: {cause}" for cause in result.causes]
        pytest.fail("; ".join([result.message, *causes]), pytrace=False)
