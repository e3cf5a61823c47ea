"""Train an implicit model on handwritten digits, save it, and predict with the file.

Run: python examples/train_digits.py [epochs]
"""

import sys
import tempfile
from pathlib import Path

import idl_ref

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 15

x_train, y_train, x_test, y_test = idl_ref.datasets.digits()

# 64 pixels in, 10 classes out, a hidden state of 64 numbers that solves x = relu(A x + B u).
model = idl_ref.ImplicitModel(64, 10, 64, bias=True, seed=0)
optimizer = idl_ref.SGD(learning_rate=0.1, momentum=0.9, schedule="cosine")
history = idl_ref.fit(
    model, x_train, y_train, optimizer=optimizer, epochs=epochs, batch_size=32, validation=(x_test, y_test), seed=0
)

print(f"test accuracy: {100 * history.validation_accuracy[-1]:.2f} %")
print(f"‖A‖∞ = {history.norm[-1]:.3f}, Perron root of |A| ≤ {history.perron_root[-1]:.3f}")
print(f"iterations per sample, mean and max: {history.forward_iterations[-1]}")

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "model.npz"
    model.save(path)
    again = idl_ref.load(path)  # needs NumPy and nothing else
    assert (again(x_test) == model(x_test)).all()

# Every answer carries its certificate: how far the hidden state can be from the exact equilibrium.
solution = model.equilibrium(x_test)
print(f"{solution.converged=}, true error of X at most {solution.error_bound.max():.1e}")

assert solution.converged
assert history.validation_accuracy[-1] > (0.97 if epochs >= 15 else 0.8)
