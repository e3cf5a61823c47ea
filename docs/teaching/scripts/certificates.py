"""
Lesson 4: certificates
======================

How far is an answer from the equilibrium that nobody knows? This script needs NumPy and idl_ref.
"""

import numpy as np

from idl_ref import SolveOptions, certify, solve_equilibrium

# %%
# One neuron, x = x/2 + 1, whose equilibrium is 2. The bound κ/(1 − κ) · step is exact here.

x = 0.0
for _ in range(4):
    x, before = x / 2 + 1, x
    print(f"x = {x:g}: step {x - before:g}, error {2 - x:g}, bound {0.5 / 0.5 * (x - before):g}")

# %%
# At κ = 0.99, a step of 1e-6 leaves an error of 99e-6: a small step is not a small error.

solution = solve_equilibrium(
    np.array([[0.99]]),
    np.array([[1.0]]),
    options=SolveOptions(tol=1e-6, max_iter=5000, method="picard"),
    backend="numpy",
)
step, error, bound = solution.step[0], abs(solution.X[0, 0] - 100), solution.error_bound[0]
print(f"step {step:.1e}, error {error:.1e}, bound {bound:.1e}")

# %%
# Entry by entry, for an answer from anywhere: e = (I − |A|)⁻¹ |r|. The library adds what rounding contributes.

A, z, guess = np.array([[0.0, 0.5], [-0.5, 0.0]]), np.array([1.0, 2.0]), np.array([1.6, 1.4])
r = (np.maximum(A @ guess + z, 0) - guess).round(12)
print("residual     ", r)
print("by the norm  ", np.abs(r).max() / (1 - 0.5))
print("by entries   ", np.linalg.solve(np.eye(2) - np.abs(A), np.abs(r)).round(6))
print("the library  ", certify(A, z[:, None], guess[:, None])[:, 0].round(6))
print("true error   ", np.abs(guess - [1.6, 1.2]).round(6))
