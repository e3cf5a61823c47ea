"""
Ill-posed models, and how they are reported
===========================================

Where nothing is contractive, anything can happen: a cycle, two equilibria, none at all. The library solves what can be
solved, and never returns a number that looks better than it is.

Fields: `Solution.status`, `Solution.error_bound`; option `on_failure`. Paper: the section on well-posedness.
"""

import matplotlib.pyplot as plt
import numpy as np

import idl_ref

CASES = {  # name: a, z, starts
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
# Under each panel stands what the two starts were told. The cycle never settles: MAX_ITER. With two equilibria, 0 and
# 1, the one below falls on 0 and the other one runs away, until float32 overflows: NONFINITE, and the column is NaN.
# What is not certified to be unique has an infinite error bound, even where the iteration converged.

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
# A failure is a warning unless one asks for something else; as an error it carries everything that was computed.

failure = None
try:
    idl_ref.solve_equilibrium([[-1.5]], [[1.0]], options=idl_ref.SolveOptions(method="picard", on_failure="raise"))
except idl_ref.NotConvergedError as error:
    print(failure := error)
assert failure.solution.status[0] == idl_ref.Status.MAX_ITER
