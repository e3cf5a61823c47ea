"""Compare a training step of `analysis.ImplicitRNN` with one of torchidl's, with the same weights and one thread each.

    python tests/benchmarks/recurrent.py [--rounds 15]      (needs torch and torchidl)

A step is forward, the loss, all gradients, and plain SGD, for 64 sequences. All take turns; printed are the median
times, and the largest error of the first gradient of A, relative to its largest entry, against float64 with small
tolerances. torchidl's tolerance is absolute, so that it ends early for the small numbers of an adjoint equation. It is
timed as it is, and with the first tolerance of 3e-6, 3e-7, … for which its gradient is as good as ours.
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
        state = Theirs(p, q, n, h).state_dict()
        rng = np.random.default_rng(0)
        U, labels = rng.standard_normal((64, T, p)).astype("float32"), rng.integers(0, q, 64)
        tight = {"dtype": "float64", "tol": 1e-13, "grad_tol": 1e-13, "mitr": 3000, "grad_mitr": 3000}
        truth = ImplicitRNN.from_torchidl(state, **tight).loss_and_gradients(U, labels)[1]["A"]
        ours, steps, errors = ImplicitRNN.from_torchidl(state), {}, {}
        errors["ours"] = error(ours.loss_and_gradients(U, labels)[1]["A"], truth)
        steps["ours"] = step_of_ours(ours, U, labels)
        for grad_tol in (3e-6, 3e-7, 3e-8, 3e-9, 3e-10):
            theirs = Theirs(p, q, n, h, grad_tol=grad_tol)
            theirs.load_state_dict(state)
            name, found = f"torchidl, grad_tol {grad_tol:g}", error(gradient(theirs, U, labels), truth)
            if grad_tol == 3e-6 or found <= errors["ours"] or grad_tol == 3e-10:
                errors[name], steps[name] = found, step_of_theirs(theirs, U, labels)
            if found <= errors["ours"]:
                break
        times = {name: [] for name in steps}
        for step in steps.values():
            step()
        for _ in range(rounds):
            for name, step in steps.items():
                started = time.perf_counter()
                step()
                times[name].append(time.perf_counter() - started)
        print(f"p = {p}, n = {n}, h = {h}, T = {T}, q = {q}")
        least = statistics.median(times["ours"])
        for name, found in times.items():
            middle = statistics.median(found)
            print(f"    {name:26} {middle * 1e3:7.2f} ms  {middle / least:5.1f}   error of dA {errors[name]:.0e}")


def error(G, truth):
    return float(np.abs(G - truth).max() / np.abs(truth).max())


def gradient(rnn, U, labels):
    """Return torchidl's gradient of A."""
    torch.nn.functional.cross_entropy(rnn(torch.tensor(U)), torch.tensor(labels)).backward()
    return rnn.recurrent.layer.A.grad.numpy()


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
