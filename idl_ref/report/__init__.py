"""This module writes a report of a training: one page of HTML that needs neither the network nor a script."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from idl_ref import activations, checks, factors, files, reasons, wellposed
from idl_ref._version import __version__
from idl_ref.model import ImplicitModel
from idl_ref.report import markup, results, training
from idl_ref.report.markup import number, table, text
from idl_ref.training.history import History

__all__ = ["write"]


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
    checks.unmasked("truth", truth)
    checks.unmasked("predicted", predicted)
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
    cards: list[tuple[str, str]] = []
    tests: list[str] = []
    if truth is not None and predicted is not None and len(truth):
        classify = model.classes is not None or bool(history.accuracy) or truth.dtype.kind not in "fiu"
        cards, tests = results.labels(model, truth, predicted) if classify else results.numbers(truth, predicted)
    return markup.page(
        "Report of a training",
        _cards([*cards, *_effort(history)]),
        markup.section("Test samples", *tests),
        markup.section("Training", training.notes(history), training.curves(model, history), training.epochs(history)),
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


def _facts(model: ImplicitModel) -> str:
    """Return a table of what the model is."""
    weights = model.effective_weights()
    phi = activations.get(model.activation)
    reason = reasons.strongest(weights.factors, phi)
    size = sum(W.size for W in model.parameters.values())
    shapes = ", ".join(f"{name} {W.shape[0]} × {W.shape[1]}" for name, W in model.parameters.items())
    facts = {
        "Equations": "X = φ(A X + B U), Ŷ = C X" + ("" if model.no_D else " + D U"),
        "Inputs, hidden states, outputs": f"{model.input_dim}, {model.hidden_dim}, {model.output_dim}",
        "Activation φ": f"{model.activation}, with the Lipschitz constant {phi.lipschitz:g}",
        "Map f of A": f"{model.f.__name__}, κ = {model.kappa:g}",
        "Parameters": f"{number(size)}: {shapes}" + ("; a column of B is the bias" if model.bias else ""),
        "Number format": f"{model.dtype}",
        "‖A‖∞": number(factors.norm_inf(weights.factors)) + (", a bound" if model.is_low_rank else ""),
        "Perron root of |A|": f"at most {number(wellposed.perron_root(weights.A).upper)}",
        "One state for every input": f"shown: {reason.text}" if reason else "not shown",
        "Solver": f"{model.method}, tolerance {model.tol:g}, at most {model.mitr} iterations",
        "Inputs are standardised": "no" if model.preprocessing is None else "yes, by the model itself",
    }
    return table("Settings and weights", [], [[text(word), text(fact)] for word, fact in facts.items()], "facts")
