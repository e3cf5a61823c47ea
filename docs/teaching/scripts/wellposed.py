"""
Lesson 2: well-posedness
========================

When is there one equilibrium for every z? This script needs NumPy and idl_ref.
"""

import numpy as np

from idl_ref.wellposed import norm_inf, perron_root, project_rows, scale_to_norm

# %%
# A contraction: two starts come closer by κ = ‖A‖∞ = 1/2 in each step, or faster.

A, z = np.array([[0.0, 0.5], [-0.5, 0.0]]), np.array([1.0, 2.0])
x, y = np.array([8.0, 8.0]), np.array([0.0, 0.0])
for k in range(4):
    print(f"step {k}: distance {np.abs(x - y).max():g}, at most {8 * 0.5**k:g}")
    x, y = np.maximum(A @ x + z, 0), np.maximum(A @ y + z, 0)

# %%
# Norm and Perron root. By Collatz and Wielandt, every z > 0 gives two bounds of the root; the eigenvector (8, 1) gives
# it exactly.

A = np.array([[0.0, 4.0], [1 / 16, 0.0]])
print(f"norm {norm_inf(A):g}, Perron root {perron_root(A).upper:.6f}")
for z in ([1, 1], [4, 1], [8, 1]):
    ratio = np.abs(A) @ z / z
    print(f"z = {z}: between {ratio.min():g} and {ratio.max():g}")
d = np.array([8.0, 1.0])
print(f"in the units (8, 1) of the two states, the norm is {norm_inf(A / d[:, None] * d):g}")

# %%
# Two ways into the ball ‖A‖∞ ≤ 1. Scaling shrinks all rows; projection moves a row that is too long to the nearest
# point of the ball.

A = np.array([[1.5, 0.5], [0.0, 0.5]])
print("scaled:   ", scale_to_norm(A, 1.0).round(6).tolist())
print("projected:", project_rows(A, 1.0).round(6).tolist())
