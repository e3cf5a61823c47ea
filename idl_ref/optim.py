"""This module has the optimizers: stochastic gradient descent with momentum, and Adam."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np

from idl_ref import checks
from idl_ref.choices import SCHEDULES, Schedule

__all__ = ["SGD", "Adam", "Optimizer"]

Arrays = Mapping[str, np.ndarray]
Rate = float | Literal["auto"]


class Optimizer:
    """The base of all optimizers. It has the learning rate, its schedule, and the moments, which are arrays like w.

    To write an optimizer of your own, derive a class from this one, name its moments in `MOMENTS`, and define `update`.
    `fit` then gives it the gradients of every step. What `fit` calls is, in this order: `start` before the first step,
    `step` for every minibatch, `state` for a checkpoint, and `restore` and `halve` after a step that diverged.

    Parameters
    ----------
    learning_rate : float or "auto"
        The learning rate η ≥ 0. `fit` finds "auto" by short trial trainings; see `idl_ref.rates`.
    weight_decay : float
        The weight decay λ ≥ 0, which applies to every parameter.
    schedule : {"constant", "cosine"}
        η_t = η, or η_t = η (1 + cos(π t/T))/2, where T is the number of steps that was passed to `start`. The function
        `fit` calls `start`.
    clip : float, optional
        The largest norm of a gradient. Let ‖g‖ be the Euclidean norm of the gradients of all parameters together. If
        ‖g‖ exceeds `clip`, all of them are multiplied by clip/‖g‖ before anything else is computed.

    Examples
    --------
    >>> class Sign(Optimizer):
    ...     def update(self, w, g, moments, rate):
    ...         w -= rate * np.sign(g)
    >>> w = {"B": np.array([1.0, 2.0])}
    >>> Sign(0.5).step(w, {"B": np.array([3.0, -4.0])})
    >>> w["B"]
    array([0.5, 2.5])
    """

    MOMENTS: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        learning_rate: Rate,
        weight_decay: float = 0.0,
        schedule: Schedule = "constant",
        clip: float | None = None,
    ) -> None:
        self.learning_rate: Rate = "auto"
        if not (isinstance(learning_rate, str) and learning_rate == "auto"):
            self.learning_rate = checks.number("learning_rate", learning_rate, 0, why='Or pass "auto".')
        self.weight_decay: float = checks.number("weight_decay", weight_decay, 0)
        self.schedule: Schedule = checks.choice("schedule", schedule, SCHEDULES)
        self.clip: float | None = None if clip is None else checks.number("clip", clip, 0)
        self.start()

    def __repr__(self) -> str:
        public = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in public.items())})"

    def start(self, total_steps: int | None = None, learning_rate: float | None = None) -> None:
        """Reset moments and step count before a training of `total_steps` steps, which the cosine schedule needs.

        A `learning_rate` that is given takes the place of "auto" in this training.
        """
        self._total = None if total_steps is None else checks.integer("total_steps", total_steps, 0)
        self._base = self.learning_rate if learning_rate is None else learning_rate
        self._taken = 0
        self._moments: dict[str, tuple[np.ndarray, ...]] = {}

    def rate(self) -> float:
        """Return the learning rate η_t of the next step."""
        if isinstance(self._base, str):
            raise ValueError('learning_rate must be a number to take a step; got "auto": use fit, which finds it.')
        if self.schedule == "constant":
            return self._base
        if self._total is None:
            raise ValueError('schedule "cosine" needs the number of steps; got None: call start(total_steps) first.')
        return self._base * 0.5 * (1 + math.cos(math.pi * min(1.0, self._taken / max(self._total, 1))))

    def advance(self) -> float:
        """Return the learning rate η_t of the next step, and count this step as taken."""
        rate = self.rate()
        self._taken += 1
        return rate

    def halve(self) -> float:
        """Halve the learning rate of all steps to come, and return what η of the schedule is now."""
        if not isinstance(self._base, str):
            self._base /= 2
        return float(self._base)

    def moments(self, name: str, w: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the moments of a parameter w, which are 0 before its first step, and which a step updates in place."""
        if name not in self._moments:
            self._moments[name] = tuple(np.zeros_like(w) for _ in self.MOMENTS)
        return self._moments[name]

    def shrinkage(self, gradients: Mapping[str, np.ndarray]) -> float:
        """Return what all gradients are multiplied by: min(1, clip/‖g‖), or 1 without `clip`."""
        if self.clip is None:
            return 1.0
        squares = sum(float(np.square(g, dtype=np.float64).sum()) for g in gradients.values())
        return min(1.0, self.clip / math.sqrt(squares)) if squares > 0 else 1.0

    def step(self, parameters: Arrays, gradients: Arrays) -> None:
        """Update `parameters` in place; `gradients` must have their names, and may have others, which are ignored."""
        shrinkage = self.shrinkage({name: gradients[name] for name in parameters})
        rate = self.advance()
        for name, w in parameters.items():
            g = gradients[name] if shrinkage == 1 else shrinkage * gradients[name]
            self.update(w, g, self.moments(name, w), rate)

    def update(self, w: np.ndarray, g: np.ndarray, moments: tuple[np.ndarray, ...], rate: float) -> None:
        """Update a parameter w and its moments in place, by its gradient g and the learning rate η_t."""
        raise NotImplementedError(f"{type(self).__name__} must define update(w, g, moments, rate).")

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return what a training that goes on needs: numbers, and copies of the moments by names such as velocity.B."""
        arrays = {
            f"{kind}.{name}": M.copy()
            for name, moments in self._moments.items()
            for kind, M in zip(self.MOMENTS, moments, strict=True)
        }
        return {"base": self._base, "taken": self._taken, "total": self._total}, arrays

    def restore(self, numbers: Mapping[str, Any], arrays: Arrays) -> None:
        """Continue from what `state` returned."""
        self._base, self._taken, self._total = numbers["base"], numbers["taken"], numbers["total"]
        names = {key.partition(".")[2] for key in arrays}
        self._moments = {name: tuple(arrays[f"{kind}.{name}"].copy() for kind in self.MOMENTS) for name in names}


@checks.renamed(lr="learning_rate")
class SGD(Optimizer):
    """Updates parameters by stochastic gradient descent with momentum.

    One step with the gradient ∂ℓ of a parameter w, the velocity v and the learning rate η_t is::

        g ← ∂ℓ + λ w      v ← μ v + g      w ← w − η_t v,   or with Nesterov's momentum   w ← w − η_t (g + μ v).

    Parameters
    ----------
    learning_rate : float or "auto"
        The learning rate η ≥ 0. `fit` finds "auto" by short trial trainings.
    momentum : float
        The momentum μ, with 0 ≤ μ < 1.
    nesterov : bool
        Use Nesterov's momentum, which needs μ > 0.
    weight_decay : float
        The weight decay λ ≥ 0, which applies to every parameter.
    schedule : {"constant", "cosine"}
        η_t = η, or η_t = η (1 + cos(π t/T))/2, where T is the number of steps that was passed to `start`. The function
        `fit` calls `start`.
    clip : float, optional
        The largest Euclidean norm of the gradients ∂ℓ of all parameters together; larger ones are scaled to it.

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

    MOMENTS = ("velocity",)

    def __init__(
        self,
        learning_rate: Rate = 0.05,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        schedule: Schedule = "constant",
        clip: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, schedule, clip)
        self.momentum: float = checks.number("momentum", momentum, 0, 1)
        self.nesterov: bool = checks.flag("nesterov", nesterov)
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum > 0; got momentum=0: set momentum, or nesterov=False.")

    def __repr__(self) -> str:
        return (
            f"SGD(learning_rate={_shown(self.learning_rate)}, momentum={self.momentum:g}, nesterov={self.nesterov}, "
            f'weight_decay={self.weight_decay:g}, schedule="{self.schedule}"{_shown_clip(self.clip)})'
        )

    def update(self, w: np.ndarray, g: np.ndarray, moments: tuple[np.ndarray, ...], rate: float) -> None:
        """Take one step of SGD for a parameter w with the gradient g, in place."""
        if self.weight_decay:
            g = g + self.weight_decay * w
        (v,) = moments  # updated in place, because new arrays would cost as much time as the arithmetic
        v *= self.momentum
        v += g
        w -= rate * (g + self.momentum * v if self.nesterov else v)


@checks.renamed(lr="learning_rate")
class Adam(Optimizer):
    """Updates parameters by Adam, with decoupled weight decay, which is also known as AdamW.

    Step t = 1, 2, … with the gradient g of a parameter w and the learning rate η_t is::

        m ← β₁ m + (1 − β₁) g      s ← β₂ s + (1 − β₂) g²
        w ← w − η_t (m/(1 − β₁ᵗ) / (√(s/(1 − β₂ᵗ)) + ε) + λ w).

    Parameters
    ----------
    learning_rate : float or "auto"
        The learning rate η ≥ 0. `fit` finds "auto" by short trial trainings.
    beta1, beta2 : float
        The decay rates β₁ and β₂ of the moments, each ≥ 0 and < 1.
    eps : float
        The number ε > 0.
    weight_decay : float
        The weight decay λ ≥ 0, which applies to every parameter.
    schedule : {"constant", "cosine"}
        η_t = η, or η_t = η (1 + cos(π t/T))/2, where T is the number of steps that was passed to `start`.
    clip : float, optional
        The largest Euclidean norm of the gradients of all parameters together; larger ones are scaled to it.

    Raises
    ------
    ValueError, TypeError
        A number outside its range, or an unknown schedule.

    Notes
    -----
    Cost of a step: about 12 flops and one square root per parameter. The moments m and s take twice as much memory as
    the parameters. An ``eps`` below the smallest normal number of the parameters' dtype counts as that number.
    Source: Kingma and Ba, Adam, ICLR 2015; Loshchilov and Hutter, Decoupled weight decay regularization, ICLR 2019.

    Examples
    --------
    >>> w = {"B": np.array([1.0])}
    >>> Adam(0.5).step(w, {"B": np.array([10.0])})
    >>> w["B"].round(6)
    array([0.5])
    """

    MOMENTS = ("mean", "square")

    def __init__(
        self,
        learning_rate: Rate = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        schedule: Schedule = "constant",
        clip: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, schedule, clip)
        self.beta1: float = checks.number("beta1", beta1, 0, 1)
        self.beta2: float = checks.number("beta2", beta2, 0, 1)
        self.eps: float = checks.number("eps", eps, 0)
        if self.eps == 0:
            raise ValueError("eps must be a number > 0; got 0: a parameter whose gradient is 0 would become NaN.")

    def __repr__(self) -> str:
        return (
            f"Adam(learning_rate={_shown(self.learning_rate)}, beta1={self.beta1:g}, beta2={self.beta2:g}, "
            f'eps={self.eps:g}, weight_decay={self.weight_decay:g}, schedule="{self.schedule}"{_shown_clip(self.clip)})'
        )

    def levels(self, rate: float, dtype: np.dtype, ahead: int = 0) -> tuple[float, ...]:
        """Return η_t/(1 − β₁ᵗ), 1/√(1 − β₂ᵗ), ε and η_t λ for the last step that was counted, or one `ahead` of it."""
        first, second = (1 - beta ** (self._taken + ahead) for beta in (self.beta1, self.beta2))
        return rate / first, second**-0.5, max(self.eps, float(np.finfo(dtype).tiny)), rate * self.weight_decay

    def update(self, w: np.ndarray, g: np.ndarray, moments: tuple[np.ndarray, ...], rate: float) -> None:
        """Take one step of Adam for a parameter w with the gradient g, in place."""
        (m, s), (rate, root, eps, decay) = moments, self.levels(rate, w.dtype)
        m *= self.beta1
        m += (1 - self.beta1) * g
        s *= self.beta2
        s += (1 - self.beta2) * (g * g)
        w -= rate * m / (root * np.sqrt(s) + eps) + decay * w


def _shown(rate: Rate) -> str:
    """Return a learning rate as it is written in code."""
    return '"auto"' if isinstance(rate, str) else f"{rate:g}"


def _shown_clip(clip: float | None) -> str:
    """Return `clip` as the last argument of a constructor, or nothing where there is none."""
    return "" if clip is None else f", clip={clip:g}"


def checked(optimizer: Any) -> Optimizer:
    """Return an optimizer for a training: the given one, or SGD with a rate that is found, for None."""
    if optimizer is None:
        return SGD("auto")
    if isinstance(optimizer, Optimizer):
        return optimizer
    raise TypeError(
        f"optimizer must be SGD, Adam, or another idl_ref.Optimizer; got {checks.shown(optimizer)}: use "
        "optimizer=SGD(0.05, momentum=0.9) or Adam(1e-3), or write your own training loop with "
        "model.loss_and_gradients, whose gradients suit every optimizer."
    )
