"""The runner: every case, every check, one result each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from idl_ref.conformance import diagnose, report, vectors, verdicts
from idl_ref.conformance.capabilities import Capabilities
from idl_ref.conformance.problem import Backend, Case
from idl_ref.conformance.relations import RELATIONS
from idl_ref.conformance.report import FAILED, PASSED, SKIPPED, Report, Result

RELATED = (  # the cases that relations start from
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
) -> Report:
    """Check a backend against exact answers, derived bounds, and the relations between its own answers.

    Parameters
    ----------
    backend : Backend
        Any object with `name`, `capabilities`, `forward(problem)` and `vjp(problem, G_Y)`.
    groups : iterable of str, optional
        Names of groups, or patterns of ids such as ``kink-*``. All of them if not given.
    expected_failures : mapping of str to str
        Id, or pattern of ids, to the reason. One that passes, or matches nothing that was asked, is an error.
    vectors_directory : path, optional
        See `vectors.load`.
    progress : callable, optional
        Called with each result.

    Returns
    -------
    Report
        `passed`, `failed`, `skipped`, `expected`; `ok`; `to_json`, `to_junit`, `to_markdown`, `to_html`.

    Notes
    -----
    Verdicts: the residual of X, recomputed in float64, within what the stopping rule and rounding allow; the error of
    X, Y and every gradient within its bound, the ratio reported; failures of convergence said, never silent.
    An exception is a failed check, or a report where a failure is due. There is no time limit here: use the command
    line for a backend that may hang. Cost: some seconds for a compiled backend.

    Examples
    --------
    >>> from idl_ref.conformance import adapters, check_backend
    >>> report = check_backend(adapters.IdlRef("numpy"), groups=["kinks", "ranks"])
    >>> report.ok, len(report.failed)
    (True, 0)
    """
    groups = [groups] if isinstance(groups, str) else groups
    chosen = select(vectors.load(vectors_directory), groups)
    declared = Capabilities.declared(getattr(backend, "capabilities", None))
    results, unused = [], set(expected_failures)
    for ident, run in checks(backend, chosen, declared):
        result = diagnose.named(run())
        if result.outcome != SKIPPED:
            result = _as_expected(result, expected_failures, unused)
        assert result.id == ident
        results.append(result)
        if progress is not None:
            progress(result)
    problems = [
        f"expected failure {pattern!r} matches nothing that was asked: take it out of the list"
        for pattern in sorted(unused)
    ]
    problems += [
        f"{r.id} passes, and was expected to fail: take it out of the list" for r in results if r.message == _XPASS
    ]
    if not any(r.outcome in (PASSED, FAILED, report.EXPECTED) for r in results):
        problems.append("nothing was asserted: every check was skipped, or none was chosen")
    notes = [f"declared, and not known to this kit: {', '.join(declared.unknown)}"] if declared.unknown else []
    return Report(str(backend.name), tuple(results), tuple(problems), tuple(notes), vectors.SHA256)


_XPASS = "passes, and was expected to fail"


def _as_expected(result: Result, expected: Mapping[str, str], unused: set[str]) -> Result:
    for pattern, reason in expected.items():
        if fnmatchcase(result.id, pattern) or fnmatchcase(result.case, pattern):
            unused.discard(pattern)
            if result.outcome == FAILED:
                return replace(result, outcome=report.EXPECTED, message=f"{reason} ({result.message})")
            if result.id == pattern:
                return replace(result, outcome=FAILED, message=_XPASS)
    return result


def group_names(cases: Iterable[Case]) -> list[str]:
    return [*dict.fromkeys(case.group for case in cases), "relations"]


def select(cases: Iterable[Case], groups: Iterable[str] | None) -> dict[str, list[Case]]:
    """The cases to solve under "", and those that relations start from, by relation."""
    cases = list(cases)
    known = group_names(cases)
    chosen: dict[str, list[Case]] = {name: [] for name in ("", *RELATIONS, "adjoint")}
    base = [case for case in cases if case.id in RELATED]
    patterns = None if groups is None else list(groups)
    found: set[str] = set()

    def wanted(*names: str) -> bool:
        hits = {p for p in patterns or () if any(fnmatchcase(name, p) for name in names)}
        found.update(hits)
        return patterns is None or bool(hits)

    for case in cases:
        if wanted(case.group, case.id):
            chosen[""].append(case)
    for name, relation in RELATIONS.items():
        chosen[name] = [c for c in base if relation.fits(c) and wanted("relations", f"relation-{name}")]
    chosen["adjoint"] = [c for c in base if wanted("relations", "relation-adjoint")]
    if patterns and (lost := [p for p in patterns if p not in found]):
        raise ValueError(
            f"groups must be among {', '.join(known)}, or patterns of ids; got {', '.join(map(repr, lost))}."
        )
    return chosen


Run = Callable[[], Result]


def checks(backend: Backend, chosen: Mapping[str, list[Case]], declared: Capabilities) -> Iterator[tuple[str, Run]]:
    """Every check that is asked for, by id: call it for its result."""
    for case in chosen[""]:
        yield f"{case.id}:forward", partial(verdicts.forward, backend, case, declared)
        if asks_gradients(case):
            yield f"{case.id}:vjp", partial(verdicts.vjp, backend, case, declared)
    for name, rule in RELATIONS.items():
        for case in chosen[name]:
            yield f"{case.id}:{name}", partial(verdicts.relation, backend, case, declared, rule)
    for case in chosen["adjoint"]:
        yield f"{case.id}:adjoint", partial(verdicts.adjoint_identity, backend, case, declared)


def asks_gradients(case: Case) -> bool:
    """Not where no column has an answer."""
    return bool(case.good.any()) or case.problem.U.shape[1] == 0
