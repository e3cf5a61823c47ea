"""When data-parallel training pays: a model of docs/scale.md, with your own latency α and bandwidth β.

This is a model, not a measurement; only --measure measures, and compares the model with two processes.

    python docs/scale_model.py                                      the table, and docs/scale.png
    python docs/scale_model.py --alpha 5e-6 --beta 3e9              for your network: seconds, and bytes per second
    mpiexec -n 2 python docs/scale_model.py --measure               α, β and the other constants of this machine
"""

from __future__ import annotations

import argparse
import math
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

BATCHES = (64, 1024, 8192, 65536)
WORKERS = tuple(1 << k for k in range(11))  # 1 … 1,024


class Network(NamedTuple):
    """What a message of so many bytes costs: α + bytes/β seconds."""

    name: str
    alpha: float
    beta: float

    def seconds(self, size: float) -> float:
        """Return the time of one message."""
        return self.alpha + size / self.beta


class Step(NamedTuple):
    """What a training step costs a worker, without messages. The least values that --measure found."""

    leaf: float = 53e-6  # seconds for a leaf: one forward and one adjoint solve and the gradients
    sample: float = 3.4e-6  # seconds for each of its samples
    update: float = 60e-6  # seconds for the pullback and the step of SGD, which every worker makes
    gradients: float = 72.6e3  # bytes of all gradients
    micro: int = 32  # samples of a leaf, micro_batch


NETWORKS = (Network("InfiniBand", 2e-6, 12e9), Network("10 Gbit/s Ethernet", 30e-6, 1.1e9))  # assumed, not measured


def seconds(batch: int, workers: int, step: Step, network: Network) -> float:
    """Return the time of one step.

    The batch has K = ⌈batch / micro⌉ leaves, of which the busiest worker has ⌈K / P⌉. The sums go up a binary tree and
    come down it, in ⌈log₂ P⌉ messages each; workers without a leaf send nothing::

        T(P) = ⌈K / P⌉ (leaf + micro · sample) + 2 ⌈log₂ min(P, K)⌉ (α + gradients / β) + update
    """
    leaves = math.ceil(batch / step.micro)
    rounds = 2 * math.ceil(math.log2(min(workers, leaves)))
    work = math.ceil(leaves / workers) * (step.leaf + min(step.micro, batch) * step.sample)
    return work + rounds * network.seconds(step.gradients) + step.update


def speedup(batch: int, workers: int, step: Step, network: Network) -> float:
    """Return T(1) / T(P)."""
    return seconds(batch, 1, step, network) / seconds(batch, workers, step, network)


def table(step: Step, networks: tuple[Network, ...]) -> str:
    """Return for each batch and network the largest speed-up, and the fewest workers with 95 % of it, in Markdown."""
    lines = ["| batch | one worker |" + "".join(f" {n.name}: at most | with workers |" for n in networks)]
    lines.append("|" + "---|" * (2 + 2 * len(networks)))
    for batch in BATCHES:
        cells = [f"{batch:,}", f"{1e3 * seconds(batch, 1, step, networks[0]):.3g} ms"]
        for network in networks:
            gains = [speedup(batch, workers, step, network) for workers in WORKERS]
            enough = next(w for w, gain in zip(WORKERS, gains, strict=True) if gain >= 0.95 * max(gains))
            cells += [f"{max(gains):.2g}×" if max(gains) < 100 else f"{max(gains):.0f}×", f"{enough:,}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(path: Path, step: Step, networks: tuple[Network, ...]) -> None:
    """Draw the speed-up over the number of workers, one panel per network."""
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(networks), figsize=(5 * len(networks), 4.8), sharey=True, squeeze=False)
    for axes, network in zip(panels[0], networks, strict=True):
        axes.plot(WORKERS, WORKERS, color="0.6", linewidth=1, linestyle="--")
        axes.text(20, 30, "every worker counts", rotation=36, color="0.45", fontsize=9, ha="center")
        for batch, colour in zip(BATCHES, ("#6baed6", "#3182bd", "#08519c", "#041e42"), strict=True):
            gains = [speedup(batch, workers, step, network) for workers in WORKERS]
            axes.plot(WORKERS, gains, color=colour, marker="o", markersize=3.5)
            axes.annotate(
                f"batch {batch:,}", (WORKERS[-1], gains[-1]), (5, -3), textcoords="offset points", color=colour
            )
        axes.set(xscale="log", yscale="log", xlabel="workers", xlim=(0.9, 9000), ylim=(0.3, 1400))
        axes.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
        axes.set_yticks([1, 10, 100, 1000], ["1×", "10×", "100×", "1,000×"])
        axes.minorticks_off()
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(f"{network.name}: α = {1e6 * network.alpha:g} µs, β = {network.beta / 1e9:g} GB/s", fontsize=10)
    panels[0][0].set_ylabel("times faster than one worker")
    figure.suptitle("A model, not a measurement: a training step on up to 1,024 workers, by batch size", fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


# --- what processes measure -------------------------------------------------------------------------------------------


class Process:
    """One of P processes that take training steps together, as the model says; it measures what the model needs."""

    def __init__(self, n: int, micro: int) -> None:
        from mpi4py import MPI

        import idl_ref

        self.comm, self.micro = MPI.COMM_WORLD, micro
        self.rank, self.size = self.comm.Get_rank(), self.comm.Get_size()
        self.data = idl_ref.datasets.digits()[:2]
        model = idl_ref.ImplicitModel(64, 10, n, bias=True, seed=0)
        self.backend = model.settings.resolved_backend()
        self.trainer = model.trainer(model.parameters, "cross_entropy", idl_ref.SGD(1e-9, momentum=0.9))

    def leaf(self, layer: Any, samples: Any) -> Any:
        """Return the backward pass of some samples."""
        U, labels = (array[samples] for array in self.data)
        forward = layer.forward(U.T)
        return layer.backward(forward, self.trainer.loss(forward.Y, labels, None)[1])

    def step(self, batch: int, workers: int) -> None:
        """Take a step on the first `workers` processes: leaves, the tree of sums up and down, and the update."""
        import numpy as np

        layer = self.trainer.layer()
        samples = np.arange(batch) % len(self.data[0])
        leaves = [samples[first : first + self.micro] for first in range(0, batch, self.micro)]
        own = leaves[len(leaves) * self.rank // workers : len(leaves) * (self.rank + 1) // workers]
        total = self.leaf(layer, own[0])
        sums = [*total.factors, total.B, total.C, total.D]
        for chosen in own[1:]:
            more = self.leaf(layer, chosen)
            for G, other in zip(sums, [*more.factors, more.B, more.C, more.D], strict=True):
                G += other
        if workers > 1:
            flat = np.concatenate([G.ravel() for G in sums])
            self.exchange(flat, workers)
            first = 0
            for G in sums:
                G[...] = flat[first : first + G.size].reshape(G.shape)
                first += G.size
        self.trainer.descend(total._replace(factors=tuple(sums[:-3]), B=sums[-3], C=sums[-2], D=sums[-1]))

    def exchange(self, flat: Any, workers: int) -> None:
        """Add up the arrays of all processes along a binary tree, and send the sum down the same tree."""
        import numpy as np

        other, width = np.empty_like(flat), 1
        while width < workers and self.rank % (2 * width) == 0:
            if self.rank + width < workers:
                self.comm.Recv(other, self.rank + width)
                flat += other
            width *= 2
        if self.rank:
            self.comm.Send(flat, self.rank - width)
            self.comm.Recv(flat, self.rank - width)
        while width > 1:
            width //= 2
            if self.rank + width < workers:
                self.comm.Send(flat, self.rank + width)

    def message(self, size: int) -> float:
        """Return the seconds of one message between the first two processes."""
        import numpy as np

        buffer, turns = np.zeros(max(1, size // 4), np.float32), 10
        times = []
        for _ in range(300):  # short ones, between which a busy neighbour may run
            self.comm.Barrier()
            start = time.perf_counter()
            for _ in range(turns):
                if self.rank == 0:
                    self.comm.Send(buffer, 1)
                    self.comm.Recv(buffer, 1)
                elif self.rank == 1:
                    self.comm.Recv(buffer, 0)
                    self.comm.Send(buffer, 0)
            times.append((time.perf_counter() - start) / turns / 2)
        return min(times)

    def timed(self, work: Any, turns: int) -> float:
        """Return the least seconds of a call that all processes begin together: a busy neighbour only adds to them."""
        times = []
        for _ in range(turns):
            self.comm.Barrier()
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return min(times)


def measure(n: int, micro: int) -> None:
    """Measure the constants of the model, and then steps of one and of all processes beside what the model says."""
    import numpy as np

    from idl_ref.blas import one_thread

    process = Process(n, micro)
    with one_thread(process.backend):
        layer = process.trainer.layer()
        small, large = (
            process.timed(lambda size=size: process.leaf(layer, np.arange(size)), 201) for size in (micro // 2, micro)
        )
        sample = (large - small) / (micro - micro // 2)
        total = process.leaf(layer, np.arange(micro))
        arrays = [*total.factors, total.B, total.C, total.D]
        size = sum(G.nbytes for G in arrays)
        update = process.timed(lambda: (process.trainer.descend(total), process.trainer.layer()), 201)
        alpha = process.message(4)
        beta = size / max(process.message(size) - alpha, 1e-9)
        step = Step(large - micro * sample, sample, update, size, micro)
        step, network = process.comm.bcast((step, Network("this machine", alpha, beta)))
        rows = []
        for batch in (64, 128, 256, 512):
            turns = max(5, round(0.5 / seconds(batch, 1, step, network)))  # half a second; five times, in turns
            one = two = math.inf
            for _ in range(5):
                one = min(one, process.timed(partial(process.step, batch, 1) if process.rank == 0 else int, turns))
                two = min(two, process.timed(partial(process.step, batch, process.size), turns))
            rows.append((batch, one, two))
    if process.rank == 0:
        print(f"{step}\n{network}\n")
        print("| batch | one, measured | model | two, measured | model | faster, measured | model |\n|" + "---|" * 7)
        for batch, one, two in rows:
            said, of_two = (seconds(batch, workers, step, network) for workers in (1, process.size))
            times = " | ".join(f"{1e3 * t:.2f} ms" for t in (one, said, two, of_two))
            print(f"| {batch:,} | {times} | {one / two:.2f}× | {said / of_two:.2f}× |")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--alpha", type=float, help="latency of a message of your network, in seconds")
    parser.add_argument("--beta", type=float, help="bandwidth of your network, in bytes per second")
    for name, value in Step()._asdict().items():
        parser.add_argument(f"--{name}", type=type(value), default=value, help=f"{value:g} if not given")
    parser.add_argument("--n", type=int, default=100, help="hidden units of the model that --measure trains")
    parser.add_argument("--measure", action="store_true", help="measure: start it by mpiexec -n 2")
    options = parser.parse_args()
    if (options.alpha is None) != (options.beta is None):
        parser.error("--alpha and --beta belong together; got one of them: give both.")
    if options.measure:
        measure(options.n, options.micro)
        return
    step = Step(*(getattr(options, name) for name in Step._fields))
    yours = () if options.alpha is None else (Network("yours", options.alpha, options.beta),)
    print(table(step, yours or NETWORKS))
    draw(Path("scale.png") if yours else Path(__file__).with_name("scale.png"), step, yours or NETWORKS)


if __name__ == "__main__":
    main()
