"""This module has the preprocessing of raw data, which is stored with a model so that prediction applies it too."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from idl_ref import checks

__all__ = ["Standardise"]


@dataclass(frozen=True)
class Standardise:
    """Flattens each sample and applies (x − mean) / scale, with one mean and one scale for all features.

    Parameters
    ----------
    mean, scale : float
        Mean and standard deviation, in the units of the raw data; scale > 0.

    Raises
    ------
    ValueError, TypeError
        A mean that is not a finite number, or a scale that is not a finite number > 0.

    Examples
    --------
    >>> images = np.array([[[0, 2]], [[4, 6]]], dtype=np.uint8)
    >>> print(Standardise.fit(images)(images).round(3))
    [[-1.342 -0.447]
     [ 0.447  1.342]]
    """

    mean: float
    scale: float

    def __post_init__(self) -> None:
        checks.number("mean", self.mean, float(np.finfo(np.float64).min))
        checks.number("scale", self.scale, float(np.finfo(np.float64).tiny))

    @classmethod
    def fit(cls, samples: Any) -> Standardise:
        """Return the preprocessing with the mean and the standard deviation of all entries of `samples`.

        If all entries are equal, scale is 1.
        """
        array = checks.real_array("x_train", samples)
        if not array.size:
            return cls(0.0, 1.0)
        scale = float(array.std(dtype=np.float64))
        return cls(float(array.mean(dtype=np.float64)), scale if scale > 0 else 1.0)

    def __call__(self, samples: Any, dtype: Any = np.float32) -> np.ndarray:
        """Return raw samples (m, …) as standardised rows (m, p), in the given dtype."""
        array = checks.real_array("samples", samples)
        # The number of features is computed, because reshape(len(array), -1) is ambiguous for zero samples.
        rows = array.reshape(len(array), math.prod(array.shape[1:]))
        result = rows.astype(checks.model_dtype(dtype))  # astype makes a copy, so that the raw data is not modified.
        result -= result.dtype.type(self.mean)
        result /= result.dtype.type(self.scale)
        return result

    def settings(self) -> dict[str, float]:
        """Return mean and scale by name, as a model file stores them."""
        return asdict(self)
