"""
Throughput against batch size
=============================

Each call has a fixed cost of some microseconds. The samples of a batch share this cost, and A is read once for many of
them. No operation combines two samples, so that with the compiled backend the result of a sample has the same bits
alone and in any batch.

Function: `idl_ref.available_backends` tells which backends work here. Pages: :doc:`/solvers`, :doc:`/benchmarks`.
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
    """Return the highest rate of all rounds of at least 5 ms that fit into half a second."""
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
# These numbers come from the machine that built this page, which may have been busy with other work; :doc:`/benchmarks`
# describes careful measurements. If NumPy's curve has a dip, its BLAS library started several threads while other
# programs used the cores. The environment variable ``OPENBLAS_NUM_THREADS=1`` prevents this.

for name, rate in rates.items():
    print(f"{name}: {1e6 / rate[0]:.0f} µs for one sample, {1e6 / rate.max():.1f} µs per sample at best")
    assert rate.max() > 4 * rate[0]
if "numba" in names:
    batch, alone = (idl_ref.solve_equilibrium(A, part, backend="numba").X for part in (Z, Z[:, 17:18]))
    assert np.array_equal(batch[:, 17:18], alone)
