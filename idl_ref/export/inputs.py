"""The declared range of the inputs of an export: its ends before preprocessing, and what follows for u."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from idl_ref import checks
from idl_ref.certificate import SAFETY, limits
from idl_ref.preprocessing import Standardise

DEFAULT_RANGE = 8.0  # the largest |u| after preprocessing: eight standard deviations if the model standardises
AFFINE = 3 * 2.0**-53  # (U − mean)/scale is computed in float64, with two roundings, before it is cast.


class Inputs(NamedTuple):
    """The box of the inputs U, before preprocessing, and of u, after it.

    The arrays `low` and `high` have shape (), or (p,) if features differ; the others have shape (p,).
    """

    low: np.ndarray
    high: np.ndarray
    centre: np.ndarray  # of u
    radius: np.ndarray  # of u around the centre, the rounding of u included
    rounding: np.ndarray  # the largest error of u, 0 without preprocessing

    @property
    def largest(self) -> np.ndarray:
        """The largest |u|.   (p,)"""
        return SAFETY * (np.abs(self.centre) + self.radius)

    def text(self) -> str:
        """The range as text."""
        if self.low.ndim == 0:
            return f"[{self.low:.15g}, {self.high:.15g}]"
        ends = [f"[{self.low[j]:.15g}, {self.high[j]:.15g}]" for j in (0, -1)]
        return f"{ends[0]} … {ends[1]}, one range per feature"


def make(bounds: Any, pre: Standardise | None, p: int, dtype: np.dtype, given: np.dtype) -> Inputs:
    """The declared range for a model with p inputs, which are given in a dtype; ValueError if that cannot hold it."""
    mean, scale = (np.zeros(()), np.ones(())) if pre is None else (pre.mean, pre.scale)
    normal("mean", mean, np.dtype(np.float64))
    normal("scale", scale, np.dtype(np.float64))
    with np.errstate(over="ignore"):
        if bounds is None:
            low, high = mean - DEFAULT_RANGE * scale, mean + DEFAULT_RANGE * scale
        else:
            low, high = _end("low", bounds[0], p), _end("high", bounds[1], p)
        if not np.all(low <= high):
            raise ValueError(f"high end of the range must be a number ≥ {np.max(low):g}, its low end; got {high}.")
        below, above = (low - mean) / scale, (high - mean) / scale
    for name, end in (("low end of the range", low), ("high end of the range", high)):
        normal(name, end, dtype)
    first = np.asarray(low, given)
    first = np.where(first < low, np.nextafter(first, given.type(np.inf)), first)
    if not np.all(first <= high):
        j = int(np.argmax(np.atleast_1d(first > high)))
        ends = ", ".join(f"{np.atleast_1d(end)[j]:.15g}" for end in (low, high))
        raise ValueError(
            f"the range of each input must hold a number of the dtype of U; got [{ends}], between two neighbours in "
            f"{given}: use dtype='float64', or subtract an offset before."
        )
    centre, unit = (below + above) / 2, limits(dtype)[0] / 2
    largest = np.maximum(np.abs(below), np.abs(above))
    rounding = 0 * largest if pre is None else SAFETY * (unit + AFFINE) * largest + limits(dtype)[1]
    radius = (above - below) / 2 + 1e-9 * largest + rounding
    if not np.all(SAFETY * (np.abs(centre) + radius) < float(np.finfo(dtype).max)):
        raise ValueError(
            f"(U − mean)/scale must not exceed the largest {dtype} inside the range; got up to {np.max(largest):.1e}: "
            "narrow the range, or fit the preprocessing anew."
        )
    low, high = np.asarray(low), np.asarray(high)  # Arithmetic of NumPy turns arrays of shape () into scalars.
    return Inputs(low, high, *(np.broadcast_to(v, (p,)) for v in (centre, radius, rounding)))


def normal(name: str, value: Any, dtype: np.dtype) -> None:
    """Refuse numbers that are neither 0 nor normal numbers of the dtype, with which no code can compute."""
    tiny, largest = float(np.finfo(dtype).tiny), float(np.finfo(dtype).max)
    size = np.abs(np.asarray(value, np.float64))
    good = (size == 0) | ((size >= tiny) & (size <= largest))
    if not good.all():
        bad = float(np.atleast_1d(value)[np.atleast_1d(~good)][0])
        raise ValueError(
            f"{name} must be 0 or of a size between {tiny:.3g} and {largest:.3g} to be exported in {dtype}; "
            f"got {bad:g}: use other units, another range, or dtype='float64'."
        )


def _end(name: str, value: Any, p: int) -> np.ndarray:
    """An end of the range as a float64 array of shape () or (p,)."""
    name = f"{name} end of the range"
    array = checks.real_array(name, value, np.float64)
    if array.ndim:
        checks.shape(name, array, (p,), "one number per feature, or one number for all")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite; got {value}: name the largest inputs that occur.")
    return array
