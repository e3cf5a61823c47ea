"""
Projection against rescaling
============================

There are two ways to keep ‖A‖∞ ≤ κ. Rescaling multiplies the *whole* matrix by κ/‖A‖∞, so that a single row with a
large absolute sum shrinks all other rows, even if it belongs to a neuron whose output is always 0. Projection changes
only the rows whose absolute sum exceeds κ, and changes them as little as possible in the Euclidean norm.

Classes: `idl_ref.ImplicitFunctionInf` (rescaling), `idl_ref.ImplicitFunctionRows` (projection). Page: :doc:`/theory`.
"""

import matplotlib.pyplot as plt
import numpy as np

import idl_ref
from idl_ref.wellposed import project_rows, scale_to_norm

FUNCTIONS = {"rescaling": idl_ref.ImplicitFunctionInf, "projection": idl_ref.ImplicitFunctionRows}

rng = np.random.default_rng(1)
teacher = idl_ref.ImplicitModel(6, 3, 16, kappa=0.95, bias=True, no_D=True, seed=1)
teacher.parameters["A"][...] = 20 * np.abs(teacher.parameters["A"])  # With A ≥ 0, hidden units excite each other.
U = rng.standard_normal((1000, 6))
T = teacher(U)
T = (T - T.mean(axis=0)) / T.std(axis=0)


def student(f, seed):
    """Return a model whose raw weights do not depend on f.

    The output of neuron 0 is always 0, and the absolute sum of its row of A is a hundred times too large.
    """
    model = idl_ref.ImplicitModel(6, 3, 24, f=f, bias=True, no_D=True, seed=seed)
    model.parameters["A"][0] *= 100
    model.parameters["B"][0] = [0, 0, 0, 0, 0, 0, -100]
    return model


losses = {name: [] for name in FUNCTIONS}
for seed in range(3):
    for name, f in FUNCTIONS.items():
        model, optimizer = student(f, seed), idl_ref.SGD(0.05, schedule="cosine")
        history = idl_ref.fit(model, U, T, loss="mse", optimizer=optimizer, epochs=20, batch_size=32, progress=False)
        losses[name].append(history.loss)

raw = student(idl_ref.ImplicitFunction, 0).parameters["A"]
figure, (bars, curves) = plt.subplots(1, 2, figsize=(10, 4))
sums = {"raw": raw, "rescaled": scale_to_norm(raw, 0.99), "projected": project_rows(raw, 0.99)}
sums = {name: np.abs(A).sum(axis=1) for name, A in sums.items()}
for name, marker, color in zip(sums, "x_o", ("gray", "C0", "C1"), strict=True):
    bars.semilogy(sums[name], marker, color=color, markersize=7, label=name)
bars.axhline(0.99, color="gray", linestyle=":", linewidth=1)
bars.set(xlabel="row of A (row 0 is dead)", ylabel="Σ |A_ij| of the row", title="One long row")
bars.legend(loc="upper right")
for name, color in zip(FUNCTIONS, ("C0", "C1"), strict=True):
    for seed, loss in enumerate(losses[name]):
        curves.semilogy(np.arange(1, 21), loss, color=color, label=None if seed else name)
curves.set(xticks=range(0, 21, 5), xlabel="epoch", ylabel="mean squared error", title="Training, three seeds each")
curves.legend()
plt.show()

# %%
# The left panel shows that rescaling reduces the other rows to about a fortieth of their size, while projection changes
# only row 0. The right panel shows the training on the outputs of a teacher whose A matters much. Projection reaches
# the lower loss for every seed.

assert (sums["rescaled"][1:] < 0.03 * sums["raw"][1:]).all()
assert np.array_equal(sums["projected"][1:], sums["raw"][1:])
for rescaled, projected in zip(*losses.values(), strict=True):
    assert projected[-1] < 0.9 * rescaled[-1]
