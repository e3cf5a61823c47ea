"""The weights that a new model begins with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from idl_ref import wellposed

if TYPE_CHECKING:
    from idl_ref.settings import Settings

INITIAL_NORM = 0.75  # of A, L and Rᵀ, in units of kappa: inside the ball of `f`


def parameters(settings: Settings, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Normal weights: B, C and D with variance 1/fan-in; A, L and Rᵀ scaled to the ∞-norm 3κ/4."""
    result = {}
    for name, (rows, columns) in settings.shapes().items():
        W = rng.standard_normal((rows, columns))
        if name in "ALR":
            W *= INITIAL_NORM * settings.kappa / wellposed.norm_inf(W.T if name == "R" else W)
        else:
            W *= columns**-0.5
        result[name] = W.astype(settings.dtype)
    return result
