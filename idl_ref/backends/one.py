"""What the one-sample twins share: the layer they serve, and what they measure for its certificate."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from idl_ref.activations import Activation
from idl_ref.factors import Factors

# What is measured: ‖ĝ − x̂‖∞, ‖x̂‖∞, ‖z‖∞, ‖ĝ‖∞, ‖u‖∞, applications. TOL is told, not measured.
STEP, X_NORM, Z_NORM, G_NORM, U_NORM, ITERATIONS, TOL = range(7)


def steps_left(step: float, before: float, limit: float) -> float:
    """How many more steps it takes to the limit, if steps go on to shrink by the ratio of the last two."""
    if not 0 < step < before:
        return math.inf
    return math.log(limit / step) / math.log(step / before) if limit > 0 else math.inf


class Layer(NamedTuple):
    """X = φ(A X + B U), Ŷ = C X + D U by Picard's iteration; with `impatient`, slow samples are left."""

    factors: Factors
    B: np.ndarray  # (n, p), with the column of the bias where there is one
    C: np.ndarray  # (q, n)
    D: np.ndarray | None  # as wide as B
    activation: Activation
    bias: int
    tol: float
    max_iter: int
    impatient: bool

    @property
    def readout(self) -> np.ndarray:
        """[C D], zeros for no D: Ŷ = [C D] [x; u] is one product.   -> (q, n + p)"""
        D = np.zeros((len(self.C), self.B.shape[1]), self.C.dtype) if self.D is None else self.D
        return np.concatenate([self.C, D], axis=1)
