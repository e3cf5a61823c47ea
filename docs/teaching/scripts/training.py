"""
Lesson 7: training
==================

Descent on raw weights, an equation with weights inside of the ball, and the digits. NumPy and idl_ref are enough.
"""

import numpy as np

import idl_ref
from idl_ref.wellposed import norm_inf, scale_to_norm, scale_to_norm_pullback

# %%
# The pullback of the scaling. With ν = ‖A‖∞ = 2 and κ = 1, a gradient of ones becomes one that is orthogonal to A:
# along A nothing changes, because κ A/‖A‖∞ stays the same when A is multiplied by a number.

A, G = np.array([[1.5, 0.5], [0.0, 0.5]]), np.ones((2, 2))
pulled = scale_to_norm_pullback(A, 1.0, G)
print("scaled A", scale_to_norm(A, 1.0).round(6).tolist())
print("pullback", pulled.round(6).tolist(), "  ⟨pullback, A⟩ is 0:", abs(np.sum(pulled * A)) < 1e-12)

# %%
# The loss of one sample: outputs (ln 3, 0), and the second class is right.

Y = np.array([np.log(3), 0.0])
softmax = np.exp(Y) / np.exp(Y).sum()
print("softmax", softmax.round(4), "  loss", round(-np.log(softmax[1]), 4), "  G_Y", (softmax - [0, 1]).round(4))

# %%
# Digits of 8 × 8 pixels. The norm of the effective A never exceeds κ, whatever the raw weights do.

x_train, y_train, x_test, y_test = idl_ref.datasets.digits()
model = idl_ref.ImplicitModel(64, 10, 32, bias=True, dtype="float64", seed=0, backend="numpy")
epochs = 0
for more in (1, 2, 5):
    idl_ref.fit(model, x_train, y_train, epochs=more, optimizer=idl_ref.SGD(0.1), progress=False)
    right = np.mean(model(x_test).argmax(axis=1) == y_test)
    assert norm_inf(model.effective()["A"]) <= 0.99 + 1e-12
    epochs += more
    print(f"epochs so far: {epochs}, test digits that are right: {right:.0%}")
assert right > 0.94
