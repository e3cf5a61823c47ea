"""What was done to the raw data before training, kept with the model so that prediction does the same."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from idl_ref import checks

__all__ = ["Standardise"]


@dataclass(frozen=True)
class Standardise:
    """Flatten each sample and apply (x − mean) / scale, with one mean and one scale for all features.

    Parameters
    ----------
    mean, scale : float
        In the units of the raw data; scale > 0.

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
        """Mean and standard deviation over all entries; scale 1 where they are all equal."""
        array = checks.real_array("x_train", samples)
        if not array.size:
            return cls(0.0, 1.0)
        scale = float(array.std(dtype=np.float64))
        return cls(float(array.mean(dtype=np.float64)), scale if scale > 0 else 1.0)

    def __call__(self, samples: Any, dtype: Any = np.float32) -> np.ndarray:
        """(m, …) raw samples -> (m, p) standardised rows."""
        array = checks.real_array("samples", samples)
        rows = array.reshape(len(array), math.prod(array.shape[1:]))  # not −1, which no samples leave open
        result = rows.astype(checks.model_dtype(dtype))  # a copy: the raw data stays as it is
        result -= result.dtype.type(self.mean)
        result /= result.dtype.type(self.scale)
        return result

    def settings(self) -> dict[str, float]:
        """What a file keeps."""
        return asdict(self)
