"""Compare a training step of `analysis.ImplicitRNN` with one of torchidl's, with the same weights.

    python tests/benchmarks/recurrent.py [--rounds 15] [--threads 1]      (needs torch and torchidl)

A step is forward, the loss, all gradients, and plain SGD, for 64 sequences. Each contestant is a process of its own,
which sleeps until its turn, as in run.py: in one process, both took longer than each alone. A round gives each a turn
of some calls. Printed are the median time of a call, the median ratio to ours within the rounds, and the largest error
of the first gradient of A, relative to its largest entry, against float64 with small tolerances. torchidl's tolerance
is absolute, so that it ends early for the small numbers of an adjoint equation. It is timed as it is, and with the
first tolerance of 3e-6, 3e-7, … for which its gradient is as good as ours.
"""

import argparse
import multiprocessing
import statistics
import time
from contextlib import ExitStack
from multiprocessing.connection import Connection

import numpy as np

SIZES = ((1, 20, 10, 20, 3), (2, 50, 20, 10, 5), (8, 100, 32, 25, 10))  # p, n, h, T, q
TOLERANCES = (3e-6, 3e-7, 3e-8, 3e-9, 3e-10)  # of torchidl's adjoint equation
CALLS = 9  # of a turn; the first one, which wakes the process up, does not count
REST = 0.25  # seconds between turns, because threads of OpenMP go on spinning for a while


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare a training step with one of torchidl's.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    for size in SIZES:
        compare(size, options.rounds, options.threads)


def compare(size, rounds, threads) -> None:
    """Print the table of one size."""
    with ExitStack() as processes:
        ours = processes.enter_context(Contestant(size, None, threads))
        contestants = {"ours": ours}
        for tol in TOLERANCES:
            theirs = processes.enter_context(Contestant(size, tol, threads))
            enough = theirs.error <= ours.error
            if enough or tol in (TOLERANCES[0], TOLERANCES[-1]):
                contestants[f"torchidl, grad_tol {tol:g}"] = theirs
            if enough:
                break
        for turn in range(rounds):
            for contestant in list(contestants.values())[:: 1 if turn % 2 else -1]:
                contestant.turn()
    print("p = {}, n = {}, h = {}, T = {}, q = {}".format(*size))
    for name, contestant in contestants.items():
        ratio = statistics.median(theirs / mine for theirs, mine in zip(contestant.turns, ours.turns, strict=True))
        milliseconds = statistics.median(contestant.turns) * 1e3
        print(f"    {name:26} {milliseconds:7.2f} ms  {ratio:5.2f}   error of dA {contestant.error:.0e}", flush=True)


class Contestant:
    """A process that takes steps when it is asked to; `grad_tol` is torchidl's, or None for ours."""

    def __init__(self, size, grad_tol, threads) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, end = context.Pipe()
        self.process = context.Process(target=work, args=(end, size, grad_tol, threads), daemon=True)
        self.process.start()
        self.error: float = self.connection.recv()
        self.turns: list[float] = []

    def turn(self) -> None:
        """Let it take its steps, and keep the median of their times."""
        time.sleep(REST)
        self.connection.send(CALLS)
        self.turns.append(self.connection.recv())

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.connection.send(None)
        self.process.join()


# --- in the process of a contestant -----------------------------------------------------------------------------------


def work(connection: Connection, size, grad_tol, threads) -> None:
    """Send the error of the gradient of A, and for every number of calls their median time."""
    import torch
    from torchidl import ImplicitRNN as Theirs

    from idl_ref.analysis import ImplicitRNN

    p, n, h, T, q = size
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    state = Theirs(p, q, n, h).state_dict()
    rng = np.random.default_rng(0)
    U, labels = rng.standard_normal((64, T, p)).astype("float32"), rng.integers(0, q, 64)
    tight = {"dtype": "float64", "tol": 1e-13, "grad_tol": 1e-13, "mitr": 3000, "grad_mitr": 3000}
    truth = ImplicitRNN.from_torchidl(state, **tight).loss_and_gradients(U, labels)[1]["A"]
    make = step_of_ours(state, threads) if grad_tol is None else step_of_theirs(state, size, grad_tol)
    step, gradient = make(U, labels)
    connection.send(float(np.abs(gradient() - truth).max() / np.abs(truth).max()))
    while calls := connection.recv():
        times = []
        for _ in range(calls):
            started = time.perf_counter()
            step()
            times.append(time.perf_counter() - started)
        connection.send(statistics.median(times[1:]))


def step_of_ours(state, threads):
    """Return what makes a training step and the gradient of A from a batch."""
    import numba

    from idl_ref.analysis import ImplicitRNN

    numba.set_num_threads(threads)
    rnn = ImplicitRNN.from_torchidl(state)

    def make(U, labels):
        def step():
            _, gradients = rnn.loss_and_gradients(U, labels)
            for name, W in rnn.parameters.items():
                W -= np.float32(0.01) * gradients[name]

        return step, lambda: rnn.loss_and_gradients(U, labels)[1]["A"]

    return make


def step_of_theirs(state, size, grad_tol):
    """Return what makes a training step of torchidl and its gradient of A from a batch."""
    import torch
    from torchidl import ImplicitRNN as Theirs

    p, n, h, _, q = size
    rnn = Theirs(p, q, n, h, grad_tol=grad_tol)
    rnn.load_state_dict(state)

    def make(U, labels):
        U, labels = torch.tensor(U), torch.tensor(labels)
        optimizer = torch.optim.SGD(rnn.parameters(), lr=0.01)

        def loss():
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(rnn(U), labels).backward()

        def step():
            loss()
            optimizer.step()

        def gradient():
            loss()
            return rnn.recurrent.layer.A.grad.numpy()

        return step, gradient

    return make


if __name__ == "__main__":
    main()
