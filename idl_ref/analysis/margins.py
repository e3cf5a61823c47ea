"""This module bounds the margins of a classifier over a box around each sample, by one of four methods."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from idl_ref import checks
from idl_ref.analysis.crown import alpha_of, margin_bounds, narrowed
from idl_ref.analysis.exact_margins import Problem, minimum, optimise, proof
from idl_ref.analysis.intervals import Region, region
from idl_ref.analysis.questions import Question
from idl_ref.analysis.rivals import at, interval_bounds, rivals, sensitivity_bounds
from idl_ref.model import ImplicitModel

MarginMethod = Literal["sensitivity", "interval", "crown", "exact"]
METHODS: tuple[MarginMethod, ...] = get_args(MarginMethod)


@dataclass(frozen=True, eq=False)
class Margins:
    """Bounds of the least margins y_label − y_k that a model has on the boxes around its samples.

    Attributes
    ----------
    lower : (m, q) array
        For each sample and each rival k, no input of the box has a margin below this; inf in the column of the label,
        and −inf where there is no bound.
    upper : (m,) array
        At the input of the box in `inputs`, the least margin of all rivals is at most this.
    inputs : (m, p) array
        One raw input of each box: the sample itself, or an input that has a smaller margin.

    Notes
    -----
    All numbers are bounds for the model in real arithmetic, at its exact equilibrium.
    """

    lower: np.ndarray
    upper: np.ndarray
    inputs: np.ndarray

    @property
    def certified(self) -> np.ndarray:
        """A bool array (m,) that is True where every input of the box is proved to have the class of the label."""
        return self.lower.min(axis=1) > 0

    @property
    def broken(self) -> np.ndarray:
        """A bool array (m,) that is True where `inputs` has an input of the box that another class wins, or equals."""
        return self.upper <= 0

    @property
    def undecided(self) -> np.ndarray:
        """A bool array (m,) that is True where neither is known."""
        return ~(self.certified | self.broken)


def margins(
    model: ImplicitModel,
    U: Any,
    labels: Any,
    eps: Any,
    method: MarginMethod = "interval",
    clip: tuple[float, float] | None = (0, 1),
    time_limit: float = 10.0,
) -> Margins:
    """Bound the least margin y_label − y_k of each sample over all inputs U′ with |U′ − U| ≤ eps, for every rival k.

    With c = C_label − C_k and d = D_label − D_k, the margin is cᵀx + dᵀu, and the methods bound it in turn by::

        sensitivity  its value at U, less (|c|ᵀ(I − L|A|)⁻¹ L|B| + |d|ᵀ) |U′ − U|, with L = Lip(φ) interval     c⁺ᵀx_low
        + c⁻ᵀx_high + d⁺ᵀu_low + d⁻ᵀu_high, with the box of `interval` crown        (Bᵀv + d)ᵀu + rᵀx + Σ t λ, by lines
        around φ, with the adjoint equation λ = c + Aᵀ(σ(λ)∘λ), v = σ(λ)∘λ exact        mixed-integer programming, and a
        proof by a tree of linear programs

    Parameters
    ----------
    model : ImplicitModel
        A classifier with a built-in activation; for "crown" and "exact" it must be relu, leaky_relu or identity.
    U : (m, p) array
        Raw inputs, one sample per row.
    labels : (m,) whole numbers
        The classes of the samples, or values of `model.classes` if the model has them.
    eps : number or (p,) array
        The radius of the box around each sample, in the units of the raw inputs.
    method : {"interval", "crown", "exact", "sensitivity"}
        The method that bounds from below.
    clip : (lowest, highest), optional
        The limits of raw inputs, at which the boxes end; None for inputs without limits.
    time_limit : float
        Seconds that "exact" may take for one sample that "crown" does not decide. After that it remains undecided.

    Returns
    -------
    Margins
        Lower bounds (m, q), and for each sample one input with an upper bound of its margin. All are bounds in real
        arithmetic, with the rounding of their own computation included.

    Raises
    ------
    ValueError, TypeError
        Wrong shapes, an eps that is negative or not finite, samples outside of `clip`, a model with one output, or an
        activation that the method does not bound.
    ImportError
        method="exact" without SciPy.

    Notes
    -----
    Bounds are finite if the Perron root of Lip(φ)|A| is below 1. For other models, unless φ is bounded, they are −inf.
    "exact" starts from the bounds of "crown". For a sample that they do not decide, it looks for the least margin, and
    stops at the first rival that wins. Otherwise it proves all margins positive. It decides exactly, but it spends no
    time on more digits of a positive lower bound, and its `upper` is then the least margin that the solver found.
    Cost: "interval" is one solve with 2 n states. "crown" takes, for each sample, up to 6 adjoint equations for each
    undecided neuron, and two for each rival. "exact" takes up to 2ʲ linear programs for j undecided neurons.
    Source: the page on robustness derives all four. CROWN: Zhang et al., Efficient neural network robustness
    certification with general activation functions, NeurIPS 2018. Exact: Tjeng et al., ICLR 2019.

    Examples
    --------
    >>> model = ImplicitModel(4, 3, 20, kappa=0.5, seed=0)
    >>> U = np.random.default_rng(0).random((5, 4))
    >>> labels = model(U).argmax(axis=1)
    >>> margins(model, U, labels, eps=0.001, method="crown").certified
    array([ True,  True,  True,  True,  True])
    """
    checks.choice("method", method, METHODS)
    checks.number("time_limit", time_limit, 0)
    parts = [bounds(part, method, time_limit) for part in Question.of(model, U, labels, eps, clip).batches()]
    return Margins(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("lower", "upper", "inputs")))


def bounds(question: Question, method: MarginMethod, time_limit: float) -> Margins:
    """Return the bounds of one batch by one method."""
    system, U, labels, low, high = question[:5]
    if method in ("crown", "exact"):
        alpha_of(system, f'method="{method}"')
    if method == "exact":
        optimise()
    upper = at(system, U, labels)[1]
    if method == "sensitivity":
        reach = np.nextafter(np.maximum(high - U, U - low), np.inf)
        return Margins(sensitivity_bounds(system, U, reach, labels), upper, U)
    found = region(system, low, high)
    lower = interval_bounds(system, found, labels)[0]
    if method == "interval":
        return Margins(lower, upper, U)
    found = narrowed(system, found)
    result = Margins(np.maximum(lower, margin_bounds(system, found, labels)), upper, U.copy())
    if method == "exact":
        _decide(question, found, result, time_limit)
    return result


def _decide(question: Question, found: Region, result: Margins, time_limit: float) -> None:
    """Decide, in place, the samples that CROWN leaves undecided."""
    j, k, c, d = rivals(question.system, question.labels)
    for sample in np.flatnonzero(result.undecided):
        deadline = time.monotonic() + time_limit
        mine = np.flatnonzero((j == sample) & (result.lower[j, k] <= 0))
        if not np.isfinite(found.arguments[0][:, sample]).all() or not np.isfinite(found.arguments[1][:, sample]).all():
            continue
        for pair in mine[np.argsort(result.lower[sample, k[mine]])]:
            boxes = found.take(np.array([sample]))
            problem = Problem(question.system, boxes, c[:, [pair]], d[:, [pair]])
            _look(question, result, int(sample), minimum(problem, (deadline - time.monotonic()) / 2))
            if result.upper[sample] <= 0:
                break
            bound = proof(problem, deadline)
            if bound is not None:
                result.lower[sample, k[pair]] = bound


def _look(question: Question, result: Margins, sample: int, u: np.ndarray | None) -> None:
    """Evaluate the input u that a solver found, and keep it if its margin is smaller than that of the input before."""
    if u is None:
        return
    raw = np.clip(question.system.raw(u), question.least[sample], question.most[sample])
    value = at(question.system, raw[None], question.labels[[sample]])[1][0]
    if value < result.upper[sample]:
        result.upper[sample], result.inputs[sample] = value, raw
