"""
Unrolled against adjoint gradients
==================================

The gradient of an equilibrium can be computed in two ways. *Unrolling* differentiates k Picard steps, and must store
all k + 1 iterates. The *adjoint* equation V = S ∘ (AᵀV + G) needs only the equilibrium. The closer κ = ‖A‖∞ is to 1,
the more steps are needed, and the larger is the difference.

Functions: `idl_ref.solve_adjoint`, `idl_ref.solve_equilibrium`. Page: :doc:`/gradients`. Paper: on training.
"""

import tracemalloc

import matplotlib.pyplot as plt
import numpy as np

import idl_ref

n, m, rng = 40, 64, np.random.default_rng(0)
Z, G = rng.random((2, n, m))
ROWS = rng.dirichlet(np.ones(n), n)  # A = κ · ROWS is as slow as ‖A‖∞ = κ allows.


def unrolled(A, k):
    """Return ∂A of ⟨G, X_k⟩ for X_k = relu(A X_{k−1} + Z) and X_0 = 0, by backpropagation through all k steps."""
    path, dA, g = [0 * Z], 0 * A, G
    for _ in range(k):
        path.append(np.maximum(A @ path[-1] + Z, 0))
    for after, before in zip(path[:0:-1], path[-2::-1], strict=True):
        v = (after > 0) * g
        dA += v @ before.T
        g = A.T @ v
    return dA


def adjoint(A, k, method="picard"):
    """Return ∂A = V Xᵀ after at most k steps for the forward equation and as many for the adjoint equation."""
    options = idl_ref.SolveOptions(tol=0, max_iter=k, method=method, on_failure="ignore")
    X = idl_ref.solve_equilibrium(A, Z, options=options, backend="numpy").X
    return idl_ref.solve_adjoint(A, (X > 0).astype(float), G, options=options, backend="numpy").X @ X.T


def peak(gradient, A, k):
    """Return the largest number of bytes in use at one time during a call, beyond those in use before."""
    tracemalloc.start()
    gradient(A, k)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


# All entries of A and Z are positive, where relu is the identity: the exact gradient is that of a linear equation.
A, ks = 0.9 * ROWS, np.arange(1, 181, 6)
truth = np.linalg.solve(np.eye(n) - A.T, G) @ np.linalg.solve(np.eye(n) - A, Z).T
kappas = np.array([0.5, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99])
steps = np.ceil(np.log(1e-6) / np.log(kappas)).astype(int)  # κᵏ ≤ 1e-6
states = (steps + 1) * Z.nbytes  # The theory: k + 1 iterates of n · m numbers.

figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4))
errors, peaks = {}, {}
for f, mark in (unrolled, "o"), (adjoint, "s"):
    errors[f] = np.array([np.linalg.norm(f(A, int(k)) - truth) / np.linalg.norm(truth) for k in ks])
    peaks[f] = np.array([peak(f, kappa * ROWS, int(k)) for kappa, k in zip(kappas, steps, strict=True)])
    left.semilogy(ks, errors[f], ".-", label=f.__name__)
    right.loglog(1 / (1 - kappas), peaks[f] / 2**20, mark, label=f"{f.__name__}, measured")
right.loglog(1 / (1 - kappas), states / 2**20, "k--", linewidth=1, zorder=0, label="(k + 1) · n · m numbers")
left.set(xlabel="steps k", ylabel="relative error of ∂A", title="Accuracy, κ = 0.9")
right.set(xlabel="1/(1 − κ)", ylabel="memory at the peak, MiB", title="Memory, k from κᵏ = 1e-6", ylim=(0.1, 200))
left.legend()
right.legend()
plt.show()

# %%
# Both converge to the same gradient. The adjoint method stores X and S, whatever the number of steps is; k grows in
# proportion to 1/(1 − κ), and the memory of the unrolled method with it. It does not matter how X was found.

assert max(errors[unrolled][-1], errors[adjoint][-1]) < 1e-6
assert peaks[adjoint].max() < 1.1 * peaks[adjoint].min()
assert (np.abs(peaks[unrolled] / states - 1) < 9 / steps + 0.02).all()  # A few arrays, and headers.
assert np.linalg.norm(adjoint(A, 20, "newton") - truth) < 1e-12 * np.linalg.norm(truth)
