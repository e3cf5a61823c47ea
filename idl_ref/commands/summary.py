"""This module has what the command `train` says at its end: how good the model is, and what went wrong."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from idl_ref import labels
from idl_ref.commands.data import Data
from idl_ref.model import ImplicitModel
from idl_ref.optim import Optimizer
from idl_ref.targets import root_mean_square
from idl_ref.train import History
from idl_ref.training import evaluation

CHUNK = 4096  # Outputs are computed for so many samples at a time.


class Quality(NamedTuple):
    """How well a model answers a data set of m samples."""

    m: int
    failed: int  # samples without an answer
    loss: float  # for numbers, the mean square of the errors in units of the standard deviation of each target
    accuracy: float | None = None  # for classes; samples that failed count as wrong
    R2: float | None = None  # for numbers, the mean over the targets, of the samples that have an answer
    rmse: tuple[float, ...] = ()  # the root mean square error of each target, in its units

    def words(self) -> str:
        """Return the figures in words, and say how many samples failed."""
        if self.accuracy is not None:
            return labels.accuracy(self.accuracy, self.failed, self.m)
        shown = ", ".join(f"{error:.4g}" for error in self.rmse)
        text = f"R²: {self.R2:.4f}; root mean square error: {shown}"
        return text + (f"; {self.failed} of {self.m} samples failed and are left out" if self.failed else "")


def quality(model: ImplicitModel, X: np.ndarray, targets: np.ndarray, classifies: bool) -> Quality:
    """Return how well a model answers samples X whose targets are known."""
    if classifies:
        found = evaluation.measure(model, X, targets)
        return Quality(len(X), found.failed, found.loss, found.accuracy)
    return of_numbers(targets, *outputs(model, X))


def outputs(model: ImplicitModel, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the outputs Y (m, q) for samples X in float64, and which samples (m,) have an answer."""
    Y, known = np.empty((len(X), model.output_dim)), np.zeros(len(X), bool)
    for j in range(0, len(X), CHUNK):
        forward = model.forward_pass(X[j : j + CHUNK])
        Y[j : j + CHUNK], known[j : j + CHUNK] = forward.Y.T, labels.has_class(forward)
    return Y, known


def of_numbers(T: np.ndarray, Y: np.ndarray, known: np.ndarray) -> Quality:
    """Return the figures for predicted numbers Y (m, q), their truth T, and which samples (m,) have an answer."""
    failed = len(T) - int(known.sum())
    if failed == len(T):
        return Quality(len(T), failed, np.nan, None, np.nan, (np.nan,) * T.shape[1])
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        rmse = root_mean_square(T[known] - Y[known])
        spread = root_mean_square(T[known] - T[known].mean(axis=0))
        R2 = np.where(spread > 0, 1 - np.square(rmse / spread), np.where(rmse > 0, -np.inf, 1.0))
        loss = np.square(rmse / np.where(spread > 0, spread, 1.0)).mean()
    return Quality(len(T), failed, float(loss), None, float(R2.mean()), tuple(rmse.tolist()))


def table(
    model: ImplicitModel, data: Data, history: History, optimizer: Optimizer, train: Quality, test: Quality | None
) -> str:
    """Return the summary of a training, one fact a line."""
    what = "class" if data.classifies else "number in raw units"
    seconds = sum(history.seconds)
    rows = {
        "samples": f"{len(data.x_train)} to train, {len(data.x_test)} to test",
        "model": f"{model.input_dim} inputs, {model.hidden_dim} hidden units, {counted(model.output_dim, what)}",
        "training": f"loss {history.loss[-1]:.4g} after {counted(len(history.loss), 'epoch')} in {seconds:.1f} s",
        "learning rate": f"{optimizer.state()[0]['base']:.3g} at first, and {history.learning_rate[-1]:.3g} at last",
        "iterations": f"{history.forward_iterations[-1][0]:.1f} a sample; at most {history.forward_iterations[-1][1]}",
        "‖A‖∞": f"{history.norm[-1]:.4f}; Perron root of |A| ≤ {history.perron_root[-1]:.4f}",
        "on training data": train.words(),
    }
    if test is not None:
        rows["on test data"] = test.words()
    return "\n".join(f"  {name:<18}{words}" for name, words in rows.items())


def counted(count: int, what: str) -> str:
    """Return a number of things in words, whose first word has the plural."""
    first, _, rest = what.partition(" ")
    plural = f"{first}es" if first.endswith("s") else f"{first}s"
    return " ".join(filter(None, [str(count), first if count == 1 else plural, rest]))
