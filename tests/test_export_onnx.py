"""The ONNX export passes the checker of onnx, and onnxruntime computes the answers of the library with it."""

import sys

import numpy as np
import pytest
from test_export import CASES, check, lower, make, name_of, samples

from idl_ref import ImplicitFunction
from idl_ref.__main__ import main
from idl_ref.export import export

onnx = pytest.importorskip("onnx", reason='onnx is not installed: pip install "idl-ref[onnx]"')
ort = pytest.importorskip("onnxruntime", reason='onnxruntime is not installed: pip install "idl-ref[onnx]"')


def run(path, U):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"U": U})[0]


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_onnxruntime_agrees(tmp_path, case):
    model = make(case)
    (path,) = export(model, "onnx", tmp_path).files
    onnx.checker.check_model(str(path), full_check=True)
    used = {node.domain for node in onnx.load(path).graph.node}
    assert used == {""}
    for U in (samples(model), samples(model, 1)):
        check(model, U, run(path, U))
    assert run(path, samples(model)[:0]).shape == (0, model.output_dim)


def test_a_lower_triangle(tmp_path):
    model = lower(make({"f": ImplicitFunction}))
    check(model, samples(model), run(export(model, "onnx", tmp_path).files[0], samples(model)))


@pytest.mark.parametrize("case", [{}, {"activation": "hardtanh", "no_D": True}], ids=name_of)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_fail_are_nan(tmp_path, case, value):
    model = make(case)
    (path,) = export(model, "onnx", tmp_path).files
    U = samples(model)
    U[3, 1] = value
    Y, good = run(path, U), np.arange(len(U)) != 3
    assert np.isnan(Y[3]).all()
    check(model, U[good], Y[good])


def test_a_state_that_overflows_is_nan(tmp_path):
    """Here Z is 1e38, and X is 33 times as large, so that X overflows in float32."""
    model = make({"kappa": 0.97, "activation": "identity", "no_D": True})
    model.parameters["A"][...], model.parameters["B"][...] = 1, 0.1
    U = np.array([[2e38] * 5, [1.0] * 5], np.float32)
    Y = run(export(model, "onnx", tmp_path, (-1.0, 1.0)).files[0], U)
    assert np.isnan(Y[0]).all()
    check(model, U[1:], Y[1:])


def test_out_of_range_is_nan(tmp_path):
    model = make({"kappa": 0.97, "dtype": "float64", "tol": 1e-9})
    model.parameters["A"][...], model.parameters["B"][...] = 1, 0.1
    (path,) = export(model, "onnx", tmp_path, (-1.0, 1.0)).files
    assert np.isnan(run(path, np.full((1, 5), 1e4))).all()
    check(model, np.ones((1, 5)), run(path, np.ones((1, 5))))


def test_the_command(tmp_path, capsys):
    make({}).save(tmp_path / "model.npz")
    assert main(["export", str(tmp_path / "model.npz"), "--to", "onnx", "-o", str(tmp_path)]) == 0
    assert "model.onnx" in capsys.readouterr().out


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'needs the package onnx: pip install "idl-ref\[onnx\]"'):
        export(make({}), "onnx", tmp_path / "out")
