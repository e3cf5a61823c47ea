"""What the one-sample twins share: the layer they serve, and what they measure for its certificate."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from idl_ref.activations import Activation
from idl_ref.factors import Factors

# What is measured: ‖ĝ − x̂‖∞, ‖x̂‖∞, ‖z‖∞, ‖ĝ‖∞, ‖u‖∞, applications. TOL is told, not measured.
STEP, X_NORM, Z_NORM, G_NORM, U_NORM, ITERATIONS, TOL = range(7)


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
