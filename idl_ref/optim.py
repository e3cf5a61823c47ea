"""This module has the optimizer, stochastic gradient descent with momentum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from idl_ref import checks
from idl_ref.choices import SCHEDULES, Schedule

__all__ = ["SGD"]


@checks.renamed(lr="learning_rate")
class SGD:
    """Updates parameters by stochastic gradient descent with momentum.

    One step with the gradient ∂ℓ of a parameter w, the velocity v and the learning rate η_t is::

        g ← ∂ℓ + λ w      v ← μ v + g      w ← w − η_t v,   or with Nesterov's momentum   w ← w − η_t (g + μ v).

    Parameters
    ----------
    learning_rate : float
        The learning rate η ≥ 0.
    momentum : float
        The momentum μ, with 0 ≤ μ < 1.
    nesterov : bool
        Use Nesterov's momentum, which needs μ > 0.
    weight_decay : float
        The weight decay λ ≥ 0, which applies to every parameter.
    schedule : {"constant", "cosine"}
        η_t = η, or η_t = η (1 + cos(π t/T))/2, where T is the number of steps that was passed to `start`. The function
        `fit` calls `start`.

    Raises
    ------
    ValueError, TypeError
        A number outside its range, an unknown schedule, or nesterov without momentum.

    Notes
    -----
    Each model needs its own optimizer, because the velocity v belongs to the parameters of one model.
    Cost of a step: 4 to 8 flops per parameter. The velocity takes as much memory as the parameters.
    Source: Sutskever et al., On the importance of initialization and momentum in deep learning, ICML 2013.

    Examples
    --------
    >>> w = {"B": np.array([1.0])}
    >>> SGD(0.5, momentum=0.0).step(w, {"B": np.array([1.0])})
    >>> w["B"]
    array([0.5])
    """

    def __init__(
        self,
        learning_rate: float = 0.05,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        schedule: Schedule = "constant",
    ) -> None:
        self.learning_rate: float = checks.number("learning_rate", learning_rate, 0)
        self.momentum: float = checks.number("momentum", momentum, 0, 1)
        self.nesterov: bool = checks.flag("nesterov", nesterov)
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum > 0; got momentum=0: set momentum, or nesterov=False.")
        self.weight_decay: float = checks.number("weight_decay", weight_decay, 0)
        self.schedule: Schedule = checks.choice("schedule", schedule, SCHEDULES)
        self._total: int | None = None
        self._taken = 0
        self._velocity: dict[str, np.ndarray] = {}

    def __repr__(self) -> str:
        return (
            f"SGD(learning_rate={self.learning_rate:g}, momentum={self.momentum:g}, nesterov={self.nesterov}, "
            f'weight_decay={self.weight_decay:g}, schedule="{self.schedule}")'
        )

    def start(self, total_steps: int | None = None) -> None:
        """Reset velocity and step count before a training of `total_steps` steps, which the cosine schedule needs."""
        self._total = None if total_steps is None else checks.integer("total_steps", total_steps, 0)
        self._taken = 0
        self._velocity = {}

    def rate(self) -> float:
        """Return the learning rate η_t of the next step."""
        if self.schedule == "constant":
            return self.learning_rate
        if self._total is None:
            raise ValueError('schedule "cosine" needs the number of steps; got None: call start(total_steps) first.')
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, self._taken / max(self._total, 1))))

    def advance(self) -> float:
        """Return the learning rate η_t of the next step, and count this step as taken."""
        rate = self.rate()
        self._taken += 1
        return rate

    def velocity(self, name: str, w: np.ndarray) -> np.ndarray:
        """Return the velocity of a parameter w, which is 0 before its first step, and which a step updates in place."""
        if name not in self._velocity:
            self._velocity[name] = np.zeros_like(w)
        return self._velocity[name]

    def step(self, parameters: Mapping[str, np.ndarray], gradients: Mapping[str, np.ndarray]) -> None:
        """Update `parameters` in place; `gradients` must have their names, and may have others, which are ignored."""
        rate = self.advance()
        for name, w in parameters.items():
            g = gradients[name] + self.weight_decay * w if self.weight_decay else gradients[name]
            v = self.velocity(name, w)  # updated in place, because new arrays would cost as much time as the arithmetic
            v *= self.momentum
            v += g
            w -= rate * (g + self.momentum * v if self.nesterov else v)


def checked(optimizer: Any) -> SGD:
    """Return an optimizer for a training: the given SGD, or SGD() for None. Anything else is refused."""
    if optimizer is None:
        return SGD()
    if isinstance(optimizer, SGD):
        return optimizer
    raise TypeError(
        f"optimizer must be an SGD, or None for SGD(); got {checks.shown(optimizer)}: use optimizer=SGD(0.05, "
        "momentum=0.9), or write your own training loop with model.loss_and_gradients, whose gradients suit every "
        "optimizer."
    )
