"""This module reads and writes the parameters of an implicit RNN: its own files, and the weights of torchidl."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from idl_ref import checks, io, torchidl
from idl_ref.interface import check_solving
from idl_ref.io import FileFormatError
from idl_ref.model import ImplicitModel
from idl_ref.settings import Settings

FORM = "idl_ref recurrent model"
CELL, READOUT = "recurrent.layer.", {"W": "linear.weight", "w": "linear.bias"}  # Names in a state_dict of torchidl.

Parameters = dict[str, np.ndarray]


def shapes(settings: Settings, q: int) -> io.Layout:
    """Return the shape of every parameter of an RNN with q outputs, whose cell has the given settings."""
    return settings.shapes() | {"W": (q, settings.output_dim), "w": (q,)}


def write(path: str | os.PathLike[str], settings: Settings, parameters: Mapping[str, np.ndarray]) -> None:
    """Write a file with the settings of the cell, the number of outputs, and all parameters."""
    header = {"settings": settings.plain(), "output_dim": len(parameters["W"])}
    io.write(path, header, dict(parameters), FORM)


def read(path: str | os.PathLike[str], own: Mapping[str, Any]) -> tuple[Settings, Parameters]:
    """Return the settings of the cell and the parameters; `own` are settings that replace those of the file."""
    check_solving(own)
    header, arrays = io.read(path, lambda header: _layout(header, own), FORM)
    return Settings.from_plain(header["settings"], own), arrays


def _layout(header: dict[str, Any], own: Mapping[str, Any]) -> tuple[io.Layout, dict[str, np.dtype]]:
    """Return the shapes and the dtypes that the arrays of a file must have according to its header."""
    try:
        settings, q = (
            Settings.from_plain(header["settings"], own),
            checks.integer("output_dim", header["output_dim"], 1),
        )
        if settings.input_dim <= settings.output_dim:
            raise ValueError("the cell must have more inputs than outputs, because its outputs are inputs too.")
    except (KeyError, TypeError, ValueError) as reason:
        raise FileFormatError(f"the settings in the file are not those of an implicit RNN: {reason}") from None
    found = shapes(settings, q)
    return found, dict.fromkeys(found, settings.dtype)


def from_torchidl(state_dict: Any, settings: Mapping[str, Any]) -> tuple[Settings, Parameters]:
    """Return the settings of the cell and the parameters for the `state_dict` of torchidl's ImplicitRNN."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(
            f"state_dict must be a mapping from names to arrays; got {type(state_dict).__name__}: pass "
            "torch_model.state_dict()."
        )
    cell = {name.removeprefix(CELL): W for name, W in state_dict.items() if str(name).startswith(CELL)}
    if not cell or len(cell) + len(READOUT) != len(state_dict) or not state_dict.keys() >= set(READOUT.values()):
        raise ValueError(
            f"state_dict must hold {CELL}A (or L and R), {CELL}B, {CELL}C and perhaps {CELL}D, "
            f"{' and '.join(READOUT.values())}; got {sorted(map(str, state_dict))[:9]}: pass the state_dict of "
            "torchidl's ImplicitRNN; for its ImplicitModel, use ImplicitModel.from_torchidl."
        )
    model = ImplicitModel.from_torchidl(cell, **settings)
    if model.input_dim <= model.output_dim:
        raise ValueError(
            f"the cell must have more inputs than its {model.output_dim} outputs; got {model.input_dim}: pass "
            "bias=True if and only if the torchidl model has a bias."
        )
    raw = {name: torchidl.weight(key, state_dict[key]) for name, key in READOUT.items()}
    checks.matrix(READOUT["W"], raw["W"], "(q, h)")
    expected = shapes(model.settings, len(raw["W"]))
    for name, key in READOUT.items():
        checks.shape(key, raw[name], expected[name], "as the other weights have it")
    return model.settings, model.parameters | {name: W.astype(model.dtype) for name, W in raw.items()}
