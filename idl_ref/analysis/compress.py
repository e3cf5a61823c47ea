"""This module makes models smaller: by fewer entries of A, a smaller rank of A, or weights in eight bits.

`deviations` bounds how far the outputs of the smaller model are from those of the original one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from idl_ref import activations, checks, reasons
from idl_ref import factors as fac
from idl_ref.composition import check_models, dense, system
from idl_ref.functions import FUNCTIONS_OF_ROWS, ImplicitFunction
from idl_ref.model import ImplicitModel
from idl_ref.quantised import nearest
from idl_ref.sparse import Sparse
from idl_ref.weights import Parameters, by_name

__all__ = ["prune", "quantise", "truncate"]


def prune(model: ImplicitModel, density: float, sparse: bool = False) -> ImplicitModel:
    """Return a model whose A has only the largest entries of that of `model`, and zeros elsewhere.

    Parameters
    ----------
    model : ImplicitModel
        Its effective weights are used; a low-rank A = L Rᵀ is multiplied out.
    density : float
        The part of the n² entries that is kept, 0 ≤ density ≤ 1. Of entries of the same size, the first ones are kept.
    sparse : bool
        Whether the result holds the kept entries only. Its parameter A is then an array (entries,), row by row, and
        training changes these entries and leaves all others zero. With density=1, sparse=False makes such a model dense
        again.

    Returns
    -------
    ImplicitModel
        A model with the settings, weights, preprocessing, classes and columns of `model`, but with f=ImplicitFunction,
        unless it is sparse and `f` maps each row on its own, as ImplicitFunctionInf and …Rows do. `deviation` bounds
        how far its outputs are from those of `model`.

    Raises
    ------
    TypeError
        `model` is not an ImplicitModel, or density is no number.
    ValueError
        A density outside its range; or a result that nothing shows to be well posed, although `model` is. This cannot
        happen where a norm or a Perron root makes `model` well posed, because both only shrink with |A|.

    Notes
    -----
    A sparse A of n = 10,000 with 1 % of the entries takes a ninth of the time and a fiftieth of the memory of a dense
    one; above 5 %, nothing is gained. Zeros that leave blocks save time in a dense A too.
    Exports to C hold the kept entries only; other exports hold all n², and backend="cuda" refuses a sparse A.
    Cost: n² log n operations.

    Examples
    --------
    >>> from idl_ref.analysis import deviation
    >>> model = ImplicitModel(4, 3, 20, bias=True, dtype="float64", seed=0)
    >>> pruned, U = prune(model, 0.3), np.ones((1, 4))
    >>> int(np.count_nonzero(pruned.effective()["A"]))
    120
    >>> bool((abs(model(U) - pruned(U)) <= deviation(model, pruned, U)).all())
    True
    """
    check_models({"model": model})
    density = checks.number("density", density, 0, why="It is the part of the entries of A that is kept.")
    if density > 1:
        raise ValueError(f"density must be at most 1, all entries of A; got {density:g}: pass a part, such as 0.3.")
    sparse = checks.flag("sparse", sparse)
    A = system(model).A.copy()
    order = np.argsort(-np.abs(A), axis=None, kind="stable")
    A.flat[order[round(density * A.size) :]] = 0
    settings, way_out = dense(model.settings), "keep more entries: pass a larger density"
    if not sparse:
        return _changed(model, settings, {"A": A}, way_out)
    kept, f = Sparse.of(A), model.f if model.f in FUNCTIONS_OF_ROWS else ImplicitFunction
    return _changed(model, replace(settings, f=f, pattern=kept.pattern), {"A": kept.data}, way_out)


def truncate(model: ImplicitModel, rank: int) -> ImplicitModel:
    """Return a low-rank model with the rank-r matrix that is nearest to A, scaled so that ‖L Rᵀ‖∞ ≤ ‖A‖∞.

    A ≈ P diag(σ) Qᵀ with the r largest singular values; L = P diag(√σ)·t and R = Q diag(√σ), t ≤ 1.

    Parameters
    ----------
    model : ImplicitModel
        Its effective weights are used.
    rank : int
        The rank r, 1 ≤ r ≤ n.

    Returns
    -------
    ImplicitModel
        A low-rank model with f=ImplicitFunction, and otherwise the settings, weights, preprocessing, classes and
        columns of `model`. `deviation` bounds how far its outputs are from those of `model`.

    Raises
    ------
    TypeError
        `model` is not an ImplicitModel, or rank is no whole number.
    ValueError
        A rank outside its range; weights that are not finite; or a result that nothing shows to be well posed, although
        `model` is.

    Notes
    -----
    Leaving out singular values can make ‖A‖∞ larger, and even leave the ball of `f`: t < 1 takes it back. Error bounds
    of a low-rank model rest on |L| |R|ᵀ, which is larger than |L Rᵀ|, and may be inf where those of `model` are finite.
    Cost: about 20 n³ flops. Source: Eckart and Young, The approximation of one matrix by another of lower rank, 1936.

    Examples
    --------
    >>> model = ImplicitModel(4, 3, 20, bias=True, dtype="float64", seed=0)
    >>> truncate(model, 5).parameters["L"].shape
    (20, 5)
    """
    check_models({"model": model})
    rank = checks.integer("rank", rank, 1, model.hidden_dim)
    A = system(model).A
    if not np.isfinite(A).all():
        raise ValueError("model must have finite weights; got NaN or inf in A: train it again from a seed.")
    P, sigma, Qt = np.linalg.svd(A)
    root = np.sqrt(sigma[:rank])
    L, R = P[:, :rank] * root, Qt[:rank].T * root
    norm = fac.norm_inf((L @ R.T,))
    L *= min(1.0, fac.norm_inf((A,)) / norm) if norm else 1.0
    method = "auto" if model.method in ("blocks", "substitution") else model.method  # These need a dense A.
    settings = dense(model.settings, is_low_rank=True, rank=rank, method=method)
    return _changed(model, settings, {"L": L, "R": R}, "keep more singular values: pass a larger rank")


def quantise(model: ImplicitModel) -> ImplicitModel:
    """Return a model whose matrices fit into eight bits: W_ij = s_i q_ij with whole numbers −127 ≤ q_ij ≤ 127.

    s_i is near max_j |W_ij| / 127, and no absolute row sum becomes larger, so that ‖A‖∞ ≤ κ remains true.

    Parameters
    ----------
    model : ImplicitModel
        Its effective weights are used. The bias is not changed.

    Returns
    -------
    ImplicitModel
        A model with f=ImplicitFunction, and otherwise the settings, preprocessing, classes and columns of `model`.
        `deviation` bounds how far its outputs are from those of `model`.

    Raises
    ------
    TypeError, ValueError
        `model` is not an ImplicitModel; its weights are not finite; or nothing shows the result to be well posed,
        although `model` is, which cannot happen where a norm does.

    Notes
    -----
    All products s_i q_ij are exact, so that the result is an ordinary model: it computes, trains, and is saved as any
    other, in the dtype of `model`. An export to C finds that eight bits hold its matrices without a loss, and stores
    them so, in a quarter of the space of float32; its outputs are those of the same code with all digits stored.
    Cost: O(n (n + p + q)) operations.

    Examples
    --------
    >>> from idl_ref.analysis import deviation
    >>> model = ImplicitModel(4, 3, 20, bias=True, kappa=0.5, seed=0)
    >>> small, U = quantise(model), np.ones((1, 4))
    >>> len(np.unique(small.parameters["A"][0])) <= 255
    True
    >>> bool((abs(model(U) - small(U)) <= deviation(model, small, U)).all())
    True
    """
    check_models({"model": model})
    weights, P = model.effective_weights(), model.parameters
    if not all(fac.is_finite(F) for F in (*weights.factors, *(P[name] for name in "BCD" if name in P))):
        raise ValueError("model must have finite weights; got NaN or inf: train it again from a seed.")
    bias, pattern = int(model.bias), model.settings.pattern
    parameters = {name: P[name].copy() for name in "BCD" if name in P}
    for name, W in parameters.items():
        inputs = slice(0, W.shape[1] - (bias if name != "C" else 0))
        W[:, inputs] = nearest(W[:, inputs]).matrix
    if pattern is None:
        parameters |= by_name(tuple(nearest(F).matrix for F in weights.factors))
    else:
        parameters["A"] = pattern.unpadded(nearest(pattern.padded(weights.factors[0].data)).matrix)
    settings = replace(model.settings, f=ImplicitFunction, straight_through=False)
    return _changed(model, settings, parameters, "give the model a smaller κ before it is trained")


def _changed(model: ImplicitModel, settings: Any, changed: Parameters, way_out: str) -> ImplicitModel:
    """Return a model with other parameters; refuse it if it has lost the reason for which it is well posed."""
    weights = model.effective_weights()
    parameters = {name: W.copy() for name, W in model.parameters.items() if name not in ("A", "L", "R")}
    parameters |= {name: np.array(W, model.dtype, order="C") for name, W in changed.items()}
    result = ImplicitModel.from_parameters(settings, parameters, model.preprocessing)
    result.classes, result.columns = model.classes, model.columns
    phi = activations.get(model.activation)
    if not reasons.strongest(result.effective_weights().factors, phi) and reasons.strongest(weights.factors, phi):
        raise ValueError(f"the result must be well posed as model is; got one for which nothing shows it: {way_out}.")
    return result
