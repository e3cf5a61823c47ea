"""This module counts the samples of a data set whose class is certain, or can be changed, for several radii."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from idl_ref import checks, plots
from idl_ref.analysis.attacks import descend, precise
from idl_ref.analysis.margins import METHODS, MarginMethod, bounds
from idl_ref.analysis.questions import Question
from idl_ref.analysis.rivals import at
from idl_ref.model import ImplicitModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class RobustAccuracy:
    """Shares of samples whose class no input of the box around them changes, from below and from above.

    Attributes
    ----------
    eps : (e,) array
        The radii of the boxes.
    clean : float
        The share of samples that have the class of their label without any change.
    certified : dict of (e,) arrays
        For each method, the share of samples that it certifies: a lower bound of the robust accuracy.
    attacked : (e,) array
        The share of samples that projected gradient descent did not break: an upper bound of the robust accuracy.
    undecided : (e,) array
        The share of samples that no method certifies, and neither the attack nor a method breaks.
    """

    eps: np.ndarray
    clean: float
    certified: dict[str, np.ndarray]
    attacked: np.ndarray
    undecided: np.ndarray

    def __str__(self) -> str:
        names = [*self.certified, "attack", "undecided"]
        columns = [*self.certified.values(), self.attacked, self.undecided]
        lines = ["  ".join(["     eps", *(f"{name:>11}" for name in names)])]
        for i, eps in enumerate(self.eps):
            lines.append("  ".join([f"{eps:8.4g}", *(f"{column[i]:11.3f}" for column in columns)]))
        return "\n".join(lines)


class Progress:
    """Shows progress on standard error: one bar over all samples if tqdm is installed, else one line per method."""

    def __init__(self, show: bool, total: int) -> None:
        self.show, self.bar, self.started = checks.flag("progress", show), None, time.perf_counter()
        if show:
            try:
                from tqdm import tqdm
            except ImportError:
                pass  # Without tqdm, `say` prints one line per method.
            else:
                self.bar = tqdm(total=total, unit="sample", dynamic_ncols=True, desc="robustness")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def done(self, samples: int) -> None:
        """Advance the bar by so many samples."""
        if self.bar is not None:
            self.bar.update(samples)

    def say(self, eps: float, name: str, share: float) -> None:
        """Show the share of one method at one radius."""
        if self.bar is not None:
            self.bar.set_postfix({"eps": f"{eps:g}", name: f"{share:.3f}"})
        elif self.show:
            seconds = time.perf_counter() - self.started
            print(f"eps {eps:g}: {name} {share:.3f}, {seconds:.1f} s", file=sys.stderr, flush=True)


def certified_accuracy(
    model: ImplicitModel,
    U: Any,
    labels: Any,
    eps: float | Sequence[float],
    methods: Sequence[MarginMethod] = ("interval", "crown"),
    clip: tuple[float, float] | None = (0, 1),
    time_limit: float = 10.0,
    progress: bool = True,
) -> RobustAccuracy:
    """Bound the share of samples whose class no input U′ with |U′ − U| ≤ eps changes, from below and from above.

    For each sample, lower bound ≤ least margin over the box ≤ margin of the attack, and therefore, for each eps::

        certified by a method ≤ robust accuracy ≤ not broken by the attack

    Parameters
    ----------
    model : ImplicitModel
        A classifier, as for `margins`.
    U : (m, p) array
        Raw inputs, one sample per row, m ≥ 1.
    labels : (m,) whole numbers
        The classes of the samples, or values of `model.classes` if the model has them.
    eps : number or sequence of numbers
        The radii, in the units of the raw inputs.
    methods : sequence of str
        Methods of `margins`: "sensitivity", "interval", "crown" and "exact".
    clip : (lowest, highest), optional
        The limits of raw inputs; None for inputs without limits.
    time_limit : float
        Seconds that "exact" may take for one sample.
    progress : bool
        Show progress on standard error: a progress bar if tqdm is installed, else one line per method and radius.

    Returns
    -------
    RobustAccuracy
        The shares for each radius; `print` shows them as a table.

    Raises
    ------
    ValueError, TypeError, ImportError
        As `margins`; also for no samples, no radius, or no method.

    Notes
    -----
    The attack is that of `attack` with its defaults.
    Cost: the sum of the costs of all methods and of the attack, for each eps. Source: the page on robustness.

    Examples
    --------
    >>> model = ImplicitModel(4, 3, 20, kappa=0.5, seed=0)
    >>> U = np.random.default_rng(0).random((50, 4))
    >>> found = certified_accuracy(model, U, model(U).argmax(axis=1), [0.01, 0.05], progress=False)
    >>> bool((found.certified["interval"] <= found.certified["crown"]).all())
    True
    >>> bool((found.certified["crown"] <= found.attacked).all())
    True
    """
    methods = [checks.choice("methods", method, METHODS) for method in _listed("methods", methods)]
    radii = [checks.number("eps", e, 0) for e in ([eps] if np.ndim(eps) == 0 else _listed("eps", eps))]
    checks.number("time_limit", time_limit, 0)
    questions = [Question.of(model, U, labels, e, clip) for e in radii]
    m = len(questions[0].U)
    if m == 0:
        raise ValueError("U must have one sample or more, because an accuracy is a share of them; got none.")
    copy = precise(model)
    certified: dict[str, np.ndarray] = {method: np.zeros(len(radii)) for method in methods}
    attacked, undecided = np.zeros(len(radii)), np.zeros(len(radii))
    with Progress(progress, len(radii) * (len(methods) + 1) * m) as shown:
        for i, question in enumerate(questions):
            sure, lost = np.zeros(m, bool), np.zeros(m, bool)
            for method in methods:
                proved, broken = _counted(question, method, time_limit, shown)
                sure, lost = sure | proved, lost | broken
                certified[method][i] = proved.mean()
                shown.say(radii[i], method, proved.mean())
            broken = _broken(copy, question, shown)
            attacked[i], undecided[i] = 1 - broken.mean(), (~(sure | lost | broken)).mean()
            shown.say(radii[i], "attack", attacked[i])
    clean = float((at(questions[0].system, questions[0].U, questions[0].labels)[1] > 0).mean())
    return RobustAccuracy(np.array(radii), clean, certified, attacked, undecided)


def _listed(name: str, value: Any) -> list[Any]:
    """Return a sequence as a list with one entry or more; one word is not a sequence."""
    if isinstance(value, str) or np.ndim(value) != 1 or len(value) == 0:
        raise ValueError(f"{name} must be a sequence with one entry or more; got {checks.shown(value)}: pass a list.")
    return list(value)


def _counted(question: Question, method: Any, time_limit: float, shown: Progress) -> tuple[np.ndarray, np.ndarray]:
    """Return which samples a method certifies, and which it breaks.   -> (m,), (m,)"""
    parts = []
    for part in question.batches():
        result = bounds(part, method, time_limit)
        parts.append((result.certified, result.broken))
        shown.done(len(part.U))
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _broken(copy: ImplicitModel, question: Question, shown: Progress) -> np.ndarray:
    """Return which samples the attack breaks.   -> (m,)"""
    rng, parts = np.random.default_rng(0), []
    for part in question.batches():
        parts.append(descend(copy, part, rng).broken)
        shown.done(len(part.U))
    return np.concatenate(parts)


def plot_accuracy(found: RobustAccuracy) -> Figure:
    """Plot certified ≤ exact ≤ attack against eps: the shares that each method certifies, and that the attack leaves.

    Parameters
    ----------
    found : RobustAccuracy
        The result of `certified_accuracy`, best with several radii.

    Returns
    -------
    Figure
        One line per method, the line of the attack, and between the best method and the attack what is not decided.

    Raises
    ------
    ImportError
        matplotlib is not installed.

    Examples
    --------
    >>> found = RobustAccuracy(np.array([0.0, 0.1]), 1.0, {"crown": np.array([1.0, 0.5])}, np.ones(2), np.zeros(2))
    >>> [line.get_label() for line in plot_accuracy(found).axes[0].lines]
    ['attack (PGD)', 'certified, crown']
    """
    figure = plots.blank(7, 4.2)
    axes = figure.add_subplot()
    axes.plot(found.eps, 100 * found.attacked, "o--", color="C3", label="attack (PGD)")
    best = np.max(list(found.certified.values()), axis=0)
    axes.fill_between(found.eps, 100 * best, 100 * found.attacked, color="gray", alpha=0.25, linewidth=0)
    for name, share in found.certified.items():
        axes.plot(found.eps, 100 * share, "o-", label="exact" if name == "exact" else f"certified, {name}")
    axes.set(xlabel="ε, in units of the inputs", ylabel="samples, %", title="Robust accuracy from below and from above")
    axes.grid(alpha=0.25)
    axes.legend()
    return figure
