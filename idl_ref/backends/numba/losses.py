"""This module has the losses of the Numba twin, which do the same as those of `idl_ref.losses` in compiled code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from idl_ref.backends.numba import descent
from idl_ref.backends.numba.launches import NOTHING


def cross_entropy(Y: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> tuple[Any, np.ndarray]:
    """Do the same as `losses.cross_entropy`, in compiled code."""
    return _compiled(descent.cross_entropy, Y, np.ascontiguousarray(labels, np.int64), weights)


def mse(Y: np.ndarray, T: np.ndarray, weights: np.ndarray | None = None) -> tuple[Any, np.ndarray]:
    """Do the same as `losses.mse`, in compiled code."""
    return _compiled(descent.mse, Y, np.ascontiguousarray(T.T).reshape(-1), weights)


def _compiled(
    loss: Callable[..., float], Y: np.ndarray, targets: np.ndarray, weights: np.ndarray | None
) -> tuple[Any, np.ndarray]:
    """Return the value and the gradient of a loss for flat targets."""
    (q, m), values = Y.shape, np.empty(Y.shape[1])
    G_Y = np.empty((m, q), Y.dtype)
    w = NOTHING[Y.dtype][0] if weights is None else np.ascontiguousarray(weights, Y.dtype)
    loss(0, m, np.ascontiguousarray(Y.T).reshape(-1), targets, w, G_Y.reshape(-1), values)
    with np.errstate(over="ignore"):  # A loss that overflows is inf, as the dtype of Y has it.
        return Y.dtype.type(descent.mean(values)), G_Y.T


LOSSES = {"cross_entropy": cross_entropy, "mse": mse}
