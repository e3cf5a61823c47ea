"""
The V-curve of a gradient check
===============================

A central difference errs in two ways: by truncation, which grows as h², and by rounding, which grows as eps/h. Between
them lies the best h, about eps^⅓, with ten good digits at most. The complex step subtracts nothing, and is good to the
last digit.

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
    """Error of the same kind of difference, of one entry of B, when the forward solver stops early."""

    def loss(shift):
        moved = idl_ref.ImplicitModel(4, 3, 20, activation="tanh", dtype="float64", seed=1)
        moved.settings = replace(moved.settings, tol=tol, method="picard")
        moved.parameters["B"][0, 0] += shift
        return moved.loss_and_gradients(U, labels)[0]

    truth = model.loss_and_gradients(U, labels)[1]["B"][0, 0]
    return abs((loss(h) - loss(-h)) / (2 * h) / truth - 1)


model.settings = replace(model.settings, tol=0, grad_tol=0)
loose = np.array([loose_difference(h, 1e-4) for h in steps])

figure, axes = plt.subplots()
axes.loglog(steps, np.maximum(errors, 1e-17), ".-", label="central difference, solved to rounding")
axes.loglog(steps[kinks], errors[kinks], "o", color="C3", fillstyle="none", label="a kink of f between ±h")
axes.loglog(steps, np.maximum(loose, 1e-17), ".-", color="C1", label="the same, solved to tol = 1e-4")
axes.axhline(max(complex_error, 1e-17), color="C2", linestyle="--", label="complex step, h = 1e-30")
axes.axvline(np.finfo(float).eps ** (1 / 3), color="gray", linestyle=":", label="h = eps^⅓")
axes.set(xlabel="step h", ylabel="relative error", title="Error of a directional derivative", ylim=(1e-17, 1e2))
axes.legend(loc="upper center", ncols=2, fontsize=9)
plt.show()

# %%
# A loose solver puts a floor under the curve that no h can get below: the difference is then exact for the *truncated*
# iteration, which is another function. So a check must solve to rounding, whatever the model's own tolerance, and
# `check_gradients` does. At the right end ‖A‖∞ passes κ between −h and +h, where the scaling of A sets in: a kink,
# which is reported and not judged.

best = steps[errors.argmin()]
assert 1e-7 < best < 1e-4
assert 1e-13 < errors.min() < 1e-8
assert complex_error < 1e-13
assert loose.min() > 100 * errors.min()
assert not kinks[steps < 1e-3].any()
assert idl_ref.check_gradients(model, U, labels).passed
