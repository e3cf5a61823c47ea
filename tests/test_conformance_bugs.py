"""The kit's power: every planted bug is found, and failures get the name of the bug that explains them."""

import numpy as np
import pytest

from idl_ref.conformance import check_backend
from idl_ref.conformance.adapters import Plain
from idl_ref.conformance.bugs import BUGS, STATEFUL, diagnosis
from idl_ref.conformance.judge import runner
from idl_ref.conformance.truth import vectors

CASES = vectors.load()


def test_stateful_bugs_are_planted():
    assert BUGS.keys() >= STATEFUL


@pytest.mark.slow
@pytest.mark.parametrize("name", BUGS)
def test_planted_bugs_are_found(name):
    small_first = sorted(CASES, key=lambda case: sum(np.size(M) for M in case.problem.arrays.values()))
    chosen = runner.select(small_first, None)  # most bugs show in a small equation: a third of the time
    bug = BUGS[name]()
    assert any(run().outcome == "failed" for _, run in runner.checks(bug, chosen))


NAMED = ["contraction-*-0.5-float64", "stopping-*-tanh", "rank-2-*", "shape-bias*", "f-inf-beyond-float64",
         "rows-tanh-*", "ball-judged"]  # fmt: skip


@pytest.mark.parametrize("name", ["AdjointNotTransposed", "BiasTwice", "StaleIterate", "SlopesStale", "FactorsSwapped",
    "DDropped", "StraightThrough", "AdjointFiveSteps", "GradientsAveraged", "NormOfColumn",
    "UnjudgedOutsideBall"])  # fmt: skip
def test_failures_are_named(name):
    report = check_backend(BUGS[name](), groups=NAMED)
    cause, explained = report.causes[0]
    assert diagnosis(name) in cause
    assert explained


@pytest.mark.slow
def test_an_unknown_error_gets_no_name():
    class Odd(Plain):
        def readout(self, p, X):
            return super().readout(p, X) * p.dtype.type(1.7)

    report = check_backend(Odd(), groups=["ranks"])
    assert report.failed
    assert [cause for cause, _ in report.causes] == ["not explained by a planted bug"]
