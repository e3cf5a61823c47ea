"""
Is the gradient right?
======================

The complex step and central differences are two independent checks of a gradient. Here they confirm correct gradients,
and they detect a planted bug.

Function: `idl_ref.check_gradients`. Page: :doc:`/gradients`. Paper: the section on training.
"""

import matplotlib.pyplot as plt
import numpy as np

import idl_ref

rng = np.random.default_rng(0)
U, labels = rng.standard_normal((6, 4)), rng.integers(0, 3, 6)

reports = {}
for f in (idl_ref.ImplicitFunctionInf, idl_ref.ImplicitFunctionRows, idl_ref.ImplicitFunctionTriu):
    model = idl_ref.ImplicitModel(4, 3, 8, f=f, bias=True, dtype="float64", seed=1)
    model.parameters["A"] *= 8  # The raw ‖A‖∞ is far above κ, so that the gradient must include the derivative of f.
    reports[f.__name__] = report = idl_ref.check_gradients(model, U, labels)
    print(f"{f.__name__}:\n{report}\n")
    assert report.passed

# torchidl differentiates as if A were not scaled. Both checks detect the wrong gradient of A.
model = idl_ref.ImplicitModel(4, 3, 8, dtype="float64", seed=1, straight_through=True)
model.parameters["A"] *= 8
reports["straight through"] = report = idl_ref.check_gradients(model, U, labels)
print(f"straight through the scaling:\n{report}")
assert [row.verdict for row in report.rows] == ["WRONG", "ok", "ok", "ok", "ok"]

figure, axes = plt.subplots()
for (name, report), marker in zip(reports.items(), "osdX", strict=True):
    errors = [max(row.complex_error, 1e-17) for row in report.rows]
    axes.semilogy([row.name for row in report.rows], errors, marker, markersize=8, label=name)
allowed = max(row.allowed for report in reports.values() for row in report.rows)
axes.axhline(allowed, color="gray", linestyle=":", label="explained by rounding, at most")
axes.set(xlabel="gradient of", ylabel="relative error", title="Against the complex step")
axes.legend(fontsize=9)
plt.show()

# %%
# One inner product checks a whole adjoint solve. Let Z̃ be any change of Z, and X̃ the first-order change of X that it
# causes. Then ⟨V, Z̃⟩ = ⟨G, X̃⟩.

n, m, h = 30, 5, 1e-6
A = rng.standard_normal((n, n))
A *= 0.9 / np.abs(A).sum(axis=1).max()
Z, Z_dot, G = rng.standard_normal((3, n, m))
options = idl_ref.SolveOptions(tol=0, max_iter=2000)
X = idl_ref.solve_equilibrium(A, Z, activation="tanh", options=options).X
S = 1 - np.tanh(A @ X + Z) ** 2
V = idl_ref.solve_adjoint(A, S, G, options=options).X
above, below = (
    idl_ref.solve_equilibrium(A, Z + sign * h * Z_dot, activation="tanh", options=options).X for sign in (1, -1)
)
left, right = np.vdot(V, Z_dot), np.vdot(G, (above - below) / (2 * h))
print(f"⟨V, Z̃⟩ = {left:.10f}\n⟨G, X̃⟩ = {right:.10f}")
assert abs(left - right) < 1e-8 * abs(left)
