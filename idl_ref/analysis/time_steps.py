"""This module has the sizes, the parameters and the inputs of an implicit RNN, with their checks."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from idl_ref import checks
from idl_ref.model import ImplicitModel
from idl_ref.settings import Settings
from idl_ref.weights import Weights


class Unrolled:
    """The base of an implicit RNN: its cell, its readout, and what follows from them."""

    # `fit` asks a model for these two, which an implicit RNN does not have.
    classes = None
    preprocessing = None

    cell: ImplicitModel
    W: np.ndarray
    w: np.ndarray

    @property
    def input_dim(self) -> int:
        """The number of inputs p of a time step."""
        return self.cell.input_dim - self.hidden_dim

    @property
    def output_dim(self) -> int:
        """The number of outputs q."""
        return len(self.W)

    @property
    def implicit_hidden_dim(self) -> int:
        """The number n of entries of x_t."""
        return self.cell.hidden_dim

    @property
    def hidden_dim(self) -> int:
        """The number h of entries of h_t."""
        return self.cell.output_dim

    @property
    def dtype(self) -> np.dtype:
        """The dtype of parameters and results."""
        return self.cell.dtype

    @property
    def on_failure(self) -> str:
        """What happens if a sample does not converge in a time step."""
        return self.cell.on_failure

    @property
    def settings(self) -> Settings:
        """The settings of the cell, whose input_dim is p + h, and whose output_dim is h."""
        return self.cell.settings

    @property
    def parameters(self) -> Mapping[str, np.ndarray]:
        """The raw parameters by name: those of the cell, and W and w. Changes of these arrays change the RNN."""
        return MappingProxyType({**self.cell.parameters, "W": self.W, "w": self.w})

    def effective_weights(self) -> Weights:
        """Return the effective weights of the cell; raise ValueError for a parameter of a wrong shape or dtype."""
        if self.cell.preprocessing is not None:
            raise ValueError(
                "cell must have no preprocessing, because h_t is an input of the cell too; got "
                f"{self.cell.preprocessing}: set rnn.cell.preprocessing = None, and standardise U before."
            )
        if self.settings.pattern is not None:
            raise ValueError("the cell of an ImplicitRNN has a dense A; got a sparse one: use prune(model, 1) as cell.")
        for name, W, shape in (("W", self.W, (self.output_dim, self.hidden_dim)), ("w", self.w, (self.output_dim,))):
            if not isinstance(W, np.ndarray) or W.shape != shape or W.dtype != self.dtype:
                raise ValueError(
                    f"parameter {name} must be {shape} {self.dtype}; got {checks.shown(W)}: set its entries, "
                    f"rnn.{name}[...] = …"
                )
        return self.cell.effective_weights()

    def project(self) -> None:
        """Project the raw A, or L and R, in place if `f` is ImplicitFunctionRows; otherwise do nothing."""
        self.cell.project()

    def checked_inputs(self, name: str, U: Any) -> np.ndarray:
        """Return sequences (m, T, p) after checks, in the dtype of the RNN."""
        return sequences(name, U, self.input_dim, self.dtype)


def sequences(name: str, U: Any, p: int, dtype: np.dtype) -> np.ndarray:
    """Return sequences, one per row, as an array (m, T, p) with T ≥ 1."""
    array = checks.real_array(name, U, dtype)
    if isinstance(array, checks.OnDevice):
        raise ValueError(f"{name} must be in the memory of the host; got an array on a CUDA device: copy it.")
    if array.ndim == 3 and array.shape[2] == p and array.shape[1] > 0:
        return array
    way_out = "sequences are rows."
    if array.ndim == 2 and p == 1:
        way_out = f"one number per time step is {name}[:, :, None]."
    elif array.ndim == 2 and array.shape[1] == p:
        way_out = f"one sequence is {name}[None]."
    elif array.ndim == 3 and array.shape[1] == p:
        way_out = f"time comes before the inputs, so numpy.swapaxes({name}, 1, 2) may be what was meant."
    elif array.ndim == 3 and array.shape[2] == p:
        way_out = "a sequence has at least one time step."
    raise ValueError(f"{name} must have shape (m, T, p) with p = {p} and T ≥ 1; got {array.shape}: {way_out}")
