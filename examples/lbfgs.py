"""
Training by L-BFGS: a recipe
============================

The gradients of this library are exact, so that optimizers of other libraries can use them. They only need all
weights in one vector. L-BFGS of SciPy searches along each direction, and therefore has no learning rate.

Functions: `idl_ref.ImplicitModel.loss_and_gradients`. Page: :doc:`/training`, «optimizers». Paper: on training.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import minimize

import idl_ref

WEIGHT_DECAY = 1e-4

# %%
# The recipe: the vector θ holds the parameters *before* `f`. These are free: whatever they are, `f` maps them into the
# ball ‖A‖∞ ≤ κ. What is minimised is the mean loss of all samples plus ½ · weight decay · ‖θ‖².


def pack(arrays, names):
    """Return the arrays of these names as one vector."""
    return np.concatenate([arrays[name].ravel() for name in names]).astype(float)


def unpack(theta, parameters):
    """Write the vector θ into the live arrays of a model."""
    ends = np.cumsum([W.size for W in parameters.values()])
    for W, part in zip(parameters.values(), np.split(theta, ends[:-1]), strict=True):
        W[...] = part.reshape(W.shape)


def fit_by_lbfgs(model, x, y, steps):
    """Minimise the loss on all samples; return the result of SciPy and the mean loss of every evaluation."""
    losses = []

    def objective(theta):
        unpack(theta, model.parameters)
        loss, gradients = model.loss_and_gradients(x, y)
        losses.append(loss)
        decay = 0.5 * WEIGHT_DECAY * theta @ theta
        return loss + decay, pack(gradients, model.parameters) + WEIGHT_DECAY * theta

    start = pack(model.parameters, model.parameters)
    result = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": steps})
    unpack(result.x, model.parameters)  # The last evaluation was not necessarily the best one.
    return result, losses


# %%
# Three trainings on the digits, from the same weights. An evaluation for L-BFGS takes the gradients of all samples, as
# an epoch of a stochastic method does; so this is the unit of the horizontal axis.

x, y, x_test, y_test = idl_ref.datasets.digits()
names = "L-BFGS", "Adam, batches of 64", "SGD, all samples at once"
models = [idl_ref.ImplicitModel(64, 10, 40, bias=True, seed=0, dtype="float64") for _ in names]
result, losses = fit_by_lbfgs(models[0], x, y, steps=70)
curves, adam, sgd = [losses], idl_ref.Adam(3e-3, weight_decay=WEIGHT_DECAY), idl_ref.SGD(0.1, weight_decay=WEIGHT_DECAY)
for model, optimizer, batch in (models[1], adam, 64), (models[2], sgd, len(x)):
    settings = {"optimizer": optimizer, "epochs": len(losses), "batch_size": batch, "progress": False}
    curves.append(idl_ref.fit(model, x, y, **settings).loss)
accuracies = [(model(x_test).argmax(axis=1) == y_test).mean() for model in models]

for name, curve, accuracy in zip(names, curves, accuracies, strict=True):
    plt.semilogy(np.arange(1, len(curve) + 1), curve, label=f"{name}: test {accuracy:.1%}")
plt.gca().set(xlabel="gradients of all samples", ylabel="mean loss", title="Training on the digits", ylim=(None, 9))
plt.legend()
plt.show()

# %%
# L-BFGS makes much more of the same number of gradients than gradient descent. A stochastic method takes many steps in
# an epoch, so that it is ahead at first; for large sets of samples it is the better choice. A smaller loss on the
# training samples is not a larger accuracy on new ones.

assert accuracies[0] > 0.975
assert losses[-1] < 0.1 * curves[2][-1]
assert np.abs(models[0].effective()["A"]).sum(axis=1).max() <= 0.99 * (1 + 1e-12)
