"""
How much rank does A need?
==========================

With A = L Rᵀ, a model has 2 n r weights in L and R instead of n² in A, and one application of the map costs 4 n r flops
per sample instead of 2 n². Neither A nor its gradient is ever formed.

Arguments: `is_low_rank`, `rank`. Page: :doc:`/theory`, «why low rank». Paper: the section on sparsity and compression.
"""

import matplotlib.pyplot as plt
import numpy as np

import idl_ref

x, y = idl_ref.datasets.spirals(400)
n, ranks, seeds = 40, (1, 2, 4, 8, 16), (0, 1)


def train(rank, seed):
    """Return the final loss, and the number of weights in A, or in L and R."""
    low = {"is_low_rank": True, "rank": rank} if rank else {}
    model = idl_ref.ImplicitModel(2, 2, n, bias=True, seed=seed, **low)
    optimizer = idl_ref.SGD(0.1, schedule="cosine")
    history = idl_ref.fit(model, x, y, optimizer=optimizer, epochs=60, batch_size=32, progress=False)
    return history.loss[-1], sum(W.size for name, W in model.parameters.items() if name in "ALR")


results = {rank: np.array([train(rank, seed) for seed in seeds]) for rank in (*ranks, None)}

figure, axes = plt.subplots()
axes.loglog(
    [results[rank][0, 1] for rank in ranks], [results[rank][:, 0].mean() for rank in ranks], "o-", label="low rank"
)
for rank in ranks:
    loss, size = results[rank][:, 0], results[rank][0, 1]
    axes.plot([size, size], [loss.min(), loss.max()], color="C0", linewidth=1)
    axes.annotate(f"r = {rank}", (size, loss.max()), xytext=(0, 7), textcoords="offset points", ha="center")
dense = results[None]
axes.plot(dense[0, 1], dense[:, 0].mean(), "s", color="C3", label="dense")
axes.set(xlabel="numbers in A", ylabel="cross-entropy after 60 epochs", title="Two spirals, n = 40")
axes.margins(x=0.12)
axes.legend()
axes.margins(y=0.15)
plt.show()

# %%
# Each point is the mean over two seeds, and the bar is their range. The loss decreases with the rank, apart from small
# variations. The loss is already low for rank one: the model separates the two classes, although L and R together have
# a twentieth of the weights of a dense A.

mean = {rank: found[:, 0].mean() for rank, found in results.items()}
assert mean[16] < 0.8 * mean[1]
assert mean[None] < 0.8 * mean[1]
assert results[1][0, 1] == 2 * n
assert results[None][0, 1] == n * n
assert mean[1] < 0.2 < np.log(2)  # A model that assigns both classes the probability 1/2 has the loss log 2.

# %%
# `solve_equilibrium` also takes the pair (L, R) in the place of A, and finds the same equilibrium.

L, R, Z = *np.random.default_rng(0).standard_normal((2, 500, 5)) / 100, np.ones((500, 3))
pair, product = (idl_ref.solve_equilibrium(A, Z, options=idl_ref.SolveOptions(tol=1e-12)) for A in ((L, R), L @ R.T))
assert np.abs(pair.X - product.X).max() <= pair.error_bound.max() + product.error_bound.max()
