"""This module writes the part of a report on the training: what happened, curves, and the numbers behind them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from idl_ref import activations
from idl_ref.model import ImplicitModel
from idl_ref.report import charts
from idl_ref.report.charts import Series
from idl_ref.report.markup import number, table, text
from idl_ref.training.history import History

MOST_EPOCHS = 200  # rows of the table of epochs


def notes(history: History) -> str:
    """Return a list of sentences about what happened."""
    found = [text(event[:1].upper() + event[1:]).rstrip(".") + "." for event in history.events]
    if history.interrupted:
        found.append("The training was interrupted.")
    if any(history.unconverged):
        found.append(f"Training samples that did not converge, over all epochs: {number(sum(history.unconverged))}.")
    return f"<ul>{''.join(f'<li>{sentence}</li>' for sentence in found)}</ul>" if found else ""


def curves(model: ImplicitModel, history: History) -> str:
    """Draw the curves of a training."""
    bound = 1 / activations.get(model.activation).lipschitz
    losses = _two(("training", history.loss), ("validation", history.validation_loss))
    accuracies = _two(("training", history.accuracy), ("validation", history.validation_accuracy), scale=100)
    norms = _two(("‖A‖∞", history.norm), ("Perron root of |A|", history.perron_root))
    drawn = [
        charts.lines("Loss", "mean over samples", losses, log=True),
        charts.lines("Accuracy", "%", accuracies),
        charts.lines("Learning rate", "", _two(("last step of an epoch", history.learning_rate))),
        charts.lines("Iterations", "per sample", _iterations(history), zero=True),
        charts.lines(
            "Well-posedness of A", "", norms, zero=True, bound=(f"well posed if a curve is below {bound:g}", bound)
        ),
    ]
    return f'<div class="charts">{"".join(drawn)}</div>' if any(drawn) else "<p>No epoch was completed.</p>"


def _two(*curves: tuple[str, Sequence[float]], scale: float = 1.0) -> list[Series]:
    """Return curves with their names, in the first colours."""
    return [Series(name, scale * np.array(values, float), style) for style, (name, values) in enumerate(curves)]


def _iterations(history: History) -> list[Series]:
    """Return the curves of the iterations: means as lines, the largest numbers dotted."""
    found = []
    for style, name in enumerate(("forward", "adjoint")):
        mean, largest = np.array(getattr(history, f"{name}_iterations"), float).reshape(-1, 2).T
        found += [Series(f"{name}, mean", mean, style), Series(f"{name}, largest", largest, style, True)]
    return found


def epochs(history: History) -> str:
    """Return the numbers behind the curves as a table that is folded away."""
    columns: dict[str, Sequence[float]] = {
        "Loss": history.loss,
        "Accuracy": history.accuracy,
        "Validation loss": history.validation_loss,
        "Validation accuracy": history.validation_accuracy,
        "Learning rate": history.learning_rate,
        "Iterations": [mean for mean, _ in history.forward_iterations],
        "Not converged": history.unconverged,
        "‖A‖∞": history.norm,
        "Perron root": history.perron_root,
        "Seconds": history.seconds,
    }
    columns = {name: values for name, values in columns.items() if values}
    m = max(map(len, columns.values()), default=0)
    if not m:
        return ""
    every = -(-m // MOST_EPOCHS)
    rows = []
    for k in sorted({*range(0, m, every), m - 1}):
        rows.append([str(k + 1), *(number(values[k]) if k < len(values) else "–" for values in columns.values())])
    caption = f"One of {every} epochs, and the last one" if every > 1 else "Each epoch"
    return f"<details><summary>All numbers</summary>{table(caption, ['Epoch', *columns], rows)}</details>"
