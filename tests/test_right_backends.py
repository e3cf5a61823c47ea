"""The kit accuses none of the right backends of other styles."""

import pytest
from right_backends import RIGHT
from right_backends.__main__ import FEW

from idl_ref.conformance import check_backend

LONG = {"Exact", "DualNumbers", "ScipyAnderson"}  # They take ten seconds or more.
QUICK = {*list(RIGHT)[::3]} - LONG  # The others take part in full runs only.


def test_there_are_many():
    assert len(RIGHT) >= 40


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in RIGHT])
def test_no_alarm(name):
    report = check_backend(RIGHT[name](), FEW, fast=True)
    assert report.failed == []
    assert report.ok
