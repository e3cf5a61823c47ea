"""This module trains regression in the units of the targets, and lets the model answer in these units by itself.

Targets T (m, q) of any magnitude are trained as (T − mean) / scale. Both numbers are then folded into C and D, because
Ŷ = C X + D U is linear in them. The scales are powers of two, so that this changes no digit of C and D.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from idl_ref import checks
from idl_ref.model import ImplicitModel
from idl_ref.preprocessing import Standardise, needs_float64


def scale(T: Any, weights: Any = None) -> np.ndarray:
    """Return a power of two near the standard deviation of each column of T (m, q), and 1 where T is constant.

    Examples
    --------
    >>> scale(np.array([[1.0, 7.0], [201.0, 7.0]]))
    array([128.,   1.])
    """
    return 2.0 ** np.round(np.log2(_moments(T, weights).scale))


def mean(T: Any, weights: Any = None) -> np.ndarray:
    """Return the mean of each column of T (m, q), or the weighted mean."""
    return _moments(T, weights).mean


def root_mean_square(M: np.ndarray) -> np.ndarray:
    """Return the root of the mean square of each column of M (m, q), whose squares may be too large or too small.

    Examples
    --------
    >>> root_mean_square(np.array([[3e200], [4e200]])) / 1e200
    array([3.53553391])
    """
    largest = np.abs(M).max(axis=0, initial=0.0)
    unit = np.where(largest > 0, largest, 1.0)
    roots: np.ndarray = largest * np.sqrt(np.square(M / unit).mean(axis=0))
    return roots


def start(model: ImplicitModel, T: Any, weights: Any = None) -> None:
    """Let the outputs of a new model begin at the mean of the targets T (m, q), with their magnitude.

    The rows of C and D are multiplied by the scale of the targets, and the mean is put into the bias, the last column
    of D.
    """
    _bias(model)
    for W in _readout(model):
        W *= scale(T, weights)[:, None].astype(W.dtype)
    _bias(model)[:] = mean(T, weights)


def need_float64(T: Any) -> bool:
    """Tell whether a column of targets T (m, q) has differences that float32 cannot hold beside its mean."""
    return any(map(needs_float64, np.asarray(T, np.float64).T))


@contextmanager
def scaled(model: ImplicitModel, scale: np.ndarray, mean: Any = None) -> Iterator[None]:
    """Let the outputs of a model be (Ŷ − mean) / scale while it is trained, and Ŷ again at the end, whatever happens.

    Parameters
    ----------
    model : ImplicitModel
        The model, whose C and D are divided by the scale, and at the end multiplied by it.
    scale : (q,) array
        Powers of two; see `scale`.
    mean : (q,) array, optional
        What is subtracted from the bias first, and added to it at the end; 0 if not given. Unlike the scale, it is
        rounded.

    Examples
    --------
    >>> T = np.array([[150.0], [250.0]])
    >>> model = ImplicitModel(1, 1, 4, bias=True, seed=0)
    >>> start(model, T)
    >>> with scaled(model, scale(T)):
    ...     float(model.parameters["D"][0, -1])
    3.125
    >>> float(model.parameters["D"][0, -1])
    200.0
    """
    column = _powers(scale, model.dtype)[:, None]
    if mean is not None:
        _bias(model)[:] -= mean
    for W in _readout(model):
        W /= column
    try:
        yield
    finally:
        with np.errstate(over="ignore", invalid="ignore"):  # After a divergence. What the trainer raised is the news.
            for W in _readout(model):
                W *= column
            if mean is not None:
                _bias(model)[:] += mean


def _moments(T: Any, weights: Any) -> Standardise:
    """Return mean and standard deviation of each column of T (m, q)."""
    array = np.asarray(checks.real_array("targets", T))
    checks.matrix("targets", array, "(m, q)")
    if not len(array):
        raise ValueError(f"targets must be at least one sample; got shape {array.shape}: pass samples as rows.")
    return Standardise.fit(checks.finite("targets", array), True, weights)


def _powers(scale: Any, dtype: np.dtype) -> np.ndarray:
    """Return scales (q,) in the dtype of the model, after checking that they are powers of two that it can hold."""
    powers, limits = np.asarray(scale, np.float64), np.finfo(dtype)
    if (np.frexp(powers)[0] != 0.5).any() or (powers < limits.tiny).any() or (powers > limits.max).any():
        raise ValueError(
            f"scale must be powers of two that {dtype} can hold, so that C and D keep their digits; got {powers}: "
            "use scale(T), or other units."
        )
    return powers.astype(dtype)


def _readout(model: ImplicitModel) -> list[np.ndarray]:
    """Return the parameters that the outputs are linear in: C, and D if there is one."""
    return [model.parameters[name] for name in ("C", "D") if name in model.parameters]


def _bias(model: ImplicitModel) -> np.ndarray:
    """Return the bias (q,) of the outputs, the last column of D, as a view."""
    if not model.bias or model.no_D:
        raise ValueError(
            f"a model that begins at the mean of its targets needs a bias of its outputs; got bias={model.bias} and "
            f"no_D={model.no_D}: use bias=True and no_D=False."
        )
    return model.parameters["D"][:, -1]
