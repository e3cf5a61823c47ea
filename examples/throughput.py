"""
Throughput against batch size
=============================

One call costs some microseconds before it computes anything. In a batch, samples share that, and A is read once for
many of them. Columns never meet: with the compiled backend an answer is the same, bit for bit, alone or in any batch.

Function: `idl_ref.backends` says what works here. Pages: :doc:`/solvers`, :doc:`/benchmarks`.
"""

import time

import matplotlib.pyplot as plt
import numpy as np

import idl_ref

rng = np.random.default_rng(0)
names = [name for name in ("numpy", "numba") if idl_ref.available_backends()[name] == "available"]
sizes = 2 ** np.arange(0, 11, 2)
A = rng.standard_normal((100, 100)).astype(np.float32)
A *= 0.75 / np.abs(A).sum(axis=1).max()
Z = rng.standard_normal((100, sizes.max())).astype(np.float32)


def samples_per_second(name, m):
    """The best of many rounds of at least 5 ms, in half a second."""
    columns, best = np.ascontiguousarray(Z[:, :m]), np.inf
    idl_ref.solve_equilibrium(A, columns, backend=name)
    stop = time.perf_counter() + 0.5
    while time.perf_counter() < stop:
        calls, start = 0, time.perf_counter()
        while time.perf_counter() - start < 0.005:
            idl_ref.solve_equilibrium(A, columns, backend=name)
            calls += 1
        best = min(best, (time.perf_counter() - start) / calls)
    return m / best


rates = {name: np.array([samples_per_second(name, m) for m in sizes]) for name in names}

figure, axes = plt.subplots()
for name, rate in rates.items():
    axes.loglog(sizes, rate, "o-", label=name)
axes.set(xlabel="samples in a batch", ylabel="samples per second", title="Equilibria, n = 100, float32")
axes.set_xticks(sizes, [str(m) for m in sizes])
axes.xaxis.minorticks_off()
axes.legend()
plt.show()

# %%
# These are the numbers of the machine that built this page, with whatever else it was doing; :doc:`/benchmarks` says
# how ours are taken. A dip in NumPy's curve is its BLAS, which goes over to several threads and finds the cores taken;
# ``OPENBLAS_NUM_THREADS=1`` in the environment takes it away.

for name, rate in rates.items():
    print(f"{name}: {1e6 / rate[0]:.0f} µs for one sample, {1e6 / rate.max():.1f} µs per sample at best")
    assert rate.max() > 4 * rate[0]
if "numba" in names:
    batch, alone = (idl_ref.solve_equilibrium(A, part, backend="numba").X for part in (Z, Z[:, 17:18]))
    assert np.array_equal(batch[:, 17:18], alone)
