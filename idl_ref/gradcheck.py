"""Is the gradient right? Two independent answers, and a word about kinks.

Central differences, (ℓ(θ + h) − ℓ(θ − h)) / 2h with h = eps^⅓, know nothing of the adjoint, but are good to about ten
digits only, and wrong across a kink: there the active sets at ±h differ, and the entry is reported, not judged.

The complex step, Im ℓ(θ + i·h) / h with h = 1e-30, subtracts nothing and is good to the last digits, provided that
the equilibrium has converged in its imaginary part too. It follows the branch of the real part, so a kink nearby does
it no harm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from idl_ref import activations, checks, losses
from idl_ref.backends.equation import Equation
from idl_ref.backends.numpy.trials import Newton
from idl_ref.certificate import resolvent_norm
from idl_ref.model import ImplicitModel
from idl_ref.weights import as_factors

__all__ = ["GradientReport", "GradientRow", "check_gradients", "difference_curve"]

STEP = float(np.finfo(np.float64).eps) ** (1 / 3)  # balances truncation h² against rounding eps/h
COMPLEX_STEP = 1e-30
LOSS_ROUNDING = 16 * float(np.finfo(np.float64).eps)  # of ℓ itself, relative: no difference is more accurate
DIFFERENCE_TOLERANCE = 1e-7  # all three times ‖(I − |A|)⁻¹‖∞, by which the problem magnifies rounding
COMPLEX_TOLERANCE = 1e-13
MAX_NEWTON = 20

Values = dict[str, np.ndarray]  # the parameters, and "U"


@dataclass(frozen=True)
class GradientRow:
    """What was found for one parameter; errors are relative to the largest entry of its gradient.

    Attributes
    ----------
    name : str
        "A", …, or "U".
    entries, total : int
        How many entries were compared one by one, of how many; one random direction covers them all.
    kinks : int
        Entries with a kink between −h and +h: not judged by differences.
    difference_error : float
        Worst against central differences; NaN if every entry was at a kink. What rounding of the loss explains is not
        held against a gradient, so where a gradient is tiny this may be above what is allowed.
    complex_error : float
        Worst against the complex step, entries and direction; NaN if every one sat exactly on a kink.
    configured_error : float
        How far the gradient is off with the model's own dtype and tolerances.
    verdict : {"ok", "WRONG", "kink"}
        "kink" where every comparison met one, so that nothing could be judged.
    """

    name: str
    entries: int
    total: int
    kinks: int
    difference_error: float
    complex_error: float
    configured_error: float
    verdict: str


@dataclass(frozen=True)
class GradientReport:
    """One row per parameter and for U; `print` it for a table."""

    rows: tuple[GradientRow, ...]
    difference_tolerance: float
    complex_tolerance: float

    @property
    def passed(self) -> bool:
        """True when no row is wrong, and some row was judged."""
        verdicts = {row.verdict for row in self.rows}
        return "WRONG" not in verdicts and "ok" in verdicts

    def __str__(self) -> str:
        lines = ["      entries       kinks  difference  complex step  as configured"]
        lines += [
            f"{row.name:<4}{f'{row.entries}/{row.total}':>9}{row.kinks:>12}{row.difference_error:>12.1e}"
            f"{row.complex_error:>14.1e}{row.configured_error:>15.1e}  {row.verdict}"
            for row in self.rows
        ]
        lines.append(f"allowed{'':18}{self.difference_tolerance:>12.1e}{self.complex_tolerance:>14.1e}")
        return "\n".join(lines)


def check_gradients(
    model: ImplicitModel, U: Any, targets: Any, *, loss: str = "cross_entropy", entries: int = 64, seed: int = 0
) -> GradientReport:
    """Compare every gradient of `model` with central differences and with the complex step.

    The formulas are judged in float64 with tol = 0, whatever the model's settings, so that a wrong formula cannot hide
    behind a loose tolerance; what the settings cost is reported beside it.

    Parameters
    ----------
    model : ImplicitModel
        It is not changed.
    U : (m, p) array
    targets : (m,) whole numbers for "cross_entropy", (m, q) array for "mse"
    loss : {"cross_entropy", "mse"}
    entries : int
        Entries compared one by one per parameter, drawn at random where there are more.
    seed : int
        Of that draw.

    Returns
    -------
    GradientReport

    Notes
    -----
    Cost: per entry, two forward solves in float64 and one in complex128.

    Examples
    --------
    >>> import numpy as np
    >>> report = check_gradients(ImplicitModel(3, 2, 5, seed=0), np.ones((4, 3)), np.array([0, 1, 1, 0]))
    >>> report.passed, [row.name for row in report.rows]
    (True, ['A', 'B', 'C', 'D', 'U'])
    """
    checks.integer("entries", entries, 1)
    U = checks.samples("U", U, "p", model.input_dim, model.dtype)
    _, configured = model.loss_and_gradients(U, targets, loss)
    oracle = _Oracle(model, U.astype(np.float64), targets, loss)
    _, gradients = oracle.model.loss_and_gradients(oracle.values["U"], targets, loss)
    allowed = DIFFERENCE_TOLERANCE * oracle.magnification, COMPLEX_TOLERANCE * oracle.magnification
    rng = np.random.default_rng(checks.integer("seed", seed, 0))
    names = oracle.values
    rows = tuple(_check_one(oracle, name, gradients[name], configured[name], entries, rng, allowed) for name in names)
    return GradientReport(rows, *allowed)


def difference_curve(
    model: ImplicitModel, U: Any, targets: Any, steps: np.ndarray, *, loss: str = "cross_entropy", seed: int = 0
) -> tuple[np.ndarray, np.ndarray, float]:
    """Relative errors of a directional derivative: by central differences for each step, and by the complex step.

    Between the two, for each step, whether a kink lies within it. The direction is random in all parameters together;
    the truth is the adjoint gradient in float64 with tol = 0.
    """
    oracle = _Oracle(model, checks.samples("U", U, "p", model.input_dim, np.float64), targets, loss)
    _, gradients = oracle.model.loss_and_gradients(oracle.values["U"], targets, loss)
    rng = np.random.default_rng(checks.integer("seed", seed, 0))
    direction = {name: rng.standard_normal(value.shape) for name, value in oracle.model.parameters.items()}
    truth = sum(float(np.vdot(gradients[name], E)) for name, E in direction.items())
    derivatives, kinks = np.array([oracle.difference(direction, h) for h in steps]).T
    return np.abs(derivatives / truth - 1), kinks > 0, abs(oracle.complex_step(direction)[0] / truth - 1)


def doubled(model: ImplicitModel) -> ImplicitModel:
    """The model in float64, solved to rounding."""
    settings = replace(
        model.settings, dtype="float64", tol=0.0, grad_tol=0.0, mitr=100_000, grad_mitr=100_000, on_failure="raise"
    )
    parameters = {name: value.astype(np.float64) for name, value in model.parameters.items()}
    return ImplicitModel.from_parameters(settings, parameters)


class _Oracle:
    """The loss as a function of the parameters and U, in float64 and in complex128, with its active set."""

    def __init__(self, model: ImplicitModel, U: np.ndarray, targets: Any, loss: str) -> None:
        model = doubled(model)
        self.model, self.values = model, {**model.parameters, "U": U}
        self.activation = activations.get(model.activation)
        self.f = model.settings.parametrisation.function
        self.loss = losses.get(loss)
        self.targets = losses.check_targets(loss, targets, len(U), model.output_dim, model.dtype)
        self.layer = model.layer()
        base = self.layer.forward(U.T)
        self.X = base.solution.require().X
        self.equation = Equation(base.weights.factors, self.activation, None, base.Z)
        self.P = self.equation.apply(self.X)[0]
        self.active = self._active(self.values, self.P)
        self.magnification = resolvent_norm(base.weights.factors, self.activation.lipschitz)
        if not np.isfinite(self.magnification):  # not well posed in the large: no excuse for rounding
            self.magnification = 1.0
        self.rounding = LOSS_ROUNDING * self.magnification * abs(float(self.loss(base.Y, self.targets)[0]))

    def difference(self, direction: Mapping[str, np.ndarray], h: float) -> tuple[float, bool]:
        """(ℓ(θ + hE) − ℓ(θ − hE)) / 2h, and whether a kink lies between."""
        above, kink_above = self._loss(self._moved(direction, h))
        below, kink_below = self._loss(self._moved(direction, -h))
        return (above - below) / (2 * h), kink_above or kink_below

    def complex_step(self, direction: Mapping[str, np.ndarray]) -> tuple[float, bool]:
        """Im ℓ(θ + ihE) / h, and whether θ sits exactly on a kink that E moves off."""
        moved = self._moved(direction, 1j * COMPLEX_STEP)
        weights = self.model.settings.parametrisation.weights(moved)
        columns = self.layer.inputs(moved["U"].T)
        equation = Equation(weights.factors, self.activation, None, moved["B"] @ columns)
        X = self.X.astype(complex)
        for _ in range(MAX_NEWTON):
            P, G = equation.apply(X)
            if any(((P.real == kink) & (P.imag != 0)).any() for kink in self.activation.kinks):
                return np.nan, True
            residual = np.abs((G - X).imag).max(initial=0.0)
            X = Newton().propose(self.equation, X, self.P, G, np.ones(X.shape[1], bool))[0]
            if residual <= 4 * np.finfo(np.float64).eps * np.abs(G.imag).max(initial=0.0):
                break
        else:
            raise FloatingPointError(f"the complex step did not converge in {MAX_NEWTON} Newton steps.")
        Y = moved["C"] @ X
        if "D" in moved:
            Y = Y + moved["D"] @ columns
        return float(self.loss(Y, self.targets)[0].imag) / COMPLEX_STEP, False

    def _moved(self, direction: Mapping[str, np.ndarray], h: complex) -> Values:
        return {name: v + h * direction[name] if name in direction else v for name, v in self.values.items()}

    def _loss(self, moved: Values) -> tuple[float, bool]:
        parameters = {name: value for name, value in moved.items() if name != "U"}
        forward = ImplicitModel.from_parameters(self.model.settings, parameters).forward_pass(moved["U"], self.X.T)
        forward.solution.require()
        P = Equation(forward.weights.factors, self.activation, None, forward.Z).apply(forward.solution.X)[0]
        crossed = any(not np.array_equal(a, b) for a, b in zip(self.active, self._active(moved, P), strict=True))
        return float(self.loss(forward.Y, self.targets)[0]), crossed

    def _active(self, values: Values, P: np.ndarray) -> list[np.ndarray]:
        """Which smooth piece of φ each preactivation is on, and of `f` the weights."""
        return [*(kink < P for kink in self.activation.kinks), *self.f.active_set(as_factors(values))]


def _check_one(
    oracle: _Oracle,
    name: str,
    G: np.ndarray,
    configured: np.ndarray,
    entries: int,
    rng: np.random.Generator,
    allowed: tuple[float, float],
) -> GradientRow:
    theta = oracle.values[name]
    scale = float(np.abs(G).max(initial=0.0)) or 1.0
    chosen = np.sort(rng.choice(G.size, size=min(entries, G.size), replace=False))
    differences, beyond_rounding, complex_steps, kinks = [], [0.0], [], 0
    for flat in chosen:
        E = np.zeros_like(G)
        E.flat[flat] = 1.0
        truth = float(G.flat[flat])
        h = STEP * max(1.0, abs(float(theta.flat[flat])))
        value, kink = oracle.difference({name: E}, h)
        kinks += kink
        if not kink:
            differences.append(abs(value - truth))
            beyond_rounding.append(abs(value - truth) - oracle.rounding / h)
        value, on_kink = oracle.complex_step({name: E})
        if not on_kink and not (kink and theta.flat[flat] == 0):
            complex_steps.append(abs(value - truth))
    E = rng.standard_normal(G.shape)
    value, on_kink = oracle.complex_step({name: E})
    if not on_kink and G.size and not (theta == 0).any():
        complex_steps.append(abs(value - float(np.vdot(G, E))) / float(np.abs(E).sum()))
    worst = [max(errors) / scale if errors else np.nan for errors in (differences, complex_steps)]
    wrong = max(beyond_rounding) > allowed[0] * scale or worst[1] > allowed[1] or not np.isfinite(G).all()
    return GradientRow(
        name=name,
        entries=len(chosen),
        total=G.size,
        kinks=kinks,
        difference_error=worst[0],
        complex_error=worst[1],
        configured_error=float(np.abs(configured - G).max(initial=0.0)) / scale,
        verdict="WRONG" if wrong else "ok" if differences or complex_steps else "kink",
    )
