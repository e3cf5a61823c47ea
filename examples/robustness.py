"""
Robustness: what can a small change of the input do?
====================================================

An attack looks for an input near a sample that the model gives to another class. If it finds none, there may still be
one. A bound of the margin over all inputs of a box,

.. math:: \\min_{|U' - U| \\le \\varepsilon} \\hat y_{\\mathrm{label}}(U') - \\hat y_k(U') \\ge \\mathrm{lower}_k,

proves that there is none, if it is positive for every rival k. The robust accuracy is therefore enclosed,

.. math:: \\text{certified by a method} \\le \\text{robust accuracy} \\le \\text{not broken by the attack}.

Functions: `idl_ref.analysis.robust`. Page: :doc:`/robustness`. Paper: its section on robustness.
"""

import itertools

import matplotlib.pyplot as plt
import numpy as np

import idl_ref
from idl_ref.analysis import robust

x_train, y_train, x_test, y_test = idl_ref.datasets.digits()
model = idl_ref.ImplicitModel(64, 10, 24, bias=True, seed=0)
idl_ref.fit(model, x_train, y_train, epochs=15, optimizer=idl_ref.SGD(0.1), progress=False)
images, labels = x_test[:30], y_test[:30]  # The pixels are numbers in [0, 1], and ε is in the same units.

radii = (0.0, 0.02, 0.04, 0.06, 0.075)
methods = ("sensitivity", "interval", "crown", "exact")
found = robust.certified_accuracy(model, images, labels, radii, methods, progress=False)
print(found)

figure, axes = plt.subplots(figsize=(5.6, 4.6), layout="constrained")
styles = {"exact": "k-", "crown": "C0o-", "interval": "C1^-", "sensitivity": "C2v-"}
for method, style in styles.items():
    axes.plot(radii, 100 * found.certified[method], style, label=f"certified: {method}")
axes.plot(radii, 100 * found.attacked, "s--", color="C3", label="not broken by the attack")
axes.set(
    xlabel="ε, the largest change of a pixel",
    ylabel="samples, %",
    ylim=(-3, 103),
    title="Samples that keep their class",
)
figure.legend(ncols=2, loc="outside lower center")
plt.show()

# %%
# The exact method and the attack agree, so that no sample remains undecided: that is the robust accuracy. CROWN is
# close to it and cheap. Intervals forget how the states depend on each other and on the input, and lose much of the
# margin at κ = 0.99. The sensitivity of the paper is one matrix for all inputs, and loses even more.

order = [*(found.certified[method] for method in methods), found.attacked]
assert all((below <= above).all() for below, above in itertools.pairwise(order))
assert not found.undecided.any()
assert (found.certified["crown"][:4] >= found.certified["exact"][:4] - 0.05).all()
assert (found.certified["crown"][2:4] > found.certified["interval"][2:4]).all()

# %%
# Below, a sample that the attack breaks: the image, the change, and the changed image, which the model gives to another
# class. No pixel has changed by more than ε.

attacked = robust.attack(model, images, labels, 0.08)
broken = int(np.flatnonzero(attacked.broken & (model(images).argmax(axis=1) == labels))[0])
before, after = images[broken], attacked.inputs[broken]
classes = model(np.stack([before, after])).argmax(axis=1)
figure, panels = plt.subplots(1, 3, figsize=(5.6, 2.2))
titles = (f"class {classes[0]}", "change, at most 0.08", f"class {classes[1]}")
for panel, image, title, limit in zip(panels, (before, after - before, after), titles, (1, 0.08, 1), strict=True):
    panel.imshow(
        image.reshape(8, 8), cmap="gray_r" if limit == 1 else "RdBu", vmin=0 if limit == 1 else -limit, vmax=limit
    )
    panel.set_title(title)
    panel.axis("off")
plt.show()

assert classes[0] == labels[broken] != classes[1]
assert np.abs(after - before).max() <= 0.08 + 1e-12
