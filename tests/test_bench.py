"""The command bench measures every row that works here, and gives reasons for the others; figures are not judged."""

import json

import pytest

import idl_ref
from idl_ref import bench
from idl_ref.__main__ import main
from idl_ref.preprocessing import Standardise

FIGURES = {"import_ms", "load_ms", "first_answer_ms", "p50_us", "p99_us", "samples_per_second", "installed_mb"}


@pytest.fixture
def path(tmp_path):
    model = idl_ref.ImplicitModel(5, 3, 8, seed=0, bias=True)
    model.preprocessing = Standardise(1.0, 2.0)
    model.save(tmp_path / "model.npz")
    return tmp_path / "model.npz"


@pytest.mark.slow
@pytest.mark.parametrize("installed", [True, False])
def test_every_row(path, tmp_path, capsys, monkeypatch, installed):
    if not installed:  # Whatever this machine has, the table must also be complete where packages are missing.
        monkeypatch.setattr(bench, "find_spec", lambda name: None)
    command = ["bench", str(path), "--seconds", "0.01", "--starts", "1", "--json", str(tmp_path / "figures.json")]
    assert main(command) == 0
    text = capsys.readouterr().out
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    rows = figures["rows"]
    assert list(rows) == [
        *("import numpy", "idl_ref, numpy", "idl_ref, numba", "export to numpy", "export to c", "export to onnx")
    ]
    for name, row in rows.items():
        if "reason" in row:
            assert f"{name} was not measured: {row['reason']}" in text
        elif name != "import numpy":
            assert f"| {name} | " in text
            assert all(row[figure] > 0 for figure in FIGURES)
    assert installed or rows["export to onnx"]["reason"] == "onnxruntime is not installed"
    assert "p50_us" in rows["idl_ref, numpy"]
    assert "p50_us" in rows["export to numpy"]
    assert rows["idl_ref, numpy"]["installed_mb"] > rows["import numpy"]["installed_mb"] > 10
    assert figures["machine"]["versions"]["idl-ref"] == idl_ref.__version__


def test_what_is_not_there_has_a_reason(path, tmp_path, monkeypatch):
    monkeypatch.setattr(bench.shutil, "which", lambda name: None)
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    monkeypatch.setattr(bench, "available_backends", lambda: {"numpy": "available", "numba": "numba is not installed"})
    found = dict(bench.rows(idl_ref.load(path), path, tmp_path))
    assert found["export to c"] == "there is no C compiler here"
    assert found["export to onnx"] == "onnxruntime is not installed"
    assert found["idl_ref, numba"] == "numba is not installed"


@pytest.mark.parametrize(("option", "value"), [("--seconds", "-1"), ("--starts", "0")])
def test_refusals(path, capsys, option, value):
    assert main(["bench", str(path), option, value]) == 2
    assert f"{option.strip('-')} must be" in capsys.readouterr().err


def test_the_closure_has_what_a_package_needs():
    found = bench.closure(("idl-ref", "numba"))
    assert {"numba", "llvmlite", "numpy", "idl-ref"} <= set(found) or "numba" not in found
    assert found["idl-ref"] < 3e6
