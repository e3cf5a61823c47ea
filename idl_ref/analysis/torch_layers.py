"""This module reads layers of PyTorch as affine maps with activations between them, without importing torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from idl_ref.activations import LEAK
from idl_ref.choices import ActivationName

# The activations of PyTorch by the names of their classes, with what their arguments must be for our φ.
TORCH: dict[str, tuple[ActivationName, dict[str, float]]] = {
    "ReLU": ("relu", {}),
    "LeakyReLU": ("leaky_relu", {"negative_slope": LEAK}),
    "Tanh": ("tanh", {}),
    "Sigmoid": ("sigmoid", {}),
    "ELU": ("elu", {"alpha": 1.0}),
    "Hardtanh": ("hardtanh", {"min_val": -1.0, "max_val": 1.0}),
    "Softsign": ("softsign", {}),
}
PROBABILITIES = ("Softmax", "LogSoftmax")
Affine = tuple[np.ndarray, np.ndarray]  # W (n, p) and b (n,) of the map W U + b


def read(layers: Iterable[Any]) -> tuple[list[Affine], list[ActivationName]]:
    """Return the affine maps of the layers, and the activation after each map but the last."""
    done: list[Affine] = []
    pending: Affine | None = None  # the affine map since the last activation; None for none
    found: list[ActivationName] = []
    for layer in _flattened(layers):
        name, at_the_start = type(layer).__name__, not done and pending is None
        if name == "Linear":
            pending = _after(pending, _array(layer.weight), None if layer.bias is None else _array(layer.bias))
        elif not _does_nothing(layer, at_the_start):
            phi = _activation(layer, name)
            if at_the_start:
                raise ValueError(
                    f"the first layer must be Linear, because it tells the number of inputs; got {name}: put a Linear "
                    "layer with the identity as weight before it."
                )
            found.append(phi)
            done, pending = [*done, pending or _identity(done)], None
    if not done and pending is None:
        raise ValueError("layers must have a Linear layer; got none: pass the layers or a Sequential of a net.")
    return [*done, pending or _identity(done)], found


def _flattened(layers: Iterable[Any]) -> Iterable[Any]:
    """Yield the layers, and those of every Sequential among them."""
    if not isinstance(layers, Iterable):
        raise TypeError(
            f"layers must be a list of layers or a Sequential; got {type(layers).__name__}: pass list(net.children()), "
            "if its forward calls them in this order."
        )
    for layer in layers:
        if type(layer).__name__ == "Sequential":
            yield from _flattened(layer)
        else:
            yield layer


def _does_nothing(layer: Any, first: bool) -> bool:
    """Tell whether a layer hands on what it takes: Identity, Flatten before the first Linear, Dropout after eval()."""
    name = type(layer).__name__
    if name == "Dropout" and layer.training:
        raise TypeError("Dropout must not be active, because a model has no randomness; got one: call net.eval().")
    return name in ("Identity", "Dropout") or (name == "Flatten" and first)


def _activation(layer: Any, name: str) -> ActivationName:
    """Return the name of φ for an activation layer."""
    if name not in TORCH:
        way_out = "convert the layers before it, and apply it to Ŷ yourself"
        if name in PROBABILITIES:
            way_out = "leave it out, so that the outputs are logits, which have the same largest entry"
        raise TypeError(f"layers must be Linear, {', '.join(TORCH)}; got {name}: {way_out}.")
    phi, arguments = TORCH[name]
    for argument, value in arguments.items():
        if (got := getattr(layer, argument, value)) != value:
            raise TypeError(
                f"{name} must have {argument}={value:g}, because our {phi} has it; got {got}: train with this value."
            )
    return phi


def _array(tensor: Any) -> np.ndarray:
    """Return a tensor as an array of float32 or float64; narrower types are exact in float32."""
    if not hasattr(tensor, "detach"):
        return np.asarray(tensor)
    tensor = tensor.detach().cpu()
    return (tensor if str(tensor.dtype) == "torch.float64" else tensor.float()).numpy()


def _identity(layers: list[Affine]) -> Affine:
    """Return the layer that hands on the outputs of the last one."""
    W, b = layers[-1]
    return np.eye(len(W), dtype=W.dtype), np.zeros_like(b)


def _after(pending: Affine | None, W: np.ndarray, b: np.ndarray | None) -> Affine:
    """Return the affine map W U + b, or W (V U + v) + b if there is one before it without an activation between."""
    b = np.zeros(len(W), W.dtype) if b is None else b
    if pending is None:
        return W, b
    V, v = (F.astype(np.float64) for F in pending)
    if W.shape[1] != len(V):
        raise ValueError(
            f"a Linear layer must take the {len(V)} outputs of the layer before it; got {W.shape[1]} inputs: leave out "
            "what does not belong to the net."
        )
    dtype = np.result_type(W, pending[0])
    return (W @ V).astype(dtype), (W @ v + b).astype(dtype)
