"""This module has the base classes and the checks of inputs as scikit-learn has them; `plain` does without it."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator as BaseEstimator
from sklearn.base import ClassifierMixin as ClassifierMixin
from sklearn.base import MultiOutputMixin as MultiOutputMixin
from sklearn.base import RegressorMixin as RegressorMixin
from sklearn.utils import validation
from sklearn.utils.multiclass import check_classification_targets

from idl_ref import checks

DTYPES = (np.float64, np.float32)  # Other dtypes are converted to the first.


def samples(estimator: Any, X: Any) -> np.ndarray:
    """Return the samples X (m, p) to predict for, after checking that the estimator is fitted and X fits it."""
    validation.check_is_fitted(estimator, "model_")
    return _validated(estimator, X, dtype=DTYPES, reset=False)


def labelled(estimator: Any, X: Any, y: Any, reset: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return samples X (m, p) and their labels y (m,); with `reset`, the estimator learns the features of X."""
    X, y = _validated(estimator, X, y, dtype=DTYPES, reset=reset)
    check_classification_targets(y)
    return X, y


def measured(estimator: Any, X: Any, y: Any, reset: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return samples X (m, p) and numbers y, (m,) or (m, q), that belong to them."""
    return _validated(estimator, X, y, dtype=DTYPES, reset=reset, multi_output=True, y_numeric=True)


def _validated(estimator: Any, *arrays: Any, **rules: Any) -> Any:
    """Return arrays as scikit-learn checks and converts them; it would bring the hidden values of masked ones back."""
    for name, array in zip("Xy", arrays, strict=False):
        checks.unmasked(name, array)
    if hasattr(validation, "validate_data"):
        return validation.validate_data(estimator, *arrays, **rules)
    return estimator._validate_data(*arrays, **rules)  # before scikit-learn 1.6
