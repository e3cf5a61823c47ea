"""
Ill-posed models, and how they are reported
===========================================

If the map of a model is not a contraction, the iteration may cycle, and there may be several equilibria or none. The
library solves what can be solved, and reports for every sample whether its result is an equilibrium.

Fields: `Solution.status`, `Solution.error_bound`; option `on_failure`. Paper: the section on well-posedness.
"""

import matplotlib.pyplot as plt
import numpy as np

import idl_ref

CASES = {  # For each name: a, z, and two starts of the iteration.
    "a cycle": (-1.5, 1.0, (0.0, 0.3)),
    "two equilibria": (2.0, -1.0, (0.9, 1.1)),
    "no equilibrium": (2.0, 0.5, (0.0, 1.0)),
    "well posed": (0.8, 0.5, (0.0, 4.0)),
}


def solve(a, z, start, **changes):
    options = idl_ref.SolveOptions(method="picard", on_failure="ignore", **changes)
    A, Z, X0 = (np.array([[value]], np.float32) for value in (a, z, start))
    return idl_ref.solve_equilibrium(A, Z, X0=X0, options=options)


figure, panels = plt.subplots(1, 4, figsize=(11, 3.4))
for axes, (name, (a, z, starts)) in zip(panels, CASES.items(), strict=True):
    for start in starts:
        path = [start]
        for k in range(1, 9):
            path.append(solve(a, z, start, max_iter=k, tol=0).X[0, 0])
        axes.plot(path, ".-")
    verdicts = [idl_ref.Status(int(solve(a, z, start).status[0])).name for start in starts]
    axes.set(title=f"{name}\na = {a:g}, z = {z:g}", xlabel="\n".join(["iteration", *verdicts]), xticks=range(0, 9, 2))
panels[0].set_ylabel("x")
plt.show()

# %%
# Below each panel are the statuses of the two starts. The cycle does not converge, so that its status is MAX_ITER. In
# the case of two equilibria, 0 and 1, the start below 1 converges to 0. The start above 1 diverges until float32
# overflows; its status is NONFINITE, and its column is NaN. Where the equilibrium could not be shown to be unique, the
# error bound is infinite, even if the iteration converged.

cycle = solve(*CASES["a cycle"][:2], 0.0)
assert cycle.status[0] == idl_ref.Status.MAX_ITER
assert cycle.error_bound[0] == np.inf
low, high = (solve(2.0, -1.0, start) for start in (0.9, 1.1))
assert low.converged
assert low.X[0, 0] == 0
assert low.error_bound[0] == np.inf
assert high.status[0] == idl_ref.Status.NONFINITE
assert np.isnan(high.X[0, 0])
assert solve(2.0, 0.5, 0.0).status[0] == idl_ref.Status.NONFINITE
assert solve(0.8, 0.5, 4.0).require(error=1e-4).converged

# %%
# By default, a failure gives a warning. With on_failure="raise", it gives an exception that holds the whole solution.

failure = None
try:
    idl_ref.solve_equilibrium([[-1.5]], [[1.0]], options=idl_ref.SolveOptions(method="picard", on_failure="raise"))
except idl_ref.NotConvergedError as error:
    print(failure := error)
assert failure.solution.status[0] == idl_ref.Status.MAX_ITER
