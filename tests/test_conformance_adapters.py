"""The kit against backends that others wrote: right ones raise no alarm, torchidl's deviations are found and named."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from idl_ref.conformance import check_backend

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _examples(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")


def test_plain_pytorch_raises_no_alarm():
    pytest.importorskip("torch")
    from backends.pytorch_autograd import TorchAutograd

    report = check_backend(TorchAutograd())
    assert report.failed == []
    assert report.skipped == []
    assert len(report.passed) > 500


def test_jaxopt_raises_no_alarm(tmp_path):
    """In a process of its own: once JAX is imported, no other test may fork."""
    if find_spec("jaxopt") is None:
        pytest.skip("jaxopt is not installed")
    known = {
        "scale-1e?30-float32": "jaxopt squares the step, which leaves the range of float32",
        "rows-*": "jaxopt measures the step of a column by one norm",
        "cycle-*": "jaxopt iterates for as long as a cycle in the last digits lasts",
        "ball-judged": "jaxopt returns the last application of the map, and judges the iterate before it",
    }
    (tmp_path / "expected.json").write_text(json.dumps(known))
    command = [sys.executable, "-m", "idl_ref", "conformance", "run", "--report", str(tmp_path / "report.json")]
    command += ["--backend", "examples.backends.jaxopt_vmap:Jaxopt"]
    command += ["--expected-failures", str(tmp_path / "expected.json")]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE)
    results = json.loads((tmp_path / "report.json").read_text())["results"]
    assert sum(r["outcome"] == "passed" for r in results) > 470
    skipped = {r["message"] for r in results if r["outcome"] == "skipped"}
    assert skipped == {"subnormal is declared off", "empty is declared off"}


def test_torchidl_is_found_out():
    pytest.importorskip("torchidl")
    from backends.torchidl_as_it_is import TorchIdl

    causes = dict(check_backend(TorchIdl()).causes)
    (straight,) = [rows for cause, rows in causes.items() if "straight-through where exact was declared" in cause]
    assert {r.case for r in straight} >= {"f-inf-beyond-float64", "f-inf-far-float64"}
    slow = check_backend(TorchIdl(defaults=True), ["contraction-perron-0.99-*"])
    assert slow.causes[0][0].startswith("error matches: stopped after 300 iterations whatever max_iter allows")
    assert all("warned: Picard iterations did not converge" in r.message for r in slow.failed)  # unsolved, not silent


def test_the_example_says_so():
    """With torchidl it asserts its claims; without, it says what to install."""
    command = [sys.executable, str(ROOT / "examples" / "verify_torchidl.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert "error matches" in done.stdout or "pip install torch torchidl" in done.stdout
