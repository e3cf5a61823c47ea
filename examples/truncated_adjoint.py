"""
What a truncated adjoint costs
==============================

It is cheap to stop the iteration for the adjoint equation after a few steps. After one step, the result is known as the
«Jacobian-free» gradient. The result is not the gradient, however, and no difference quotient of the loss agrees with
it.

Arguments: `grad_mitr`, `method="picard"`. Page: :doc:`/gradients`, «what it costs to be inexact». Paper: the section on
training.
"""

import matplotlib.pyplot as plt
import numpy as np

import idl_ref

x, y, *_ = idl_ref.datasets.digits()
LIMITS = (1, 2, 4, 300)


def model_with(limit):
    """Return an untrained model without D, whose outputs depend on the inputs through the equilibrium only."""
    return idl_ref.ImplicitModel(
        64, 10, 64, f=idl_ref.ImplicitFunctionRows, bias=True, no_D=True, seed=0,
        method="picard", grad_mitr=limit, on_failure="ignore",
    )  # fmt: skip


histories = {}
for limit in LIMITS:
    model, optimizer = model_with(limit), idl_ref.SGD(0.1, schedule="cosine")
    histories[limit] = idl_ref.fit(model, x, y, optimizer=optimizer, epochs=8, batch_size=32, progress=False)

trained, limits = model, np.arange(1, 13)
_, exact = trained.loss_and_gradients(x[:256], y[:256])
errors = []
for limit in limits:
    truncated = model_with(int(limit))
    for name, W in truncated.parameters.items():
        W[...] = trained.parameters[name]
    _, gradients = truncated.loss_and_gradients(x[:256], y[:256])
    errors.append([np.linalg.norm(gradients[name] - exact[name]) / np.linalg.norm(exact[name]) for name in "AB"])
errors = np.array(errors)

figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4))
for name, error in zip("AB", errors.T, strict=True):
    left.semilogy(limits, error, ".-", label=f"∂{name}")
left.set(xlabel="adjoint steps", ylabel="relative error", title="Gradient, at trained weights")
left.legend()
for limit, history in histories.items():
    right.semilogy(
        np.arange(1, 9), history.loss, ".-", label=f"{limit} step{'s' * (limit > 1)}" if limit < 300 else "all"
    )
right.set(xlabel="epoch", ylabel="mean loss", title="Training on the digits")
right.legend(title="adjoint")
plt.show()

# %%
# After one adjoint step, the relative error of ∂A is above one third. The result is still a descent direction, so that
# training makes progress, slightly slower than with the exact gradient. This may be sufficient for learning. For the
# *verification* of a backend it is not sufficient: an adjoint iteration that stops early is a bug, and only a
# comparison with the exact gradient shows it.

print("relative error of ∂A after 1, 2, 4 steps:", *(f"{errors[k - 1, 0]:.2f}" for k in (1, 2, 4)))
assert errors[0, 0] > 0.1
assert (errors[-1] < 0.02).all()
assert (np.diff(errors[:8, 0]) < 0).all()
assert histories[1].loss[0] > histories[300].loss[0]
assert histories[1].accuracy[-1] > 0.97
