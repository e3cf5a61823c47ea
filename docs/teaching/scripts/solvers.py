"""
Lesson 3: solvers
=================

Picard, Anderson and Newton on the same equations. This script needs NumPy and idl_ref.
"""

import numpy as np

from idl_ref import SolveOptions, solve_equilibrium

# %%
# Picard's error falls like κᵏ. How many steps are enough for an error of 1e-6, if the first step is 1?

for kappa in (0.5, 0.9, 0.99, 0.999):
    k = int(np.ceil(np.log(1e-6 * (1 - kappa)) / np.log(kappa)))
    print(f"κ = {kappa}: {k} steps")

# %%
# Two steps of an iteration of one neuron lie on a line, whose fixed point is known: Aitken's formula. Anderson's method
# is the same idea for n neurons.

x0, x1, x2 = 0.0, 1.0, 1.5  # x ← x/2 + 1
print("Aitken:", x0 - (x1 - x0) ** 2 / (x2 - 2 * x1 + x0))

# %%
# Newton's method for relu solves a linear system for the active set. The example of lesson 1 takes one system.

A, z = np.array([[0.0, 0.5], [-0.5, 0.0]]), np.array([1.0, 2.0])
S = (A @ np.zeros(2) + z > 0).astype(float)
print("Newton:", np.linalg.solve(np.eye(2) - S[:, None] * A, S * z))

# %%
# A hard equation: nonnegative rows with the sum 0.99, n = 64. An iteration is one product with A; a step of Newton also
# solves a linear system.

A = np.random.default_rng(0).random((64, 64))
A *= 0.99 / A.sum(axis=1, keepdims=True)
Z = np.random.default_rng(1).standard_normal((64, 1)) + 0.5
for method in ("picard", "anderson", "newton"):
    options = SolveOptions(tol=1e-9, max_iter=5000, method=method)
    solution = solve_equilibrium(A, Z, options=options, backend="numpy")
    assert solution.converged
    print(f"{method:9} {solution.iterations[0]:5} iterations, error below 1e-6: {solution.error_bound[0] < 1e-6}")
