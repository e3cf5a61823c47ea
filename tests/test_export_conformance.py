"""The exported C code passes the conformance kit, in this process and through the subprocess runner."""

import sys
from pathlib import Path

import numpy as np
import pytest
from c_export_backend import COMPILER, CExport

from idl_ref.conformance import check_backend

pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
SCRIPT = Path(__file__).with_name("c_export_backend.py")


@pytest.mark.parametrize(
    ("fast", "count"),
    [pytest.param(True, 50, marks=pytest.mark.slow), pytest.param(False, 200, marks=pytest.mark.long)],
)
def test_every_case(fast, count):
    report = check_backend(CExport(), fast=fast)
    assert report.ok, [f"{result.id}: {result.message}" for result in report.failed]
    assert len(report.passed) >= count


@pytest.mark.slow
def test_the_kit_would_notice():
    class Off(CExport):
        def forward(self, problem):
            given = super().forward(problem)
            return {**given, "Y": given["Y"] + np.float32(1e-2)}

    assert len(check_backend(Off(), groups=["kinks", "ranks"]).failed) > 2


@pytest.mark.slow
def test_through_the_subprocess_runner():
    remote = pytest.importorskip("idl_ref.conformance.remote", reason="the subprocess runner is not there yet")
    backend = remote.Command(f'"{sys.executable}" "{SCRIPT}"', timeout=600)
    try:
        report = check_backend(backend, groups=["kinks", "ranks"])
    finally:
        backend.close()
    assert report.ok, [f"{result.id}: {result.message}" for result in report.failed]
    assert len(report.passed) > 5
