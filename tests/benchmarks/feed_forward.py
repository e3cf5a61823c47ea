"""Compare a feed-forward net, written in NumPy, with the same net as an implicit model.

    python tests/benchmarks/feed_forward.py [--rounds N]

The net has 784, 512, 512 and 10 units, relu and float32. Its layers are blocks of units, which `method="blocks"`, and
so "auto", solves one by one. The calls take turns, TURN calls each, of which the first is not counted: it may wait for
memory that the call before it gave back to the system. The medians of their CPU times are printed, and their ratios to
the net. For times of one thread: OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1.
"""

import argparse
import itertools
import statistics
import time

import numpy as np

from idl_ref import ImplicitFunction, ImplicitModel, available_backends

SIZES = (784, 512, 512, 10)
TURN = 5


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare a feed-forward net with the same net as an implicit model.")
    parser.add_argument("--rounds", type=int, default=20, help="how often each call has its turn")
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)
    layers = [
        ((rng.standard_normal((b, a)) * (2 / a) ** 0.5).astype("f4"), (rng.standard_normal(b) / 9).astype("f4"))
        for a, b in itertools.pairwise(SIZES)
    ]
    backends = [name for name in ("numpy", "numba") if name in available_backends()]
    calls = {"the net": lambda U: net(layers, U)}
    for backend in backends:
        for method in ("blocks", "picard"):
            calls[f"{backend}, {method}"] = implicit(layers, backend, method)
    print("| | m = 1 | | m = 1,000 | |")
    print("|---|---|---|---|---|")
    inputs = [rng.random((m, SIZES[0])).astype("f4") for m in (1, 1000)]
    for U in inputs:
        for call in calls.values():
            np.testing.assert_allclose(call(U), net(layers, U), rtol=1e-3, atol=1e-4)
    columns = [timed(calls, U, rounds) for U in inputs]
    for name in calls:
        cells = [f"{1e3 * times[name]:.3g} ms | {times[name] / times['the net']:.2g} ×" for times in columns]
        print(f"| {name} | {' | '.join(cells)} |")


def net(layers, U):
    for W, b in layers[:-1]:
        U = U @ W.T
        U += b
        np.maximum(U, 0, out=U)
    return U @ layers[-1][0].T + layers[-1][1]


def implicit(layers, backend, method):
    (W1, b1), (W2, b2), (W3, b3) = layers
    p, k, q = SIZES[0], SIZES[1], SIZES[3]
    model = ImplicitModel(p, q, 2 * k, f=ImplicitFunction, bias=True, backend=backend, method=method)
    A, B, C, D = (model.parameters[name] for name in "ABCD")
    for M in (A, B, C, D):
        M[...] = 0
    A[k:, :k], B[:k, :p], C[:, k:] = W2, W1, W3
    B[:, p], D[:, p] = np.concatenate([b1, b2]), b3
    return model


def timed(calls, U, rounds):
    """The median CPU time of each call, in seconds; the calls take turns."""
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            for turn in range(TURN):
                started = time.process_time()
                call(U)
                if turn:
                    times[name].append(time.process_time() - started)
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    main()
