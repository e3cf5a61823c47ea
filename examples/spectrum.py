"""
Where the eigenvalues of A lie
==============================

Three numbers measure how well posed A is: the norm ‖A‖∞, the Perron root of \\|A\\|, and the spectral radius of A. Each
is at most as large as the one before. A norm or a Perron root below 1 proves well-posedness. A spectral radius below 1
does not, because relu can set any rows of A to zero, and the remaining matrix may have a larger spectral radius.

Functions: `idl_ref.wellposed.norm_inf`, `idl_ref.wellposed.perron_root`; `idl_ref.plots.spectrum` draws this figure.
Paper: the section on well-posedness, Perron–Frobenius.
"""

import matplotlib.pyplot as plt
import numpy as np

import idl_ref
from idl_ref.wellposed import norm_inf, perron_root

x_train, y_train, x_test, y_test = idl_ref.datasets.digits()
model = idl_ref.ImplicitModel(64, 10, 64, bias=True, seed=0)
before = model.effective()["A"].copy()
idl_ref.fit(model, x_train, y_train, optimizer=idl_ref.SGD(0.1), epochs=3, progress=False)
after = model.effective()["A"]

figure, panels = plt.subplots(1, 2, figsize=(9.5, 5), sharex=True, sharey=True)
turn = np.exp(1j * np.linspace(0, 2 * np.pi, 400))
radii = {}
for axes, A, title in zip(panels, (before, after), ("before training", "after 3 epochs"), strict=True):
    eigenvalues = np.linalg.eigvals(A)
    radii[title] = norm_inf(A), perron_root(A).upper, np.abs(eigenvalues).max()
    axes.fill(turn.real, turn.imag, color="0.93", zorder=0)
    for radius, name, line in zip(radii[title], ("‖A‖∞", "Perron root of |A|", "spectral radius"), "-:-", strict=True):
        color = {"‖A‖∞": "C0", "Perron root of |A|": "C1", "spectral radius": "C2"}[name]
        axes.plot(radius * turn.real, radius * turn.imag, line, color=color, label=f"{name} = {radius:.2f}")
    axes.plot(eigenvalues.real, eigenvalues.imag, ".", color="C3")
    axes.set(title=title, xlabel="real part", aspect="equal")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18))
panels[0].set_ylabel("imaginary part")
plt.show()

# %%
# The unit disc is grey. Training increases the norm up to κ = 0.99, and `ImplicitFunctionInf` keeps it there. The
# Perron root stays lower, so that it gives a better guarantee for the trained model than the norm does.

for norm, root, radius in radii.values():
    assert radius <= root * (1 + 1e-5)
    assert root <= norm * (1 + 1e-5)
    assert norm <= 0.99 * (1 + 1e-6)
assert radii["after 3 epochs"][0] > radii["before training"][0]
