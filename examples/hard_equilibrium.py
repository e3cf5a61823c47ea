"""
A hard equilibrium: A ≥ 0 with every row sum 0.99
=================================================

For random matrices with ‖A‖∞ = 0.99, Picard's iteration converges quickly. For a nonnegative matrix whose row sums are
all 0.99, it needs thousands of steps, so that solvers should be tested with such matrices.
``python examples/hard_equilibrium.py 512`` uses n = 512.

Function: `idl_ref.solve_equilibrium`, option `method`. Page: :doc:`/solvers`. Paper: well-posedness.
"""

import sys

import matplotlib.pyplot as plt
import numpy as np

import idl_ref

n, m = int(sys.argv[1]) if len(sys.argv) > 1 else 256, 16
rng = np.random.default_rng(0)
hard = rng.random((n, n))
hard *= 0.99 / hard.sum(axis=1, keepdims=True)
easy = rng.standard_normal((n, n))
easy *= 0.99 / np.abs(easy).sum(axis=1, keepdims=True)
Z = rng.random((n, m)) + 0.1

# For the hard A, all arguments of relu are positive: the equation is linear, and numpy.linalg.solve gives the answer.
exact = np.linalg.solve(np.eye(n) - hard, Z)

METHODS = ("picard", "anderson", "newton", "auto")
counts = {}
print("matrix  method     iterations   step      true error  error bound")
for name, A in (("easy", easy), ("hard", hard)):
    for method in METHODS:
        options = idl_ref.SolveOptions(tol=1e-9, max_iter=5000, method=method)
        solution = idl_ref.solve_equilibrium(A, Z, options=options)
        bound = solution.error_bound.max()
        error = np.abs(solution.X - exact).max() if name == "hard" else None
        counts[name, method] = iterations = solution.iterations.max()
        known = f"{error:.1e}" if error is not None else "unknown"
        print(f"{name:<8}{method:<11}{iterations:>10}{solution.step.max():>10.1e}{known:>14}{bound:>13.1e}")
        if name == "hard":
            assert error <= bound < 1e-6
            assert method == "picard" or iterations <= 40

figure, axes = plt.subplots()
for shift, name in ((-0.2, "easy"), (0.2, "hard")):
    heights = [counts[name, method] for method in METHODS]
    axes.bar_label(axes.bar(np.arange(4) + shift, heights, width=0.38, label=name))
axes.set(yscale="log", ylabel="iterations", title=f"Iterations to a step of 1e-9, n = {n}", ylim=(1, 6000))
axes.set_xticks(range(4), METHODS)
axes.legend()
plt.show()

# %%
# With κ = 0.99, a last step of 3e-6 allows an error that is a hundred times larger. The error bound shows this.

loose = idl_ref.solve_equilibrium(hard, Z, options=idl_ref.SolveOptions(max_iter=5000, method="picard"))
print(f"tol 3e-6: step {loose.step.max():.1e}, true error {np.abs(loose.X - exact).max():.1e}", end="")
print(f", error bound {loose.error_bound.max():.1e}")
assert np.abs(loose.X - exact).max() > 50 * loose.step.max()

# %%
# Three hundred Picard steps are not enough. The library always reports this, here by an exception.

try:
    idl_ref.solve_equilibrium(hard, Z, options=idl_ref.SolveOptions(method="picard", on_failure="raise"))
except idl_ref.NotConvergedError as failure:
    print(failure)
