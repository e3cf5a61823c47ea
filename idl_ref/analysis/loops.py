"""This module closes a loop of two implicit models, which is one implicit model again."""

from __future__ import annotations

import numpy as np

from idl_ref import systems
from idl_ref.composition import assembled, check_models, joined, same_kind, system, without_preprocessing
from idl_ref.model import ImplicitModel

__all__ = ["feedback"]

WORST_CONDITION = 1e8  # Half of the digits of float64 are lost in a loop with a worse direct path, so it is refused.


def feedback(forward: ImplicitModel, back: ImplicitModel) -> ImplicitModel:
    """Return one model whose output Ŷ solves Ŷ = forward(U + back(Ŷ)): the second model closes a loop round the first.

    With E = (I − D₁D₂)⁻¹ and X = (X₁, X₂), without the bias::

        Ŷ = C X + D U        with C = E [ C₁  D₁C₂ ],  D = E D₁
        V = [0  C₂] X + D₂ Ŷ                                          the output of back
        X = φ([A₁X₁ + B₁(U + V);  A₂X₂ + B₂Ŷ])                        with Ŷ and V put in

    Parameters
    ----------
    forward : ImplicitModel
        The model with the weights A₁, …, D₁ that takes U + V (p) to Ŷ (q).
    back : ImplicitModel
        The model with the weights A₂, …, D₂ that takes Ŷ (q) to V (p). It must have the dtype of `forward`. Neither
        model has preprocessing.

    Returns
    -------
    ImplicitModel
        A model with n₁ + n₂ hidden units. Its settings are as those of `cascade`; classes are those of `forward`.

    Raises
    ------
    TypeError
        An argument is not an ImplicitModel.
    ValueError
        The models do not fit together, or I − D₁D₂ is singular, or its condition number is above 1e8.

    Notes
    -----
    A loop of two well-posed models need not be well posed: look at `perron_root` of A, or at the status of a solution.
    If D₁ or D₂ is 0, then E = I. The relative error of the weights is about 1e-16 times the
    condition number of I − D₁D₂, which is therefore limited.
    Cost: 2/3 q³ + 2 (p + q)(n + p)(n + q) flops. Source: El Ghaoui et al., Implicit Deep Learning, section on
    composition (feedback connection); the direct path follows Zhou, Doyle and Glover, Robust and Optimal Control.

    Examples
    --------
    >>> forward = ImplicitModel(2, 3, 20, kappa=0.5, dtype="float64", tol=0, seed=0)
    >>> back = ImplicitModel(3, 2, 10, kappa=0.5, dtype="float64", tol=0, seed=1)
    >>> for name in "BCD":
    ...     back.parameters[name] *= 0.1
    >>> U = np.ones((5, 2))
    >>> Y = feedback(forward, back)(U)
    >>> bool(np.allclose(Y, forward(U + back(Y)), rtol=1e-13))
    True
    """
    models = {"forward": forward, "back": back}
    check_models(models)
    same_kind(models)
    if (forward.input_dim, forward.output_dim) != (back.output_dim, back.input_dim):
        raise ValueError(
            "back must take the q outputs of forward, and return as many numbers as forward has inputs, because these "
            f"are added to U; got forward from {forward.input_dim} to {forward.output_dim} and back from "
            f"{back.input_dim} to {back.output_dim}: make back with input_dim={forward.output_dim} and "
            f"output_dim={forward.input_dim}."
        )
    for name, model in models.items():
        without_preprocessing(name, model, "U and Ŷ are added and handed round the loop as they are")
    one, two = system(forward), system(back)
    _check_loop(systems.loop(one, two))
    settings = joined([forward, back], chained=True, input_dim=forward.input_dim, no_D=forward.no_D)
    model = assembled(ImplicitModel, settings, systems.feedback(one, two))
    model.classes, model.columns = forward.classes, forward.columns
    return model


def _check_loop(matrix: np.ndarray) -> None:
    """Refuse a loop whose direct path I − D₁D₂ cannot be inverted accurately.   (q, q)"""
    condition = float(np.linalg.cond(matrix)) if np.isfinite(matrix).all() else np.inf
    if not condition <= WORST_CONDITION:
        raise ValueError(
            f"I − D₁D₂ must be regular, with a condition number of at most {WORST_CONDITION:g}, because Ŷ depends on "
            f"itself through D of forward and of back; got the condition number {condition:.1e}: make a model with "
            "no_D=True, or scale one of the two D down."
        )
