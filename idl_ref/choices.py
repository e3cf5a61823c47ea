"""This module has the words that users choose from, as types, so that a type checker flags a misspelled word.

The tuples of words that the checks use are derived from the types by `typing.get_args`, or a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np

ActivationName = Literal[
    "identity", "relu", "leaky_relu", "tanh", "sigmoid", "softplus", "elu", "hardtanh", "softsign"
]  # fmt: skip
Method = Literal["auto", "picard", "anderson", "newton", "substitution", "blocks"]
OnFailure = Literal["warn", "raise", "ignore"]
Certificate = Literal["fast", "sharp"]
Loss = Literal["cross_entropy", "mse"]
LossFunction = Callable[[np.ndarray, np.ndarray], tuple[Any, np.ndarray]]  # takes Y and T to ℓ and ∂ℓ/∂Y
AnyLoss = Loss | LossFunction
Schedule = Literal["constant", "cosine"]
TwinName = Literal["numpy", "numba", "cuda"]
Backend = Literal["auto", TwinName]
Target = Literal["numpy", "c", "onnx", "js"]
# Python's float is float64. A dtype that is neither float32 nor float64 is refused when the program runs.
Dtype = Literal["float32", "float64"] | type[np.float32] | type[np.float64] | type[float] | np.dtype[Any]

METHODS: tuple[Method, ...] = get_args(Method)
CERTIFICATES: tuple[Certificate, ...] = get_args(Certificate)
ON_FAILURE: tuple[OnFailure, ...] = get_args(OnFailure)
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
TWINS: tuple[TwinName, ...] = get_args(TwinName)
BACKENDS: tuple[Backend, ...] = get_args(Backend)
TARGETS: tuple[Target, ...] = get_args(Target)
