"""Weights of torchidl, read as what they are: raw weights that `f` still has to map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from idl_ref import checks
from idl_ref.functions import FUNCTIONS, ImplicitFunction, ImplicitFunctionInf


def arguments(
    state_dict: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The constructor's arguments and the parameters for a torchidl `state_dict` and the settings that it lacks."""
    detached = {name: W.detach().cpu().numpy() if hasattr(W, "detach") else W for name, W in state_dict.items()}
    raw = {name: checks.real_array(name, W) for name, W in detached.items()}
    if set(raw) - {"D"} not in ({"A", "B", "C"}, {"L", "R", "B", "C"}):
        raise ValueError(f"state_dict must hold A (or L and R), B, C and perhaps D; got {sorted(map(str, raw))}.")
    for name, array in raw.items():
        checks.matrix(name, array, "(rows, columns)")
    read_off = _read_off(raw, settings)
    for name in settings.keys() & read_off.keys():
        if settings[name] != read_off[name]:
            raise ValueError(f"{name} is {read_off[name]!r} in these weights; got {settings[name]!r}: leave it out.")
    f = _our_f(settings.get("f", ImplicitFunctionInf))
    if f is ImplicitFunction and "L" in raw:  # torchidl scales L and R whatever f is
        L, Rt = ImplicitFunctionInf(settings.get("kappa", 0.99)).effective((raw["L"], raw["R"].T))
        raw |= {"L": L, "R": Rt.T}
    return {**settings, **read_off, "f": f}, raw


def _read_off(raw: Mapping[str, np.ndarray], settings: Mapping[str, Any]) -> dict[str, Any]:
    n, p = raw["B"].shape
    return {
        "input_dim": p - checks.flag("bias", settings.get("bias", False)),
        "output_dim": raw["C"].shape[0],
        "hidden_dim": n,
        "no_D": "D" not in raw,
        "dtype": settings.get("dtype", checks.float_dtype(*raw.values())),
        "is_low_rank": "L" in raw,
        "rank": raw["L"].shape[1] if "L" in raw else None,
    }


def _our_f(f: Any) -> Any:
    """torchidl's own class by the name of ours; anything else as it is, for the constructor to judge."""
    if isinstance(f, type) and not issubclass(f, ImplicitFunction):
        return {ours.__name__: ours for ours in FUNCTIONS.values()}.get(f.__name__, f)
    return f
