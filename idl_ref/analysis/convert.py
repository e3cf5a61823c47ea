"""This module converts feed-forward nets of scikit-learn and PyTorch, and imports neither of these packages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from idl_ref.analysis import torch_layers
from idl_ref.analysis.networks import network
from idl_ref.choices import ActivationName
from idl_ref.columns import Columns
from idl_ref.model import ImplicitModel
from idl_ref.preprocessing import Standardise

__all__ = ["from_sklearn", "from_torch"]

SKLEARN: dict[str, ActivationName] = {"relu": "relu", "tanh": "tanh", "logistic": "sigmoid", "identity": "identity"}
OUTPUTS = ("identity", "softmax", "logistic")  # The output activations of scikit-learn that have logits as arguments.
Layers = list[tuple[np.ndarray, np.ndarray]]


def from_sklearn(estimator: Any, **settings: Any) -> ImplicitModel:
    """Return the model of a fitted MLPClassifier or MLPRegressor, whose predictions it makes.

    Parameters
    ----------
    estimator : MLPClassifier, MLPRegressor, or Pipeline of StandardScaler and one of them
        A fitted estimator. Its activation may be relu, tanh, logistic or identity. A StandardScaler becomes the
        preprocessing of the model.
    **settings
        Arguments for `network`, such as dtype and kappa.

    Returns
    -------
    ImplicitModel
        The model of `network`. For a regressor, its outputs are the predictions. For a classifier, they are the logits,
        which are what softmax takes to probabilities, and classes are those of the estimator. scikit-learn has one
        logit z for two classes; the model has the outputs (0, z), whose softmax is (1 − σ(z), σ(z)). For several labels
        per sample, there is a logit for each, which is above 0 if the label is predicted, and classes is None.

    Raises
    ------
    TypeError
        `estimator` is not such an estimator, or not fitted.
    ValueError
        Its outputs have another activation, such as exp for loss="poisson".

    Notes
    -----
    The weights are copied as they are, in float64, or in float32 if all of them are. Sums are in another order, so that
    outputs differ by rounding.
    Cost: that of `network`.

    Examples
    --------
    >>> from sklearn.neural_network import MLPClassifier
    >>> U, labels = np.random.default_rng(0).standard_normal((40, 2)), np.array(["in", "out"] * 20)
    >>> estimator = MLPClassifier(hidden_layer_sizes=(8, 8), max_iter=20, random_state=0, tol=1.0).fit(U, labels)
    >>> model = from_sklearn(estimator)
    >>> bool((model.classes[model(U).argmax(axis=1)] == estimator.predict(U)).all())
    True
    """
    *before, mlp = [step for _, step in estimator.steps] if hasattr(estimator, "steps") else [estimator]
    missing = [name for name in ("coefs_", "intercepts_", "activation", "out_activation_") if not hasattr(mlp, name)]
    if missing:
        raise TypeError(
            f"estimator must be a fitted MLPClassifier or MLPRegressor; got {type(mlp).__name__} without "
            f"{missing[0]}: call its fit first."
        )
    preprocessing = _standardise(before)
    if mlp.activation not in SKLEARN or mlp.out_activation_ not in OUTPUTS:
        raise ValueError(
            f"the estimator must have an activation among {', '.join(SKLEARN)}, and outputs with {', '.join(OUTPUTS)}; "
            f"got {mlp.activation} and {mlp.out_activation_}: use network([(W.T, b) for W, b in zip(estimator.coefs_, "
            "estimator.intercepts_)], activation), and apply the output activation to Ŷ yourself."
        )
    layers = [(np.ascontiguousarray(W.T), b) for W, b in zip(mlp.coefs_, mlp.intercepts_, strict=True)]
    classes = getattr(mlp, "classes_", None)
    if mlp.out_activation_ == "logistic":
        layers, classes = _two_classes(layers, classes)
    model = network(layers, SKLEARN[mlp.activation], **settings)
    model.preprocessing, model.classes = preprocessing, classes
    if classes is None and model.output_dim > 1:  # The file then tells that the outputs are numbers.
        names = getattr(mlp, "feature_names_in_", [f"x{i}" for i in range(model.input_dim)])
        model.columns = Columns.of_numbers(map(str, names), model.output_dim)
    return model


def from_torch(layers: Iterable[Any], **settings: Any) -> ImplicitModel:
    """Return the model of a list of PyTorch layers, or of a Sequential: Linear layers with activations between them.

    Parameters
    ----------
    layers : Sequential, or list of modules
        Linear, and ReLU, LeakyReLU, Tanh, Sigmoid, ELU, Hardtanh and Softsign with their default arguments.
        Identity, Flatten before the first Linear, and Dropout after `eval()` may stand anywhere, because they do
        nothing here. A Sequential in the list is opened. Successive Linear layers are multiplied to one.
    **settings
        Arguments for `network`, such as dtype and kappa.

    Returns
    -------
    ImplicitModel
        The model of `network`. If the last layer is an activation, the outputs are its values. dtype is that of the
        tensors, and float32 for float16 and bfloat16.

    Raises
    ------
    TypeError
        A layer of another class, or arguments of an activation that our φ does not have.
    ValueError
        No Linear layer, or sizes that do not fit together.

    Notes
    -----
    Classes are known by their names, so that torch is imported only by those who have it. Cost: that of `network`.

    Examples
    --------
    Any objects with the names and attributes of the layers will do:

    >>> class Linear:
    ...     weight, bias = np.ones((2, 3)), np.zeros(2)
    >>> class Tanh:
    ...     pass
    >>> model = from_torch([Linear(), Tanh()])
    >>> print(model([[0.1, 0.2, 0.3]]).round(4), model.activation)
    [[0.537 0.537]] tanh
    """
    found, activation = torch_layers.read(layers)
    return network(found, activation, **settings)


def _standardise(steps: list[Any]) -> Standardise | None:
    """Return the preprocessing that the steps of a pipeline before its estimator are: a StandardScaler, or nothing."""
    if not steps:
        return None
    scaler = steps[0]
    if len(steps) > 1 or not all(hasattr(scaler, name) for name in ("mean_", "scale_", "with_mean")):
        got = " and ".join(type(step).__name__ for step in steps)
        raise TypeError(
            "before the estimator, a pipeline must have one fitted StandardScaler, or nothing, because a model "
            f"standardises; got {got}: convert pipeline[-1], and call pipeline[:-1].transform on every input yourself."
        )
    # With with_mean=False, mean_ may hold the mean all the same.
    mean, scale = scaler.mean_ if scaler.with_mean else 0.0, scaler.scale_ if scaler.with_std else 1.0
    return Standardise(*(np.broadcast_to(value, scaler.n_features_in_) for value in (mean, scale)))


def _two_classes(layers: Layers, classes: Any) -> tuple[Layers, Any]:
    """Return the layers with the logits (0, z) in the place of z, for two classes.

    Several logistic outputs are labels that do not exclude each other, which are no classes of a model.
    """
    *before, (W, b) = layers
    if len(W) > 1:
        return layers, None
    return [*before, (np.vstack([np.zeros_like(W), W]), np.append(np.zeros_like(b), b))], classes
