"""This module imports monotone operator equilibrium networks (monDEQ), whose states are z = relu(W z + U x + b)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from idl_ref import checks, monotone, torchidl
from idl_ref.functions import ImplicitFunctionMonotone
from idl_ref.model import ImplicitModel

__all__ = ["from_mondeq"]

PARTS = ("U.weight", "U.bias", "A.weight", "B.weight")
READOUT = ("weight", "bias")
DERIVED = ("input_dim", "output_dim", "hidden_dim", "f", "no_D", "bias", "kappa", "is_low_rank", "rank", "activation")


def from_mondeq(state_dict: Mapping[str, Any], m: float, **settings: Any) -> ImplicitModel:
    """Return the model of a fully connected monDEQ, which has the same outputs for the same weights.

    Its states are z = relu(W z + U x + b) with W = (1 − m) I − AᵀA + B − Bᵀ, and its outputs are y = C z + c.

    Parameters
    ----------
    state_dict : mapping
        The state_dict of the network, or a mapping from the same names to arrays: U.weight (n, p), U.bias (n,),
        A.weight (n, n) and B.weight (n, n), with anything before these names, as mon.linear_module.; and a weight
        (q, n) and bias (q,) of the Linear layer that reads the states out, as Wout.weight and Wout.bias.
    m : float
        The m > 0 of the network, which a state_dict does not hold. The networks of the public code have m = 0.1 unless
        it was given, and their layer on its own has m = 1.
    **settings
        Other constructor arguments, such as tol, method and dtype, which is that of the weights if not given.

    Returns
    -------
    ImplicitModel
        A model with f=ImplicitFunctionMonotone and κ = 1 − m, or 0 for m > 1, so that it remains monotone in further
        training. D holds the bias c alone, and is trained with all other weights.

    Raises
    ------
    ValueError, TypeError
        Names that are missing, missing twice, or left over; shapes that do not fit together, as those of convolutions;
        an m that is not positive; settings that follow from the weights.

    Notes
    -----
    The raw A has the triangle R of the decomposition A = Q R, as RᵀR = AᵀA. W is that of the network up to rounding.
    Cost: about 2 n³ flops.
    Source: Winston and Kolter, Monotone operator equilibrium networks, NeurIPS 2020.

    Examples
    --------
    >>> state = {"mon.linear_module.U.weight": np.ones((2, 3)), "mon.linear_module.U.bias": np.zeros(2)}
    >>> state |= {"mon.linear_module.A.weight": np.eye(2), "mon.linear_module.B.weight": np.array([[0.0, 4], [0, 0]])}
    >>> state |= {"Wout.weight": np.ones((1, 2)), "Wout.bias": np.ones(1)}
    >>> model = from_mondeq(state, m=0.5)
    >>> print(model.effective()["A"].round(6), model([[1.0, 1.0, 1.0]]).round(6))
    [[-0.5  4. ]
     [-4.  -0.5]] [[3.]]
    """
    m = checks.number("m", m, 0, why="The network is monotone for m > 0.")
    if not m > 0:
        raise ValueError(f"m must be above 0, because the network is monotone for m > 0; got {m:g}: look at its code.")
    if given := [name for name in DERIVED if name in settings]:
        raise ValueError(f"{given[0]} follows from the weights and m; got {settings[given[0]]!r}: leave it out.")
    U, b, A, B, C, c = _weights(state_dict)
    dtype = settings.pop("dtype", checks.float_dtype(U, b, A, B, C, c))
    kappa = max(1 - m, 0.0)
    model = ImplicitModel(
        U.shape[1], len(C), len(U), f=ImplicitFunctionMonotone, bias=True, kappa=kappa, dtype=dtype, **settings
    )
    P = np.vstack([A.astype(np.float64), max(m - 1, 0.0) ** 0.5 * np.eye(len(U))])  # PᵀP = AᵀA + max(m − 1, 0) I
    model.parameters["A"][...] = monotone.raw(P, B.astype(np.float64), kappa)
    model.parameters["B"][...] = np.column_stack([U, b])
    model.parameters["C"][...] = C
    model.parameters["D"][...] = np.column_stack([np.zeros((len(C), U.shape[1])), c])
    return model


def _weights(state_dict: Any) -> list[np.ndarray]:
    """Return U, b, A, B, C and c, after checks of names and shapes."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(
            f"state_dict must be a mapping from names to arrays; got {type(state_dict).__name__}: pass the state_dict "
            "of the network, model.state_dict()."
        )
    names = [str(name) for name in state_dict]
    found = [_only(names, [name for name in names if f".{name}".endswith(f".{part}")], part) for part in PARTS]
    rest = [name for name in names if name not in found]
    found += [_only(rest, [name for name in rest if name.rpartition(".")[2] == part], part) for part in READOUT]
    if extra := [name for name in names if name not in found]:
        raise ValueError(
            f"state_dict must hold {', '.join(PARTS)}, and the weight and bias of a Linear layer; got also "
            f"{extra[:4]}: this is another network, or leave them out if they do not belong to it."
        )
    weights = [torchidl.weight(name, state_dict[name]) for name in found]
    for name, W in ((found[0], weights[0]), (found[4], weights[4])):
        checks.matrix(name, W, "(rows, columns), as convolutions are not read")
    n, q = len(weights[0]), len(weights[4])
    shapes = {1: (n,), 2: (n, n), 3: (n, n), 4: (q, n), 5: (q,)}
    for k, shape in shapes.items():
        checks.shape(found[k], weights[k], shape, f"for {n} states and {q} outputs")
    return weights


def _only(names: list[str], found: list[str], part: str) -> str:
    """Return the one name that was found for a part."""
    if len(found) == 1:
        return found[0]
    raise ValueError(
        f"state_dict must hold one {part}, as a fully connected monDEQ has it; got {found or names[:9]}: pass the "
        "state_dict of the network with its readout, a Linear layer."
    )
