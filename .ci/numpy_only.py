"""Check that inference, training and gradients work with NumPy alone, in an environment that .ci/run makes."""

import importlib.util
import io
import itertools
import sys
import tempfile
from contextlib import redirect_stderr, suppress
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import idl_ref
from idl_ref.__main__ import main
from idl_ref.activations import TABLE
from idl_ref.export import export
from idl_ref.functions import FUNCTIONS
from idl_ref.preprocessing import Standardise

OTHERS = ("numba", "scipy", "matplotlib", "tqdm", "safetensors", "onnx", "pytest", "sklearn")
assert not any(find_spec(name) for name in OTHERS), "this environment must hold NumPy alone"
assert idl_ref.available_backends()["numpy"] == "available"

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
    accuracy = (model(x_test).argmax(axis=1) == y_test).mean()
    assert accuracy >= 0.97, accuracy

    shown = (
        main(["export", str(path), "--to", "c", "-o", folder]),
        main(["export", str(path), "--to", "numpy", "-o", folder]),
    )
    assert shown == (0, 0)

    complaint = io.StringIO()
    with redirect_stderr(complaint):
        assert main(["train", "--backend", "cuda", "--out", folder]) == 2
    assert "is not available" in complaint.getvalue(), complaint.getvalue()
    with suppress(ImportError):
        model.save(Path(folder) / "model.safetensors")
        raise AssertionError("saving to .safetensors must fail without that package")

rng = np.random.default_rng(0)
kinds = itertools.product(FUNCTIONS.values(), TABLE, ("float32", "float64"), (None, 3), (False, True))
with tempfile.TemporaryDirectory() as folder:
    for (
        f,
        activation,
        dtype,
        rank,
        flag,
    ) in kinds:  # save and load each model, and predict with it in three ways
        if rank is not None and not f.low_rank:
            continue
        settings = {"activation": activation, "dtype": dtype, "is_low_rank": rank is not None, "rank": rank}
        model = idl_ref.ImplicitModel(5, 3, 9, f=f, bias=flag, no_D=flag, seed=0, kappa=0.9, **settings)
        model.preprocessing = Standardise(0.5, 2.0) if flag else None
        model.save(Path(folder) / "model.npz")
        model = idl_ref.load(Path(folder) / "model.npz")
        samples = rng.standard_normal((4, 5)).astype(dtype)
        Y, predictor = model(samples), model.freeze()
        bound = 2 * predictor.certified(samples).error_bound.max() + 1e-5  # an export takes other steps
        assert np.abs(predictor(samples) - Y).max() <= bound
        assert np.abs(predictor(samples[:1]) - Y[:1]).max() <= bound
        export(model, "numpy", folder)
        spec = importlib.util.spec_from_file_location("predict", Path(folder) / "predict.py")
        exported = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(exported)
        assert np.abs(exported.predict(samples) - Y).max() <= bound

for f in (getattr(idl_ref, f"ImplicitFunction{name}") for name in ("Inf", "Rows", "Perron", "Monotone", "Triu")):
    model = idl_ref.ImplicitModel(5, 3, 9, f=f, bias=True, seed=0)
    assert idl_ref.check_gradients(model, rng.standard_normal((4, 5)), rng.integers(0, 3, 4)).passed

x, y = idl_ref.datasets.two_moons(100)
assert idl_ref.ImplicitClassifier(random_state=0, max_iter=100).fit(x, y).score(x, y) > 0.9
assert idl_ref.ImplicitRegressor(random_state=0).fit(x, 100 * x[:, 0]).score(x, 100 * x[:, 0]) > 0.9

loaded = [name for name in OTHERS if name in sys.modules]
assert not loaded, loaded
print("inference, training, gradients and exports work with NumPy alone")
