"""How many iterations a backend takes, beside the method of this library that takes the fewest."""

from __future__ import annotations

from typing import Any

import numpy as np

from idl_ref.choices import Method
from idl_ref.conformance.adapters import IdlRef
from idl_ref.conformance.judge.report import Report
from idl_ref.conformance.score.accuracy import Noted
from idl_ref.conformance.truth.problem import Case

METHODS: tuple[Method, ...] = ("picard", "anderson", "newton")
GROUP = "contraction"  # the cases whose convergence goes from fast to slow


def iterations(noted: Noted, report: Report) -> dict[str, Any] | None:
    """The median and the largest ratio of the reported iterations to the fewest; None if there are none to compare."""
    ratios, slowest = [], (0.0, "", 0, 0, "")
    for case, check, answer in noted.passed(report):
        counts = answer.get("iterations")
        if check == "forward" and case.group == GROUP and counts is not None and counts.size:
            most = int(np.max(counts))
            fewest, method = best(case)
            ratios.append(most / fewest)
            slowest = max(slowest, (ratios[-1], case.id, most, fewest, method))
    if not ratios:
        return None
    worst = dict(zip(("ratio", "case", "iterations", "fewest", "method"), slowest, strict=True))
    return {"median": float(np.median(ratios)), "worst": worst, "cases": len(ratios)}


def best(case: Case) -> tuple[int, str]:
    """The fewest iterations in which a method of the NumPy twin solves every column, and the name of the method."""
    found = []
    for method in METHODS:
        out = IdlRef("numpy", method).forward(case.problem)
        if out["converged"].all():
            found.append((max(1, int(out["iterations"].max())), method))
    return min(found)
