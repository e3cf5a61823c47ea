"""This module trains an implicit model on the states of a teacher, without gradients (state-driven training).

A teacher, which is a feed-forward network or an implicit model, shows its states for some inputs: Z before and X = φ(Z)
after the activation. A model with A X + B U = Z has the same states. `fit` finds the best A and B by a convex problem,
with A in the ball ‖A‖∞ ≤ κ, and then the readout C, D.
"""

from __future__ import annotations

import numpy as np

from idl_ref import checks, systems
from idl_ref.analysis import regression
from idl_ref.analysis.teachers import States, states
from idl_ref.composition import check_models
from idl_ref.functions import ImplicitFunctionRows
from idl_ref.model import ImplicitModel
from idl_ref.settings import Settings
from idl_ref.solution import warn
from idl_ref.wellposed import project_rows

__all__ = ["States", "fit", "objective", "states"]

ROUNDED = 32  # So many units of rounding, relative to the data, are no information about the teacher.


def fit(
    states: States,
    kappa: float = 0.99,
    penalty: float = 0.0,
    rank: int | None = None,
    *,
    penalty_B: float = 0.0,
    no_D: bool = False,
    tol: float = 1e-7,
    max_iter: int = 10_000,
) -> ImplicitModel:
    """Return an implicit model with almost the states of a teacher: A and B of a convex problem, then C and D.

    A and B minimise ½‖A X + B V − Z‖² + λ‖A‖₁ + μ‖B‖₁ subject to ‖A‖∞ ≤ κ, where V is U and a constant feature 1, the
    bias, which has no penalty; ‖·‖₁ is the sum over all entries. C and D then minimise ‖C X̂ + D V − Y‖², where X̂ are
    the equilibria of the new model.

    Parameters
    ----------
    states : States
        What `states` returned.
    kappa : float
        The radius κ of the ball, with 0 ≤ κ·Lip(φ) < 1.
    penalty : float
        λ ≥ 0. The larger it is, the more entries of A are 0.
    rank : int, optional
        Make A = L Rᵀ of this rank; the penalties must then be 0. Rᵀ spans the best space of this dimension without the
        ball (reduced-rank regression). L is the best one with ‖|L||R|ᵀ‖∞ ≤ κ for this R.
    penalty_B : float
        μ ≥ 0. The larger it is, the more entries of B are 0.
    no_D : bool
        Make a model without D.
    tol : float
        The duality gap at which to stop, relative to the objective.
    max_iter : int
        Largest number of iterations of ADMM.

    Returns
    -------
    ImplicitModel
        A model with bias, f=ImplicitFunctionRows, and the activation, dtype, preprocessing and classes of the teacher.
        Its A lies in the ball, including rounding, so that f does not change it. With a rank, the kappa of the model is
        √κ, because f keeps ‖L‖∞ and ‖Rᵀ‖∞ within it.

    Raises
    ------
    ValueError, TypeError
        Arguments outside their range, a rank together with a penalty, or states that are not finite.
    NotConvergedError
        An equilibrium of the new model did not converge.

    Warns
    -----
    ConvergenceWarning
        max_iter was reached. The model is valid, and the message says how far its objective may be above the smallest.

    Notes
    -----
    Without μ, B is free and given by A: what V explains is subtracted from X and Z, so that only A remains. The page on
    state-driven training in the documentation derives all steps, and tells when pruning the teacher is better.
    Cost: O((n + p)² m) flops once, and 6 n³ flops per iteration, with n + p in place of n if μ > 0.
    Source: Tsai et al., State-driven Implicit Modeling for Sparsity and Robustness in Neural Networks, 2022.

    Examples
    --------
    >>> from idl_ref.analysis import sim
    >>> U = np.random.default_rng(0).standard_normal((50, 2))
    >>> teacher = ImplicitModel(2, 1, 5, kappa=0.9, dtype="float64", seed=0)
    >>> student = fit(sim.states(teacher, U), kappa=0.9)
    >>> bool(np.allclose(student(U), teacher(U), atol=1e-5))
    True
    """
    settings = _settings(states, kappa, rank, no_D)
    _check(states, penalty, penalty_B, rank)
    limits = checks.number("tol", tol, 0), checks.integer("max_iter", max_iter, 1)
    data = states._replace(**{name: getattr(states, name).astype(np.float64) for name in "UZXY"})
    unit = ROUNDED * float(np.finfo(settings.dtype).eps)
    if rank is None:
        A, B, gap = regression.dense(data, kappa, (float(penalty), float(penalty_B)), limits, unit)
        weights = {"A": project_rows(A.astype(settings.dtype), kappa)}
    else:
        L, R, B, gap = regression.low_rank(data, kappa, rank, limits, unit)
        root = settings.kappa
        weights = {
            "L": project_rows(L.astype(settings.dtype), root),
            "R": project_rows(R.T.astype(settings.dtype), root).T,
        }
    if gap > tol:
        warn(
            f"fit: the objective may be {gap:.1e} of itself above the smallest one after {max_iter} iterations, "
            f"more than tol = {tol:g}. Raise max_iter, or the smaller of the penalties that are not 0."
        )
    return _with_readout(settings, weights | {"B": B.astype(settings.dtype)}, data)


def objective(model: ImplicitModel, states: States, penalty: float = 0.0, penalty_B: float = 0.0) -> float:
    """Return ½‖A X + B V − Z‖² + λ‖A‖₁ + μ‖B‖₁ in float64, which `fit` minimises; the bias has no penalty.

    Parameters
    ----------
    model : ImplicitModel
        A model with as many inputs and hidden units as the states.
    states : States
        The states of the teacher.
    penalty, penalty_B : float
        λ and μ.

    Raises
    ------
    ValueError
        A model whose sizes are not those of the states.

    Examples
    --------
    >>> from idl_ref.analysis import sim
    >>> teacher = ImplicitModel(2, 1, 5, dtype="float64", seed=0)
    >>> sim.objective(teacher, sim.states(teacher, np.ones((3, 2)))) < 1e-20
    True
    """
    check_models({"model": model})
    _check_states(states)
    for what, found, expected in (
        ("inputs", model.input_dim, len(states.U)),
        ("states", model.hidden_dim, len(states.X)),
    ):
        if found != expected:
            raise ValueError(f"model must have the {expected} {what} of the states; got {found}: use the same teacher.")
    W = model.effective_weights()
    A = systems.of(W).A
    B, U = W.B.astype(np.float64), states.U.astype(np.float64)
    residual = A @ states.X + B[:, : len(U)] @ U - states.Z + (B[:, len(U) :] if model.bias else 0)
    sizes = penalty * np.abs(A).sum() + penalty_B * np.abs(B[:, : len(U)]).sum()
    return float(0.5 * np.square(residual).sum() + sizes)


def _check_states(states: object) -> None:
    """Raise TypeError for anything but states."""
    if not isinstance(states, States):
        raise TypeError(f"states must be what sim.states returns; got {type(states).__name__}: call sim.states first.")


def _settings(states: States, kappa: float, rank: int | None, no_D: bool) -> Settings:
    """Return the settings of the new model."""
    _check_states(states)
    kappa = checks.number("kappa", kappa, 0)
    return Settings(
        len(states.U),
        len(states.Y),
        len(states.X),
        f=ImplicitFunctionRows,
        no_D=no_D,
        bias=True,
        kappa=kappa if rank is None else kappa**0.5,
        is_low_rank=rank is not None,
        rank=rank,
        activation=states.activation,
        dtype=checks.float_dtype(states.U, states.Z, states.X, states.Y),
    )


def _check(states: States, penalty: float, penalty_B: float, rank: int | None) -> None:
    """Refuse states that do not fit together or are not finite, and penalties that are negative or have a rank."""
    m = states.U.shape[1]
    for name in "UZXY":
        array = checks.real_array(name, getattr(states, name))
        checks.shape(name, array, (len(states.X) if name == "Z" else len(array), m), "one column per sample")
        checks.finite(name, array.T)
    if m == 0:
        raise ValueError("states must have at least one sample; got 0: pass inputs to sim.states.")
    for name, value in (("penalty", penalty), ("penalty_B", penalty_B)):
        if checks.number(name, value, 0) and rank is not None:
            raise ValueError(
                f"{name} must be 0 with a rank, because a product L Rᵀ has no zeros to gain; got {value!r}: leave rank "
                f"out for a sparse A, or {name} for one of low rank."
            )


def _with_readout(settings: Settings, weights: dict[str, np.ndarray], data: States) -> ImplicitModel:
    """Return the model whose C and D minimise ‖C X̂ + D V − Y‖², with the equilibria X̂ that its A and B give.

    Directions in which X̂ and U vary by no more than the rounding of X̂ are left out.
    """
    zeros = {name: np.zeros(shape, settings.dtype) for name, shape in settings.shapes().items()}
    model = ImplicitModel.from_parameters(settings, zeros | weights)
    X = model.equilibrium(data.U.T).require().X.astype(np.float64)
    features = X if settings.no_D else np.vstack([X, data.U])
    known = max(ROUNDED * float(np.finfo(settings.dtype).eps), max(features.shape) * float(np.finfo(np.float64).eps))
    CD = regression.Free(features, known, ones=not settings.no_D).weights(data.Y)
    for name, W in zip("CD", np.split(CD, [len(X)], axis=1), strict=True):
        if name in zeros:
            model.parameters[name] = W.astype(settings.dtype)
    model.preprocessing, model.classes, model.columns = data.preprocessing, data.classes, data.columns
    return model
