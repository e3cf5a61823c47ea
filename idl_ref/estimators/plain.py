"""This module does what `conventional` does, in an environment without scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np

from idl_ref import checks


class BaseEstimator:
    """The place of scikit-learn's class. What reads and sets parameters for scikit-learn is not needed here."""


class MultiOutputMixin:
    """The place of scikit-learn's class, which only declares that y may have several columns."""


class ClassifierMixin:
    """The place of scikit-learn's class."""

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the fraction of samples whose predicted class is y (m,)."""
        right = self.predict(X) == np.asarray(y)  # type: ignore[attr-defined]
        return float(np.average(right, weights=sample_weight))


class RegressorMixin:
    """The place of scikit-learn's class."""

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return R² = 1 − Σ (y − ŷ)² / Σ (y − ȳ)², its mean over the columns of y; a constant column counts 1 or 0."""
        T = np.asarray(y, np.float64).reshape(len(y), -1)
        predicted = self.predict(X).reshape(len(T), -1)  # type: ignore[attr-defined]
        mean = np.average(T, axis=0, weights=sample_weight)
        left = np.average((T - predicted) ** 2, axis=0, weights=sample_weight)
        total = np.average((T - mean) ** 2, axis=0, weights=sample_weight)
        constant = np.where(left > 0, 0.0, 1.0)
        return float(np.mean(np.where(total > 0, 1 - left / np.where(total > 0, total, 1.0), constant)))


def samples(estimator: Any, X: Any) -> np.ndarray:
    """Return the samples X (m, p) to predict for, after checking that the estimator is fitted and X fits it."""
    _check_is_fitted(estimator)
    return checks.finite("X", checks.samples("X", _rows(X), "p", estimator.n_features_in_, None))


def labelled(estimator: Any, X: Any, y: Any, reset: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return samples X (m, p) and their labels y (m,); with `reset`, the estimator learns the features of X."""
    checks.unmasked("y", y)
    X, y = _features(estimator, X, reset), np.asarray(y)
    if y.shape != (len(X),):
        raise ValueError(f"y must have shape ({len(X)},), one label per sample; got {y.shape}.")
    return X, y


def measured(estimator: Any, X: Any, y: Any, reset: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return samples X (m, p) and numbers y, (m,) or (m, q), that belong to them."""
    X, y = _features(estimator, X, reset), checks.real_array("y", y, np.float64)
    if y.ndim not in (1, 2) or len(y) != len(X):
        raise ValueError(f"y must have shape (m,) or (m, q) with m = {len(X)}; got {y.shape}.")
    return X, checks.finite("y", y)


def _check_is_fitted(estimator: Any) -> None:
    """Refuse an estimator that has no model yet."""
    if not hasattr(estimator, "model_"):
        name = type(estimator).__name__
        raise AttributeError(f"{name} must be fitted before it predicts; got one without model_: call fit first.")


def _features(estimator: Any, X: Any, reset: bool) -> np.ndarray:
    """Return the samples X (m, p) to train with, at least one, whose features the estimator has or learns."""
    X = _rows(X)
    if X.ndim != 2 or not X.size:
        raise ValueError(f"X must be samples of shape (m, p), at least one with one feature; got {X.shape}.")
    if reset:
        estimator.n_features_in_ = X.shape[1]
    else:
        _check_is_fitted(estimator)
    return checks.finite("X", checks.samples("X", X, "p", estimator.n_features_in_, None))


def _rows(X: Any) -> np.ndarray:
    """Return X in float32 if it is in float32, else in float64."""
    array = np.asarray(checks.real_array("X", X))
    return array if array.dtype in checks.FLOAT_DTYPES else array.astype(np.float64)
