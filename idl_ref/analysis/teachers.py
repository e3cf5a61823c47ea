"""This module asks a teacher, a feed-forward network or an implicit model, for its states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from idl_ref import activation_names, activations, checks
from idl_ref import factors as fac
from idl_ref.activations import Activation
from idl_ref.choices import ActivationName
from idl_ref.columns import Columns
from idl_ref.model import ImplicitModel
from idl_ref.preprocessing import Standardise

Network = Sequence[tuple[Any, Any]]


class States(NamedTuple):
    """The states that a teacher has for m inputs; samples are columns.

    Attributes
    ----------
    U : (p, m) array
        The inputs, after the preprocessing of the teacher.
    Z, X : (n, m) arrays
        The states before and after the activation, X = φ(Z). For a network, the last hidden layer comes first.
    Y : (q, m) array
        The outputs of the teacher.
    activation : str or Activation
        φ.
    preprocessing : Standardise or None
        The first layer of the teacher.
    classes : (q,) array or None
        The labels that the outputs stand for.
    columns : Columns or None
        The columns of the table that the teacher was trained on.
    """

    U: np.ndarray
    Z: np.ndarray
    X: np.ndarray
    Y: np.ndarray
    activation: ActivationName | Activation
    preprocessing: Standardise | None = None
    classes: np.ndarray | None = None
    columns: Columns | None = None


def states(teacher: ImplicitModel | Network, U: Any, activation: ActivationName | Activation | None = None) -> States:
    """Return the states of a feed-forward network, or of an implicit model, for the inputs U.

    Parameters
    ----------
    teacher : ImplicitModel, or a list of pairs (W, b)
        For a network, W (n_out, n_in) and b (n_out,) are the weights and the bias of a layer, in the order in which
        the layers are applied. φ follows every layer but the last one.
    U : (m, p) array
        Inputs, one sample per row; for a model with preprocessing, they are raw.
    activation : str or Activation, optional
        φ of a network, "relu" if not given. An implicit model has its own.

    Returns
    -------
    States
        Its arrays have the dtype of the teacher; float64 for a network unless all its weights are float32.

    Raises
    ------
    ValueError, TypeError
        Layers that do not fit together, inputs of a wrong shape or with NaN or inf, or an activation for a model.
    NotConvergedError
        An equilibrium of the model did not converge.

    Notes
    -----
    Cost: that of the teacher's outputs.

    Examples
    --------
    >>> from idl_ref.analysis import sim
    >>> rng = np.random.default_rng(0)
    >>> network = [(rng.standard_normal((3, 2)), np.zeros(3)), (rng.standard_normal((1, 3)), np.ones(1))]
    >>> found = sim.states(network, rng.standard_normal((50, 2)))
    >>> found.X.shape, found.Y.shape
    ((3, 50), (1, 50))
    """
    if not isinstance(teacher, ImplicitModel):
        return _of_network(teacher, U, "relu" if activation is None else activation)
    if activation is not None:
        raise ValueError(
            f"activation is for a network; got activation={activation!r} and a model, whose activation is "
            f"{teacher.activation!r}: leave it out."
        )
    forward = teacher.forward_pass(U)
    solution = forward.solution.require()
    U = checks.finite("U", forward.U[: teacher.input_dim].T).T
    return States(
        U,
        fac.apply(forward.weights.factors, solution.X) + forward.Z,
        solution.X,
        forward.Y,
        teacher.activation,
        teacher.preprocessing,
        teacher.classes,
        teacher.columns,
    )


def _of_network(network: Network, U: Any, activation: ActivationName | Activation) -> States:
    """Return the states of the layers x ← φ(W x + b), the last hidden layer first, and its outputs W x + b."""
    row = activations.get(activation)
    if isinstance(row, activations.Mixed):
        raise ValueError(
            f"the activation of a network must be one name; got the mix {row}: make a model by "
            "idl_ref.analysis.network, which takes one per layer, and pass that."
        )
    phi = row.phi
    layers = _layers(network)
    dtype = checks.float_dtype(*(array for layer in layers for array in layer))
    U = checks.finite("U", checks.samples("U", U, "p", layers[0][0].shape[1], dtype)).T
    x, before, after = U, [], []
    for W, b in layers[:-1]:
        before.append(W @ x + b[:, None])
        x = phi(before[-1])
        after.append(x)
    Y = layers[-1][0] @ x + layers[-1][1][:, None]
    return States(U, np.vstack(before[::-1]), np.vstack(after[::-1]), Y, activation_names.by_name(activation))


def _layers(network: Network) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the layers of a network as arrays, after checks."""
    if not isinstance(network, (list, tuple)) or len(network) < 2:
        raise TypeError(
            "teacher must be an ImplicitModel or a list of at least two layers (W, b); "
            f"got {checks.shown(network)}: "
            "for scikit-learn, use [(W.T, b) for W, b in zip(net.coefs_, net.intercepts_)]."
        )
    layers: list[tuple[np.ndarray, np.ndarray]] = []
    for i, layer in enumerate(network):
        if not isinstance(layer, (list, tuple)) or len(layer) != 2:
            raise TypeError(
                f"layer {i} of the teacher must be a pair (W, b); got {checks.shown(layer)}: use zeros for b."
            )
        W, b = checks.real_array(f"W of layer {i}", layer[0]), checks.real_array(f"b of layer {i}", layer[1])
        checks.matrix(f"W of layer {i}", W, "(n_out, n_in)")
        checks.shape(f"b of layer {i}", b, (len(W),), "one number per row of W")
        if layers and W.shape[1] != len(layers[-1][0]):
            raise ValueError(
                f"W of layer {i} must have {len(layers[-1][0])} columns, one per output of the layer before it; "
                f"got shape {W.shape}: W is (n_out, n_in), so W.T may be what was meant."
            )
        layers.append((W, b))
    return layers
