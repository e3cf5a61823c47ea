"""
Lesson 6: gradient checks
=========================

Three ways to measure a derivative, and how a check finds a planted bug. This script needs NumPy and idl_ref.
"""

import numpy as np

import idl_ref

# %%
# The derivative of x³ at 1 is 3. With h = 1/10, the three formulas are wrong by 0.31, 0.01 and 0.01.


def f(x):
    return x * x * x


def three(h):
    """Forward, central, and by the complex step: the derivative of f at 1."""
    return (f(1 + h) - f(1)) / h, (f(1 + h) - f(1 - h)) / (2 * h), f(1 + 1j * h).imag / h


print("forward {:.4f}   central {:.4f}   complex {:.4f}".format(*three(0.1)))

# %%
# The V of rounding: a smaller h is better until rounding, which grows like 1/h, takes over. The table shows exponents
# of ten of the relative error. The complex step subtracts nothing, and has no V.

print("  h      forward  central  complex")
for k in (2, 5, 8, 11, 14):
    orders = [round(np.log10(max(abs(v / 3 - 1), 1e-16))) for v in three(10.0**-k)]
    print(f"1e-{k:02}   " + "   ".join(f"{order:6}" for order in orders))

# %%
# The identity of the adjoint needs no differences: ⟨V, Z̃⟩ = ⟨G, X̃⟩, where X̃ = S ∘ (A X̃ + Z̃).

A, z_dot, G = np.array([[0.0, 0.5], [-0.5, 0.0]]), np.array([1.0, 0.0]), np.ones(2)
x_dot, v = np.linalg.solve(np.eye(2) - A, z_dot), np.linalg.solve(np.eye(2) - A.T, G)
print(f"⟨G, X̃⟩ = {G @ x_dot:.4f}, ⟨V, Z̃⟩ = {v @ z_dot:.4f}")
wrong = np.linalg.solve(np.eye(2) - A, G)
print(f"with A in the place of Aᵀ: ⟨V, Z̃⟩ = {wrong @ z_dot:.4f}")

# %%
# The library checks a whole model, by the complex step and by differences. `straight_through` leaves out the derivative
# of the scaling of A, which is a real bug of another program; the check refuses it.

rng = np.random.default_rng(0)
U, labels = rng.standard_normal((6, 4)), rng.integers(0, 3, 6)
for straight_through in (False, True):
    model = idl_ref.ImplicitModel(4, 3, 8, dtype="float64", seed=1, backend="numpy", straight_through=straight_through)
    model.parameters["A"] *= 8
    report = idl_ref.check_gradients(model, U, labels)
    print(f"straight_through = {straight_through}: passed = {report.passed}")
