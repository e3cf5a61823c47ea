"""This module reads the weights of a torchidl model as raw weights, which `f` maps to the effective ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from idl_ref import checks
from idl_ref.functions import FUNCTIONS, ImplicitFunction, ImplicitFunctionInf


def arguments(
    state_dict: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the arguments of ImplicitModel and the parameters for a torchidl `state_dict`.

    `settings` are constructor arguments that cannot be read from the weights.
    """
    detached = {name: W.detach().cpu().numpy() if hasattr(W, "detach") else W for name, W in state_dict.items()}
    raw = {name: checks.real_array(name, W) for name, W in detached.items()}
    if set(raw) - {"D"} not in ({"A", "B", "C"}, {"L", "R", "B", "C"}):
        raise ValueError(
            f"state_dict must hold A (or L and R), B, C and perhaps D; got {sorted(map(str, raw))}: "
            "pass the state_dict of a torchidl model."
        )
    for name, array in raw.items():
        checks.matrix(name, array, "(rows, columns)")
    read_off = _read_off(raw, settings)
    for name in settings.keys() & read_off.keys():
        if settings[name] != read_off[name]:
            raise ValueError(
                f"{name} must be {read_off[name]!r} for these weights; got {settings[name]!r}: leave out {name}."
            )
    f = _our_f(settings.get("f", ImplicitFunctionInf))
    if f is ImplicitFunction and "L" in raw:  # torchidl scales L and R for every f, also for this one.
        L, Rt = ImplicitFunctionInf(settings.get("kappa", 0.99)).effective((raw["L"], raw["R"].T))
        raw |= {"L": L, "R": Rt.T}
    return {**settings, **read_off, "f": f}, raw


def _read_off(raw: Mapping[str, np.ndarray], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the constructor arguments that the shapes and dtypes of the weights determine."""
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
    """Return our class for a class of torchidl with the same name; return any other `f` unchanged.

    The constructor of the model refuses an unsuitable `f`.
    """
    if isinstance(f, type) and not issubclass(f, ImplicitFunction):
        return {ours.__name__: ours for ours in FUNCTIONS.values()}.get(f.__name__, f)
    return f
