"""The benchmark command runs from beginning to end; these tests do not judge its figures."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parent / "benchmarks" / "run.py"


@pytest.mark.slow
def test_one_workload_without_peers(tmp_path):
    out = tmp_path / "a folder that is not there yet"
    chosen = ["--only", "n=32", "--contestants", "idl_ref_numpy", "gemm", "--rounds", "1", "--out", str(out)]
    done = subprocess.run([sys.executable, RUN, *chosen], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    page = (out / "benchmarks.md").read_text(encoding="utf-8")
    assert "| solve, n=32, m=32, random | idl_ref, NumPy twin |" in page
    assert "| idl_ref, one solve | " in page
    (kind,) = json.loads((out / "benchmarks.json").read_text(encoding="utf-8")).values()
    assert kind["ratios"] in page
    assert (out / "benchmarks.png").stat().st_size > 10_000


def test_the_page_shows_the_kinds_of_processors_that_were_measured_earlier(monkeypatch):
    monkeypatch.syspath_prepend(RUN.parent)
    run = importlib.import_module("run")
    kinds = {
        name: {"machine": name, "date": "2026-01-01", "ratios": "| a |"} for name in ("A processor", run.processor())
    }
    expected = (
        "\n## On another processor\n\nA processor; measured on 2026-01-01, with the library as it was then.\n\n| a |\n"
    )
    assert run.others(kinds) == expected


@pytest.mark.slow
def test_auto_is_compared_with_every_method():
    """On a delay line, "auto" reaches the accuracy, in a time that may be compared with the best."""
    command = [sys.executable, RUN.with_name("methods.py"), "--only", "delay line .99, m=1", "--backend", "numpy"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    row = done.stdout.splitlines()[-1].strip("| ").split(" | ")
    assert row[0] == "delay line .99, m=1"
    assert row[1].endswith(" ms")
    assert 0 < float(row[-1]) < 10


def test_an_unknown_workload_is_refused_with_a_sentence():
    done = subprocess.run([sys.executable, RUN, "--only", "n=33"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 2
    assert "--only must be a part of a workload's name; got 'n=33'." in done.stderr


@pytest.mark.slow
def test_the_estimators_are_compared_with_an_mlp(tmp_path):
    pytest.importorskip("sklearn")
    command = [sys.executable, RUN.with_name("estimators.py"), "--only", "iris", "--seeds", "1", "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(RUN.parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "estimators_table.md").read_text(encoding="utf-8")
    assert "| iris | 150 × 4 | accuracy | 0.9" in table
    assert "of 1 data sets" in table
