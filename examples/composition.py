"""
A net of nets in other units
============================

A composition of implicit models is an implicit model, with the parts as blocks of its matrices. Here a residual net, an
implicit model and a feed-forward net are applied one after the other. No part is ill posed, but ‖A‖∞ of the whole is
far above 1. Other units of the hidden states help: with X = S⁻¹ X′ for a diagonal S > 0, and ReLU,

.. math:: X' = \\varphi(S A S^{-1} X' + S B U), \\qquad \\hat Y = C S^{-1} X' + D U

has the same outputs, and S A S⁻¹ can have the norm κ whenever the Perron root of \\|A\\| is below κ.

Functions: `idl_ref.analysis.network`, `residual`, `cascade` (as `@`) and `rescale`. Page: :doc:`/composition`. Paper:
the sections on composition and on well-posedness.
"""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np

import idl_ref
from idl_ref.analysis import network, rescale, residual
from idl_ref.wellposed import norm_inf, perron_root

rng = np.random.default_rng(0)


def layers(*widths):
    """Return random layers (W, b) between the given widths."""
    return [(1.5 * rng.standard_normal((n, p)) / p**0.5, rng.standard_normal(n)) for p, n in pairwise(widths)]


blocks = [network(layers(4, 8, 4)) for _ in range(3)]
middle = idl_ref.ImplicitModel(4, 4, 12, kappa=0.5, dtype="float64", tol=1e-12, seed=0)
last = network(layers(4, 10, 10, 2))
model = last @ middle @ residual(*blocks)
scaled = rescale(model, kappa=0.9)

figure, panels = plt.subplots(1, 2, figsize=(9.5, 4.6), layout="constrained")
for axes, name, which in zip(panels, ("as composed", "in other units"), (model, scaled), strict=True):
    A = which.effective()["A"]
    image = axes.imshow(np.where(A == 0, np.nan, np.abs(A)), norm="log", vmin=1e-3, vmax=10)
    axes.set(title=f"{name}: ‖A‖∞ = {norm_inf(A):.3g}", xlabel="column", ylabel="row")
    axes.grid(visible=False)
figure.colorbar(image, ax=panels, label="magnitude of an entry of A (empty: zero)", shrink=0.8)
plt.show()

# %%
# From the upper left: the two hidden layers of the last net, the implicit model, which alone has a block on the
# diagonal, and the three blocks of the residual net, each of which is connected with all that come after it. Only the
# entries change with the units, and not the zeros. Without cycles, that is, without the implicit model, all units are
# powers of two, and the outputs are the same bit for bit.

U = rng.standard_normal((200, 4))
X = U
for block in blocks:
    X = X + block(X)
truth = last(middle(X))
net = last @ residual(*blocks)
error, change = (np.abs(Y - truth).max() / np.abs(truth).max() for Y in (model(U), scaled(U)))
print(f"‖A‖∞ = {norm_inf(model.parameters['A']):.1f}, Perron root {perron_root(model.parameters['A']).upper:.2f}")
print(f"relative error: {error:.1e} as composed, {change:.1e} in other units")

assert max(error, change) < 1e-10
assert norm_inf(model.parameters["A"]) > 10
assert norm_inf(scaled.effective()["A"]) <= 0.9
assert np.array_equal(scaled.effective()["A"], scaled.parameters["A"])  # ImplicitFunctionInf leaves A as it is.
assert np.array_equal(rescale(net)(U), net(U))
