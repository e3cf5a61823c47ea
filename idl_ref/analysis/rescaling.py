"""This module changes the units of hidden states, so that a model with the same outputs has a small norm ‖A‖∞."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from idl_ref import activations, checks, factors, systems, wellposed
from idl_ref.composition import assembled, check_models, dense
from idl_ref.factors import Factors
from idl_ref.functions import ImplicitFunctionInf
from idl_ref.model import ImplicitModel
from idl_ref.weights import Weights

__all__ = ["absorb_diagonal", "rescale"]

HOMOGENEOUS = ("relu", "leaky_relu", "identity")  # φ(s p) = s φ(p) for every s > 0, also in floats if s is 2ᵏ.
STEPS = 64  # In a model with cycles, powers of two are given up after so many steps.
COARSE = 8.0  # Powers of two are given up, too, if they are more than COARSE times the least v.


def rescale(model: ImplicitModel, kappa: float | None = None) -> ImplicitModel:
    """Return a model with the same outputs and ‖A‖∞ ≤ κ: with X = S⁻¹ X′, the weights S A S⁻¹, S B, C S⁻¹ and D.

    S = diag(1/v), where v > 0 has |A| v ≤ κ v, because row i of |S A S⁻¹| has the sum (|A| v)ᵢ / vᵢ. Such a v exists if
    the Perron root of |A| is below κ: v = (I − |A|/κ)⁻¹ 1 is one.

    Parameters
    ----------
    model : ImplicitModel
        A model whose activation is relu, leaky_relu or identity, which have S φ(P) = φ(S P). Its effective weights are
        used.
    kappa : float, optional
        The largest norm κ of the result, 0 < κ < 1; that of the model if not given.

    Returns
    -------
    ImplicitModel
        A model with f=ImplicitFunctionInf, which leaves its A as it is, and with the given kappa and otherwise the
        settings, preprocessing, classes and columns of `model`. Training can go on.

        If A has no cycles, all vᵢ are powers of two, by which numbers are divided without rounding. If A is strictly
        triangular, as for a net, **outputs are the same, bit for bit**, as long as no number leaves the range of the
        dtype. Otherwise they agree up to rounding and tol, because the solver stops by the norm of the scaled states.
        If A has cycles, powers of two are used only where they are at most 8 times the v of the formula.

        A low-rank A = L Rᵀ stays one: L becomes S L T⁻¹ and R becomes S⁻¹ R T with another diagonal T (r, r) > 0, so
        that ‖L‖∞ ≤ κ and ‖Rᵀ‖∞ ≤ κ.

    Raises
    ------
    TypeError
        `model` is not an ImplicitModel.
    ValueError
        Another activation; a Perron root that is not below κ, or for low rank, one of |L| |R|ᵀ that is not below κ²;
        or a v whose range is so large that states would leave that of the dtype.

    Notes
    -----
    Error bounds of the result are for X′ in the ∞-norm, which is max |xᵢ|/vᵢ for the states of `model`.
    Cost: n² operations for each layer of a net without cycles, else 2/3 n³ flops; r³ for low rank.
    Source: El Ghaoui et al., Implicit Deep Learning, section on well-posedness (Perron–Frobenius scaling).

    Examples
    --------
    >>> from idl_ref.analysis import network
    >>> from idl_ref.wellposed import norm_inf
    >>> rng = np.random.default_rng(0)
    >>> net = network([(4 * rng.standard_normal((n, p)), None) for p, n in ((4, 8), (8, 8), (8, 8), (8, 3))])
    >>> model, U = rescale(net), rng.standard_normal((5, 4))
    >>> norm_inf(net.effective()["A"]) > 30, norm_inf(model.effective()["A"]) <= 0.99
    (True, True)
    >>> np.array_equal(model(U), net(U)), np.array_equal(model.effective()["A"], model.parameters["A"])
    (True, True)
    """
    weights = _checked_weights("rescale", model, HOMOGENEOUS)
    kappa = checks.number("kappa", model.kappa if kappa is None else kappa, 0, 1, "‖A‖∞ < 1 makes a model well posed.")
    if not kappa:
        raise ValueError("kappa must be above 0, because only A = 0 has the norm 0; got 0: pass kappa=0.99, say.")
    v, *inner = _scales(weights.factors, kappa, np.finfo(model.dtype))
    outer = [v, *inner, v]  # the units of X, of the r columns of a low-rank A, and of X again
    scaled = [F * (column / row[:, None]) for F, row, column in zip(weights.factors, outer, outer[1:], strict=False)]
    parameters = dict(model.parameters, B=weights.B / v[:, None], C=weights.C * v)
    parameters |= {"A": scaled[0]} if len(scaled) == 1 else {"L": scaled[0], "R": scaled[1].T}
    settings = replace(model.settings, f=ImplicitFunctionInf, kappa=kappa, straight_through=False, pattern=None)
    result = ImplicitModel.from_parameters(
        settings, {name: np.array(W, model.dtype, order="C") for name, W in parameters.items()}, model.preprocessing
    )
    result.classes, result.columns = model.classes, model.columns
    return result


def absorb_diagonal(model: ImplicitModel) -> ImplicitModel:
    """Return a model with the same equilibrium whose A has the diagonal 0, for relu or identity and all a_ii < 1.

    x = φ(a x + z) with a < 1 has the one solution x = φ(z/(1 − a)), for z the rest of the row. Therefore::

        A′ = (I − diag a)⁻¹ (A − diag a)    B′ = (I − diag a)⁻¹ B    C′ = C    D′ = D

    Parameters
    ----------
    model : ImplicitModel
        A model whose activation is relu or identity. Its effective weights are used.

    Returns
    -------
    ImplicitModel
        A model with f=ImplicitFunction and a dense A, and otherwise the settings, preprocessing, classes and columns of
        `model`. `rescale` makes one of it that can be trained on, where the Perron root of |A′| allows it.

    Raises
    ------
    TypeError
        `model` is not an ImplicitModel.
    ValueError
        Another activation, or an a_ii ≥ 1, for which a state has no unique value.

    Notes
    -----
    ‖A′‖∞ < 1 if and only if a_ii + Σ_{j≠i} |a_ij| < 1 for all i, that is, if the matrix measure μ∞(A) is below 1: a
    large negative diagonal, which makes ‖A‖∞ large, helps. A low-rank A is multiplied out, because its diagonal is not
    of low rank.
    Cost: n² + n p flops. Source: the matrix measure as a condition is that of Jafarpour, Davydov, Proskurnikov and
    Bullo, Robust Implicit Networks via Non-Euclidean Contractions, NeurIPS 2021.

    Examples
    --------
    >>> from idl_ref import ImplicitFunction
    >>> from idl_ref.wellposed import norm_inf
    >>> model, U = ImplicitModel(4, 3, 20, f=ImplicitFunction, dtype="float64", mitr=3000, seed=0), np.ones((5, 4))
    >>> np.fill_diagonal(model.parameters["A"], -6.0)
    >>> better = absorb_diagonal(model)
    >>> norm_inf(model.parameters["A"]) > 6, norm_inf(better.parameters["A"]) < 0.2
    (True, True)
    >>> bool(np.allclose(better(U), model(U), rtol=1e-3))
    True
    """
    A, B, C, D = systems.of(_checked_weights("absorb_diagonal", model, ("relu", "identity")))
    a = A.diagonal()
    if not (a < 1).all():
        i = int(np.argmax(~(a < 1)))
        raise ValueError(
            f"every diagonal entry of A must be below 1, because x = φ(a x + z) has no unique solution otherwise; got "
            f"{a[i]:g} in row {i}: use an f that keeps A well posed, such as ImplicitFunctionInf."
        )
    whole = systems.System((A - np.diag(a)) / (1 - a)[:, None], B / (1 - a)[:, None], C, D)
    result = assembled(ImplicitModel, dense(model.settings), whole, model.preprocessing)
    result.classes, result.columns = model.classes, model.columns
    return result


def _checked_weights(name: str, model: ImplicitModel, allowed: tuple[str, ...]) -> Weights:
    """Return the effective weights of a model with an allowed φ and a finite A, and refuse others."""
    check_models({"model": model})
    phi, weights = activations.get(model.activation), model.effective_weights().dense()
    if any(row.name not in allowed or row.code == activations.OWN for row, _ in phi.segments):
        raise ValueError(
            f"{name} needs a model with the activation {' or '.join(allowed)} in every row, because it divides "
            f"the argument of φ by a number, and the value, too; got {phi.name}: use the model as it is, and show that "
            "it is well posed by idl_ref.wellposed.perron_root."
        )
    if not all(np.isfinite(F).all() for F in weights.factors):
        raise ValueError(f"{name} needs a model with a finite A; got NaN or inf in it: train it with a smaller step.")
    return weights


def _scales(given: Factors, kappa: float, limits: np.finfo) -> list[np.ndarray]:
    """Return v (n,) for A, or v (n,) and t (r,) for L Rᵀ, with |F₁| t ≤ κ v and |F₂| v ≤ κ t.

    Each inequality has room for the rounding of the scaled entries to the dtype, and of the sum of a row.
    """
    if all(wellposed.norm_inf(F) <= kappa for F in given):
        return [np.ones(len(F)) for F in given]
    absolute = tuple(np.abs(F).astype(np.float64) for F in given)
    room = 1 - 4 * float(limits.eps) - 4 * sum(len(F) for F in absolute) * float(np.finfo(np.float64).eps)
    M = tuple(F / (kappa * room) for F in absolute)
    v = _powers_of_two(M)
    if v is None:
        v = _least(M)
    if v is None:
        power = "" if len(M) == 1 else "²"
        raise ValueError(
            f"the Perron root of |A| or |L| |R|ᵀ must be below kappa{power} = {kappa ** len(M):g}, because otherwise "
            "no units of the states make the norm so small; got one that is not: raise kappa, or scale A down."
        )
    if max(u.max() for u in v) > 2.0 ** (limits.maxexp // 2):
        raise ValueError(
            f"the units of the states must differ by less than 2**{limits.maxexp // 2} in {limits.dtype}, because "
            'states would leave its range; got more: use dtype="float64", or scale the weights of A down.'
        )
    return v


def _powers_of_two(M: Factors) -> list[np.ndarray] | None:
    """Return the least powers of two v ≥ 1 with M v ≤ v; None if A has cycles and they do not exist, or are too coarse.

    v is raised to M v, and up to the next power of two, until nothing changes, which takes a step per layer of a net.
    """
    v = [np.ones(len(F)) for F in M]
    acyclic = _acyclic(M)
    for _ in range(sum(map(len, M)) + 1 if acyclic else STEPS):
        with np.errstate(over="ignore"):
            higher = [np.maximum(u, _ceiling(F @ w)) for F, u, w in zip(M, v, [*v[1:], v[0]], strict=True)]
        if not all(np.isfinite(u).all() for u in higher):
            return higher if acyclic else None
        if all(map(np.array_equal, higher, v)):
            least = v if acyclic else _least(M)
            fine = least is not None and all((u <= COARSE * w).all() for u, w in zip(v, least, strict=True))
            return v if fine else None
        v = higher
    return None


def _ceiling(x: np.ndarray) -> np.ndarray:
    """Return the smallest power of two ≥ x for each x > 0, and 0 for 0."""
    mantissa, exponent = np.frexp(x)  # x = mantissa · 2^exponent with 1/2 ≤ mantissa < 1
    return np.where(np.isfinite(x), np.ldexp(np.ceil(mantissa * 2) / 2, exponent), x)


def _acyclic(M: Factors) -> bool:
    """Tell whether no state depends on itself: rows without entries in the columns that remain are taken away."""
    alive = np.ones(len(M[0]))
    while alive.any():
        left = alive * (factors.apply(M, alive[:, None])[:, 0] > 0)
        if np.array_equal(left, alive):
            return False
        alive = left
    return True


def _least(M: Factors) -> list[np.ndarray] | None:
    """Return the solution of v = 1 + M v, or of v = 1 + M₁ t and t = 1 + M₂ v; None unless the Perron root is < 1."""
    ones = [np.ones(len(F)) for F in M]
    last = len(M) - 1
    right = ones[last] + (M[1] @ ones[0] if last else 0)  # t = (1 + M₂ 1) + M₂ M₁ t, a system of r equations
    try:
        inner = np.linalg.solve(np.eye(len(right)) - (M[1] @ M[0] if last else M[0]), right)
    except np.linalg.LinAlgError:
        return None
    v = [ones[0] + M[0] @ inner, inner] if last else [inner]
    # A positive v with M v ≤ v proves what the solution of a system that is almost singular only suggests.
    holds = all((F @ w <= u).all() and (u > 0).all() for F, u, w in zip(M, v, [*v[1:], v[0]], strict=True))
    return v if holds else None
