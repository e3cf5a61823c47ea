"""This module composes implicit models into one implicit model.

The states X = (X₁, X₂, …) of all models solve one equilibrium equation, in which each row has the φ of its model. The
blocks of its matrices are products of matrices of the models. `second @ first` is a cascade, and M₁ + M₂ a sum.

All functions use the effective weights, so that the result has f=ImplicitFunction, which leaves its A alone; a low-rank
A is multiplied out. Products are computed in float64, and each entry is rounded once to the dtype of the models.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from idl_ref import composition, systems
from idl_ref.composition import assembled, check_models, joined, named, same_input, same_kind, system
from idl_ref.model import ImplicitModel
from idl_ref.preprocessing import Standardise

__all__ = ["add", "cascade", "parallel", "stack"]


def cascade(second: ImplicitModel, first: ImplicitModel) -> ImplicitModel:
    """Return one model X = φ(A X + B U), Ŷ = C X + D U whose output is second(first(U)); `second @ first` is the same.

    Let X = (X₂, X₁), and let A₂, …, D₁ be the effective weights of the two models. Then::

        A = [ A₂  B₂C₁ ]    B = [ B₂D₁ ]    C = [ C₂  D₂C₁ ]    D = D₂D₁
            [ 0   A₁   ]        [ B₁   ]

    Parameters
    ----------
    second : ImplicitModel
        The model that is applied last, with n₂ hidden units, q₁ inputs and q₂ outputs, and without preprocessing.
    first : ImplicitModel
        The model that is applied first, with n₁ hidden units, p inputs and q₁ outputs. It must have the dtype of
        `second`. If its activation differs, that of the result is a list of those of all rows.

    Returns
    -------
    ImplicitModel
        A model with the parameters A (n, n), B (n, p), C (q₂, n) and D (q₂, p), where n = n₂ + n₁; all are new arrays.

        If one of the two models has a bias, B and D have one more column, which holds the combined bias. If D is 0 for
        all weights, the model has no D. Its f is ImplicitFunction, because its weights are effective ones, and because
        no other f would leave both blocks of A unchanged.

        mitr and grad_mitr are the sums of those of the two models, because X₂ converges after X₁. tol and grad_tol are
        the smaller ones, and kappa, which ImplicitFunction does not use, is the larger one. backend, method and
        on_failure are those of the two models if they agree, else the defaults; "substitution" becomes "auto", which
        uses substitution if A is triangular. preprocessing is that of `first`, and classes are those of `second`.

    Raises
    ------
    TypeError
        An argument is not an ImplicitModel.
    ValueError
        Sizes or dtypes do not fit together, or `second` has preprocessing.

    Notes
    -----
    The matrix |A| is block triangular, so that its Perron root is the larger one of those of |A₂| and |A₁|. A cascade
    of models that are well posed by their Perron roots is therefore well posed, and `idl_ref.wellposed.perron_root`
    shows it for the result. The norm ‖A‖∞ may be above 1, because B₂C₁ can be arbitrarily large; `rescale` reduces it.
    A low-rank A₁ or A₂ is multiplied out, so that the result is dense, with n² entries.
    Cost: 2 (n₂ + q₂) q₁ (n₁ + p) flops in float64, and 2 n² r flops for a low-rank A; each entry is rounded once to the
    dtype. An iteration of the result takes 2 (n₂ + n₁)² m flops, one iteration of both models 2 (n₂² + n₁²) m flops.
    Source: El Ghaoui et al., Implicit Deep Learning, SIAM J. Math. Data Sci. 3 (2021), section on composition
    (cascade connection).

    Examples
    --------
    >>> from idl_ref.wellposed import norm_inf, perron_root
    >>> first, second = ImplicitModel(4, 3, 20, seed=0), ImplicitModel(3, 2, 10, bias=True, seed=1)
    >>> model, U = cascade(second, first), np.ones((5, 4))
    >>> model
    ImplicitModel(4, 2, 30, f=ImplicitFunction, kappa=0.99, activation="relu", dtype="float32")
    >>> bool(np.allclose(model(U), second(first(U)), atol=1e-5))
    True
    >>> A = model.parameters["A"]
    >>> norm_inf(A) > 1, perron_root(A).upper < 1
    (True, True)
    """
    check_models({"second": second, "first": first})
    return composition.cascade(second, first)


def add(*models: ImplicitModel) -> ImplicitModel:
    """Return one model whose output is the sum M₁(U) + M₂(U) + … of models of the same U; `M₁ + M₂` is the same.

    With X = (X₁, X₂, …)::

        A = [ A₁  0  ]    B = [ B₁ ]    C = [ C₁  C₂ ]    D = D₁ + D₂
            [ 0   A₂ ]        [ B₂ ]

    Parameters
    ----------
    *models : ImplicitModel
        Models with p inputs and q outputs, with the same dtype, preprocessing and columns. Those that have
        classes have the same ones.

    Returns
    -------
    ImplicitModel
        A model with n = n₁ + n₂ + … hidden units. Its settings are as those of `cascade`, but mitr and grad_mitr are
        the largest ones, because the states do not depend on each other.

    Raises
    ------
    TypeError
        An argument is not an ImplicitModel, or there is none.
    ValueError
        The models do not fit together.

    Notes
    -----
    ‖A‖∞ and the Perron root of |A| are the largest ones of the models, so that the sum of well-posed models is well
    posed. The mean of an ensemble is this sum with C and D divided by the number of models.
    Cost: n² + 2 n p entries are copied. Source: El Ghaoui et al., Implicit Deep Learning, section on composition.

    Examples
    --------
    >>> one, two = ImplicitModel(4, 3, 20, seed=0), ImplicitModel(4, 3, 10, seed=1)
    >>> U = np.ones((5, 4))
    >>> bool(np.allclose(add(one, two)(U), one(U) + two(U), atol=1e-5)), (one + two).hidden_dim
    (True, 30)
    """
    return composition.total(_several(models))


def stack(*models: ImplicitModel) -> ImplicitModel:
    """Return one model whose output is (M₁(U), M₂(U), …): all models take the same U, and their outputs are joined.

    With X = (X₁, X₂, …)::

        A = [ A₁  0  ]    B = [ B₁ ]    C = [ C₁  0  ]    D = [ D₁ ]
            [ 0   A₂ ]        [ B₂ ]        [ 0   C₂ ]        [ D₂ ]

    Parameters
    ----------
    *models : ImplicitModel
        Models with p inputs, with the same dtype, preprocessing and columns.

    Returns
    -------
    ImplicitModel
        A model with q₁ + q₂ + … outputs, without classes. Its settings are as those of `add`.

    Raises
    ------
    TypeError
        An argument is not an ImplicitModel, or there is none.
    ValueError
        The models do not fit together.

    Notes
    -----
    Well-posedness and cost are those of `add`. Source: El Ghaoui et al., Implicit Deep Learning, on composition.

    Examples
    --------
    >>> one, two = ImplicitModel(4, 3, 20, seed=0), ImplicitModel(4, 2, 10, seed=1)
    >>> U = np.ones((5, 4))
    >>> bool(np.allclose(stack(one, two)(U), np.hstack([one(U), two(U)]), atol=1e-5))
    True
    """
    each = _several(models)
    same_input(named(each))
    settings = joined(each, output_dim=sum(model.output_dim for model in each), no_D=all(model.no_D for model in each))
    model = assembled(ImplicitModel, settings, systems.stack([*map(system, each)]), each[0].preprocessing)
    model.columns = each[0].columns
    return model


def parallel(*models: ImplicitModel) -> ImplicitModel:
    """Return one model that takes (U₁, U₂, …) to (M₁(U₁), M₂(U₂), …): the models work side by side.

    With X = (X₁, X₂, …), each of the matrices A, B, C and D is block diagonal, with a block for each model. The bias of
    all models is in one column.

    Parameters
    ----------
    *models : ImplicitModel
        Models with the same dtype. Model i has pᵢ inputs and qᵢ outputs.

    Returns
    -------
    ImplicitModel
        A model with p₁ + p₂ + … inputs and q₁ + q₂ + … outputs, without classes and columns. If a model has
        preprocessing, the result has one with a mean and a scale per feature, which are 0 and 1 for models without.
        Its settings are as those of `add`.

    Raises
    ------
    TypeError
        An argument is not an ImplicitModel, or there is none.
    ValueError
        Activations or dtypes differ.

    Notes
    -----
    Well-posedness is that of `add`. Cost: (n + q)(n + p) entries are written. Source: El Ghaoui et al., Implicit Deep
    Learning, section on composition.

    Examples
    --------
    >>> one, two = ImplicitModel(4, 3, 20, seed=0), ImplicitModel(1, 2, 10, seed=1)
    >>> U1, U2 = np.ones((5, 4)), np.ones((5, 1))
    >>> bool(np.allclose(parallel(one, two)(np.hstack([U1, U2])), np.hstack([one(U1), two(U2)]), atol=1e-5))
    True
    """
    each = _several(models)
    same_kind(named(each))
    sizes: dict[str, Any] = {
        f"{side}_dim": sum(getattr(model, f"{side}_dim") for model in each) for side in ("input", "output")
    }
    settings = joined(each, **sizes, no_D=all(model.no_D for model in each))
    return assembled(ImplicitModel, settings, systems.parallel([*map(system, each)]), _side_by_side(each))


def _several(models: tuple[ImplicitModel, ...]) -> list[ImplicitModel]:
    """Return the models, of which there must be at least one."""
    if not models:
        raise TypeError("models must be one or more ImplicitModels; got none: pass them one after the other.")
    check_models(named(models))
    return list(models)


def _side_by_side(models: list[ImplicitModel]) -> Standardise | None:
    """Return the preprocessing of (U₁, U₂, …) that standardises each part as its model does; None if no model has one.

    For a model without preprocessing, (U − 0)/1 is U itself, also in the last bit.
    """
    if all(model.preprocessing is None for model in models):
        return None
    each = [(model.preprocessing or Standardise(0.0, 1.0), model.input_dim) for model in models]
    mean, scale = (
        np.concatenate([np.broadcast_to(getattr(one, name), p) for one, p in each]) for name in ("mean", "scale")
    )
    return Standardise(mean, scale)
