"""This module compares predictions with the truth: counts of a classifier, errors of numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from idl_ref.targets import root_mean_square


class Confusion(NamedTuple):
    """How often each class was taken for which.

    Attributes
    ----------
    classes : list
        The classes that occur, those of the model first.
    counts : (K, K) array
        The number of samples of class i that were predicted as class j.
    failed : (K,) array
        The number of samples of class i without a prediction.
    """

    classes: list[Any]
    counts: np.ndarray
    failed: np.ndarray

    @property
    def accuracy(self) -> float:
        """The fraction of all samples that are predicted right; a sample without a prediction is not."""
        return _ratio(np.trace(self.counts), self.support.sum())

    @property
    def support(self) -> np.ndarray:
        """The number of samples of each class."""
        return self.counts.sum(axis=1) + self.failed

    @property
    def precision(self) -> list[float]:
        """Of the samples predicted as a class, the fraction that belongs to it; NaN if there are none."""
        return [_ratio(*pair) for pair in zip(self.counts.diagonal(), self.counts.sum(axis=0), strict=True)]

    @property
    def recall(self) -> list[float]:
        """Of the samples of a class, the fraction that is predicted as it; NaN if there are none."""
        return [_ratio(*pair) for pair in zip(self.counts.diagonal(), self.support, strict=True)]

    def mistakes(self) -> list[tuple[int, int, int]]:
        """Return (count, i, j) for every class i that was taken for another class j, the most frequent first."""
        wrong = self.counts - np.diag(self.counts.diagonal())
        return sorted(((int(wrong[i, j]), int(i), int(j)) for i, j in np.argwhere(wrong)), key=lambda m: (-m[0], m[1:]))


class Errors(NamedTuple):
    """Predicted numbers of one output, and what is left to the truth, for the samples that have both.

    Attributes
    ----------
    predicted, residual : (k,) arrays
        The predictions, and truth − prediction.
    rmse, mae : float
        The root of the mean square of the residuals, and the mean of their absolute values; NaN if k = 0.
    r2 : float
        1 − Σ residual² / Σ (truth − its mean)²; NaN if the truth is constant.
    """

    predicted: np.ndarray
    residual: np.ndarray
    rmse: float
    mae: float
    r2: float


def confusion(truth: Any, predicted: Any, classes: Any = None) -> Confusion:
    """Count predicted against true labels (m,). A prediction that is None or NaN is none.

    `classes` come first in the result, and those that only the data have follow, in the order of their names.
    """
    true, given = np.asarray(truth), np.asarray(predicted).tolist()
    if true.ndim != 1:
        raise ValueError(f"labels must have shape (m,); got {true.shape}: pass one label per sample, not one-hot rows.")
    true = true.tolist()
    if any(map(_missing, true)):
        j = next(j for j, label in enumerate(true) if _missing(label))
        raise ValueError(f"truth must hold a label for every sample; got {true[j]} for sample {j}: leave it out.")
    known = [] if classes is None else np.asarray(classes).tolist()
    others = {label for label in {*true, *given} if not _missing(label)} - set(known)
    known += sorted(others, key=lambda label: (isinstance(label, str), label))
    place = {label: i for i, label in enumerate(known)}
    counts, failed = np.zeros((len(known), len(known)), int), np.zeros(len(known), int)
    for i, label in zip(map(place.__getitem__, true), given, strict=True):
        if _missing(label):
            failed[i] += 1
        else:
            counts[i, place[label]] += 1
    return Confusion(known, counts, failed)


def errors(truth: np.ndarray, predicted: np.ndarray) -> Errors:
    """Compare predicted with true numbers (m,); samples without a finite prediction are left out."""
    answered = np.isfinite(predicted) & np.isfinite(truth)
    truth, predicted = truth[answered], predicted[answered]
    m = len(truth)
    with np.errstate(over="ignore", invalid="ignore"):  # Differences of huge numbers are inf, and so are their means.
        residual = truth - predicted
        rmse = float(root_mean_square(residual)) if m else float("nan")
        spread = float(root_mean_square(truth - truth.mean())) if m else 0.0
        mae = _ratio(np.abs(residual).sum(), m)
        r2 = 1 - float(np.square(rmse / spread)) if spread > 0 else float("nan")
    return Errors(predicted, residual, rmse, mae, r2)


def _ratio(part: float, whole: float) -> float:
    """Return part/whole; NaN if whole is 0."""
    return float(part) / float(whole) if whole else float("nan")


def _missing(label: Any) -> bool:
    """Tell whether a label stands for a sample that failed."""
    return label is None or label != label
