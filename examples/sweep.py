"""
A sweep: one table, however it was computed
===========================================

How many hidden units, and how large a κ, do two spirals need? ``parallel.sweep`` trains one model per point of a grid.
The table has the same digits in one process and in a pool, in any order, because each fit depends on its point and on
the data alone.
"""

import csv
import io
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import idl_ref

# %%
# A function of the point makes the model, and says how it is trained. The seed belongs to the point: three seeds tell
# how much of a difference is luck.
GRID = {"hidden_dim": [4, 8, 16, 32], "kappa": [0.1, 0.5, 0.9, 0.99], "seed": [0, 1, 2]}


def build(hidden_dim, kappa, seed):
    model = idl_ref.ImplicitModel(2, 2, hidden_dim, kappa=kappa, activation="tanh", bias=True, no_D=True, seed=seed)
    return model, {"epochs": 40, "batch_size": 50, "optimizer": idl_ref.Adam(0.03)}


data = (*idl_ref.datasets.spirals(400, seed=0), *idl_ref.datasets.spirals(400, seed=1))

# %%
# A pool of two threads writes the table into a folder. It could as well be two processes, loky, or Dask's
# ``client.get_executor()``. Called again, it would train nothing, because nothing is missing there.
with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
    table = idl_ref.parallel.sweep(build, GRID, data, executor=pool, out=folder, progress=False)
    text = Path(folder, "sweep.csv").read_text(encoding="utf-8")

assert text == table.to_csv()
assert not table.failed
# %%
# A row tells all digits, so that one fit by itself, here and now, must give the same.
row = table.best("validation_loss")
model, options = build(row["hidden_dim"], row["kappa"], row["seed"])
history = idl_ref.fit(model, *data[:2], validation=data[2:], progress=False, **options)
assert history.validation_loss[-1] == row["validation_loss"]
print(row)

# %%
# The picture is made of the CSV, as a spreadsheet would. Its cells are means over the seeds.
cells = np.zeros((4, 4))
for fields in csv.DictReader(io.StringIO(text)):
    place = GRID["kappa"].index(float(fields["kappa"])), GRID["hidden_dim"].index(int(fields["hidden_dim"]))
    cells[place] += float(fields["validation_accuracy"]) / 3
assert cells[-1, -1] > cells[0, -1] + 0.03
assert cells[-1, -1] > cells[-1, 0] + 0.1

figure, axes = plt.subplots(figsize=(5.6, 4.2))
image = axes.imshow(100 * cells, origin="lower", cmap="viridis")
for (i, j), share in np.ndenumerate(cells):
    axes.text(j, i, f"{100 * share:.0f}", ha="center", va="center", color="white" if share < 0.8 else "black")
axes.set_xticks(range(4), GRID["hidden_dim"])
axes.set_yticks(range(4), GRID["kappa"])
axes.set(xlabel="hidden units n", ylabel="largest norm κ", title="Two spirals: correct test samples, mean of 3 seeds")
axes.grid(False)
figure.colorbar(image, label="%")
plt.show()
