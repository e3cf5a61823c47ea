"""
Lesson 1: equilibrium
=====================

A hidden state is found, not computed layer by layer. This script needs NumPy and idl_ref.
"""

import numpy as np

from idl_ref import SolveOptions, solve_equilibrium

# %%
# One neuron. The iteration x ← φ(a x + z) with φ = relu, from x = 0, for five pairs (a, z).

for a, z in [(0.5, 1), (-0.5, 1), (1.5, -1), (1.5, 1), (-1.5, 1)]:
    x, path = 0.0, [0.0]
    for _ in range(5):
        x = max(a * x + z, 0)
        path.append(x)
    print(f"a = {a:4}, z = {z:2}:  " + "  ".join(f"{x:.4g}" for x in path))

# %%
# Two neurons: the example of the whole course. Both are active at the equilibrium, so that x = (I − A)⁻¹ z.

A, z = np.array([[0.0, 0.5], [-0.5, 0.0]]), np.array([1.0, 2.0])
x = np.zeros(2)
for k in range(1, 7):
    x = np.maximum(A @ x + z, 0)
    print(f"step {k}: x = ({x[0]:.5f}, {x[1]:.5f})")
exact = np.linalg.solve(np.eye(2) - A, z)
print(f"exact:  x = ({exact[0]:.5f}, {exact[1]:.5f}), and C x = {exact.sum():.5f}")

# %%
# The library finds the same, and tells how far its answer may be from the equilibrium.

solution = solve_equilibrium(A, z[:, None], options=SolveOptions(tol=1e-9), backend="numpy")
print("right to 1e-8, and proved:", np.abs(solution.X[:, 0] - exact).max() < 1e-8, solution.error_bound[0] < 1e-8)

# %%
# A feed-forward net is the special case of a strictly upper triangular A: x₂ = relu(u), x₁ = relu(2 x₂ − u), y = x₁.

net = np.array([[0.0, 2.0], [0.0, 0.0]])
for u in (1.0, -1.0, 3.0):
    x = solve_equilibrium(net, np.array([[-u], [u]]), backend="numpy").X[:, 0]
    print(f"u = {u:4}: x = ({x[0]:g}, {x[1]:g}), and the net says {max(2 * max(u, 0) - u, 0):g}")
