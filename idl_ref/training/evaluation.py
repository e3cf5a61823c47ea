"""This module measures loss and accuracy over a data set."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from idl_ref import losses
from idl_ref.choices import AnyLoss
from idl_ref.labels import has_class, hits
from idl_ref.model import ImplicitModel
from idl_ref.solution import report
from idl_ref.training.ranks import ALONE, Ranks
from idl_ref.training.samples import Samples, inputs_and_targets
from idl_ref.training.tree import share

CHUNK = 1024  # A data set is evaluated in chunks of this many samples.


def evaluate(
    model: ImplicitModel, U: Any, targets: Any, *, loss: AnyLoss = "cross_entropy"
) -> tuple[float, float | None]:
    """Return the mean loss over a data set, and the accuracy for cross_entropy, else None.

    Parameters
    ----------
    model, U, targets, loss
        As for `fit`. A loss of your own must be a mean over samples.

    Returns
    -------
    loss : float
    accuracy : float or None
        The fraction of samples whose largest output is that of their label. A sample that did not converge, or whose
        outputs are not finite, counts as wrong.
    """
    value, accuracy, _ = measured(model, Samples(*inputs_and_targets(model, "U", U, targets, loss), None), loss)
    return value, accuracy


class Measured(NamedTuple):
    """The mean loss and the accuracy over a data set, and the number of samples that failed."""

    loss: float
    accuracy: float | None  # None for a loss that does not classify
    failed: int


def measure(model: ImplicitModel, U: Any, targets: Any, loss: AnyLoss = "cross_entropy") -> Measured:
    """Return what `evaluate` returns, and the number of samples that did not converge or whose outputs are not finite.

    They cause neither a warning nor an exception.
    """
    return measured(model, Samples(*inputs_and_targets(model, "U", U, targets, loss), None), loss, quiet=True)


def measured(
    model: ImplicitModel, samples: Samples, loss: AnyLoss, quiet: bool = False, ranks: Ranks = ALONE
) -> Measured:
    """Do the same as `measure` for inputs and targets that are checked already, and preprocessed.

    Unless `quiet` is true, warn or raise an exception for samples that failed, as the model's on_failure says. The
    chunks are shared between `ranks`, and their sums are added up in the same order on any number of them.
    """
    layer, options, m = model.layer(), model.settings.options.forward, len(samples.U)

    def chunk(j: int) -> tuple[float, int, int]:
        """Return the sum of the losses, and how many samples are right and have a class."""
        U, T, weights = samples.some(slice(j, j + CHUNK))
        forward = layer.forward(U.T)
        if not quiet:
            report(forward.solution, forward.weights.factors, options, "forward", "mitr")
        with np.errstate(over="ignore", invalid="ignore"):  # A failed sample makes the loss NaN, which is returned.
            value = float(losses.get(loss)(forward.Y, T, weights)[0]) * len(U)
        return value, hits(forward, T) if loss == "cross_entropy" else 0, int(has_class(forward).sum())

    def own() -> list[tuple[float, int, int]]:
        """Return the sums of the chunks of this rank."""
        return [chunk(j * CHUNK) for j in range(*share(-(-m // CHUNK), ranks.rank, ranks.size))]

    total, correct, answered = 0.0, 0, 0
    for part in ranks.each(own):
        for value, right, known in part:
            total, correct, answered = total + value, correct + right, answered + known
    return Measured(total / max(m, 1), correct / max(m, 1) if loss == "cross_entropy" else None, m - answered)
