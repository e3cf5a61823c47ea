"""Compare a training step of `analysis.ImplicitRNN` with one of torchidl's, with the same weights and one thread each.

    python tests/benchmarks/recurrent.py [--rounds 15]      (needs torch and torchidl)

A step is forward, the loss, all gradients, and plain SGD, for 64 sequences. Both take turns; printed are the median
times, their ratio, and how far the outputs before the first step are from each other.
"""

import argparse
import statistics
import time

import numba
import numpy as np
import torch
from torchidl import ImplicitRNN as Theirs

from idl_ref.analysis import ImplicitRNN

SIZES = ((1, 20, 10, 20, 3), (2, 50, 20, 10, 5), (8, 100, 32, 25, 10))  # p, n, h, T, q


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare a training step with one of torchidl's.")
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    for p, n, h, T, q in SIZES:
        torch.manual_seed(0)
        theirs = Theirs(p, q, n, h)
        ours = ImplicitRNN.from_torchidl(theirs.state_dict())
        rng = np.random.default_rng(0)
        U, labels = rng.standard_normal((64, T, p)).astype("float32"), rng.integers(0, q, 64)
        apart = float(np.abs(ours(U) - theirs(torch.tensor(U)).detach().numpy()).max())
        steps = {"ours": step_of_ours(ours, U, labels), "theirs": step_of_theirs(theirs, U, labels)}
        times = {name: [] for name in steps}
        for step in steps.values():
            step()
        for _ in range(rounds):
            for name, step in steps.items():
                started = time.perf_counter()
                step()
                times[name].append(time.perf_counter() - started)
        one, other = (statistics.median(found) * 1e3 for found in times.values())
        print(
            f"p = {p}, n = {n}, h = {h}, T = {T}, q = {q}: {one:.2f} ms, torchidl {other:.2f} ms, "
            f"{other / one:.1f} times; outputs differ by {apart:.1e}"
        )


def step_of_ours(rnn, U, labels):
    def step():
        _, gradients = rnn.loss_and_gradients(U, labels)
        for name, W in rnn.parameters.items():
            W -= np.float32(0.01) * gradients[name]

    return step


def step_of_theirs(rnn, U, labels):
    U, labels = torch.tensor(U), torch.tensor(labels)
    optimizer = torch.optim.SGD(rnn.parameters(), lr=0.01)

    def step():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(rnn(U), labels).backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
