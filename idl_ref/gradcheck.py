"""This module checks gradients by two independent methods, central differences and the complex step.

Central differences, (ℓ(θ + h) − ℓ(θ − h)) / 2h with h = eps^⅓, do not use the adjoint equation. They have about ten
correct digits, and they are wrong if φ or `f` has a kink between θ − h and θ + h. In that case the active sets at ±h
differ; the entry is then reported as a kink, and its difference is not judged.

The complex step, Im ℓ(θ + i·h) / h with h = 1e-30, has no cancellation and is accurate to rounding, provided that the
imaginary part of the equilibrium has converged too. It stays on the smooth piece that the real part selects, so that a
kink near θ does not change the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from idl_ref import activations, checks, classes, losses, preprocessing
from idl_ref.backends.equation import Equation
from idl_ref.backends.numpy.trials import Newton
from idl_ref.certificate import resolvent_norm
from idl_ref.choices import Loss
from idl_ref.model import ImplicitModel
from idl_ref.weights import as_factors

__all__ = ["GradientReport", "GradientRow", "check_gradients", "difference_curve"]

STEP = float(np.finfo(np.float64).eps) ** (1 / 3)  # This h balances the truncation error h² and the rounding eps/h.
COMPLEX_STEP = 1e-30
# The next three constants are relative errors. Each is multiplied by ‖(I − |A|)⁻¹‖∞, which bounds how much the equation
# amplifies rounding.
LOSS_ROUNDING = 16 * float(np.finfo(np.float64).eps)  # the rounding error of ℓ, which limits every central difference
DIFFERENCE_TOLERANCE = 1e-7  # the error that central differences may have
COMPLEX_TOLERANCE = 1e-13  # the error that the complex step may have
MAX_NEWTON = 20  # The complex equilibrium must converge in this many Newton steps.

Values = dict[str, np.ndarray]  # The parameters by name, and U under the name "U".


@dataclass(frozen=True)
class GradientRow:
    """The result of the check for one parameter; errors are relative to the largest entry of its gradient.

    Attributes
    ----------
    name : str
        The name of the parameter, or "U" for the inputs.
    entries, total : int
        Number of entries that were compared one by one, and number of all entries. In addition, the derivative in one
        random direction, which involves all entries, was compared with the complex step.
    kinks : int
        Number of entries with a kink between −h and +h, whose central differences were not judged.
    difference_error : float
        Largest difference from central differences; NaN if every entry was at a kink. An error that the rounding of the
        loss can explain does not make the verdict "WRONG", so that for a tiny gradient this number may exceed the
        tolerance although the verdict is "ok".
    complex_error : float
        Largest difference from the complex step, over the entries and the random direction; NaN if every comparison was
        exactly at a kink.
    configured_error : float
        Error of the gradient that the model computes with its own dtype and tolerances.
    verdict : {"ok", "WRONG", "kink"}
        "kink" if every comparison was at a kink, so that nothing could be judged.
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
    """The result of `check_gradients`, with one row per parameter and one for U; `print` shows it as a table.

    Attributes
    ----------
    rows : tuple of GradientRow
        The results for each parameter and for U.
    difference_tolerance, complex_tolerance : float
        The relative errors that were allowed for central differences and for the complex step.
    """

    rows: tuple[GradientRow, ...]
    difference_tolerance: float
    complex_tolerance: float

    @property
    def passed(self) -> bool:
        """True if no row is "WRONG" and at least one row is "ok"."""
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
    model: ImplicitModel, U: Any, targets: Any, *, loss: Loss = "cross_entropy", entries: int = 64, seed: int = 0
) -> GradientReport:
    """Compare every gradient of `model` with central differences and with the complex step.

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
    loss : {"cross_entropy", "mse"}
        The loss ℓ whose gradients are checked.
    entries : int
        Number of entries per parameter that are compared one by one; they are drawn at random if there are more.
    seed : int
        Seed of this draw and of the random direction.

    Returns
    -------
    GradientReport
        Its attribute `passed` is the overall result. Errors are relative to the largest entry of each gradient.

    Raises
    ------
    ValueError, TypeError
        Arrays of a wrong shape or dtype, an unknown loss, or entries < 1.
    NotConvergedError
        An equilibrium did not converge in float64, so that there is no gradient to check.

    Notes
    -----
    Cost: for each entry, two forward solves in float64 and at most 20 Newton steps in complex128.
    Source: Squire and Trapp, Using complex variables to estimate derivatives of real functions, SIAM Review 40 (1998).

    Examples
    --------
    >>> import numpy as np
    >>> report = check_gradients(ImplicitModel(3, 2, 5, seed=0), np.ones((4, 3)), np.array([0, 1, 1, 0]))
    >>> report.passed, [row.name for row in report.rows]
    (True, ['A', 'B', 'C', 'D', 'U'])
    """
    checks.integer("entries", entries, 1)
    _, configured = model.loss_and_gradients(U, targets, loss)
    targets = classes.encoded(loss, targets, model.classes)
    oracle = _Oracle(model, U, targets, loss)
    gradients = oracle.gradients(U, targets, loss)
    if model.preprocessing is not None:
        configured["U"] = configured["U"] * model.preprocessing.scale
    allowed = DIFFERENCE_TOLERANCE * oracle.magnification, COMPLEX_TOLERANCE * oracle.magnification
    rng = np.random.default_rng(checks.integer("seed", seed, 0))
    names = oracle.values
    rows = tuple(_check_one(oracle, name, gradients[name], configured[name], entries, rng, allowed) for name in names)
    return GradientReport(rows, *allowed)


def difference_curve(
    model: ImplicitModel, U: Any, targets: Any, steps: np.ndarray, *, loss: Loss = "cross_entropy", seed: int = 0
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
    oracle = _Oracle(model, U, targets, loss)
    gradients = oracle.gradients(U, targets, loss)
    rng = np.random.default_rng(checks.integer("seed", seed, 0))
    direction = {name: rng.standard_normal(value.shape) for name, value in oracle.model.parameters.items()}
    truth = sum(float(np.vdot(gradients[name], E)) for name, E in direction.items())
    derivatives, kinks = np.array([oracle.difference(direction, h) for h in steps]).T
    return np.abs(derivatives / truth - 1), kinks > 0, abs(oracle.complex_step(direction)[0] / truth - 1)


def doubled(model: ImplicitModel) -> ImplicitModel:
    """Return a copy of the model in float64 that solves its equations to rounding accuracy."""
    settings = replace(
        model.settings, dtype="float64", tol=0.0, grad_tol=0.0, mitr=100_000, grad_mitr=100_000, on_failure="raise"
    )
    parameters = {name: value.astype(np.float64) for name, value in model.parameters.items()}
    return ImplicitModel.from_parameters(settings, parameters, model.preprocessing)


class _Oracle:
    """Evaluates the loss as a function of the parameters and U, in float64 and complex128, and detects kinks.

    With a preprocessing, the U of this class are the standardised inputs, so that one step h suits all features. The
    derivatives by the raw inputs are these derivatives divided by the scale.
    """

    def __init__(self, model: ImplicitModel, U: Any, targets: Any, loss: str) -> None:
        self.whole, pre = doubled(model), model.preprocessing
        # Without a preprocessing, the inputs are first rounded to the dtype of the model, as the model does.
        dtype = model.dtype if pre is None else self.whole.dtype
        U = preprocessing.inputs("U", U, model.input_dim, dtype, pre).astype(np.float64)
        model = ImplicitModel.from_parameters(self.whole.settings, self.whole.parameters)
        self.model, self.values = model, {**model.parameters, "U": U}
        self.activation = activations.get(model.activation).for_complex_step()
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
        if not np.isfinite(self.magnification):  # Without a bound of the amplification, no extra rounding is allowed.
            self.magnification = 1.0
        self.rounding = LOSS_ROUNDING * self.magnification * abs(float(self.loss(base.Y, self.targets)[0]))

    def gradients(self, U: Any, targets: Any, loss: str) -> Values:
        """Return the gradients of the model, with that of U for the standardised inputs of this class."""
        pre = self.whole.preprocessing
        _, gradients = self.whole.loss_and_gradients(self.values["U"] if pre is None else U, targets, loss)
        return gradients if pre is None else gradients | {"U": gradients["U"] * pre.scale}

    def difference(self, direction: Mapping[str, np.ndarray], h: float) -> tuple[float, bool]:
        """Return (ℓ(θ + hE) − ℓ(θ − hE)) / 2h, and whether a kink lies between the two points."""
        above, kink_above = self._loss(self._moved(direction, h))
        below, kink_below = self._loss(self._moved(direction, -h))
        return (above - below) / (2 * h), kink_above or kink_below

    def complex_step(self, direction: Mapping[str, np.ndarray]) -> tuple[float, bool]:
        """Return Im ℓ(θ + ihE) / h, and whether θ is exactly on a kink of φ and E leads away from the kink."""
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
        """Return θ + hE, for the parameters and U that are in the direction E."""
        return {name: v + h * direction[name] if name in direction else v for name, v in self.values.items()}

    def _loss(self, moved: Values) -> tuple[float, bool]:
        """Return the loss at other parameters and inputs, and whether their active set differs from that at θ."""
        parameters = {name: value for name, value in moved.items() if name != "U"}
        forward = ImplicitModel.from_parameters(self.model.settings, parameters).forward_pass(moved["U"], self.X.T)
        forward.solution.require()
        P = Equation(forward.weights.factors, self.activation, None, forward.Z).apply(forward.solution.X)[0]
        crossed = any(not np.array_equal(a, b) for a, b in zip(self.active, self._active(moved, P), strict=True))
        return float(self.loss(forward.Y, self.targets)[0]), crossed

    def _active(self, values: Values, P: np.ndarray) -> list[np.ndarray]:
        """Return arrays that identify the smooth pieces of φ, for each entry of P, and of `f`, for the weights."""
        return [*(kink < P for kink in self.activation.kinks), *self.f.active_set(as_factors(values))]


@dataclass
class _Errors:
    """Absolute differences between the gradient of one parameter and the two methods that check it.

    Attributes
    ----------
    differences, complex_steps : list of float
        Differences from central differences and from the complex step, without comparisons that met a kink.
    beyond_rounding : float
        The largest part of a difference from central differences that rounding of the loss cannot explain.
    kinks : int
        Number of entries with a kink between −h and +h.
    """

    differences: list[float] = field(default_factory=list)
    complex_steps: list[float] = field(default_factory=list)
    beyond_rounding: float = 0.0
    kinks: int = 0

    def compare_entry(self, oracle: _Oracle, name: str, G: np.ndarray, flat: int) -> None:
        """Compare one entry of G, given by its flat index, with the central difference and the complex step."""
        theta, truth = float(oracle.values[name].flat[flat]), float(G.flat[flat])
        E = np.zeros_like(G)
        E.flat[flat] = 1.0
        h = STEP * max(1.0, abs(theta))
        value, kink = oracle.difference({name: E}, h)
        self.kinks += kink
        if not kink:
            self.differences.append(abs(value - truth))
            self.beyond_rounding = max(self.beyond_rounding, abs(value - truth) - oracle.rounding / h)
        value, on_kink = oracle.complex_step({name: E})
        if not on_kink and not (kink and theta == 0):
            self.complex_steps.append(abs(value - truth))

    def compare_direction(self, oracle: _Oracle, name: str, G: np.ndarray, E: np.ndarray) -> None:
        """Compare the derivative ⟨G, E⟩ in a direction E of all entries with the complex step."""
        value, on_kink = oracle.complex_step({name: E})
        if not on_kink and G.size and not (oracle.values[name] == 0).any():
            self.complex_steps.append(abs(value - float(np.vdot(G, E))) / float(np.abs(E).sum()))


def _check_one(
    oracle: _Oracle,
    name: str,
    G: np.ndarray,
    configured: np.ndarray,
    entries: int,
    rng: np.random.Generator,
    allowed: tuple[float, float],
) -> GradientRow:
    """Check the gradient G of one parameter; `allowed` are the tolerances for differences and complex steps."""
    scale = float(np.abs(G).max(initial=0.0)) or 1.0
    chosen = np.sort(rng.choice(G.size, size=min(entries, G.size), replace=False))
    found = _Errors()
    for flat in chosen:
        found.compare_entry(oracle, name, G, flat)
    found.compare_direction(oracle, name, G, rng.standard_normal(G.shape))
    difference, step = (max(e) / scale if e else np.nan for e in (found.differences, found.complex_steps))
    wrong = found.beyond_rounding > allowed[0] * scale or step > allowed[1] or not np.isfinite(G).all()
    return GradientRow(
        name=name,
        entries=len(chosen),
        total=G.size,
        kinks=found.kinks,
        difference_error=difference,
        complex_error=step,
        configured_error=float(np.abs(configured - G).max(initial=0.0)) / scale,
        verdict="WRONG" if wrong else "ok" if found.differences or found.complex_steps else "kink",
    )
