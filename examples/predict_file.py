"""
A prediction that is killed, and goes on
========================================

``parallel.predict_file`` predicts files that need not fit into the memory, a block of rows at a time, on any executor.
Here its process is killed in the middle. The second call does only the rest, and the bytes are those of a prediction
that nobody disturbed.
"""

import hashlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import idl_ref

# %%
# 60,000 rows of a file, one of them with a NaN, and a model with κ = 0.99.
folder = tempfile.TemporaryDirectory()
root = Path(folder.name)
U = np.random.default_rng(0).standard_normal((60_000, 8)).astype(np.float32)
U[12_345, 3] = np.nan
np.save(root / "U.npy", U)
model = idl_ref.ImplicitModel(8, 3, 40, seed=0)
model.parameters["A"][...] = np.abs(model.parameters["A"])
model.save(root / "model.npz")

# %%
# A prediction by itself.
whole = idl_ref.parallel.predict_file(model, root / "U.npy", root / "whole", rows=256, per_task=1, progress=False)
print(f"{whole.Y.shape[0]:,} rows, worst bound {np.max(whole.error_bound, where=whole.status < 2, initial=0):.1e}")
assert list(np.flatnonzero(whole.status == 3)) == [12_345]

# %%
# The same in another process, which is killed when two fifths of the rows are done. ``status`` is −1 for rows that are
# not done, and is written last: where it is not −1, all outputs are on the disk.
program = "import sys, idl_ref; idl_ref.parallel.predict_file(*sys.argv[1:], rows=256, per_task=1, progress=False)"
arguments = [str(root / name) for name in ("model.npz", "U.npy", "killed")]
child = subprocess.Popen([sys.executable, "-c", program, *arguments])
status = root / "killed" / "status.npy"
while child.poll() is None and not (status.exists() and (np.load(status) >= 0).mean() >= 0.4):
    time.sleep(0.002)
child.kill()
child.wait()
done = np.load(status) >= 0
assert 0.4 <= done.mean() < 1

# %%
# Called again with the same folder, it does the rest. Every file has the same bytes.
idl_ref.parallel.predict_file(model, root / "U.npy", root / "killed", rows=256, per_task=1, progress=False)
for name in ("Y", "error_bound", "iterations", "step", "status"):
    one, two = (hashlib.sha256((root / out / f"{name}.npy").read_bytes()).hexdigest() for out in ("whole", "killed"))
    print(f"{name:<12}{one[:16]}  {two[:16]}")
    assert one == two

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), width_ratios=(1.2, 1), layout="constrained")
blocks = np.append(done[::256], np.full(5, np.nan))  # 235 blocks in 12 rows of 20
left.pcolormesh(
    np.arange(21), np.arange(13), blocks.reshape(12, 20), cmap="Blues", vmin=-0.3, vmax=1.3, edgecolors="white"
)
left.invert_yaxis()
left.set(xticks=[], yticks=[], aspect="equal", frame_on=False)
left.set_title(
    f"killed: {int(done[::256].sum())} of {len(done[::256])} blocks of 256 rows are done (full colour)", fontsize=10
)
bounds = whole.error_bound[whole.status < 2]
right.hist(np.log10(bounds), bins=40, color="tab:blue")
right.set(xlabel=r"$\log_{10}$ of the error bound of a row", ylabel="rows")
right.set_title("certified, row by row", fontsize=10)
plt.show()
del whole, bounds
folder.cleanup()
