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
    """What a training step costs a worker, without messages. These constants were measured by --measure; see the page."""

    leaf: float = 63e-6  # seconds for a leaf: one forward and one adjoint solve and the gradients
    sample: float = 2.2e-6  # seconds for each of its samples
    update: float = 60e-6  # seconds for the pullback and the step of SGD, which every worker makes
    gradients: float = 73e3  # bytes of all gradients
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

    figure, panels = plt.subplots(1, len(networks), figsize=(4.6 * len(networks), 4.8), sharey=True, squeeze=False)
    for axes, network in zip(panels[0], networks, strict=True):
        axes.plot(WORKERS, WORKERS, color="0.6", linewidth=1, linestyle="--")
        axes.text(20, 26, "every worker counts", rotation=38, color="0.45", fontsize=9, ha="center")
        for batch, colour in zip(BATCHES, ("#9ecae1", "#6baed6", "#2171b5", "#08306b"), strict=True):
            gains = [speedup(batch, workers, step, network) for workers in WORKERS]
            axes.plot(WORKERS, gains, color=colour, marker="o", markersize=3.5)
            axes.annotate(f"{batch:,}", (WORKERS[-1], gains[-1]), (5, -3), textcoords="offset points", color=colour)
        axes.set(xscale="log", yscale="log", xlabel="workers", xlim=(0.9, 2600), ylim=(0.3, 1400))
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


# --- what two processes measure -----------------------------------------------------------------------------------------
