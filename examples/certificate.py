"""
The certificate: how wrong can the answer be?
=============================================

A small last step is not a small error. With every answer comes a bound on its distance from the exact equilibrium,

.. math:: \\|x^* - \\hat x\\|_\\infty \\le \\frac{\\kappa \\cdot \\mathrm{step} + \\rho}{1 - \\kappa},

κ = Lip(φ) ‖A‖∞ and ρ what rounding can do in one application of the map. Here the truth is known, so the bound can be
put to the test.

Field: `Solution.error_bound`. Page: :doc:`/solvers`. Paper: the contraction of its section on well-posedness.
"""

import matplotlib.pyplot as plt
import numpy as np

import idl_ref

rng = np.random.default_rng(0)
n = 80
A = rng.random((n, n))
A *= 0.99 / A.sum(axis=1, keepdims=True)  # nonnegative rows with sum 0.99: the slowest contraction of that norm
Z = rng.random((n, 1))
exact = np.linalg.solve(np.eye(n) - A, Z)  # relu never cuts here, so the equation is linear

tolerances = np.logspace(-1, -15, 29)
found = {}
for dtype in (np.float32, np.float64):
    rows = []
    for tol in tolerances:
        options = idl_ref.SolveOptions(tol=tol, max_iter=10_000, method="picard")
        solution = idl_ref.solve_equilibrium(A.astype(dtype), Z.astype(dtype), options=options)
        rows.append((solution.step[0], np.abs(solution.X - exact).max(), solution.error_bound[0]))
    found[dtype] = np.array(rows).T

figure, panels = plt.subplots(1, 2, figsize=(9.5, 4), sharey=True)
for axes, (dtype, (step, error, bound)) in zip(panels, found.items(), strict=True):
    axes.loglog(tolerances, bound, label="certificate")
    axes.loglog(tolerances, error, ".", color="C3", label="true error")
    axes.loglog(tolerances, np.maximum(step, 1e-17), color="gray", linestyle=":", label="last step")
    axes.set(xlabel="tol", title=dtype.__name__)
panels[0].set_ylabel("∞-norm")
panels[0].legend(loc="lower right")
plt.show()

# %%
# The true error is a hundred times the last step, which is what 1/(1 − κ) allows, and the certificate lies on it:
# nothing smaller could be promised. On the left, rounding takes over: below tol ≈ 1e-5 float32 cannot do better, the
# status is then PRECISION_LIMIT, and the bound knows it. It is a worst case over all roundings, so here it is well
# above the error.

exact32 = np.linalg.solve(np.eye(n) - A.astype(np.float32).astype(float), Z.astype(np.float32).astype(float))
shift = np.abs(exact32 - exact).max()  # the float32 data is a slightly different problem, with its own equilibrium
for dtype, (_, error, bound) in found.items():
    assert (error <= bound + (shift if dtype is np.float32 else 0)).all()
step, error, bound = found[np.float64]
middle = (tolerances < 1e-2) & (tolerances > 1e-9)
assert (error[middle] > 90 * step[middle]).all()
assert (bound[middle] < 1.1 * error[middle]).all()
