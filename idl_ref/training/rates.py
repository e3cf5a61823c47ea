"""This module finds a learning rate by short trial trainings.

From the same weights and with the same minibatches, one trial after the other takes STEPS steps, each with a larger
rate than the one before, until the loss grows beyond twice that of the start. Let η be the rate whose trial ended
with the smallest loss. The result is SHARE η, because the best rate for a few steps is near the largest that is stable,
and because the curvature of the loss grows in the course of a training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from idl_ref.backends.numpy import Trainer
from idl_ref.optim import Optimizer
from idl_ref.training.checkpoint import Snapshot
from idl_ref.training.leaves import LeafTrainer
from idl_ref.training.samples import Samples

RATES = tuple(float(10.0 ** (exponent / 2)) for exponent in range(-10, 3))  # 1e-5 … 10
STEPS = 40
LAST = 10  # The loss of a trial is the mean over its last steps.
SHARE = 0.5


def find(
    parameters: Mapping[str, np.ndarray],
    optimizer: Optimizer,
    new_trainer: Callable[[], Trainer | LeafTrainer],
    samples: Samples,
    minibatches: Sequence[np.ndarray],
) -> float:
    """Return a learning rate for an optimizer. The parameters are the same afterwards, and the optimizer is reset.

    minibatches: the numbers of the samples of each
    """
    start = Snapshot.of(parameters, optimizer)
    ends: dict[float, float] = {RATES[0]: math.inf}
    for rate in RATES:
        optimizer.start(STEPS * len(RATES), rate)
        try:
            losses = _trial(new_trainer(), samples, minibatches)
        except FloatingPointError:
            break
        finally:
            start.put_back(parameters)
        value = float(np.mean(losses[-LAST:]))
        if not value <= 2 * losses[0]:
            break
        ends[rate] = value
    optimizer.start()
    return SHARE * min(ends, key=lambda rate: ends[rate])


def _trial(trainer: Trainer | LeafTrainer, samples: Samples, minibatches: Sequence[np.ndarray]) -> list[float]:
    """Return the losses of STEPS training steps, each before its step."""
    U, T, weights = samples
    return [trainer.step(U, T, weights, minibatches[i % len(minibatches)]).loss for i in range(STEPS)]
