"""The errors and the iterations of a backend, which are noted while the checks run."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import numpy as np

from idl_ref.conformance.judge.report import PASSED, Report
from idl_ref.conformance.truth import bounds as bnd
from idl_ref.conformance.truth.files import digest
from idl_ref.conformance.truth.problem import Case, Problem

LARGEST = 256  # units; the bounds of larger cases take longer than the cases themselves


class Noted:
    """A backend that passes every call on to another one, and keeps its first answer to each case.

    Parameters
    ----------
    backend : Backend
    cases : iterable of Case
        Only those with one right answer, and of limited size, are noted.
    """

    def __init__(self, backend: Any, cases: Iterable[Case]) -> None:
        self.backend = backend
        self.cases = {case.id: case for case in cases if case.expect == "valid" and len(case.problem.B) <= LARGEST}
        self.known = {digest(case.problem): case for case in self.cases.values()}
        self.answers: dict[str, dict[str, Any]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def forward(self, problem: Problem) -> Any:
        """The answer of the backend."""
        case = self._case(problem)
        return self._noted(case, "forward", self.backend.forward(problem))

    def vjp(self, problem: Problem, G_Y: np.ndarray) -> Any:
        """The answer of the backend."""
        case = self._case(problem)
        same = case is not None and np.array_equal(G_Y, case.G_Y)
        return self._noted(case if same else None, "vjp", self.backend.vjp(problem, G_Y))

    def _case(self, problem: Problem) -> Case | None:
        return self.known.get(digest(problem)) if len(problem.B) <= LARGEST else None

    def _noted(self, case: Case | None, what: str, answer: Any) -> Any:
        key = "" if case is None else f"{case.id}:{what}"
        if key and key not in self.answers:
            with suppress(Exception):  # The judge says what is wrong with an answer that cannot be copied.
                self.answers[key] = {name: np.array(np.asarray(value)) for name, value in answer.items()}
        return answer

    def passed(self, report: Report) -> list[tuple[Case, str, dict[str, np.ndarray]]]:
        """The cases with their checks and noted answers, as far as they passed."""
        ids = [r.id for r in report.results if r.outcome == PASSED and r.id in self.answers]
        return [(self.cases[id.rpartition(":")[0]], id.rpartition(":")[2], self.answers[id]) for id in ids]


def accuracy(noted: Noted, report: Report) -> dict[str, dict[str, float]]:
    """The median and the worst error of each quantity over the checks that passed, in units of the bound."""
    errors: dict[str, list[float]] = {}
    for case, _, answer in noted.passed(report):
        truth = case.truths[0]
        bound = bnd.bounds(case, truth)
        for name, M in answer.items():
            if name in truth and M.size:
                errors.setdefault(name, []).append(bnd.ratio(M, truth[name], bound[name]))
    return {
        name: {"median": float(np.median(of)), "worst": float(np.max(of)), "checks": len(of)}
        for name, of in sorted(errors.items(), key=lambda item: "XYABCDLRU".index(item[0]))
    }
