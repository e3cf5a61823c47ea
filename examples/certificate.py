"""
The certificate: how wrong can the answer be?
=============================================

A small last step does not mean a small error. Therefore every solution has a bound of its distance from the exact
equilibrium x*,

.. math:: \\|x^* - \\hat x\\|_\\infty \\le \\frac{\\kappa \\cdot \\mathrm{step} + \\rho}{1 - \\kappa},

where κ = Lip(φ) ‖A‖∞, and ρ bounds the rounding error of one application of the map. In this example the exact
equilibrium is known, so that the bound can be compared with the true error.

Field: `Solution.error_bound`. Page: :doc:`/solvers`. Paper: the contraction argument in its section on well-posedness.
"""

import matplotlib.pyplot as plt
import numpy as np

import idl_ref

rng = np.random.default_rng(0)
n = 80
A = rng.random((n, n))
A *= 0.99 / A.sum(axis=1, keepdims=True)  # No matrix with ‖A‖∞ = 0.99 converges more slowly than this nonnegative one.
Z = rng.random((n, 1))
exact = np.linalg.solve(np.eye(n) - A, Z)  # All arguments of relu are positive here, so that the equation is linear.

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
# The true error is about a hundred times the last step, the factor 1/(1 − κ) of the bound. The bound is almost equal to
# the error, so that no smaller bound would be valid for this matrix. For small tolerances, rounding dominates. In
# float32, a tol below about 1e-5 does not reduce the error further. The status is then PRECISION_LIMIT, and the bound
# includes the rounding error. It assumes the worst case of all roundings, and is therefore well above the error here.

exact32 = np.linalg.solve(np.eye(n) - A.astype(np.float32).astype(float), Z.astype(np.float32).astype(float))
shift = np.abs(exact32 - exact).max()  # Rounding A and Z to float32 changes the equation, and moves its equilibrium.
for dtype, (_, error, bound) in found.items():
    assert (error <= bound + (shift if dtype is np.float32 else 0)).all()
step, error, bound = found[np.float64]
middle = (tolerances < 1e-2) & (tolerances > 1e-9)
assert (error[middle] > 90 * step[middle]).all()
assert (bound[middle] < 1.1 * error[middle]).all()
