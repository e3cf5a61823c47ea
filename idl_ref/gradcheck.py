"""This module checks the gradients of a model, by the complex step and by central differences, and reports the result.

`idl_ref.derivatives` computes the derivatives that the gradients are compared with, and `idl_ref.comparison` decides
what a difference between the two means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from idl_ref import checks, classes, preprocessing
from idl_ref.choices import AnyLoss
from idl_ref.comparison import Check, GradientRow, Point
from idl_ref.derivatives import LossOfModel, doubled
from idl_ref.model import ImplicitModel

__all__ = ["GradientReport", "GradientRow", "check_gradients", "difference_curve"]


@dataclass(frozen=True)
class GradientReport:
    """The result of `check_gradients`, with one row per parameter and one for U; `print` shows it as a table.

    Attributes
    ----------
    rows : tuple of GradientRow
        The results for each parameter and for U.
    """

    rows: tuple[GradientRow, ...]

    @property
    def verdict(self) -> str:
        """The worst verdict of all rows: "WRONG", "cannot tell" or "ok"."""
        verdicts = {row.verdict for row in self.rows}
        return next((worst for worst in ("WRONG", "cannot tell") if worst in verdicts), "ok")

    @property
    def passed(self) -> bool:
        """True if every row is "ok"."""
        return self.verdict == "ok"

    def __str__(self) -> str:
        lines = ["      entries  complex step     allowed  difference   kinks  as configured"]
        lines += [
            f"{row.name:<4}{f'{row.entries}/{row.total}':>9}{row.complex_error:>14.1e}{row.allowed:>12.1e}"
            f"{row.difference_error:>12.1e}{row.kinks:>8}{row.configured_error:>15.1e}  {row.verdict}"
            for row in self.rows
        ]
        reasons = dict.fromkeys(row.reason for row in self.rows if row.reason)
        for reason in reasons:
            names = ", ".join(row.name for row in self.rows if row.reason == reason)
            lines.append(f"cannot tell for {names}: {reason}.")
        return "\n".join(lines)


def check_gradients(
    model: ImplicitModel,
    U: Any,
    targets: Any,
    *,
    loss: AnyLoss = "cross_entropy",
    entries: int = 64,
    seed: int = 0,
) -> GradientReport:
    """Compare every gradient of `model` with the complex step and with central differences.

    The gradients are computed in float64 with tol = 0, whatever the model's settings are, so that a loose tolerance
    cannot hide a wrong formula. The error that the model's own settings cause is reported in a separate column.

    Parameters
    ----------
    model : ImplicitModel
        The model, which is not changed.
    U : (m, p) array
        Inputs, one sample per row.
    targets : (m,) whole numbers for "cross_entropy", (m, q) array for "mse"
        The labels or the desired outputs.
    loss : {"cross_entropy", "mse"} or callable
        The loss ℓ whose gradients are checked. A loss of your own must also take complex Y, for the complex step.
    entries : int
        Number of entries per parameter that are compared one by one; they are drawn at random if there are more.
    seed : int
        Seed of this draw and of the random directions.

    Returns
    -------
    GradientReport
        Its attribute `passed` is true if every gradient was found right. Its attribute `verdict` tells a gradient that
        is wrong from one that cannot be judged at this point, because of rounding or a kink.

    Raises
    ------
    ValueError, TypeError
        Arrays of a wrong shape or dtype, an unknown loss, or entries < 1.
    NotConvergedError
        An equilibrium did not converge in float64, so that there is no gradient to check.

    Notes
    -----
    Cost: about 8 gradients in float64, 7 inverses of n × n matrices per sample (r × r for low rank), and two forward
    solves per entry.
    Source: Squire and Trapp, Using complex variables to estimate derivatives of real functions, SIAM Review 40 (1998).

    Examples
    --------
    >>> import numpy as np
    >>> report = check_gradients(ImplicitModel(3, 2, 5, seed=0), np.ones((4, 3)), np.array([0, 1, 1, 0]))
    >>> report.passed, [row.name for row in report.rows]
    (True, ['A', 'B', 'C', 'D', 'U'])
    """
    if not isinstance(model, ImplicitModel):
        raise TypeError(
            f"model must be an ImplicitModel; got {type(model).__name__}: pass one; an ImplicitRNN has its own check, "
            "rnn.check_gradients(U, targets)."
        )
    checks.integer("entries", entries, 1)
    _, configured = model.loss_and_gradients(U, targets, loss)
    rng = np.random.default_rng(checks.integer("seed", seed, 0))
    standard, targets = _standardised(model, U), classes.encoded(loss, targets, model.classes)
    check = Check(LossOfModel(doubled(model), standard, targets, loss), rng)
    if (pre := model.preprocessing) is not None:
        # The gradients by raw inputs, times the scale, are those by standardised inputs, in which all features count.
        whole = doubled(model)
        whole.preprocessing = pre
        configured["U"] = configured["U"] * pre.scale
        check.judged["U"] = whole.loss_and_gradients(U, targets, loss)[1]["U"] * pre.scale
    return GradientReport(tuple(check.row(name, configured[name], entries) for name in check.here.loss.values))


def _standardised(model: ImplicitModel, U: Any) -> np.ndarray:
    """Return the inputs after the preprocessing of the model, in float64; without one, they are those of the model."""
    dtype = model.dtype if model.preprocessing is None else np.dtype(np.float64)
    return preprocessing.inputs("U", U, model.input_dim, dtype, model.preprocessing).astype(np.float64)


def difference_curve(
    model: ImplicitModel,
    U: Any,
    targets: Any,
    steps: np.ndarray,
    *,
    loss: AnyLoss = "cross_entropy",
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the relative errors of a directional derivative for several steps h of the central difference.

    The direction E is random in all parameters together, and the reference value is ⟨∂ℓ, E⟩ from the adjoint equation,
    in float64 with tol = 0.

    Parameters
    ----------
    model, U, targets
        As for `check_gradients`.
    steps : (k,) array
        The steps h.
    loss : {"cross_entropy", "mse"}
        The loss ℓ whose derivative is taken.
    seed : int
        Seed of the random direction.

    Returns
    -------
    errors : (k,) array
        Relative error of the central difference for each step.
    kinks : (k,) bool array
        Whether a kink lies between −h and +h, for each step.
    complex_error : float
        Relative error of the complex step.
    """
    targets = classes.encoded(loss, targets, model.classes)
    here = Point(LossOfModel(doubled(model), _standardised(model, U), targets, loss))
    rng = np.random.default_rng(checks.integer("seed", seed, 0))
    direction = {name: rng.standard_normal(value.shape) for name, value in here.loss.model.parameters.items()}
    truth = sum(here.slope(name, E) for name, E in direction.items())
    derivatives, kinks = np.array([here.loss.difference(direction, h) for h in steps]).T
    return np.abs(derivatives / truth - 1), kinks > 0, abs(here.loss.complex_step(direction) / truth - 1)
