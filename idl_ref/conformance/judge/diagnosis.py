"""From wrong numbers to a name: the planted bugs that give the same wrong numbers."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from idl_ref.conformance.bugs import BUGS, STATEFUL, diagnosis
from idl_ref.conformance.judge.report import Result
from idl_ref.conformance.truth.bounds import certificate
from idl_ref.conformance.truth.problem import Arrays, Case

CLOSE = 0.02  # numbers match those of a bug if they differ from them by at most this fraction of the error
COSTLY = 10_000  # a case that allows more iterations than this is too slow to be repeated with every bug


def named(result: Result) -> Result:
    """A failed result with the planted bugs that explain its numbers; any other result unchanged."""
    if result.evidence is None:
        return result
    if result.evidence[0].problem.max_iter > COSTLY:
        return replace(result, evidence=None, message=f"{result.message}; the case is too slow to try the bugs on")
    return replace(result, evidence=None, causes=causes(*result.evidence))


def causes(case: Case, check: str, got: Arrays, truth: Arrays, bounds: Arrays) -> tuple[str, ...]:
    """The diagnoses of the planted bugs that explain the numbers `got`."""
    got, names = {name: value for name, value in got.items() if name in truth}, [n for n in BUGS if n not in STATEFUL]
    if all((np.abs(value - truth[name]) <= bounds[name])[~np.isnan(truth[name])].all() for name, value in got.items()):
        bounds = {name: np.zeros_like(bound) for name, bound in bounds.items()}  # only the residual was too large
        names = [name for name in names if _unsolved(case, _wrong(name, case, check))]
    return tuple(diagnosis(name) for name in names if _same(_wrong(name, case, check), got, truth, bounds))


@cache
def _wrong(name: str, case: Case, check: str) -> Arrays:
    """The answer of a planted bug to a case; empty if the bug cannot solve the case."""
    bug = BUGS[name]()
    try:
        return dict(bug.forward(case.problem) if check == "forward" else bug.vjp(case.problem, case.G_Y))
    except (ValueError, ArithmeticError):
        return {}


def _unsolved(case: Case, bug: Arrays) -> bool:
    """Whether the residual of a bug's X is too large as well."""
    if "X" not in bug:
        return False
    residual, allowed = certificate(case.problem, bug["X"], case.strict)
    return not (residual <= allowed)[:, case.good].all()


def _same(bug: Arrays, got: Arrays, truth: Arrays, bounds: Arrays) -> bool:
    """Whether `got` has the same errors as a bug.

    Every array must be much closer to that of the bug than to the truth, and some entry of both must be wrong.
    """
    wrong = False
    for name, value in got.items():
        if name not in bug:
            return False
        known = ~np.isnan(truth[name])
        with np.errstate(invalid="ignore", over="ignore"):
            error = np.abs(value[known] - truth[name][known])
            apart, of_bug = (np.abs(M[known] - bug[name][known]) for M in (value, truth[name]))
        if not (np.isfinite(error).all() and np.isfinite(apart).all()):
            return False
        allowed = np.maximum(CLOSE * error.max(initial=0.0), 2 * bounds[name][known])
        if not (apart <= allowed).all():
            return False
        wrong |= all(bool((bounds[name][known] < E).any()) for E in (error, of_bug))
    return wrong
