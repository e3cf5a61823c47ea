"""
A feed-forward net is a triangular implicit model
=================================================

The layers of a feed-forward net can be stacked into one hidden state, with the last layer first. Each layer depends
only on the layer that comes after it in this order, so that A is strictly upper triangular. One sweep of
back-substitution then finds the equilibrium, with the same operations as a pass through the layers.

Class: `idl_ref.ImplicitFunctionTriu`. Paper: the section on deep neural networks as implicit models.
"""

import itertools

import matplotlib.pyplot as plt
import numpy as np

import idl_ref

rng = np.random.default_rng(0)
widths = [6, 12, 10, 8, 3]  # The widths of the input, of three hidden layers, and of the output.
weights = [2 * rng.standard_normal((o, i)) / i**0.5 for i, o in itertools.pairwise(widths)]
biases = [rng.standard_normal(o) for o in widths[1:]]


def net(U):
    """Compute the outputs layer by layer.   U (m, 6) -> (m, 3)"""
    X = U
    for W, b in zip(weights[:-1], biases[:-1], strict=True):
        X = np.maximum(X @ W.T + b, 0)
    return X @ weights[-1].T + biases[-1]


n = sum(widths[1:-1])
model = idl_ref.ImplicitModel(6, 3, n, f=idl_ref.ImplicitFunctionTriu, bias=True, dtype="float64")
A, B, C, D = (model.parameters[name] for name in "ABCD")
for W in (A, B, C, D):
    W[...] = 0
rows = [slice(n - end, n - end + width) for width, end in zip(widths[1:-1], np.cumsum(widths[1:-1]), strict=True)]
for layer, (W, b) in enumerate(zip(weights[:-1], biases[:-1], strict=True)):
    (B[:, :6] if layer == 0 else A[:, rows[layer - 1]])[rows[layer]] = W
    B[rows[layer], -1] = b  # The last column of B belongs to the constant feature.
C[:, rows[-1]], D[:, -1] = weights[-1], biases[-1]

figure, axes = plt.subplots(figsize=(5.6, 4.8))
M = np.block([[A, B], [C, D]])
limit = np.abs(M).max()
image = axes.imshow(np.where(M == 0, np.nan, M), cmap="coolwarm", vmin=-limit, vmax=limit)
axes.axhline(n - 0.5, color="black", linewidth=1)
axes.axvline(n - 0.5, color="black", linewidth=1)
for (x, y), name in {(4, 25): "A", (n + 3, 5): "B", (20, n + 1): "C", (n + 3, n + 1): "D"}.items():
    axes.text(x, y, name, fontsize=16, ha="center", va="center")
axes.set(title="The net as one matrix: layers above the diagonal", xlabel="column", ylabel="row")
axes.grid(visible=False)
figure.colorbar(image, label="weight (empty: zero)", shrink=0.8)
plt.show()

# %%
# The norm of A is far above 1, but the model is well posed, because the Perron root of a strictly triangular matrix is
# 0. The equation is solved in one sweep, whatever the weights are.

U = rng.standard_normal((100, 6))
solution = model.equilibrium(U)
print(f"‖A‖∞ = {idl_ref.wellposed.norm_inf(A):.1f}, Perron root {idl_ref.wellposed.perron_root(A).upper:g}")
print(f"largest difference to the net: {np.abs(model(U) - net(U)).max():.1e}, iterations {solution.iterations.max()}")

assert np.abs(model(U) - net(U)).max() < 1e-12 * np.abs(net(U)).max()
assert solution.converged
assert solution.iterations.max() == 1
assert idl_ref.wellposed.norm_inf(A) > 1
assert idl_ref.wellposed.perron_root(A).upper == 0
