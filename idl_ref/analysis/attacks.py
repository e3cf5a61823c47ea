"""This module looks for inputs near a sample that change its class, by projected gradient descent."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from idl_ref import checks
from idl_ref.analysis.questions import Question
from idl_ref.analysis.rivals import at
from idl_ref.functions import ImplicitFunction
from idl_ref.model import ImplicitModel
from idl_ref.weights import by_name

FIRST = 0.5  # The steps of the first half, in units of the radius of the box.
LAST = 2.5  # The steps of the second half, in the same units, add up to half of this.


@dataclass(frozen=True, eq=False)
class Attack:
    """The inputs that an attack found.

    Attributes
    ----------
    inputs : (m, p) array
        For each sample the raw input of its box with the smallest margin that was found.
    margin : (m,) array
        An upper bound of the least margin y_label − y_k of this input, in real arithmetic.
    """

    inputs: np.ndarray
    margin: np.ndarray

    @property
    def broken(self) -> np.ndarray:
        """A bool array (m,) that is True where another class wins, or equals."""
        return self.margin <= 0


def attack(
    model: ImplicitModel,
    U: Any,
    labels: Any,
    eps: Any,
    steps: int = 40,
    restarts: int = 3,
    seed: int = 0,
    clip: tuple[float, float] | None = (0, 1),
) -> Attack:
    """Look for inputs U′ with |U′ − U| ≤ eps that a classifier gives to another class, by projected gradient descent.

    With the exact gradient ∂U = Bᵀ V + Dᵀ G_Y of the least margin y_label − max_k y_k, each step is::

        U′ ← the nearest point of the box to U′ − η sign(∂U)

    Parameters
    ----------
    model : ImplicitModel
        A classifier with a built-in activation. It is copied in float64 with its effective weights, and solved to
        1e-10.
    U : (m, p) array
        Raw inputs, one sample per row.
    labels : (m,) whole numbers
        The classes of the samples, or values of `model.classes` if the model has them.
    eps : number or (p,) array
        The radius of the box around each sample, in the units of the raw inputs.
    steps : int
        Number of steps of each start; η is half the radius for the first half of them, and smaller after that.
    restarts : int
        Number of starts: the first one is U itself, and the others are random points of the box.
    seed : int
        Seed of the random starts.
    clip : (lowest, highest), optional
        The limits of raw inputs, at which the boxes end; None for inputs without limits.

    Returns
    -------
    Attack
        The inputs with the smallest margins that were found, and upper bounds of these margins with rounding included.

    Raises
    ------
    ValueError, TypeError
        As `margins`; also for steps or restarts below 1.

    Notes
    -----
    An attack that fails proves nothing; a lower bound of `margins` does. Together they enclose the least margin.
    Cost: restarts · (steps + 1) forward passes and restarts · steps adjoint ones.
    Source: Madry et al., Towards deep learning models resistant to adversarial attacks, ICLR 2018.

    Examples
    --------
    >>> model = ImplicitModel(4, 3, 20, kappa=0.5, seed=0)
    >>> U = np.random.default_rng(0).random((5, 4))
    >>> labels = model(U).argmax(axis=1)
    >>> found = attack(model, U, labels, eps=0.5)
    >>> bool(found.broken.any()), bool((abs(found.inputs - U) <= 0.5).all())
    (True, True)
    """
    checks.integer("steps", steps, 1)
    checks.integer("restarts", restarts, 1)
    question = Question.of(model, U, labels, eps, clip)
    rng = np.random.default_rng(checks.integer("seed", seed, 0))
    return descend(precise(model), question, rng, steps, restarts)


def precise(model: ImplicitModel) -> ImplicitModel:
    """Return a copy of a model in float64, with its effective weights as parameters, and small tolerances."""
    settings = replace(
        model.settings,
        f=ImplicitFunction,
        dtype="float64",
        tol=1e-10,
        grad_tol=1e-10,
        mitr=5000,
        grad_mitr=5000,
        on_failure="ignore",  # The margins of the inputs that were found are proved, whatever led to them.
        straight_through=False,
        pattern=None,
    )
    effective = model.parameters | by_name(model.effective_weights().dense().factors)
    parameters = {name: W.astype(np.float64) for name, W in effective.items()}
    return ImplicitModel.from_parameters(settings, parameters, model.preprocessing)


@np.errstate(over="ignore", invalid="ignore")  # A huge box leads to outputs that are not finite.
def descend(
    model: ImplicitModel, question: Question, rng: np.random.Generator, steps: int = 40, restarts: int = 3
) -> Attack:
    """Return the best inputs of all starts."""
    U, low, high = question.U, question.least, question.most
    centre, half = low / 2 + high / 2, high / 2 - low / 2  # The difference of the ends may overflow.
    best, least = U.copy(), np.full(len(U), np.inf)
    for start in range(restarts):
        V = U.copy() if start == 0 else np.clip(centre + half * rng.uniform(-1, 1, U.shape), low, high)
        for step in range(steps + 1):
            margin, gradient = _margin(model, V, question.labels, step < steps)
            better = margin < least
            best[better], least[better] = V[better], margin[better]
            if step < steps:
                eta = (FIRST if 2 * step < steps else LAST / steps) * half
                V = np.clip(V - eta * np.sign(gradient), low, high)
    return Attack(best, at(question.system, best, question.labels)[1])


def _margin(model: ImplicitModel, U: np.ndarray, labels: np.ndarray, gradient: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the least margin of each sample, and its gradient with respect to U, 0 where it is not finite.   (m, p)"""
    Y, pullback = model.vjp(U)
    rows = np.arange(len(Y))
    others = Y.copy()
    others[rows, labels] = -np.inf
    rival = others.argmax(axis=1)
    margin = Y[rows, labels] - Y[rows, rival]
    if not gradient:
        return margin, np.zeros_like(U)
    G = np.zeros_like(Y)
    G[rows, labels], G[rows, rival] = 1, -1
    return margin, np.nan_to_num(pullback(G)["U"], posinf=0.0, neginf=0.0)
