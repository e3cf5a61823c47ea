"""
The V-curve of a gradient check
===============================

A central difference has two errors: the truncation error grows like h², and the rounding error grows like eps/h. The
best h is between the two, at about the cube root of eps, where the difference has at most ten correct digits. The
complex step has no cancellation, and is accurate to rounding.

Functions: `idl_ref.check_gradients`; `idl_ref.plots.v_curve` draws this curve for any model. Page: :doc:`/gradients`.
"""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np

import idl_ref
from idl_ref.gradcheck import difference_curve

rng = np.random.default_rng(0)
model = idl_ref.ImplicitModel(4, 3, 20, activation="tanh", dtype="float64", seed=1)
U, labels = rng.standard_normal((8, 4)), rng.integers(0, 3, 8)

steps = np.logspace(-13, -1, 37)
errors, kinks, complex_error = difference_curve(model, U, labels, steps)


def loose_difference(h, tol):
    """Return the relative error of a central difference for one entry of B, if the forward solver stops at tol."""

    def loss(shift):
        moved = idl_ref.ImplicitModel(4, 3, 20, activation="tanh", dtype="float64", seed=1)
        moved.settings = replace(moved.settings, tol=tol, method="picard")
        moved.parameters["B"][0, 0] += shift
        return moved.loss_and_gradients(U, labels)[0]

    truth = model.loss_and_gradients(U, labels)[1]["B"][0, 0]
    return abs((loss(h) - loss(-h)) / (2 * h) / truth - 1)


model.settings = replace(model.settings, tol=0, grad_tol=0)
loose = np.array([loose_difference(h, 1e-4) for h in steps])

figure, axes = plt.subplots(figsize=(5.6, 5), layout="constrained")
axes.loglog(steps, np.maximum(errors, 1e-17), ".-", label="central difference, solved to rounding")
axes.loglog(steps[kinks], errors[kinks], "o", color="C3", fillstyle="none", label="a kink of f between ±h")
axes.loglog(steps, np.maximum(loose, 1e-17), ".-", color="C1", label="the same, solved to tol = 1e-4")
axes.axhline(max(complex_error, 1e-17), color="C2", linestyle="--", label="complex step, h = 1e-30")
axes.axvline(np.finfo(float).eps ** (1 / 3), color="gray", linestyle=":", label="h = ∛eps")
axes.set(xlabel="step h", ylabel="relative error", title="Error of a directional derivative", ylim=(1e-17, 10))
figure.legend(loc="outside lower center")
plt.show()

# %%
# If the solver stops at a loose tolerance, no h makes the error small: the difference then approximates the derivative
# of the *truncated* iteration, which is a different function. A gradient check must therefore solve to rounding
# accuracy, whatever the model's own tolerance is, and `check_gradients` does so. At the right end, ‖A‖∞ crosses κ
# between −h and +h, where the scaling of A begins. Such a kink makes the difference wrong, but not the gradient.

best = steps[errors.argmin()]
assert 1e-7 < best < 1e-4
assert 1e-13 < errors.min() < 1e-8
assert complex_error < 1e-13
assert loose.min() > 100 * errors.min()
assert not kinks[steps < 1e-3].any()
assert idl_ref.check_gradients(model, U, labels).passed
