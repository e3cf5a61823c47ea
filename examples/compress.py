"""
Smaller models, and what they may change
========================================

`prune` keeps the largest entries of A, `truncate` the largest singular values, and `quantise` eight bits of each
weight. All hardly change the accuracy on the digits. `deviation` says more, without labels: how far each output can be
from that of the model before. For κ = ½ this bound is close to what is seen. For κ = 0.99, with rows that use all of
their norm, it holds, and says nothing.

Functions: `idl_ref.analysis.prune`, `truncate`, `quantise`, `deviation`. Page: :doc:`/robustness`, «smaller models».
"""

import matplotlib.pyplot as plt
import numpy as np

import idl_ref
from idl_ref.analysis import deviation, prune, quantise, truncate
from idl_ref.export import c, plan

x, y, x_test, y_test = idl_ref.datasets.digits()
DENSITIES = (0.5, 0.4, 0.3, 0.2, 0.1, 0.05)
KAPPAS = (0.5, 0.99)


def trained(kappa):
    """Return a model of the digits whose rows of A have norms up to κ."""
    f = idl_ref.ImplicitFunctionRows
    model = idl_ref.ImplicitModel(64, 10, 40, f=f, kappa=kappa, bias=True, seed=0)
    idl_ref.fit(model, x, y, optimizer=idl_ref.SGD(0.1), epochs=10, batch_size=32, progress=False)
    return model


def compared(model, other):
    """Return the accuracy of the other model, and the means of the largest change of an output, and of its bound."""
    Y, bound = other(x_test), deviation(model, other, x_test)
    seen = np.abs(Y.astype(float) - model(x_test))
    assert (seen <= bound + 1e-4).all()  # The outputs of `model` are rounded, too.
    return (Y.argmax(axis=1) == y_test).mean(), seen.max(axis=1).mean(), bound.max(axis=1).mean()


models = {kappa: trained(kappa) for kappa in KAPPAS}
pruned = {kappa: np.array([compared(model, prune(model, d)) for d in DENSITIES]) for kappa, model in models.items()}

figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4))
for color, (kappa, found) in zip(("C0", "C3"), pruned.items(), strict=True):
    left.plot(DENSITIES, found[:, 0], ".-", color=color, label=f"κ = {kappa}")
    right.loglog(DENSITIES, found[:, 2], ".-", color=color, label=f"bound, κ = {kappa}")
    right.loglog(DENSITIES, found[:, 1], ".--", color=color, label=f"seen, κ = {kappa}")
left.set(xscale="log", ylim=(0.9, 1), ylabel="accuracy on the test images", title="What pruning costs")
right.set(ylabel="largest change of an output", title="What it may change, and does")
for axes in (left, right):
    axes.set_xlabel("part of the entries of A that is kept")
    axes.set_xticks(DENSITIES, [f"{d:g}" for d in DENSITIES], minor=False)
    axes.minorticks_off()
    axes.invert_xaxis()
    axes.legend()
plt.show()

# %%
# The bound of κ = ½ is within a factor of four of the largest change that is seen. With κ = 0.99, a change of a state
# may come back a hundred times, 1/(1 − κ), and the bound has to count on it.

half, near_one = pruned[0.5], pruned[0.99]
assert half[:, 0].min() > 0.95
assert (half[:, 2] < 4 * half[:, 1] + 1e-3).all()
assert (near_one[:, 2] > 20 * near_one[:, 1]).all()
accuracy, seen, bound = compared(models[0.5], truncate(models[0.5], 10))
print(f"rank 10 of 40: accuracy {accuracy:.3f}, change {seen:.2f}, bound {bound:.2f}")

# %%
# C code gets smaller with what was taken away. It holds only the entries of a sparse A, and after `quantise` a byte for
# each weight. Its outputs are the same, bit for bit, as with the float32 numbers that the bytes stand for.

part = prune(models[0.5], 0.2, sparse=True)
small = {"as trained": models[0.5], "20 % of A": part, "eight bits": quantise(models[0.5]), "both": quantise(part)}
sizes = {name: sum(M.nbytes for M in c.weights(plan.make(other, "c")).values()) for name, other in small.items()}
for name, other in small.items():
    accuracy, seen, bound = compared(models[0.5], other)
    print(f"{name:10} {sizes[name]:6,} bytes of weights, accuracy {accuracy:.3f}, change {seen:.2f}, bound {bound:.2f}")
assert sizes["both"] < sizes["eight bits"] < 0.35 * sizes["as trained"]
