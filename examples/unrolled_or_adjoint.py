"""
Unrolled against adjoint gradients
==================================

The gradient of an equilibrium can be computed in two ways. *Unrolling* differentiates k Picard steps, and must store
all k iterates. The *adjoint* equation V = S ∘ (AᵀV + G) needs only the equilibrium, and is solved like the forward
equation.

Functions: `idl_ref.solve_adjoint`, `idl_ref.solve_equilibrium`. Page: :doc:`/gradients`. Paper: on training.
"""

import matplotlib.pyplot as plt
import numpy as np

import idl_ref

rng = np.random.default_rng(0)
n, m, longest = 40, 16, 60
A = rng.standard_normal((n, n))
A *= 0.4 / np.abs(A).sum(axis=1).max()
A += 0.5 * np.eye(n)  # ‖A‖∞ ≤ 0.9, and the convergence is slow enough to be visible in the figure.
Z, G = 0.3 * rng.standard_normal((2, n, m))

exactly = idl_ref.SolveOptions(tol=0, max_iter=100_000)
X = idl_ref.solve_equilibrium(A, Z, activation="tanh", options=exactly).X
S = 1 - X**2  # The slopes φ′ at the equilibrium.
truth = idl_ref.solve_adjoint(A, S, G, options=exactly).X @ X.T  # ∂A = V Xᵀ


def unrolled(k):
    """Return ∂A of ⟨G, X_k⟩ for X_k = tanh(A X_{k−1} + Z) and X_0 = 0, by backpropagation through all k steps."""
    path = [np.zeros_like(Z)]
    for _ in range(k):
        path.append(np.tanh(A @ path[-1] + Z))
    dA, g = np.zeros_like(A), G
    for after, before in zip(path[:0:-1], path[-2::-1], strict=True):
        v = (1 - after**2) * g
        dA += v @ before.T
        g = A.T @ v
    return dA


def adjoint(k):
    """Return ∂A after k Picard steps for the forward equation and k Picard steps for the adjoint equation."""
    options = idl_ref.SolveOptions(tol=0, max_iter=k, method="picard", on_failure="ignore")
    X = idl_ref.solve_equilibrium(A, Z, activation="tanh", options=options).X
    return idl_ref.solve_adjoint(A, 1 - X**2, G, options=options).X @ X.T


ks = np.arange(1, longest + 1, 3)
errors = {f: np.array([np.linalg.norm(f(k) - truth) / np.linalg.norm(truth) for k in ks]) for f in (unrolled, adjoint)}

figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4))
left.semilogy(ks, errors[unrolled], ".-", label="unrolled")
left.semilogy(ks, errors[adjoint], ".-", label="adjoint")
left.set(xlabel="steps k", ylabel="relative error of ∂A", title="Accuracy")
left.legend()
right.plot(ks, (ks + 1) * n * m, label="unrolled")
right.plot(ks, np.full(len(ks), 2 * n * m), label="adjoint")
right.set(xlabel="steps k", ylabel="numbers kept for the way back", title="Memory", ylim=0)
plt.show()

# %%
# Both methods converge to the same gradient. The adjoint method stores X and S, whatever the number of steps is. It
# does not depend on how X was found, so that X may come from Anderson acceleration, from Newton's method or from a warm
# start.

assert errors[unrolled][-1] < 1e-3 * errors[unrolled][0]
assert errors[adjoint][-1] < 1e-3 * errors[adjoint][0]
fast = idl_ref.solve_equilibrium(A, Z, activation="tanh", options=idl_ref.SolveOptions(tol=0, method="newton"))
V = idl_ref.solve_adjoint(A, 1 - fast.X**2, G, options=idl_ref.SolveOptions(tol=0, method="newton"))
assert fast.iterations.max() < 20
assert np.linalg.norm(V.X @ fast.X.T - truth) < 1e-12 * np.linalg.norm(truth)
