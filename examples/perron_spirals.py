"""
Spirals by three constraints
============================

The norm ‖A‖∞ bounds the Perron root of \\|A\\| from above, and the Perron root alone decides whether Picard's iteration
contracts. `ImplicitFunctionPerron` bounds the root only, so that A may have a norm far above 1, and the error bounds of
the trained model hold all the same. Three seeds for each constraint, all with κ = 0.99.

Classes: `idl_ref.ImplicitFunctionInf`, `idl_ref.ImplicitFunctionRows`, `idl_ref.ImplicitFunctionPerron`.
Page: :doc:`/perron`.
"""

import matplotlib.pyplot as plt
import numpy as np

import idl_ref

FUNCTIONS = {
    "Perron": idl_ref.ImplicitFunctionPerron,
    "Inf": idl_ref.ImplicitFunctionInf,
    "Rows": idl_ref.ImplicitFunctionRows,
}
COLORS, EPOCHS = {"Perron": "C0", "Inf": "C1", "Rows": "C2"}, 320

x, y = idl_ref.datasets.spirals(300)
histories, models = {name: [] for name in FUNCTIONS}, {}
for name, f in FUNCTIONS.items():
    for seed in range(3):
        model = idl_ref.ImplicitModel(2, 2, 40, f=f, bias=True, kappa=0.99, seed=seed)
        optimizer = idl_ref.SGD(0.2, schedule="cosine")
        histories[name].append(
            idl_ref.fit(model, x, y, optimizer=optimizer, epochs=EPOCHS, batch_size=32, seed=seed, progress=False)
        )
        models[name, seed] = model

figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.2))
for name, runs in histories.items():
    for seed, history in enumerate(runs):
        left.plot(100 * np.array(history.accuracy), color=COLORS[name], linewidth=1.2, label=None if seed else name)
        if name == "Perron":
            right.plot(history.norm, color="C0", linewidth=1.2, label=None if seed else "‖A‖∞")
            right.plot(history.perron_root, color="C3", label=None if seed else "Perron root of |A|")
left.axhline(98, color="0.6", linestyle="--", linewidth=1)
left.set(xlabel="epoch", ylabel="accuracy in percent", title="Three seeds each", ylim=(45, 101))
left.legend(loc="lower right")
right.axhline(1, color="0.6", linestyle="--", linewidth=1)
right.set(xlabel="epoch", title="Perron: the norm passes 1, the root does not", ylim=(0.5, 4.2))
right.legend(loc="upper left", ncols=2)
plt.show()

# %%
# With the Perron root, every seed passes 98 %, with norms of 2 to 3. The bound of each state's error is finite, as it
# uses the Perron root where the norm does not help.

for (name, seed), model in models.items():
    best, history = max(histories[name][seed].accuracy[-5:]), histories[name][seed]
    print(f"{name:<7} seed {seed}: {100 * best:5.1f} %, ‖A‖∞ = {history.norm[-1]:.2f}, "
          f"Perron root {history.perron_root[-1]:.2f}")  # fmt: skip
    solution = model.equilibrium(x)
    assert solution.converged
    assert np.isfinite(solution.error_bound).all()
    assert history.perron_root[-1] < 1
    if name == "Perron":
        assert best >= 0.98
        assert history.norm[-1] > 1
