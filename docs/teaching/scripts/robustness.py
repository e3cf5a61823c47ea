"""
Lesson 8: robustness
====================

What can a model do if its input changes a little? This script needs NumPy and idl_ref.
"""

import numpy as np

import idl_ref
from idl_ref.analysis import robust

# %%
# Three numbers for the example: the derivative, the bound with absolute values, and the bound with norms.

A, B, C = np.array([[0.0, 0.5], [-0.5, 0.0]]), np.array([[1.0], [2.0]]), np.array([[1.0, 1.0]])
print("derivative   ", round((C @ np.linalg.solve(np.eye(2) - A, B)).item(), 6))
print("by entries   ", round((np.abs(C) @ np.linalg.solve(np.eye(2) - np.abs(A), np.abs(B))).item(), 6))
print("by norms     ", 2 * 2 / (1 - 0.5))

# %%
# For every change of the input: the bound holds for 1000 random pairs of inputs, and the worst pair is below it.

options = idl_ref.SolveOptions(tol=1e-10)
u = np.random.default_rng(0).uniform(-3, 3, (2, 1000))
x, y = (idl_ref.solve_equilibrium(A, B @ row[None], options=options, backend="numpy").X for row in u)
ratio = np.abs(C @ (x - y))[0] / np.abs(u[0] - u[1])
assert ratio.max() <= 6
print(f"largest change of y by change of u: {ratio.max():.2f}, never above 6")

# %%
# A classifier of digits. «certified», by intervals, holds for every input within ε; «unbroken» holds
# against one attack only.

x_train, y_train, x_test, y_test = idl_ref.datasets.digits()
model = idl_ref.ImplicitModel(64, 10, 16, bias=True, seed=0, kappa=0.5, dtype="float64", backend="numpy")
idl_ref.fit(model, x_train, y_train, epochs=5, optimizer=idl_ref.SGD(0.1), progress=False)
for eps in (0.01, 0.03):
    bounds = robust.margins(model, x_test[:30], y_test[:30], eps=eps, method="interval")
    found = robust.attack(model, x_test[:30], y_test[:30], eps=eps)
    assert not (bounds.certified & found.broken).any()
    print(f"ε = {eps}: {bounds.certified.sum()} of 30 certified, {30 - found.broken.sum()} unbroken")
