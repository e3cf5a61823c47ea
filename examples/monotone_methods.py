"""
How a monotone state is found
=============================

A monDEQ has the states x = relu(W x + z) with W = (1 − m) I − AᵀA + B − Bᵀ, which are unique for all A and B. Picard's
iteration diverges, because W turns vectors. The authors of monDEQs solve by splitting: Peaceman and Rachford's method
takes turns between relu and the inverse of (1 + α) I − α W, and forward–backward splitting makes short steps. Newton's
method solves the linear system of the active units.

Functions: `idl_ref.analysis.from_mondeq`, `idl_ref.solve_equilibrium`, `idl_ref.wellposed.monotone`.
Page: :doc:`/monotone`.
"""

import matplotlib.pyplot as plt
import numpy as np

import idl_ref
from idl_ref.analysis import from_mondeq
from idl_ref.wellposed import monotone, norm_inf

rng, n, p, m = np.random.default_rng(0), 100, 50, 0.1
state = {
    "U.weight": rng.standard_normal((n, p)) / p**0.5,
    "U.bias": rng.standard_normal(n),
    "A.weight": rng.standard_normal((n, n)) / n**0.5,
    "B.weight": rng.standard_normal((n, n)) / n**0.5,
    "Wout.weight": rng.standard_normal((10, n)) / n**0.5,
    "Wout.bias": np.zeros(10),
}
model = from_mondeq(state, m, method="newton", tol=1e-13)
forward = model.forward_pass(rng.standard_normal((1, p)))
W, Z, X = forward.weights.A, forward.Z, forward.solution.X
F, bound = np.eye(n) - W, monotone(W)


def picard(x):
    return np.maximum(W @ x + Z, 0)


def forward_backward(x, alpha=2 * bound.m / bound.norm**2):
    return np.maximum(x - alpha * (F @ x - Z), 0)


def peaceman_rachford(pair, alpha=1 / bound.norm):
    x, u = pair
    half = 2 * x - u
    u = 2 * np.linalg.solve(np.eye(n) + alpha * F, half + alpha * Z) - half
    return np.maximum(u, 0), u


STEPS, errors = 120, {"Picard": [], "forward–backward": [], "Peaceman–Rachford": [], "Anderson": [], "Newton": []}
x, y, pair = np.zeros_like(Z), np.zeros_like(Z), (np.zeros_like(Z), np.zeros_like(Z))
for k in range(1, STEPS + 1):
    x, y, pair = picard(x), forward_backward(y), peaceman_rachford(pair)
    for name, state_k in zip(errors, (x, y, pair[0]), strict=False):
        errors[name].append(np.linalg.norm(state_k - X))
    for name in ("anderson", "newton"):
        options = idl_ref.SolveOptions(method=name, tol=1e-13, max_iter=k, on_failure="ignore")
        found = idl_ref.solve_equilibrium(W, Z, options=options).X
        errors[name.capitalize()].append(np.linalg.norm(found - X))
residual = np.linalg.norm(y - picard(y))

figure, axes = plt.subplots(figsize=(5.6, 4.2))
for (name, error), color in zip(errors.items(), ("0.5", "C2", "C1", "C0", "C3"), strict=True):
    axes.semilogy(range(1, STEPS + 1), np.maximum(error, 1e-15), color=color, label=name)
axes.set(xlabel="step", ylabel="‖x − x*‖₂", ylim=(1e-15, 1e5), title=f"‖W‖∞ = {norm_inf(W):.1f}, m = {m}")
axes.legend(loc="lower left", bbox_to_anchor=(0.1, 0.03))
plt.show()

# %%
# Newton's method needs a few steps, each with a linear system of its own. Peaceman and Rachford's method has the same
# matrix in every step. The bound of the error by the residual holds for any x, here for the last short step.

assert bound.m > m * (1 - 1e-9)
assert errors["Picard"][-1] > 10 * errors["Picard"][0]
assert errors["Newton"][20] < 1e-10
assert errors["Peaceman–Rachford"][-1] < 1e-6
assert errors["forward–backward"][-1] <= bound.factor * residual
