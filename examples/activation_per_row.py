"""
Two activations in one model
============================

A cascade of a model with ReLU and a model with hardtanh is one model, whose rows have an activation of their own:

.. math:: X_i = \\varphi_i\\Bigl(\\sum_j A_{ij} X_j + (B U)_i\\Bigr)

It has one equilibrium, one error bound, exact gradients and all exports. The picture shows every state over one input,
and its error bound, which holds for each state, above the true error.

Functions: `idl_ref.analysis.cascade` (as `@`), `idl_ref.certify`. Page: :doc:`/composition`. Paper: the sections on
composition.
"""

import matplotlib.pyplot as plt
import numpy as np

import idl_ref

exact = {"dtype": "float64", "bias": True, "kappa": 0.8}
rectified = idl_ref.ImplicitModel(1, 3, 6, activation="relu", seed=4, tol=0, **exact)
clipped = idl_ref.ImplicitModel(3, 2, 5, activation="hardtanh", seed=1, tol=0, **exact)
model = clipped @ rectified
U = np.linspace(-3, 3, 241)[:, None]
print(model)

# %%
# The chain is solved once with a large tolerance. Its error is then known, because the two models alone are solved to
# the last digit.

weights = model.effective_weights()
Z = weights.B @ np.hstack([U, np.ones_like(U)]).T
options = idl_ref.SolveOptions(tol=1e-3, method="picard")
X = idl_ref.solve_equilibrium(weights.factors[0], Z, activation=model.activation, options=options).X
truth = np.vstack([clipped.equilibrium(rectified(U)).X, rectified.equilibrium(U).X])
bound = idl_ref.certify(weights.factors[0], Z, X, activation=model.activation)
error = np.abs(X - truth)

figure, panels = plt.subplots(1, 2, figsize=(9.5, 4.2), layout="constrained")
colours = {"hardtanh": "tab:blue", "relu": "tab:orange"}
for i, name in enumerate(model.activation.names):
    first = name not in model.activation.names[:i]
    panels[0].plot(U[:, 0], X[i], color=colours[name], lw=1.2, label=f"rows with {name}" if first else None)
for y in (-1, 1):
    panels[0].axhline(y, color="0.6", lw=0.8, ls=":")
panels[0].set(title="states of the chain", xlabel="input u", ylabel="x")
for name, colour in colours.items():
    rows = np.array(model.activation.names) == name
    panels[1].semilogy(U[:, 0], bound[rows].max(axis=0), color=colour, lw=1.6, label=f"bound, {name}")
    largest = np.maximum(error[rows].max(axis=0), 1e-17)
    panels[1].semilogy(U[:, 0], largest, color=colour, lw=0.8, ls="--", label=f"error, {name}")
panels[1].set(title="largest error of a row, and its bound", xlabel="input u", ylim=(1e-9, 1e-2))
for axes in panels:
    axes.legend(loc="lower right" if axes is panels[1] else "upper left", fontsize="small")
plt.show()

# %%
# A slope of a clipped row is 0 outside of [−1, 1]; the bound uses that. The whole trains, is saved and exported as any
# model is.

assert np.allclose(model(U), clipped(rectified(U)), rtol=0, atol=1e-4)
assert (error <= bound + 1e-15).all()
assert np.abs(truth[:5]).max() <= 1
assert truth[5:].max() > 1
_, gradients = model.loss_and_gradients(U, np.zeros((len(U), 2)), "mse")
print({name: G.shape for name, G in gradients.items()})
