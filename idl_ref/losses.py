"""A loss function of this module returns the value ℓ and its gradient G_Y = ∂ℓ/∂Y together.

Y has shape (q, m), with one column per sample, as in the paper. Both losses are means over the samples, so that the
same learning rate suits all batch sizes; the mean over no samples is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from idl_ref import checks
from idl_ref.choices import LossFunction

__all__ = ["cross_entropy", "mse"]


def mse(Y: np.ndarray, T: np.ndarray, weights: np.ndarray | None = None) -> tuple[Any, np.ndarray]:
    """Return the mean squared error ℓ = Σ w (Y − T)² / (q m) and its gradient G_Y = 2 w (Y − T) / (q m).

    Parameters
    ----------
    Y, T : (q, m) arrays
        Outputs and targets, one column per sample.
    weights : (m,) array, optional
        The weights w of the samples; 1 if not given.

    Returns
    -------
    loss : number
        ℓ, in the dtype of Y.
    G_Y : (q, m) array
        ∂ℓ/∂Y.

    Notes
    -----
    Cost: about 5 q m flops.

    Examples
    --------
    >>> loss, G_Y = mse(np.array([[1.0, 3.0]]), np.array([[0.0, 3.0]]))
    >>> print(loss, G_Y)
    0.5 [[1. 0.]]
    """
    E = Y - T
    count = max(E.size, 1)
    if weights is None:
        return (E * E).sum() / count, 2 * E / count
    return (weights * (E * E)).sum() / count, 2 * weights * E / count


def cross_entropy(Y: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> tuple[Any, np.ndarray]:
    """Return the cross entropy ℓ = Σⱼ wⱼ (log Σᵢ exp Y_ij − Y_tⱼj) / m and its gradient G_Y.

    The gradient is G_Y = w (softmax(Y) − onehot(t)) / m, where onehot(t) has a 1 in row tⱼ of column j and 0 elsewhere.

    Parameters
    ----------
    Y : (q, m) array
        Logits, one column per sample. The computation does not overflow, however large they are.
    labels : (m,) int array
        The labels t, each in 0 … q − 1.
    weights : (m,) array, optional
        The weights w of the samples; 1 if not given.

    Returns
    -------
    loss : number
        ℓ in nats, in the dtype of Y.
    G_Y : (q, m) array
        ∂ℓ/∂Y.

    Notes
    -----
    Neither result cancels if the softmax of the label is almost 1. Let c be the row of the largest logit. Then
    ℓ = Y_c − Y_t + log1p(Σ_{i≠c} exp(Y_i − Y_c)), a sum of two terms ≥ 0. Because softmax sums to 1, its entry in row t
    minus 1 is −Σ_{i≠t} softmax(Y)_i, a sum of terms of one sign.
    Cost: q m exponentials and about 6 q m flops.

    Examples
    --------
    >>> loss, G_Y = cross_entropy(np.array([[0.0], [0.0]]), np.array([1]))
    >>> print(round(float(loss), 6), G_Y.ravel())
    0.693147 [ 0.5 -0.5]
    >>> loss, G_Y = cross_entropy(np.array([[50.0], [0.0]]), np.array([0]))
    >>> print(f"{loss:.3e}", G_Y.ravel())
    1.929e-22 [-1.92874985e-22  1.92874985e-22]
    """
    m = Y.shape[1]
    columns = np.arange(m)
    largest = Y.real.argmax(axis=0)
    Y = Y - Y[largest, columns]  # The largest logit becomes 0, so that exp cannot overflow.
    E = np.exp(Y)
    E[largest, columns] = 0
    others = E.sum(axis=0)
    values = np.log1p(others) - Y[labels, columns]
    E[largest, columns] = 1
    G_Y = np.divide(E, 1 + others, out=E)
    G_Y[labels, columns] = 0
    G_Y[labels, columns] = -G_Y.sum(axis=0)
    G_Y /= max(m, 1)
    if weights is not None:
        values, G_Y = weights * values, weights * G_Y
    return values.sum() / max(m, 1), G_Y


LOSSES: dict[str, Callable[..., tuple[Any, np.ndarray]]] = {"mse": mse, "cross_entropy": cross_entropy}


def get(
    loss: str | LossFunction, functions: Mapping[str, Callable[..., tuple[Any, np.ndarray]]] | None = None
) -> Callable[..., tuple[Any, np.ndarray]]:
    """Return the loss function of the given name, or a function of a user's with a check of what it returns.

    `functions` are those of a twin, by name; the default is LOSSES, the definition.
    """
    functions = LOSSES if functions is None else functions
    if isinstance(loss, str) or not callable(loss):
        return functions[loss if isinstance(loss, str) and loss in functions else checks.choice("loss", loss, LOSSES)]
    own = loss

    def checked(Y: np.ndarray, T: np.ndarray, weights: None = None) -> tuple[Any, np.ndarray]:
        returned = own(Y, T)
        if not (isinstance(returned, tuple) and len(returned) == 2 and np.ndim(returned[0]) == 0):
            raise TypeError(
                f"loss must return a number and an array of shape {Y.shape}, which are the loss and its gradient with "
                f"respect to Y; got {checks.shown(returned)}: return (value, G_Y)."
            )
        value, G_Y = returned
        if np.shape(G_Y) != Y.shape:
            raise ValueError(
                f"the gradient that loss returns must have the shape {Y.shape} of Y, with samples as columns; got "
                f"{np.shape(G_Y)}: return ∂ℓ/∂Y."
            )
        return value, np.asarray(G_Y, Y.dtype)

    return checked


def check_targets(
    loss: str | LossFunction, targets: Any, m: int, q: int, dtype: np.dtype, name: str = "targets"
) -> np.ndarray:
    """Check targets that have samples as rows, and return what the loss takes: labels (m,) or columns (…, m).

    A loss of a user's takes real targets of any dtype and of any shape with m rows. Messages call the targets `name`.
    """
    if callable(loss) and not isinstance(loss, str):
        T = checks.real_array(name, targets)
        if T.ndim == 0 or len(T) != m:
            raise ValueError(f"{name} must have m = {m} rows, one per sample; got shape {np.shape(T)}.")
        return np.moveaxis(T, 0, -1)
    if not isinstance(loss, str) or loss not in LOSSES:
        checks.choice("loss", loss, LOSSES)
    if loss == "cross_entropy":
        return checks.labels(name, targets, m, q)
    return checks.targets(name, targets, m, q, dtype).T
