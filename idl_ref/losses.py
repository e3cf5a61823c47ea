"""Losses in the paper's columns: the value and its gradient G_Y = ∂ℓ/∂Y, together.

Y is (q, m). Both losses are means, so that a learning rate means the same for every batch size; the mean over no
samples is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from idl_ref import checks

__all__ = ["cross_entropy", "mse"]


def mse(Y: np.ndarray, T: np.ndarray) -> tuple[Any, np.ndarray]:
    """ℓ = Σ (Y − T)² / (q m),   G_Y = 2 (Y − T) / (q m).

    Parameters
    ----------
    Y, T : (q, m) arrays
        Predictions and targets.

    Returns
    -------
    loss : number
    G_Y : (q, m) array

    Examples
    --------
    >>> loss, G_Y = mse(np.array([[1.0, 3.0]]), np.array([[0.0, 3.0]]))
    >>> print(loss, G_Y)
    0.5 [[1. 0.]]
    """
    E = Y - T
    count = max(E.size, 1)
    return (E * E).sum() / count, 2 * E / count


def cross_entropy(Y: np.ndarray, labels: np.ndarray) -> tuple[Any, np.ndarray]:
    """ℓ = Σⱼ (log Σᵢ exp Y_ij − Y_tⱼj) / m,   G_Y = (softmax(Y) − onehot(t)) / m.

    Parameters
    ----------
    Y : (q, m) array
        Logits of any size: nothing overflows.
    labels : (m,) int array
        t, each 0 … q − 1.

    Returns
    -------
    loss : number
    G_Y : (q, m) array

    Examples
    --------
    >>> loss, G_Y = cross_entropy(np.array([[0.0], [0.0]]), np.array([1]))
    >>> print(round(float(loss), 6), G_Y.ravel())
    0.693147 [ 0.5 -0.5]
    """
    m = Y.shape[1]
    Y = Y - Y.real.max(axis=0, initial=-np.inf)  # the largest logit becomes 0: exp cannot overflow
    E = np.exp(Y)
    total = E.sum(axis=0)
    columns = np.arange(m)
    value = (np.log(total) - Y[labels, columns]).sum() / max(m, 1)
    G_Y = E / total
    G_Y[labels, columns] -= 1
    return value, G_Y / max(m, 1)


LOSSES: dict[str, Callable[[np.ndarray, np.ndarray], tuple[Any, np.ndarray]]] = {
    "mse": mse,
    "cross_entropy": cross_entropy,
}


def get(loss: str) -> Callable[[np.ndarray, np.ndarray], tuple[Any, np.ndarray]]:
    """The loss called `loss`."""
    return LOSSES[checks.choice("loss", loss, LOSSES)]


def check_targets(loss: str, targets: Any, m: int, q: int, dtype: np.dtype) -> np.ndarray:
    """Targets as users have them, samples as rows, to what the loss takes: labels (m,) or columns (q, m)."""
    if not isinstance(loss, str) or loss not in LOSSES:
        checks.choice("loss", loss, LOSSES)
    if loss == "cross_entropy":
        return checks.labels("targets", targets, m, q)
    return checks.samples("targets", targets, "q", q, dtype, rows=m).T
