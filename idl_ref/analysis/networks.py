"""This module writes feed-forward nets as implicit models, whose A is strictly upper triangular."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np

from idl_ref import checks, systems
from idl_ref.activation_names import AnyActivation, joint
from idl_ref.composition import assembled, check_models, dense, named, system, without_preprocessing
from idl_ref.factors import norm_inf
from idl_ref.functions import ImplicitFunctionTriu
from idl_ref.model import ImplicitModel
from idl_ref.settings import Settings

__all__ = ["network", "residual", "unrolled"]


def network(layers: Iterable[tuple[Any, Any]], activation: AnyActivation = "relu", **settings: Any) -> ImplicitModel:
    """Return the model of a feed-forward net: X_l = φ(W_l X_{l−1} + b_l) from X₀ = U, and Ŷ = W_k X_{k−1} + b_k.

    With X = (X_{k−1}, …, X₁), for k = 4 layers::

        A = [ 0  W₃  0  ]    B = [ 0   b₃ ]    C = [ W₄  0  0 ]    D = [ 0  b₄ ]
            [ 0  0   W₂ ]        [ 0   b₂ ]
            [ 0  0   0  ]        [ W₁  b₁ ]

    Parameters
    ----------
    layers : list of pairs (W, b)
        The weights of each layer, W_l (n_l, n_{l−1}) and b_l (n_l,), from the first to the last; b_l = None stands for
        zeros. The last layer, which makes the outputs, has no activation. PyTorch stores W so; Keras and scikit-learn
        store Wᵀ.
    activation : str, Activation, or a list with one entry per hidden layer
        The activation φ of all hidden layers, or that of each, from the first to the last. An entry of the list may
        itself be a list with the activation of each unit of its layer.
    **settings
        Other arguments of ImplicitModel, such as dtype, f and kappa. dtype is float32 if all weights are, else float64.
        f is ImplicitFunctionTriu, which uses the strict upper triangle of A, so that the model is well posed for all
        weights; training can then change every entry of this triangle, and not only those of the net.

    Returns
    -------
    ImplicitModel
        A model with n₁ + … + n_{k−1} hidden units, with bias, which "substitution" solves without iterations. A net of
        one layer is the affine map Ŷ = W U + b, and gets one hidden unit, which is 0.

    Raises
    ------
    ValueError, TypeError
        There is no layer, or the shapes of W and b do not fit together, or a setting is wrong.

    Notes
    -----
    The weights are copied as they are, so that the model does what the net does, up to the order of its sums. The norm
    ‖A‖∞ is the largest one of W₂ … W_{k−1}, and the Perron root of |A| is 0.
    Cost: n² entries, of which only those of the net are not 0.
    Source: El Ghaoui et al., Implicit Deep Learning, section on deep neural networks as implicit models.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> W1, W2, b1, b2 = rng.standard_normal((8, 4)), rng.standard_normal((3, 8)), np.ones(8), np.zeros(3)
    >>> model, U = network([(W1, b1), (W2, b2)]), rng.standard_normal((5, 4))
    >>> bool(np.allclose(model(U), np.maximum(U @ W1.T + b1, 0) @ W2.T + b2, rtol=1e-13))
    True
    >>> model
    ImplicitModel(4, 3, 8, f=ImplicitFunctionTriu, kappa=0.99, activation="relu", dtype="float64")
    """
    read_off = {"input_dim", "output_dim", "hidden_dim", "bias", "no_D", "is_low_rank", "rank"} & settings.keys()
    if read_off:
        raise TypeError(f"the layers determine {', '.join(sorted(read_off))}; got a setting for it: leave it out.")
    each = _checked_layers(layers)
    dtype = checks.float_dtype(*(F for layer in each for F in layer))
    found = systems.feedforward(each)
    n, (q, p) = len(found.A), found.D.shape
    arguments: dict[str, Any] = {"f": ImplicitFunctionTriu, "dtype": dtype} | settings
    whole = Settings(p - 1, q, n, bias=True, activation=_of_states(activation, each[:-1]), **arguments)
    return _unchanged(assembled(ImplicitModel, whole, found))


def _unchanged(model: ImplicitModel) -> ImplicitModel:
    """Return a model whose f leaves its weights as they are; ValueError is raised for another f."""
    raw, (used,) = model.parameters["A"], model.effective_weights().factors
    if not np.array_equal(raw, used):
        raise ValueError(
            f"f must leave the weights of the net as they are; got {model.f.__name__}, which would change A, where "
            f"‖A‖∞ = {norm_inf((raw,)):.3g}: leave f out, and use rescale, so that the norm becomes small."
        )
    return model


def residual(*models: ImplicitModel) -> ImplicitModel:
    """Return the model of a residual net: U ← U + M(U), for one model after the other; Ŷ is the last U.

    For one model, A, B and C are its own, and D becomes D + I. For several, the result is the `cascade` of these. A
    pre-activation block U + V φ(W U + b) + c is ``network([(W, b), (V, c)])``; in a chain of such blocks, A has the
    block W_l V_k for every pair of blocks k < l, and there are no states that only hand U on.

    Parameters
    ----------
    *models : ImplicitModel
        The blocks, from the first to the last, each with as many outputs as inputs, and without preprocessing. All have
        the same dtype; their activations may differ.

    Returns
    -------
    ImplicitModel
        For one model, a copy that has a D, with all other parameters and settings of the model: also a low-rank A and f
        stay what they are. For several, the model and the settings are those of `cascade`. It has no classes.

    Raises
    ------
    TypeError
        An argument is not an ImplicitModel, or there is none.
    ValueError
        A model has another number of outputs than of inputs, or preprocessing, or the models do not fit together.

    Notes
    -----
    The Perron root of |A| is the largest one of the models: 0 for nets. Norms grow with the depth, because W_l V_k is a
    product for every pair of blocks; `rescale` reduces them.
    Cost: that of the cascades, less than 2 n² p flops for n hidden units in all.
    Source: El Ghaoui et al., Implicit Deep Learning, section on residual networks; He et al., Identity mappings in deep
    residual networks, ECCV 2016 (pre-activation).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> W, V, b, U = rng.standard_normal((8, 4)), rng.standard_normal((4, 8)), np.ones(8), np.ones((5, 4))
    >>> block = network([(W, b), (V, None)])
    >>> bool(np.allclose(residual(block)(U), U + np.maximum(U @ W.T + b, 0) @ V.T))
    True
    >>> residual(block, block, block).hidden_dim
    24
    """
    names = named(models)
    if not models:
        raise TypeError("models must be one or more ImplicitModels; got none: pass them one after the other.")
    check_models(names)
    return reduce(lambda first, second: second @ first, [_with_skip(name, model) for name, model in names.items()])


def unrolled(model: ImplicitModel, steps: int) -> ImplicitModel:
    """Return the feed-forward net of K steps of a model, as a triangular model: Ŷ = C X_K + D U, without a limit.

    X_k = φ(A X_{k−1} + B U) from X₀ = 0. With X = (X_K, …, X₁), for K = 3 steps:

    .. code-block:: text

        𝐀 = [ 0  A  0 ]    𝐁 = [ B ]    𝐂 = [ C  0  0 ]    𝐃 = D
            [ 0  0  A ]        [ B ]
            [ 0  0  0 ]        [ B ]

    Parameters
    ----------
    model : ImplicitModel
        The model with n hidden units. Its effective weights are used.
    steps : int
        The number of steps K ≥ 1.

    Returns
    -------
    ImplicitModel
        A model with K n hidden units and f=ImplicitFunctionTriu, and otherwise the settings of `model`, except that
        "auto" stands for another method. preprocessing, classes and columns are those of `model`.

    Raises
    ------
    TypeError, ValueError
        `model` is not an ImplicitModel, or `steps` is not a whole number ≥ 1.

    Notes
    -----
    It computes what `model` does with mitr=K, method="picard" and tol=0. Its state differs from the equilibrium by at
    most κᴷ/(1 − κ) ‖φ(B u)‖∞ for κ = Lip(φ) ‖A‖∞ < 1. Weights are not shared when it is trained on.
    Cost: (K n)² entries; a low-rank A is multiplied out.

    Examples
    --------
    >>> model, U = ImplicitModel(4, 3, 20, kappa=0.5, dtype="float64", seed=0), np.ones((5, 4))
    >>> errors = [float(np.abs(unrolled(model, K)(U) - model(U)).max()) for K in (1, 4, 16)]
    >>> errors[0] > errors[1] > errors[2], unrolled(model, 4).hidden_dim
    (True, 80)
    """
    check_models({"model": model})
    steps = checks.integer("steps", steps, 1)
    n = model.hidden_dim
    phi = joint([(model.activation, n)] * steps)
    settings = dense(model.settings, f=ImplicitFunctionTriu, hidden_dim=steps * n, activation=phi, method="auto")
    result = assembled(ImplicitModel, settings, systems.unrolled(system(model), steps), model.preprocessing)
    result.classes, result.columns = model.classes, model.columns
    return result


def _with_skip(name: str, model: ImplicitModel) -> ImplicitModel:
    """Return U + model(U): a copy of the model with D + I, where I does not meet the bias."""
    without_preprocessing(name, model, "its outputs are added to U as it is")
    s = model.settings
    if s.input_dim != s.output_dim:
        raise ValueError(
            f"{name} must have as many outputs as inputs, because U is added to its outputs; got {s.input_dim} inputs "
            f"and {s.output_dim} outputs: put a linear layer round it, or use cascade."
        )
    parameters = {key: W.copy() for key, W in model.parameters.items()}
    parameters["D"] = systems.skipped(system(model)).D[:, : s.input_dim + s.bias].astype(s.dtype)
    result = ImplicitModel.from_parameters(replace(s, no_D=False), parameters)
    result.columns = model.columns
    return result


def _of_states(activation: AnyActivation, hidden: list[tuple[np.ndarray, np.ndarray]]) -> Any:
    """Return the activation of the states of a net, which begin with those of the last hidden layer."""
    if not isinstance(activation, (list, tuple)):
        return activation
    if len(activation) != len(hidden):
        raise ValueError(
            f"activation must be one, or a list with one per hidden layer, of which there are {len(hidden)}; got "
            f"{len(activation)}: the last pair (W, b) has none."
        )
    parts = [(phi, len(b)) for phi, (_, b) in zip(activation, hidden, strict=True)]
    return joint(parts[::-1]) if parts else "identity"


def _checked_layers(layers: Iterable[tuple[Any, Any]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the layers as arrays, with zeros for a missing b, and refuse those that do not fit together."""
    result = []
    if not isinstance(layers, Iterable):
        raise TypeError(f"layers must be pairs (W, b); got {type(layers).__name__}: pass [(W₁, b₁), …].")
    for i, pair in enumerate(layers, 1):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"layer {i} must be a pair (W, b); got {type(pair).__name__}: pass [(W₁, b₁), …].")
        W = checks.real_array(f"W of layer {i}", pair[0])
        checks.matrix(f"W of layer {i}", W, "(outputs, inputs)")
        b = np.zeros(len(W), W.dtype) if pair[1] is None else checks.real_array(f"b of layer {i}", pair[1])
        checks.shape(f"b of layer {i}", b, (len(W),), "one number per row of W")
        result.append((W, b))
    if not result:
        raise ValueError("layers must have at least one pair (W, b); got none: the last one makes the outputs.")
    for i, ((V, _), (W, _)) in enumerate(pairwise(result), 2):
        if W.shape[1] != len(V):
            raise ValueError(
                f"W of layer {i} must have {len(V)} columns, one per output of layer {i - 1}; got the shape {W.shape}: "
                "each W has a row per output; transpose those of scikit-learn and Keras."
            )
    return result
