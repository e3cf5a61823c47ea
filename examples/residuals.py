"""
How fast each method converges
==============================

Each Picard step multiplies the residual ‖g(x) − x‖∞ by at most κ = ‖A‖∞. After many steps, the factor is the spectral
radius ρ ≤ κ of the active part of A, which consists of the rows where relu has slope 1. Anderson acceleration and
Newton's method converge faster than both rates.

Paper: the section on well-posedness gives the rate κ. Function: `idl_ref.plots.residuals` draws such a figure for any
model. Page: :doc:`/solvers`.
"""

import matplotlib.pyplot as plt
import numpy as np

import idl_ref

rng = np.random.default_rng(0)
n, m, longest = 60, 8, 60
A = rng.random((n, n))
A *= rng.uniform(0.75, 0.98, (n, 1)) / A.sum(axis=1, keepdims=True)  # A ≥ 0 and Z ≥ 0, so that relu has slope 1.
Z = rng.random((n, m))

kappa = np.abs(A).sum(axis=1).max()
rho = np.abs(np.linalg.eigvals(A)).max()


def steps(method):
    """Return the largest residual of any column after 1, 2, … applications of the map, each from a separate solve."""
    found = []
    for k in range(1, longest + 1):
        options = idl_ref.SolveOptions(tol=0, max_iter=k, method=method, on_failure="ignore")
        solution = idl_ref.solve_equilibrium(A, Z, options=options)
        found.append(solution.step.max())
        if solution.converged:
            break
    return np.array(found)


curves = {method: steps(method) for method in ("picard", "anderson", "newton")}

figure, axes = plt.subplots()
for method, curve in curves.items():
    axes.semilogy(np.arange(1, len(curve) + 1), np.maximum(curve, 1e-17), ".-", label=method)
k = np.arange(longest)
first = curves["picard"][0]
axes.semilogy(k + 1, first * kappa**k, ":", color="gray", label=f"κᵏ, κ = ‖A‖∞ = {kappa:.3f}")
axes.semilogy(k + 1, first * rho**k, "--", color="gray", label=f"ρᵏ, ρ = {rho:.3f}")
axes.set(xlabel="applications of the map", ylabel="residual ‖g(x) − x‖∞", title="Residual per method")
axes.legend(loc="lower right")
plt.show()

# %%
# Picard's curve stays below the line κᵏ, as the theory guarantees. It is parallel to ρᵏ, which is not guaranteed in
# general, because ρ depends on the active set. Newton's method solves a linear system in each step. It needs two steps
# here, because all slopes of relu are 1, so that the equation is linear.

picard = curves["picard"]
assert (picard <= first * kappa ** np.arange(len(picard)) * (1 + 1e-12)).all()
assert abs(picard[-1] / picard[-2] - rho) < 1e-3
assert rho < kappa
assert len(curves["newton"]) <= 4
assert len(curves["anderson"]) <= 20 < len(picard)
