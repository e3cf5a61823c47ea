"""
Which models have one state for every input
===========================================

x = relu(A x + z) has one solution for every z if and only if all principal minors of I − A are positive: I − A is a
*P-matrix*. Norms, the Perron root and monotonicity are easier to check and to enforce, but each of them covers only a
part of these matrices. Left, two units that depend on themselves with the weight ½ and on each other with the weights
A₁₂ and A₂₁. Right, random matrices of six units, the larger the further to the right.

Functions: `idl_ref.wellposed.norm_inf`, `idl_ref.wellposed.perron_root`, `idl_ref.wellposed.monotone`,
`idl_ref.wellposed.unique_relu`. Page: :doc:`/perron`.
"""

import matplotlib.pyplot as plt
import numpy as np

from idl_ref.wellposed import monotone, norm_inf, perron_root, unique_relu

SHOWN = {
    "P-matrix": lambda A: bool(unique_relu(A)),
    "monotone": lambda A: monotone(A).m > 0,
    "Perron root": lambda A: perron_root(A).upper < 1,
    "norm": lambda A: norm_inf(A) < 1,
}
rng = np.random.default_rng(0)
COLORS = {"P-matrix": "0.88", "monotone": "C0", "Perron root": "C1", "norm": "C3"}

# The regions of the left picture are where these functions of a = A₁₂ and b = A₂₁ are positive.
BORDERS = {
    "P-matrix": lambda a, b: 0.25 - a * b,
    "monotone": lambda a, b: 1 - abs(a + b),
    "Perron root": lambda a, b: 0.25 - abs(a * b),
    "norm": lambda a, b: 0.5 - np.maximum(abs(a), abs(b)),
}
for a, b in rng.uniform(-3, 3, (500, 2)):
    for name, holds in SHOWN.items():
        assert holds(np.array([[0.5, a], [b, 0.5]])) == (BORDERS[name](a, b) > 0)


scales, draws = np.linspace(0.1, 1.9, 10), 100
shares = {name: [] for name in (*SHOWN, "none but minors")}
print("scale   " + "".join(f"{name:>17}" for name in shares))
for scale in scales:
    matrices = scale * rng.standard_normal((draws, 6, 6)) / 6**0.5
    found = np.array([[holds(A) for holds in SHOWN.values()] for A in matrices])
    exact, others = found[:, 0], found[:, 1:]
    assert not (others.any(axis=1) & ~exact).any()  # Each of the other three implies that all minors are positive.
    assert not (others[:, 2] & ~others[:, 1]).any()  # A norm below 1 implies a Perron root below 1.
    for name, share in zip(shares, (*found.T, exact & ~others.any(axis=1)), strict=True):
        shares[name].append(share.mean())
    print(f"{scale:5.1f}   " + "".join(f"{100 * share[-1]:15.0f} %" for share in shares.values()))

figure, (regions, curves) = plt.subplots(1, 2, figsize=(10.5, 4.9), width_ratios=[1, 1.05])
a, b = np.meshgrid(*2 * [np.linspace(-3, 3, 601)])
for name, color in COLORS.items():
    alpha = {"P-matrix": 1.0, "monotone": 0.45}.get(name, 0.8)
    regions.contourf(a, b, BORDERS[name](a, b), levels=[0, 99], colors=[color], alpha=alpha)
regions.contour(a, b, BORDERS["monotone"](a, b), levels=[0], colors="C0", linewidths=1)
labels = {"norm": (0, 0), "Perron\nroot": (0.02, 2.2), "monotone": (-1.75, 1.75), "P-matrix": (-2.3, 0.5)}
for name, (a, b) in labels.items():
    color = "white" if name == "norm" else "black"
    regions.text(a, b, name, ha="center", va="center", color=color, rotation=-45 if name == "monotone" else 0)
for place in (2.0, -2.0):
    regions.text(place, place, "several states\nor none", ha="center", va="center", color="0.35")
regions.set(xlabel="A₁₂", ylabel="A₂₁", aspect="equal", title="Two units, A₁₁ = A₂₂ = ½")
regions.grid(visible=False)
for name, share in shares.items():
    color, style = {"none but minors": ("black", ":"), "P-matrix": ("0.5", "-")}.get(name, (COLORS.get(name), "-"))
    curves.plot(scales, 100 * np.array(share), style, color=color, marker="o", markersize=4, label=name)
curves.set(xlabel="√6 · standard deviation of the entries", ylabel="matrices in percent", title="Six random units")
curves.legend()
plt.show()

# %%
# Two units that inhibit each other strongly (bottom left) compete, and either may win; two that excite each other (top
# right) may have no state. If one excites and the other inhibits, there is one state for all weights, which no norm
# shows. The last column of the table counts matrices whose state is unique although none of the three criteria tells.

assert max(shares["none but minors"]) > 0.1
