"""
Lesson 9: composition
=====================

Models made of models are models with one equation. This script needs NumPy and idl_ref.
"""

import numpy as np

import idl_ref
from idl_ref.analysis import rescale
from idl_ref.wellposed import norm_inf, perron_root

# %%
# One neuron each: x₁ = relu(x₁/2 + u), y₁ = 4 x₁, and x₂ = relu(x₂/2 + y₁), y = x₂. As one model, on paper:

A = np.array([[0.5, 4.0], [0.0, 0.5]])
x = np.linalg.solve(np.eye(2) - A, [0.0, 1.0])
print(f"u = 1: x = ({x[0]:g}, {x[1]:g})   norm {norm_inf(A):g}, Perron root {perron_root(A).upper:.6f}")
d = np.array([16.0, 1.0])
print("in the units (16, 1):", (A / d[:, None] * d).tolist(), "  norm", norm_inf(A / d[:, None] * d))

# %%
# The library composes models of any size, and `rescale` finds the units.

first, second = (
    idl_ref.ImplicitModel(2, 2, 8, kappa=0.8, dtype="float64", seed=seed, tol=1e-12, backend="numpy") for seed in (0, 1)
)
second.parameters["B"] *= 10
both = second @ first
U = np.random.default_rng(0).standard_normal((5, 2))
print("the same outputs:", np.allclose(both(U), second(first(U)), atol=1e-9))
print("norm of the composition above 1:", norm_inf(both.effective()["A"]) > 1)
print("after rescaling below 1:", norm_inf(rescale(both).effective()["A"]) < 1)

# %%
# A loop: u = v + K y around x = relu(x/2 + u), y = x. It is x = relu((1/2 + K) x + v), and well posed for K < 1/2.

for K in (0.25, 0.4, 0.5, 1.0):
    x, path = 0.0, []
    for _ in range(60):
        x = max((0.5 + K) * x + 1, 0)
        path.append(x)
    print(f"K = {K}: after 20, 40, 60 steps x = {path[19]:.5g}, {path[39]:.5g}, {path[59]:.5g}")
