"""
Digits: accuracy, iterations and Perron root per epoch
======================================================

This example trains an implicit model on handwritten digits, shows that it remains well posed, saves it, and predicts
with the saved file. ``python examples/train_digits.py 5`` trains for five epochs.

Functions: `idl_ref.fit`, `idl_ref.load`; `idl_ref.plots.training_curves` draws a history. Page: :doc:`/training`.
"""

import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import idl_ref

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 15

x_train, y_train, x_test, y_test = idl_ref.datasets.digits()

# The model has 64 pixels as inputs, 10 classes as outputs, and a hidden state of 64 numbers, which solves
# x = relu(A x + B u).
model = idl_ref.ImplicitModel(64, 10, 64, bias=True, seed=0)
optimizer = idl_ref.SGD(learning_rate=0.1, momentum=0.9, schedule="cosine")
history = idl_ref.fit(
    model, x_train, y_train, optimizer=optimizer, epochs=epochs, batch_size=32, validation=(x_test, y_test),
    progress=False,
)  # fmt: skip

epoch = np.arange(1, epochs + 1)
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.6))
left.plot(epoch, 100 * np.array(history.accuracy), label="training")
left.plot(epoch, 100 * np.array(history.validation_accuracy), label="test")
left.set(xlabel="epoch", ylabel="accuracy in %", title=f"Test accuracy {100 * history.validation_accuracy[-1]:.2f} %")
left.legend()
for name, counts in (("forward", history.forward_iterations), ("adjoint", history.adjoint_iterations)):
    mean, most = np.array(counts).T
    (line,) = middle.plot(epoch, mean, label=f"{name}, mean")
    middle.plot(epoch, most, ":", color=line.get_color(), label=f"{name}, max")
middle.set(xlabel="epoch", ylabel="iterations per sample", title="Iterations", ylim=0)
middle.legend(fontsize=9)
right.plot(epoch, history.norm, label="‖A‖∞")
right.plot(epoch, history.perron_root, label="Perron root of |A|")
right.axhline(0.99, color="gray", linestyle=":", label="κ")
right.set(xlabel="epoch", title="Well-posedness", ylim=(0, 1.1))
right.legend()
plt.show()

# %%
# A model file holds weights and settings, and no code. Every hidden state has a certificate, which is a bound of its
# distance from the exact equilibrium.

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "model.npz"
    model.save(path)
    again = idl_ref.load(path)  # Loading needs only NumPy.
    assert (again(x_test) == model(x_test)).all()

solution = model.equilibrium(x_test)
print(f"test accuracy: {100 * history.validation_accuracy[-1]:.2f} %")
print(f"the error of X is at most {solution.error_bound.max():.1e} for all {solution.status.size} test samples")

assert solution.converged
assert max(history.norm) <= 0.99 * (1 + 1e-6)
assert max(history.perron_root) < 1
assert history.validation_accuracy[-1] > (0.97 if epochs >= 15 else 0.8)
