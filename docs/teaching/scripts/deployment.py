"""
Lesson 10: deployment
=====================

From a trained model to a program with a bounded number of steps. This script needs NumPy and idl_ref.
"""

import runpy
import tempfile
from pathlib import Path

import numpy as np

import idl_ref
from idl_ref.analysis import deviation, quantise

# %%
# The number of steps for all inputs with ‖u‖∞ ≤ 1, before any input is seen: κᵏ ‖B‖∞/(1 − κ) ≤ tol. For the example,
# κ = 1/2 and ‖B‖∞ = 2.

k, bound = 0, 2 / (1 - 0.5)
while bound > 1e-3:
    k, bound = k + 1, bound / 2
print(f"{k} steps, after which the error is at most 1/{1 / bound:g}")
A, B = np.array([[0.0, 0.5], [-0.5, 0.0]]), np.array([[1.0], [2.0]])
u = np.linspace(-1, 1, 201)[None]
x = np.zeros((2, 201))
for _ in range(k):
    x = np.maximum(A @ x + B @ u, 0)
truth = np.where(u > 0, np.array([[1.6], [1.2]]) * u, 0)
assert np.abs(x - truth).max() <= 1e-3
print("right to 1e-3 for 201 inputs:", np.abs(x - truth).max() <= 1e-3)

# %%
# Train, save, load, freeze: the frozen model gives a bound of the error with each answer.

x_train, y_train, x_test, y_test = idl_ref.datasets.digits()
model = idl_ref.ImplicitModel(64, 10, 16, bias=True, kappa=0.5, seed=0, dtype="float64", tol=1e-9, backend="numpy")
idl_ref.fit(model, x_train, y_train, epochs=5, optimizer=idl_ref.SGD(0.1), progress=False)
folder = Path(tempfile.mkdtemp())
model.save(folder / "model.npz")
predictor = idl_ref.load(folder / "model.npz").freeze()
answer = predictor.certified(x_test)
print(f"test digits that are right: {np.mean(answer.Y.argmax(axis=1) == y_test):.0%}")
print("every error bound below 1e-6:", answer.error_bound.max() < 1e-6)

# %%
# An export is a file of plain NumPy that does not import the library.

idl_ref.export.export(model, "numpy", folder / "served")
program = folder / "served" / "predict.py"
lines = program.read_text(encoding="utf-8").splitlines()
print("the export imports:", [line for line in lines if line.startswith(("import", "from"))])
served = runpy.run_path(str(program))
Y = served["predict"](x_test)
print("its outputs are those of the model:", np.allclose(Y, answer.Y, atol=1e-4))

# %%
# Eight bits per weight, and a bound of what that changes.

small = quantise(model)
changed = np.abs(small(x_test[:50]) - model(x_test[:50])).max()
print("changed by less than the bound:", changed <= deviation(model, small, x_test[:50]).max())
