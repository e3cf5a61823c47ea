"""The kit against backends that others wrote: right ones raise no alarm, torchidl's deviations are found and named."""

import subprocess
import sys
from pathlib import Path

import pytest

from idl_ref.conformance import check_backend

ROOT = Path(__file__).parents[1]


def test_plain_pytorch_raises_no_alarm():
    pytest.importorskip("torch")
    from idl_ref.conformance.adapters_torch import TorchAutograd

    report = check_backend(TorchAutograd())
    assert report.failed == []
    assert len(report.passed) > 400
    assert {r.message.split()[0] for r in report.skipped} == {"f"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_jaxopt_raises_no_alarm():
    pytest.importorskip("jaxopt")
    from idl_ref.conformance.adapters_jax import Jaxopt

    squares = {"scale-1e?30-float32": "jaxopt squares the step, which leaves the range of float32"}
    report = check_backend(Jaxopt(), expected_failures=squares)
    assert report.ok
    assert len(report.passed) > 400


def test_torchidl_is_found_out():
    pytest.importorskip("torchidl")
    from idl_ref.conformance.adapters_torch import TorchIdl

    causes = dict(check_backend(TorchIdl()).causes)
    (straight,) = [rows for cause, rows in causes.items() if "straight-through where exact was declared" in cause]
    assert {r.case for r in straight} >= {"f-inf-beyond-float64", "f-inf-far-float64"}
    slow = check_backend(TorchIdl(defaults=True), ["contraction-perron-0.99-*"])
    assert "stopped after 300 iterations whatever max_iter allows" in slow.causes[0][0]


def test_the_example_says_so():
    """With torchidl it asserts its claims; without, it says what to install."""
    command = [sys.executable, str(ROOT / "examples" / "verify_torchidl.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert "error matches" in done.stdout or "pip install torch torchidl" in done.stdout
