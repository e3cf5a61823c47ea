"""
A cobweb: what an equilibrium is
================================

For a single hidden number, the equilibrium equation x = φ(a x + z) can be drawn: the equilibrium is the point where the
curve g(x) = φ(a x + z) meets the diagonal. Each step of Picard's iteration x ← g(x) is a vertical line to the curve,
followed by a horizontal line to the diagonal.

Paper: the equilibrium equation (1.1b), and the section on well-posedness. Function: `idl_ref.solve_equilibrium`.
"""

import matplotlib.pyplot as plt
import numpy as np

import idl_ref

z, start, steps = 1.0, 4.0, 12
figure, panels = plt.subplots(1, 3, figsize=(9.5, 3.6), sharey=True)
results = {}

for axes, a in zip(panels, (0.7, -0.7, -1.3), strict=True):

    def g(x, a=a):
        return np.maximum(a * x + z, 0)

    path = [start]
    for _ in range(steps):
        path.append(float(g(path[-1])))

    grid = np.linspace(0, 4.2, 400)
    axes.plot(grid, grid, color="gray", linewidth=1, label="diagonal")
    axes.plot(grid, g(grid), label="g(x)")
    corners = np.repeat(path, 2)
    axes.plot(corners[:-1], corners[1:], color="C3", linewidth=1, label="Picard")
    axes.plot(z / (1 - a), z / (1 - a), "o", color="black", label="equilibrium")

    options = idl_ref.SolveOptions(method="picard", max_iter=100, on_failure="ignore")
    solution = idl_ref.solve_equilibrium(np.array([[a]]), np.array([[z]]), options=options)
    results[a] = np.array(path), solution
    axes.set(title=f"a = {a}: {idl_ref.Status(int(solution.status[0])).name}", xlabel="x")
panels[0].set_ylabel("g(x)")
panels[0].legend()
plt.show()

# %%
# In the left and the middle panel, \|a\| < 1. There g is a contraction: each step multiplies the distance to the
# equilibrium by at most \|a\|. With a negative slope, the steps form a spiral instead of a staircase. In the right
# panel, \|a\| > 1. An equilibrium exists, but Picard's iteration does not converge to it. The library reports this: the
# status is MAX_ITER, and the error bound is infinite.

for a in (0.7, -0.7):
    path, solution = results[a]
    distance = np.abs(path - z / (1 - a))
    assert (distance[1:] <= abs(a) * distance[:-1] + 1e-15).all()
    assert solution.converged
    assert abs(solution.X[0, 0] - z / (1 - a)) <= solution.error_bound[0]

path, solution = results[-1.3]
assert solution.status[0] == idl_ref.Status.MAX_ITER
assert solution.error_bound[0] == np.inf
