"""This module bounds how far the outputs of a changed model are from those of the model before."""

from __future__ import annotations

from typing import Any

import numpy as np

from idl_ref import activations
from idl_ref.activations import OWN
from idl_ref.analysis.balls import span
from idl_ref.analysis.boxes import Resolvent, System
from idl_ref.certificate import SAFETY
from idl_ref.composition import check_models
from idl_ref.model import ImplicitModel

__all__ = ["deviation"]


def deviation(model: ImplicitModel, other: ImplicitModel, U: Any) -> np.ndarray:
    """Bound how far the outputs that `other` computes are from the exact outputs of `model`.   (m, p) -> (m, q)

    With the states x̂′ and the outputs ŷ′ that `other` computed for u::

        |x − x̂′| ≤ (I − Lip(φ)|A|)⁻¹ |φ(A x̂′ + B u) − x̂′|
        |y − ŷ′| ≤ |C| |x − x̂′| + |C x̂′ + D u − ŷ′|

    Parameters
    ----------
    model, other : ImplicitModel
        Models with the same n hidden units, p inputs and q outputs, such as a model and what `prune` made of it.
    U : (m, p) array
        Raw inputs.

    Returns
    -------
    (m, q) array
        The bound of each output, with all rounding included, also that of U to the dtype of the models; inf for a
        sample that is not finite, and everywhere unless the Perron root of Lip(φ)|A| is below 1.

    Raises
    ------
    TypeError, ValueError
        Models that do not fit together, weights that are not finite, an activation of your own.

    Notes
    -----
    The bound is a posteriori: it knows the change of the weights only by the residual that x̂′ leaves. Its absolute
    values stand outside of the products, so that changes that cancel each other cost nothing. How much of the bound is
    real depends on 1/(1 − κ): it is tight to a factor of a few at κ = ½, and hardly of use at 0.99.
    Cost: one forward pass of `other`, 2/3 n³ flops, and some 10 n (n + p) m.

    Examples
    --------
    >>> from idl_ref.analysis import prune
    >>> model = ImplicitModel(4, 3, 20, kappa=0.5, dtype="float64", seed=0)
    >>> deviation(model, prune(model, 0.5), np.ones((2, 4))).shape
    (2, 3)
    """
    check_models({"model": model, "other": other})
    sizes = [(m.input_dim, m.hidden_dim, m.output_dim) for m in (model, other)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"model and other must have the same numbers of inputs, hidden units and outputs; got {sizes[0]} and "
            f"{sizes[1]}: compare a model with what was made of it."
        )
    if activations.get(model.activation).code == OWN:
        raise ValueError(
            f"model must have a built-in activation, whose rounding is known; got {str(model.activation)!r} of your "
            "own: compare the outputs of both models instead."
        )
    equations, forward = System.of(model), other.forward_pass(U)
    X, Y = forward.solution.X.astype(np.float64), forward.Y.astype(np.float64)
    raw = np.asarray(U, np.float64)
    raw = raw.reshape(len(raw), model.input_dim)  # A preprocessing takes images, too.
    with np.errstate(invalid="ignore", over="ignore"):
        taken = raw if model.preprocessing else raw.astype(model.dtype).astype(np.float64)
        inputs = equations.inputs(np.minimum(raw, taken), np.maximum(raw, taken))
        E = Resolvent(equations)(_farthest(equations.image(*equations.arguments((X, X), inputs)), X))
        low, high = span(equations.readout, *(np.vstack([X, u]) for u in inputs))
        n = len(X)
        bound = _farthest((low.lower(), high.upper()), Y) + SAFETY * (equations.readout.size()[:, :n] @ E)
    return np.where(np.isfinite(bound), np.nextafter(bound, np.inf), np.inf).T


def _farthest(box: tuple[np.ndarray, np.ndarray], M: np.ndarray) -> np.ndarray:
    """Return an upper bound of the distance of each entry of M from the points of a box."""
    low, high = box
    return np.nextafter(np.maximum(np.abs(low - M), np.abs(high - M)), np.inf)
