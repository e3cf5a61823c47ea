"""This module reads the weights of a torchidl model as raw weights, which `f` maps to the effective ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from idl_ref import checks
from idl_ref.functions import FUNCTIONS, ImplicitFunction, ImplicitFunctionInf, without_overrides

NAMES = ({"A", "B", "C"}, {"L", "R", "B", "C"})  # The names of the weights; D may be there too.


def arguments(state_dict: Any, settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the arguments of ImplicitModel and the parameters for a torchidl `state_dict`.

    `settings` are constructor arguments that cannot be read from the weights.
    """
    _check_names(state_dict)
    raw = {name: weight(name, W) for name, W in state_dict.items()}
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


def _check_names(state_dict: Any) -> None:
    """Refuse what is not a mapping with the names of the weights, and say where in it the weights are."""
    if not isinstance(state_dict, Mapping):
        way_out = "pass the state_dict of a torchidl model."
        if callable(getattr(state_dict, "state_dict", None)):
            way_out = "pass its state_dict, model.state_dict()."
        elif isinstance(getattr(state_dict, "parameters", None), Mapping):
            way_out = "it is a model of idl_ref already; copy.deepcopy copies it."
        elif isinstance(state_dict, str) or hasattr(state_dict, "__fspath__"):
            way_out = "pass what torch.load(path, weights_only=True) returns."
        raise TypeError(
            f"state_dict must be a mapping from names to arrays; got {type(state_dict).__name__}: {way_out}"
        )
    names = [str(name) for name in state_dict]
    if set(names) - {"D"} in NAMES:
        return
    way_out = "pass the state_dict of a torchidl model."
    for prefix in dict.fromkeys(name[: name.rfind(".") + 1] for name in names):
        inside = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
        if prefix and inside - {"D"} in NAMES:
            way_out = (
                f"pass {{name.removeprefix({prefix!r}): W for name, W in state_dict.items() "
                f"if name.startswith({prefix!r})}}."
            )
    for name, value in state_dict.items():
        if isinstance(value, Mapping) and {"B", "C"} <= {str(inner).rpartition(".")[2] for inner in value}:
            way_out = f"pass the mapping in it, state_dict[{name!r}]."
    raise ValueError(f"state_dict must hold A (or L and R), B, C and perhaps D; got {sorted(names)[:9]}: {way_out}")


def weight(name: str, W: Any) -> np.ndarray:
    """Return a weight, which may be a tensor of PyTorch, as an array."""
    if not hasattr(W, "detach"):
        return checks.real_array(name, W)
    try:
        return checks.real_array(name, W.detach().cpu().numpy())
    except (TypeError, RuntimeError) as reason:  # NumPy has no bfloat16, and no sparse or quantised arrays.
        raise TypeError(
            f"{name} must be a dense tensor of float32 or float64; got {getattr(W, 'dtype', type(W).__name__)} "
            f"({' '.join(str(reason).split())[:99]}): pass {{name: W.to_dense().float() if W.is_sparse else W.float() "
            "for name, W in state_dict.items()}."
        ) from None


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
    """Return our class for a class of torchidl; return any other `f` unchanged.

    The constructor of the model refuses an unsuitable `f`. A class of torchidl is known by its name, and a class of a
    user's that is derived from one is refused if it overrides anything, whatever its name is.
    """
    if not isinstance(f, type) or issubclass(f, ImplicitFunction):
        return f
    by_name = {ours.__name__: ours for ours in FUNCTIONS.values()}
    way_out = (
        "pass a class of idl_ref as f, and phi and dphi, if they differ from relu's, as "
        "activation=idl_ref.Activation(name, phi, slope, lipschitz), with functions of NumPy arrays"
    )
    without_overrides(f, lambda cls: cls.__module__.partition(".")[0] in ("torchidl", "torch", "builtins"), way_out)
    theirs = [cls for cls in f.__mro__ if cls.__module__.partition(".")[0] == "torchidl" and cls.__name__ in by_name]
    return by_name[theirs[0].__name__] if theirs else by_name.get(f.__name__, f)
