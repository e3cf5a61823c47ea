"""This module composes implicit models into one implicit model.

For two models with the same activation φ, the states X = (X₂, X₁) of second(first(U)) solve one equilibrium equation.
The blocks of its matrices are products of matrices of the two models.
"""

from __future__ import annotations

from functools import reduce

import numpy as np

from idl_ref.functions import ImplicitFunction
from idl_ref.model import ImplicitModel
from idl_ref.settings import Settings

__all__ = ["cascade"]


def cascade(second: ImplicitModel, first: ImplicitModel) -> ImplicitModel:
    """Return one model X = φ(A X + B U), Ŷ = C X + D U whose output is second(first(U)).

    Let X = (X₂, X₁), and let A₂, …, D₁ be the effective weights of the two models. Then::

        A = [ A₂  B₂C₁ ]    B = [ B₂D₁ ]    C = [ C₂  D₂C₁ ]    D = D₂D₁
            [ 0   A₁   ]        [ B₁   ]

    Parameters
    ----------
    second : ImplicitModel
        The model that is applied last, with n₂ hidden units, q₁ inputs and q₂ outputs, and without preprocessing.
    first : ImplicitModel
        The model that is applied first, with n₁ hidden units, p inputs and q₁ outputs. It must have the activation and
        the dtype of `second`.

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
        Sizes, activations or dtypes do not fit together, or `second` has preprocessing.

    Notes
    -----
    The matrix |A| is block triangular, so that its Perron root is the larger one of those of |A₂| and |A₁|. A cascade
    of models that are well posed by their Perron roots is therefore well posed, and `idl_ref.wellposed.perron_root`
    shows it for the result. The norm ‖A‖∞ may be above 1, because B₂C₁ can be arbitrarily large.
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
    _check(second, first)
    settings = _settings(second.settings, first.settings)
    A2, B2, C2, D2 = _blocks(second, settings.bias)
    A1, B1, C1, D1 = _blocks(first, settings.bias)
    if settings.bias:  # `first` gets the constant feature as an additional output: (Ŷ₁, 1) = C₁ X₁ + D₁ (U, 1).
        C1 = np.vstack([C1, np.zeros((1, first.hidden_dim))])
        D1 = np.vstack([D1, np.eye(1, settings.input_dim + 1, settings.input_dim)])
    named = {
        "A": np.block([[A2, B2 @ C1], [np.zeros((len(A1), len(A2))), A1]]),
        "B": np.vstack([B2 @ D1, B1]),
        "C": np.hstack([C2, D2 @ C1]),
    }
    if not settings.no_D:
        named["D"] = D2 @ D1
    parameters = {name: W.astype(settings.dtype) for name, W in named.items()}
    model = ImplicitModel.from_parameters(settings, parameters, first.preprocessing)
    model.classes, model.columns = second.classes, first.columns
    return model


def _check(second: ImplicitModel, first: ImplicitModel) -> None:
    """Refuse arguments that are not models, and models that do not fit together."""
    for name, model in (("second", second), ("first", first)):
        if not isinstance(model, ImplicitModel):
            raise TypeError(f"{name} must be an ImplicitModel; got {type(model).__name__}: pass the models themselves.")
    if second.input_dim != first.output_dim:
        raise ValueError(
            "second.input_dim must be first.output_dim, because second takes the outputs of first; "
            f"got {second.input_dim} and {first.output_dim}: the order is cascade(second, first)."
        )
    for what, of_second, of_first in (
        ("activation", second.activation, first.activation),
        ("dtype", second.dtype.name, first.dtype.name),
    ):
        if of_second != of_first:
            raise ValueError(
                f"second and first must have the same {what}, because the result has only one; "
                f"got {of_second!r} and {of_first!r}: call second(first(U)), or make both models with one {what}."
            )
    if second.preprocessing is not None:
        raise ValueError(
            "second must have no preprocessing, because it takes the outputs of first as they are; "
            f"got {second.preprocessing}: set second.preprocessing = None."
        )


def _settings(second: Settings, first: Settings) -> Settings:
    """Return the settings of the result, as the docstring of `cascade` describes them."""
    method = second.method if second.method == first.method != "substitution" else "auto"
    return Settings(
        first.input_dim,
        second.output_dim,
        second.hidden_dim + first.hidden_dim,
        f=ImplicitFunction,
        no_D=second.no_D or (first.no_D and not second.bias),
        bias=second.bias or first.bias,
        mitr=second.mitr + first.mitr,
        grad_mitr=second.grad_mitr + first.grad_mitr,
        tol=min(second.tol, first.tol),
        grad_tol=min(second.grad_tol, first.grad_tol),
        kappa=max(second.kappa, first.kappa),
        activation=first.activation,
        dtype=first.dtype,
        backend=first.backend if first.backend == second.backend else "auto",
        method=method,
        on_failure=first.on_failure if first.on_failure == second.on_failure else "warn",
    )


def _blocks(model: ImplicitModel, bias: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the effective A, B, C, D in float64, with A multiplied out.

    A missing D, and a missing column of the bias if `bias` is true, are replaced by zeros.
    """
    W = model.effective_weights()
    D = np.zeros((model.output_dim, W.B.shape[1])) if W.D is None else W.D
    column = ((0, 0), (0, int(bias and not model.bias)))
    A = reduce(np.matmul, [F.astype(np.float64) for F in W.factors])
    return A, np.pad(W.B.astype(np.float64), column), W.C.astype(np.float64), np.pad(D.astype(np.float64), column)
