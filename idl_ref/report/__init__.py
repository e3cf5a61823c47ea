"""This module writes a report of a training: one page of HTML that needs neither the network nor a script."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from idl_ref import activations, factors, files, wellposed
from idl_ref._version import __version__
from idl_ref.report import charts, markup, scores
from idl_ref.report.markup import number, percent, table, text

if TYPE_CHECKING:
    from idl_ref.model import ImplicitModel
    from idl_ref.train import History

__all__ = ["write"]

MOST_CLASSES = 25  # A confusion matrix of more classes is not drawn.
MOST_MISTAKES = 10
MOST_OUTPUTS = 6
MOST_EPOCHS = 200  # rows of the table of epochs


def write(
    path: str | os.PathLike[str], model: ImplicitModel, history: History, *, truth: Any = None, predicted: Any = None
) -> None:
    """Write a page about a trained model: what it is, how well it predicts, and how its training went.

    The page is one file with drawings and tables, for light and dark screens of any width. It holds no script, loads
    nothing, and names of classes are escaped.

    Parameters
    ----------
    path : str or path
        The file to write, such as report.html; it is replaced as a whole.
    model : ImplicitModel
        The trained model.
    history : History
        The result of `fit`.
    truth, predicted : (m,) labels, or (m,) or (m, q) numbers, optional
        Test samples: what is true, and what the model says. They are labels if the model has classes, the history has
        an accuracy, or the truth is not numbers. A prediction that is None or NaN is that of a sample that failed.

    Raises
    ------
    ValueError
        Only one of truth and predicted is given, or they have different shapes.
    OSError
        The file cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from idl_ref import ImplicitModel, datasets, fit
    >>> x, y = datasets.two_moons(60)
    >>> model = ImplicitModel(2, 2, 8, bias=True, seed=0)
    >>> history = fit(model, x, y, epochs=3, progress=False)
    >>> with TemporaryDirectory() as folder:
    ...     write(f"{folder}/report.html", model, history, truth=y, predicted=model(x).argmax(axis=1))
    """
    content = _page(model, history, *_checked(truth, predicted))
    with files.replacing(path, "w") as stream:
        stream.write(content)


def _checked(truth: Any, predicted: Any) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return truth and predictions as arrays of the same shape, or twice None."""
    if (truth is None) != (predicted is None):
        missing = "predicted" if predicted is None else "truth"
        raise ValueError(f"truth and predicted must both be given, or neither; got no {missing}: pass it too.")
    if truth is None:
        return None, None
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.ndim == 2 and truth.shape[1] == 1:
        truth = truth[:, 0]
    if predicted.ndim == 2 and predicted.shape[1] == 1:
        predicted = predicted[:, 0]
    if predicted.shape != truth.shape or truth.ndim not in (1, 2):
        raise ValueError(
            f"truth and predicted must have the same shape, (m,) or (m, q); got {truth.shape} and {predicted.shape}: "
            "pass one prediction per sample."
        )
    return truth, predicted


def _page(model: ImplicitModel, history: History, truth: np.ndarray | None, predicted: np.ndarray | None) -> str:
    """Return the text of the page."""
    cards, results = [], []
    if truth is not None and predicted is not None and len(truth):
        labels = model.classes is not None or bool(history.accuracy) or truth.dtype.kind not in "fiu"
        cards, results = _classes(model, truth, predicted) if labels else _numbers(truth, predicted)
    return markup.page(
        "Report of a training",
        _cards([*cards, *_effort(history)]),
        markup.section("Test samples", *results),
        markup.section("Training", *_notes(history), _curves(model, history), _epochs(history)),
        markup.section("Model", _facts(model)),
        f"<footer><p>Written by idl_ref {text(__version__)}.</p></footer>",
    )


def _cards(pairs: Sequence[tuple[str, str]]) -> str:
    """Return the figures that are read first."""
    return f'<dl class="cards">{"".join(f"<div><dt>{text(k)}</dt><dd>{v}</dd></div>" for k, v in pairs)}</dl>'


def _effort(history: History) -> list[tuple[str, str]]:
    """Return the loss, the number of epochs and their time."""
    last = [("Training loss", number(history.loss[-1]))] if history.loss else []
    return [*last, ("Epochs", number(len(history.loss))), ("Time", markup.duration(sum(history.seconds)))]


# --- test samples -----------------------------------------------------------------------------------------------------


def _classes(model: ImplicitModel, truth: np.ndarray, predicted: np.ndarray) -> tuple[list[tuple[str, str]], list[str]]:
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


def _numbers(truth: np.ndarray, predicted: np.ndarray) -> tuple[list[tuple[str, str]], list[str]]:
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


# --- training ---------------------------------------------------------------------------------------------------------


def _notes(history: History) -> list[str]:
    """Return sentences about what happened during the training."""
    notes = [text(event) for event in getattr(history, "events", [])]
    if history.interrupted:
        notes.append("The training was interrupted.")
    if any(history.unconverged):
        notes.append(
            f"{number(sum(history.unconverged))} solves of training samples did not converge, over all epochs."
        )
    return [f"<ul>{''.join(f'<li>{note}</li>' for note in notes)}</ul>"] if notes else []


def _curves(model: ImplicitModel, history: History) -> str:
    """Draw the curves of a training."""
    column = lambda values: np.array(values, float)  # noqa: E731
    lipschitz = activations.get(model.activation).lipschitz
    counts = [column(c).reshape(-1, 2).T for c in (history.forward_iterations, history.adjoint_iterations)]
    (mean, largest), (adjoint_mean, adjoint_largest) = counts
    Series = charts.Series
    drawn = [
        charts.lines("Loss", "mean over samples", [
            Series("training", column(history.loss), 0), Series("validation", column(history.validation_loss), 1)], log=True),
        charts.lines("Accuracy", "%", [
            Series("training", 100 * column(history.accuracy), 0),
            Series("validation", 100 * column(history.validation_accuracy), 1)]),
        charts.lines("Learning rate", "", [Series("learning rate", column(getattr(history, "learning_rate", [])), 0)]),
        charts.lines("Iterations", "per sample", [
            Series("forward, mean", mean, 0), Series("forward, largest", largest, 0, True),
            Series("adjoint, mean", adjoint_mean, 1), Series("adjoint, largest", adjoint_largest, 1, True)], zero=True),
        charts.lines("Well-posedness of A", "", [
            Series("‖A‖∞", column(history.norm), 0), Series("Perron root of |A|", column(history.perron_root), 1)],
            zero=True, bound=(f"well posed if a curve is below {1 / lipschitz:g}", 1 / lipschitz)),
    ]  # fmt: skip
    return f'<div class="charts">{"".join(drawn)}</div>' if any(drawn) else "<p>No epoch was completed.</p>"


def _epochs(history: History) -> str:
    """Return the numbers behind the curves as a table that is folded away."""
    columns = {
        "Loss": history.loss, "Accuracy": history.accuracy, "Validation loss": history.validation_loss,
        "Validation accuracy": history.validation_accuracy, "Learning rate": getattr(history, "learning_rate", []),
        "Iterations": [mean for mean, _ in history.forward_iterations], "Not converged": history.unconverged,
        "‖A‖∞": history.norm, "Perron root": history.perron_root, "Seconds": history.seconds,
    }  # fmt: skip
    columns = {word: values for word, values in columns.items() if len(values)}
    if not columns:
        return ""
    m = max(map(len, columns.values()))
    every = -(-m // MOST_EPOCHS)
    rows = []
    for k in sorted({*range(0, m, every), m - 1}):
        cells = [number(values[k]) if k < len(values) else "–" for values in columns.values()]
        rows.append([str(k + 1), *cells])
    some = f", every {every}th" if every > 1 else ""
    return f"<details><summary>All numbers</summary>{table('Each epoch' + some, ['Epoch', *columns], rows)}</details>"


# --- the model --------------------------------------------------------------------------------------------------------


def _facts(model: ImplicitModel) -> str:
    """Return a table of what the model is."""
    weights = model.effective_weights()
    lipschitz = activations.get(model.activation).lipschitz
    size = sum(W.size for W in model.parameters.values())
    shapes = ", ".join(f"{name} {W.shape[0]} × {W.shape[1]}" for name, W in model.parameters.items())
    facts = {
        "Equations": "X = φ(A X + B U), Ŷ = C X" + ("" if model.no_D else " + D U"),
        "Inputs, hidden states, outputs": f"{model.input_dim}, {model.hidden_dim}, {model.output_dim}",
        "Activation φ": f"{model.activation}, with the Lipschitz constant {lipschitz:g}",
        "Map f of A": f"{model.f.__name__}, κ = {model.kappa:g}",
        "Parameters": f"{number(size)}: {shapes}" + ("; a column of B is the bias" if model.bias else ""),
        "Number format": f"{model.dtype}",
        "‖A‖∞": number(factors.norm_inf(weights.factors)) + (", a bound" if model.is_low_rank else ""),
        "Perron root of |A|": f"at most {number(wellposed.perron_root(weights.A).upper)}",
        "Solver": f"{model.method}, tolerance {model.tol:g}, at most {model.mitr} iterations",
        "Inputs are standardised": "no" if model.preprocessing is None else "yes, by the model itself",
    }
    return table("Settings and weights", [], [[text(word), text(fact)] for word, fact in facts.items()], "facts")
