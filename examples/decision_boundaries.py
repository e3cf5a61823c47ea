"""
Decision boundaries while training
==================================

No straight line separates the two classes of these two problems. Each panel shows the class probability that the model
assigns to the points of the plane after some epochs. Below each panel is the number of iterations that the equilibrium
of a training point takes.

Functions: `idl_ref.fit`, `idl_ref.datasets.two_moons`, `idl_ref.datasets.spirals`. Paper: the section on training.
"""

import matplotlib.pyplot as plt
import numpy as np

import idl_ref

TASKS = {
    "moons": (idl_ref.datasets.two_moons(300), (1, 5, 30)),
    "spirals": (idl_ref.datasets.spirals(300), (2, 30, 120)),
}


def probability(model, x):
    """Return the probability of class 1, which is the softmax of the two logits.   x (m, 2) -> (m,)"""
    Y = model(x)
    return 0.5 + 0.5 * np.tanh((Y[:, 1] - Y[:, 0]) / 2)


figure, panels = plt.subplots(2, 3, figsize=(9.5, 6.6))
accuracy = {}
for row, (name, ((x, y), moments)) in zip(panels, TASKS.items(), strict=True):
    model = idl_ref.ImplicitModel(2, 2, 40, bias=True, seed=0)
    low, high = x.min(axis=0) - 0.3, x.max(axis=0) + 0.3
    first, second = np.meshgrid(np.linspace(low[0], high[0], 120), np.linspace(low[1], high[1], 120))
    plane = np.stack([first.ravel(), second.ravel()], axis=1)
    trained = 0
    for axes, moment in zip(row, moments, strict=True):
        optimizer = idl_ref.SGD(0.1)
        history = idl_ref.fit(
            model, x, y, optimizer=optimizer, epochs=moment - trained, batch_size=32, seed=trained, progress=False
        )
        trained = moment
        accuracy[name] = history.accuracy[-1]
        p = probability(model, plane).reshape(first.shape)
        axes.contourf(first, second, p, levels=np.linspace(0, 1, 11), cmap="coolwarm", alpha=0.6)
        axes.contour(first, second, p, levels=[0.5], colors="black", linewidths=1)
        for label, color in enumerate(("#2040b0", "#b02020")):
            axes.plot(*x[y == label].T, ".", color=color, markersize=4)
        mean, most = history.forward_iterations[-1]
        axes.set(
            title=f"{name}, epoch {moment}: {100 * accuracy[name]:.0f} %",
            xlabel=f"{mean:.0f} iterations, at most {most}",
        )
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
plt.show()

# %%
# The boundary between the spirals becomes more complicated with training. At the same time A grows, and with it the
# number of iterations. This number remains bounded, because ‖A‖∞ ≤ κ.

assert accuracy["moons"] > 0.99
assert accuracy["spirals"] > 0.9
assert model.equilibrium(plane).converged
