"""This module has the figures of an epoch that is under way."""

from __future__ import annotations

from dataclasses import dataclass

from idl_ref.backends.numpy.trainer import Counts
from idl_ref.training.history import History


@dataclass
class Epoch:
    """The figures of an epoch that is under way: sums over the steps that were taken."""

    batches: int = 0
    loss: float = 0.0
    hits: int = 0
    samples: int = 0
    unconverged: int = 0
    forward_sum: int = 0
    forward_most: int = 0
    adjoint_sum: int = 0
    adjoint_most: int = 0
    seconds: float = 0.0

    def add(self, loss: float, counts: Counts, samples: int, seconds: float) -> None:
        """Add the figures of one step."""
        self.batches += 1
        self.loss += loss * samples
        self.hits += counts.right
        self.samples += samples
        self.unconverged += counts.failed
        self.forward_sum += counts.forward_sum
        self.forward_most = max(self.forward_most, counts.forward_most)
        self.adjoint_sum += counts.adjoint_sum
        self.adjoint_most = max(self.adjoint_most, counts.adjoint_most)
        self.seconds += seconds

    def record(self, history: History, classifies: bool) -> None:
        """Append the means to a history."""
        m = max(self.samples, 1)
        history.loss.append(self.loss / m)
        if classifies:
            history.accuracy.append(self.hits / m)
        history.forward_iterations.append((self.forward_sum / m, self.forward_most))
        history.adjoint_iterations.append((self.adjoint_sum / m, self.adjoint_most))
        history.unconverged.append(self.unconverged)
        history.seconds.append(self.seconds)
