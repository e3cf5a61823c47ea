"""The kit accuses none of the right backends of other styles."""

import pytest
from right_backends import RIGHT
from right_backends.__main__ import FEW

from idl_ref.conformance import check_backend

LONG = ("Exact", "DualNumbers", "ScipyAnderson")  # They take ten seconds or more.


def test_there_are_many():
    assert len(RIGHT) >= 40


@pytest.mark.sampled(18)
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in RIGHT])
def test_no_alarm(name):
    report = check_backend(RIGHT[name](), FEW, fast=True)
    assert report.failed == []
    assert report.ok
