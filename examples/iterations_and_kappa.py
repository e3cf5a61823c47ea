"""
How many iterations a norm costs
================================

Picard's iteration needs at most about log(tol)/log(κ) steps. This number grows tenfold when 1 − κ becomes ten times
smaller. Two matrices with the same norm κ can still differ by a factor of a hundred, because a random A converges much
faster than its norm guarantees.

Functions: `idl_ref.solve_equilibrium`, option `method`. Page: :doc:`/solvers`. Paper: well-posedness.
"""

import matplotlib.pyplot as plt
import numpy as np

import idl_ref

rng = np.random.default_rng(0)
n = 64
kappas = np.array([0.5, 0.7, 0.9, 0.97, 0.99, 0.997, 0.999])
hard, easy = rng.random((n, n)), rng.standard_normal((n, n))
Z = rng.random((n, 4))


def iterations(A, kappa, method):
    A = kappa * A / np.abs(A).sum(axis=1, keepdims=True)  # Every absolute row sum becomes κ.
    options = idl_ref.SolveOptions(tol=1e-9, max_iter=100_000, method=method)
    return idl_ref.solve_equilibrium(A, Z, options=options).iterations.max()


curves = {
    "A ≥ 0, picard": [iterations(hard, kappa, "picard") for kappa in kappas],
    "A ≥ 0, auto": [iterations(hard, kappa, "auto") for kappa in kappas],
    "random signs, picard": [iterations(easy, kappa, "picard") for kappa in kappas],
}

figure, axes = plt.subplots()
for (label, counts), marker in zip(curves.items(), "osd", strict=True):
    axes.loglog(1 - kappas, counts, marker=marker, label=label)
axes.loglog(1 - kappas, np.log(1e-9) / np.log(kappas), ":", color="gray", label="log(tol)/log(κ)")
axes.invert_xaxis()
axes.set_xticks(1 - kappas, [f"{kappa:g}" for kappa in kappas])
axes.xaxis.minorticks_off()
axes.set(xlabel="κ = ‖A‖∞ (distance to 1 on a log scale)", ylabel="iterations", title="Iterations to a step of 1e-9")
axes.legend()
plt.show()

# %%
# If A is nonnegative and all its row sums are κ, then κ is an eigenvalue of A with the vector of ones as eigenvector,
# and the bound is attained. With random signs, terms cancel, and the spectral radius is only about κ/√n. Tests with
# random matrices alone therefore do not show how a solver performs on slow equations.

picard, auto, easy_picard = (np.array(counts) for counts in curves.values())
assert picard[-1] > 100 * easy_picard[-1]
assert auto[-1] < 50
assert (picard <= np.log(1e-9) / np.log(kappas) + np.log(Z.max() + 1) / -np.log(kappas) + 5).all()
