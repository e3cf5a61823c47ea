"""Inference, training and gradients with NumPy and nothing else; .ci/run has an environment for it."""

import io
import sys
import tempfile
from contextlib import redirect_stderr, suppress
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import idl_ref
from idl_ref.__main__ import main

OTHERS = ("numba", "scipy", "matplotlib", "tqdm", "safetensors", "pytest")
assert not any(find_spec(name) for name in OTHERS), "this environment was to hold NumPy alone"
assert idl_ref.backends()["numpy"] == "available"

with tempfile.TemporaryDirectory() as folder:
    assert main(["train", "--epochs", "10", "--out", folder]) == 0
    path = Path(folder) / "model.npz"
    assert path.is_file()
    assert (Path(folder) / "history.json").is_file()
    assert main(["predict", str(path)]) == 0
    assert main(["check", str(path)]) == 0
    assert main(["info"]) == 0

    model = idl_ref.load(path)
    _, _, x_test, y_test = idl_ref.datasets.digits()
    accuracy = (model(model.preprocessing(x_test)).argmax(axis=1) == y_test).mean()
    assert accuracy >= 0.97, accuracy

    complaint = io.StringIO()
    with redirect_stderr(complaint):
        assert main(["train", "--backend", "cuda", "--out", folder]) == 2
    assert "is not available" in complaint.getvalue(), complaint.getvalue()
    with suppress(ImportError):
        model.save(Path(folder) / "model.safetensors")
        raise AssertionError("there is no safetensors here")

rng = np.random.default_rng(0)
for f in (idl_ref.ImplicitFunctionInf, idl_ref.ImplicitFunctionRows, idl_ref.ImplicitFunctionTriu):
    model = idl_ref.ImplicitModel(5, 3, 9, f=f, bias=True, seed=0)
    assert idl_ref.check_gradients(model, rng.standard_normal((4, 5)), rng.integers(0, 3, 4)).passed

loaded = [name for name in OTHERS if name in sys.modules]
assert not loaded, loaded
print("inference, training and gradients work with NumPy alone")
