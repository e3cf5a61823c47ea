"""
Phantom gradients: what a truncated adjoint costs
=================================================

It is cheap to stop the iteration for the adjoint equation V = S ∘ (AᵀV + G) after k steps. The result is known as the
«phantom gradient», and for k = 1 as the «Jacobian-free» gradient. It is not the gradient, however, and no difference
quotient of the loss agrees with it.

Arguments: `grad_mitr=k`, `method="picard"`. Page: :doc:`/gradients`, «what it costs to be inexact». Paper: on training.
"""

import matplotlib.pyplot as plt
import numpy as np

import idl_ref

x, y, *_ = idl_ref.datasets.digits()
EXACT = 3000  # More adjoint steps than any tolerance needs here.
INF, ROWS = idl_ref.ImplicitFunctionInf, idl_ref.ImplicitFunctionRows


def model_with(limit, f, **settings):
    """Return an untrained model without D, whose outputs depend on the inputs through the equilibrium only."""
    return idl_ref.ImplicitModel(
        64, 10, 64, f=f, bias=True, no_D=True, seed=0, method="picard", grad_mitr=limit, on_failure="ignore", **settings
    )


def trained_with(limit, f):
    """Train with at most so many adjoint steps; return the weights and the mean loss of every epoch."""
    model, optimizer = model_with(limit, f), idl_ref.SGD(0.1, schedule="cosine")
    history = idl_ref.fit(model, x, y, optimizer=optimizer, epochs=8, batch_size=32, progress=False)
    return model.parameters, history.loss


def direction(parameters, limit, f):
    """Return the gradients with respect to A and B at these weights as one vector of length 1."""
    model = model_with(limit, f, dtype="float64", tol=1e-12, grad_tol=1e-12, mitr=3000)
    for name, W in model.parameters.items():
        W[...] = parameters[name]
    _, gradients = model.loss_and_gradients(x[:256], y[:256])
    v = np.concatenate([gradients[name].ravel() for name in "AB"])
    return v / np.linalg.norm(v)


# %%
# From V₀ = 0, k steps add up k terms of the Neumann series: Vₖ = (I + … + (SAᵀ)ᵏ⁻¹) S ∘ G.
# What is left out is at most κᵏ/(1 − κ) · ‖G‖ in the 1-norm of a column: the direction tends to that of the gradient.

limits = np.arange(1, 11)
_, losses = zip(*(trained_with(k, ROWS) for k in (1, 2, 5)), strict=True)
cosines = {}
for name, f in ("Inf", INF), ("Rows", ROWS):
    parameters, exact_loss = trained_with(EXACT, f)  # The last one, of Rows, is drawn beside the others.
    exact = direction(parameters, EXACT, f)
    cosines[name] = np.array([direction(parameters, int(k), f) @ exact for k in limits])

figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4))
for name, values in cosines.items():
    left.semilogy(limits, 1 - values, ".-", label=name)
left.set(xlabel="adjoint steps k", ylabel="1 − cosine to the gradient", title="Direction, at trained weights")
left.legend(title="f")
for name, loss in zip(("1 step", "2 steps", "5 steps", "exact"), (*losses, exact_loss), strict=True):
    right.semilogy(np.arange(1, 9), loss, ".-", label=name)
right.set(xlabel="epoch", ylabel="mean loss", title="Training on the digits, f = Rows")
right.legend(title="adjoint")
plt.show()

# %%
# After one step, the cosine is above 0.9: training makes progress, slightly slower. This may be sufficient to learn. To
# *verify* a backend it is not: an adjoint iteration that stops early is a bug, and only a comparison with the exact
# gradient shows it.

print("cosines:", {name: values[[0, 1, 4]].round(5) for name, values in cosines.items()})
assert all(0.9 < values[0] < 0.998 and (np.diff(values) > 0).all() for values in cosines.values())
assert losses[0][-1] > 1.1 * exact_loss[-1]
