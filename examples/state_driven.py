"""
State-driven training
=====================

A feed-forward network, trained on the digits, teaches implicit models without gradients. Its hidden states are the data
of a convex problem, whose solution are A and B with ‖A‖∞ ≤ κ; then least squares gives C and D. Penalties on A and B
make the student sparse. For comparison, the smallest weights of the teacher are set to 0, and its readout is refitted.

Functions: `idl_ref.analysis.sim.states`, `idl_ref.analysis.sim.fit`. Page: :doc:`/state_driven`.
"""

import math

import matplotlib.pyplot as plt
import numpy as np
from sklearn.neural_network import MLPClassifier

import idl_ref
from idl_ref.analysis import sim
from idl_ref.wellposed import norm_inf

KAPPA = 0.99
x, y, x_test, y_test = (array.astype(float) for array in idl_ref.datasets.digits())
net = MLPClassifier((24, 12), learning_rate_init=3e-3, batch_size=64, random_state=0)
for _ in range(25):
    net.partial_fit(x, y, classes=np.arange(10))
layers = [(W.T, b) for W, b in zip(net.coefs_, net.intercepts_, strict=True)]
states = sim.states(layers, x)


def accuracy(Y):
    """Return the part of the test images whose largest output is the right one.   Y (m, 10)"""
    return float((Y.argmax(axis=1) == y_test).mean())


def pruned(count):
    """Return the accuracy of the teacher with the `count` largest weights before its readout, which is refitted."""
    sizes = np.sort(np.abs(np.concatenate([W.ravel() for W, _ in layers[:-1]])))
    kept = [(np.where(np.abs(W) >= sizes[-count], W, 0), b) for W, b in layers[:-1]] + layers[-1:]
    seen, new = sim.states(kept, x), sim.states(kept, x_test)
    features, of_test = (np.vstack([s.X, s.U, np.ones((1, s.X.shape[1]))]).T for s in (seen, new))
    return accuracy(of_test @ np.linalg.lstsq(features, states.Y.T, rcond=1e-10)[0])


teacher = accuracy(sim.states(layers, x_test).Y.T)
students = {}
for penalty in (0.0, 10.0, 30.0, 100.0, 300.0):
    student = sim.fit(states, KAPPA, penalty, penalty_B=penalty)
    entries = sum(np.count_nonzero(student.parameters[name][:, : 64 if name == "B" else None]) for name in "AB")
    norm = max(map(math.fsum, np.abs(student.effective()["A"])))  # fsum rounds the exact sum of a row once.
    students[penalty] = (entries, accuracy(student(x_test)), norm)
counts, found, norms = zip(*students.values(), strict=True)
cut = {count: pruned(count) for count in (50, 100, 200, 400, 800, 1824)}

figure, axes = plt.subplots(figsize=(5.6, 4.6), layout="constrained")
axes.semilogx(counts, found, "o-", label="state-driven, penalties on A and B")
axes.semilogx(list(cut), list(cut.values()), "s--", label="pruned teacher, readout refitted")
axes.axhline(teacher, color="gray", linestyle=":", label="teacher")
axes.set(xlabel="nonzeros of A and B", ylabel="test accuracy", title="Sparse students and pruned teachers")
figure.legend(loc="outside lower center")
plt.show()

# %%
# Without penalties, the student is as good as the teacher, although its A lies in a ball in which the teacher's weights
# do not. With some hundreds of nonzeros, the pruned teacher is better: a penalty also shrinks the weights that remain.
# Below that, D decides, which sees the pixels. What the student has, and the pruned teacher has not, is the norm.

print(f"teacher {teacher:.4f}")
for penalty, (entries, score, norm) in students.items():
    print(f"penalty {penalty:5g}: {entries:5d} nonzeros, accuracy {score:.4f}, ‖A‖∞ = {norm:.6f}")
for count, score in cut.items():
    print(f"pruned to {count:5d} nonzeros: accuracy {score:.4f}")
assert max(norms) <= KAPPA
assert norm_inf(layers[1][0]) > 1
assert students[0.0][1] >= teacher - 0.001
assert counts[-1] < counts[0] / 10
assert cut[800] > students[10.0][1]
