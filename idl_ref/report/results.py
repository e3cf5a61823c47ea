"""This module writes the part of a report on test samples: what the model says of them, and how often it is right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from idl_ref.model import ImplicitModel
from idl_ref.report import charts, markup, scores
from idl_ref.report.markup import number, percent, table

MOST_CLASSES = 25  # A confusion matrix of more classes is not drawn.
MOST_MISTAKES = 10
MOST_OUTPUTS = 6

Found = tuple[list[tuple[str, str]], list[str]]


def labels(model: ImplicitModel, truth: np.ndarray, predicted: np.ndarray) -> Found:
    """Return the figures and the tables for labels."""
    known = model.classes
    if known is None and truth.dtype.kind in "fiub":
        known = np.arange(model.output_dim)
    counted = scores.confusion(truth, predicted, known)
    failed = int(counted.failed.sum())
    names = [markup.name(label) for label in counted.classes]
    rows = [
        [names[i], percent(p), percent(r), percent(2 * p * r / (p + r) if p + r else np.nan), number(count)]
        for i, (p, r, count) in enumerate(zip(counted.precision, counted.recall, counted.support.tolist(), strict=True))
    ]
    parts = [
        _samples(len(truth), failed, "A sample that failed counts as wrong."),
        _matrix(counted, names),
        table("Each class", ["Class", "Precision", "Recall", "F1", "Samples"], rows),
        _mistakes(counted, names),
    ]
    return [("Test accuracy", percent(counted.accuracy)), ("Failed samples", number(failed))], parts


def _samples(m: int, failed: int, rule: str) -> str:
    """Return a sentence about the number of samples, and of those that failed."""
    without = f" {number(failed)} of them failed, and have no prediction. {rule}" if failed else ""
    return f"<p>{number(m)} samples.{without}</p>"


def _matrix(counted: scores.Confusion, names: Sequence[str]) -> str:
    """Return the confusion matrix; a sentence if it has too many classes."""
    if len(names) > MOST_CLASSES:
        return f"<p>The confusion matrix of {len(names)} classes is not drawn.</p>"
    failed = bool(counted.failed.any())
    rows = []
    for i, (count, total) in enumerate(zip(counted.counts.tolist(), counted.support.tolist(), strict=True)):
        cells = [_cell(c, c / max(total, 1), "hit" if i == j else "miss") for j, c in enumerate(count)]
        lost = int(counted.failed[i])
        rows.append([names[i], *cells, *([_cell(lost, lost / max(total, 1), "miss")] if failed else [])])
    head = ["True class", *names, *(["failed"] if failed else [])]
    return table("Confusion matrix: a row for each true class, a column for each predicted class", head, rows, "matrix")


def _cell(count: int, share: float, style: str) -> str:
    """Return a cell of the confusion matrix, which is the more coloured the larger its share of the row is."""
    shade = f'class="{style}" style="--share: {share:.3f}"' if count else 'class="zero"'
    return f"<td {shade}>{number(count)}</td>"


def _mistakes(counted: scores.Confusion, names: Sequence[str]) -> str:
    """Return a table of the most frequent mistakes."""
    found = counted.mistakes()
    rows = [[names[i], names[j], number(count)] for count, i, j in found[:MOST_MISTAKES]]
    head = ["True class", "Predicted class", "Samples"]
    return table("The most frequent mistakes", head, rows, "mistakes") if rows else ""


def numbers(truth: np.ndarray, predicted: np.ndarray) -> Found:
    """Return the figures, the table and the drawings for numbers."""
    truth, predicted = (np.asarray(M, float).reshape(len(M), -1) for M in (truth, predicted))
    failed = int((~np.isfinite(predicted)).any(axis=1).sum())
    outputs = [scores.errors(t, y) for t, y in zip(truth.T, predicted.T, strict=True)]
    cards = [("Failed samples", number(failed))]
    if len(outputs) == 1:
        cards = [("Test R²", number(outputs[0].r2)), ("Test RMSE", number(outputs[0].rmse)), *cards]
    rows = [[number(k), *map(number, (e.r2, e.rmse, e.mae))] for k, e in enumerate(outputs, 1)]
    drawn = [_residuals(k, e, len(outputs)) for k, e in enumerate(outputs[:MOST_OUTPUTS], 1) if len(e.residual)]
    parts = [
        _samples(len(truth), failed, "The figures are those of the others."),
        table("Each output", ["Output", "R²", "RMSE", "Mean absolute error"], rows),
        f'<div class="charts">{"".join(drawn)}</div>' if drawn else "",
    ]
    if len(outputs) > MOST_OUTPUTS:
        parts.append(f"<p>The first {MOST_OUTPUTS} of {len(outputs)} outputs are drawn.</p>")
    return cards, parts


def _residuals(k: int, e: scores.Errors, q: int) -> str:
    """Draw the residuals of output k of q."""
    title = "Residuals, truth − prediction" + (f", of output {k}" if q > 1 else "")
    alt = f"{title}, against the prediction, for {len(e.residual)} samples: RMSE {e.rmse:.4g}, R² {e.r2:.4g}."
    return charts.scatter(title, "prediction", e.predicted, e.residual, alt)
