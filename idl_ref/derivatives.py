"""This module differentiates the loss of a model without its backward code: by differences and by the complex step.

Let ℓ(θ) be the loss as a function of all parameters and of U, and E a direction, an array like θ.

**The complex step.** Where ℓ is analytic, ℓ(θ + ihE) = ℓ(θ) + ih ∂ℓ[E] − h²/2 ∂²ℓ[E, E] − …, and therefore::

    ∂ℓ[E] = Im ℓ(θ + ihE) / h + O(h²).

Nothing is subtracted, so that nothing cancels, and h = 1e-30 makes the term O(h²) vanish beside rounding. The functions
φ, `f` and the loss are evaluated at complex numbers; their real parts select the smooth piece of each function, and the
analytic continuation of that piece is exact. At θ + ihE, the equilibrium is X + ihX̃, and taking the imaginary parts of
X = φ(P) with P = A X + B U gives an equation for X̃ that is linear, because φ acts entry by entry::

    X̃ = S ∘ (A X̃ + Z̃),    S = Im φ(P + ih) / h,    Z̃ = Im((A + ihÃ) X + (B + ihB̃)(U + ihŨ)) / h.

Its solution is (I − diag(s) A)⁻¹ (s ∘ z̃) in each column. The adjoint equation and the functions `slope` and `pullback`,
which the gradients of a model consist of, are not used.

**Where a derivative does not exist**, a gradient is a matter of convention, and the complex step follows the one of the
package. At a kink of φ, S is the smaller of the two one-sided slopes. The derivative of |a| at a = 0 is the mean of the
one-sided ones, 0. Hence neither a unit at a kink nor a parameter that is 0 excludes any direction.

**Central differences**, (ℓ(θ + hE) − ℓ(θ − hE)) / 2h, need no complex numbers. Their error is at best about eps to the
power ⅔, and they are wrong if a kink lies between the two points, which is the case if the smooth pieces of φ or `f`
differ there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from idl_ref import activations, losses
from idl_ref import factors as fac
from idl_ref.activations import Activation
from idl_ref.backends.equation import Equation
from idl_ref.backends.numpy.trials import Newton
from idl_ref.certificate import column_max
from idl_ref.choices import AnyLoss, Method
from idl_ref.model import ImplicitModel
from idl_ref.solution import NotConvergedError
from idl_ref.sparse import dense

COMPLEX_STEP = 1e-30
ROUNDS = 3  # The number of corrections by which X, and then X̃, reach the accuracy that rounding allows.
LARGEST_INVERSE = 1 << 27  # Inverses with more entries in all columns together are not stored.

Values = dict[str, np.ndarray]  # The parameters by name, and U (m, p) under the name "U".


def doubled(model: ImplicitModel, method: Method | None = None) -> ImplicitModel:
    """Return a copy of the model in float64 that solves its equations to rounding accuracy, by the given method."""
    settings = replace(
        model.settings,
        dtype="float64",
        tol=0.0,
        grad_tol=0.0,
        mitr=100_000,
        grad_mitr=100_000,
        on_failure="raise",
        method=method or model.settings.method,
    )
    parameters = {name: value.astype(np.float64) for name, value in model.parameters.items()}
    return type(model).from_parameters(settings, parameters)


class Linearised:
    """An equilibrium equation, its solution X as accurate as rounding allows, and the slopes S = φ′(A X + Z) there.

    Parameters
    ----------
    equation : Equation
        The equation, whose activation takes complex numbers.
    X : (n, m) array
        A solution of a solver.
    """

    def __init__(self, equation: Equation, X: np.ndarray) -> None:
        self.equation, self.factors = equation, equation.factors
        self._linearise(X)
        polished = self.polished(X, equation)
        if not np.array_equal(polished, X):
            self._linearise(polished)

    def _linearise(self, X: np.ndarray) -> None:
        """Set X, P, S and the inverse that `solve` uses."""
        self.X, self.P = X, self.equation.apply(X)[0]
        self.S = slopes(self.equation.activation, self.P)
        self.inverse = self._inverse()

    def _inverse(self) -> np.ndarray | None:
        """Return (I − diag(s) A)⁻¹ for each column s of S; for A = L Rᵀ the r × r matrix (I − Rᵀ diag(s) L)⁻¹ instead.

        The result is None if it would be too large to store, and NaN if a matrix is singular.   -> (m, n, n)
        """
        F, S = self.factors, self.S.T
        r = F[-1].shape[0]
        if S.shape[0] * r * r > LARGEST_INVERSE:
            return None
        scaled = S[:, :, None] * F[0] if len(F) == 1 else (F[1] * S[:, None, :]) @ F[0]
        try:
            return np.linalg.inv(np.eye(r) - scaled)
        except np.linalg.LinAlgError:
            return np.full(scaled.shape, np.nan)

    def solve(self, F: np.ndarray) -> np.ndarray:
        """Return δ with δ = S ∘ (A δ) + F.   F (n, m) -> (n, m)

        For A = L Rᵀ, δ = F + S ∘ L w, where w = Rᵀδ solves (I − Rᵀ diag(s) L) w = Rᵀ F.
        """
        if self.inverse is None:
            zero = np.zeros_like(F)
            return Newton().propose(self.equation, zero, self.P, F, np.ones(F.shape[1], bool))[0]
        if len(self.factors) == 1:
            return (self.inverse @ F.T[:, :, None])[:, :, 0].T
        L, Rt = self.factors
        return F + self.S * (L @ (self.inverse @ (Rt @ F).T[:, :, None])[:, :, 0].T)

    def tangent(self, Z_dot: np.ndarray) -> np.ndarray:
        """Return X̃ = S ∘ (A X̃ + Z̃).   Z̃ (n, m) -> (n, m)"""
        X_dot = np.zeros_like(self.X)
        for _ in range(ROUNDS):
            X_dot += self.solve(self.S * (fac.apply(self.factors, X_dot) + Z_dot) - X_dot)
        return X_dot

    def polished(self, X: np.ndarray, equation: Equation) -> np.ndarray:
        """Return X after Newton's steps, with the slopes S, without those that do not reduce a column's residual.

        A solver stops relative to the largest entry of a column. These steps bring the small entries to the accuracy
        that rounding allows.
        """
        F = equation.apply(X)[1] - X
        for _ in range(ROUNDS):
            trial = X + self.solve(F)
            F_trial = equation.apply(trial)[1] - trial
            better = column_max(F_trial) < column_max(F)
            X, F = np.where(better, trial, X), np.where(better, F_trial, F)
        return X


class LossOfModel:
    """The loss of a model as a function of its parameters and inputs, with its derivatives at one point θ.

    Parameters
    ----------
    model : ImplicitModel
        A model that `doubled` returned; θ consists of its parameters and of U.
    U : (m, p) float64 array
        Inputs, one sample per row.
    targets, loss
        As for `check_gradients`.

    Raises
    ------
    NotConvergedError
        There is no equilibrium at θ, or the solver does not find it.
    """

    def __init__(self, model: ImplicitModel, U: np.ndarray, targets: Any, loss: AnyLoss) -> None:
        self.layer = model.layer()
        self._begin(model, {**model.parameters, "U": U}, targets, loss)
        forward = self.layer.forward(U.T)
        self.factors = tuple(dense(F) for F in forward.weights.factors)
        equation = Equation(self.factors, self.activation, None, forward.Z)
        self.point = Linearised(equation, forward.solution.require().X)
        self.active = self._active(self.values, [self.point.P])
        self.value = float(self._loss(self.values, self.point.X, forward.U))

    def _begin(self, model: ImplicitModel, values: Values, targets: Any, loss: AnyLoss) -> None:
        """Set what does not depend on the equilibrium."""
        self.model, self.values, self.asked = model, values, (targets, loss)
        self.activation = activations.get(model.settings.activation).for_complex_step()
        self.f = model.settings.parametrisation.function
        self.loss = losses.get(loss)
        self.targets = losses.check_targets(loss, targets, len(values["U"]), model.output_dim, model.dtype)

    def gradients(self, method: Method | None = None) -> Values:
        """Return the gradients of the model, which are checked, by its own method of solution or by another one."""
        model = self.model if method is None else doubled(self.model, method)
        return model.loss_and_gradients(self.values["U"], *self.asked)[1]

    def at(self, values: Values) -> LossOfModel:
        """Return the loss at another point θ."""
        parameters = {name: value for name, value in values.items() if name != "U"}
        model = type(self.model).from_parameters(self.model.settings, parameters)
        return type(self)(model, values["U"], *self.asked)

    # --- the complex step ---------------------------------------------------------------------------------------------

    def complex_step(self, direction: Mapping[str, np.ndarray]) -> float:
        """Return Im ℓ(θ + ihE) / h; parameters that are not in the direction E do not move."""
        h = 1j * COMPLEX_STEP
        moved = self._moved(direction, h)
        factors = self._complex_factors(direction)
        columns = self.layer.inputs(moved["U"].T)
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            X = self._moved_state(self.point, factors, moved["B"] @ columns)
            return float(self._loss(moved, X, columns).imag) / COMPLEX_STEP

    @staticmethod
    def _moved_state(point: Linearised, factors: fac.Factors, Z: np.ndarray) -> np.ndarray:
        """Return the equilibrium X + ihX̃ for complex factors and a complex constant term Z."""
        Z_dot = (fac.apply(factors, point.X + 0j) + Z).imag / COMPLEX_STEP
        return point.X + 1j * COMPLEX_STEP * point.tangent(Z_dot)

    def _moved(self, direction: Mapping[str, np.ndarray], h: complex) -> Values:
        """Return θ + hE."""
        return {name: v + h * direction[name] if name in direction else v for name, v in self.values.items()}

    def _complex_factors(self, direction: Mapping[str, np.ndarray]) -> fac.Factors:
        """Return the effective factors of A at θ + ihE.

        An entry a = 0 is moved to both sides by 1e-300, which selects one piece of |a| each time, and the imaginary
        parts of the results are averaged.
        """
        if not direction.keys() & {"A", "L", "R"}:
            return self.factors
        of = self.model.settings.parametrisation
        raw = of.raw(self._moved(direction, 1j * COMPLEX_STEP))
        at_zero = [(F.real == 0) * 1e-300 for F in raw]
        above, below = (
            self.f.effective(tuple(F + side * zero for F, zero in zip(raw, at_zero, strict=True))) for side in (1, -1)
        )
        slopes = tuple(0.5j * (np.imag(one) + np.imag(other)) for one, other in zip(above, below, strict=True))
        moved = (dense(slope) for slope in of.factors(slopes))
        return tuple(F + slope for F, slope in zip(self.factors, moved, strict=True))

    # --- central differences ------------------------------------------------------------------------------------------

    def difference(self, direction: Mapping[str, np.ndarray], h: float) -> tuple[float, bool]:
        """Return (ℓ(θ + hE) − ℓ(θ − hE)) / 2h, and whether this is no derivative because a kink lies in between."""
        try:
            above, kink_above = self._at(self._moved(direction, h))
            below, kink_below = self._at(self._moved(direction, -h))
        except NotConvergedError:  # One of the two points has no equilibrium.
            return np.nan, True
        return (above - below) / (2 * h), kink_above or kink_below

    def _at(self, moved: Values) -> tuple[float, bool]:
        """Return the loss at another point, and whether that point lies on another smooth piece than θ."""
        parameters = {name: value for name, value in moved.items() if name != "U"}
        forward = (
            type(self.model).from_parameters(self.model.settings, parameters).forward_pass(moved["U"], self.point.X.T)
        )
        equation = Equation(tuple(dense(F) for F in forward.weights.factors), self.activation, None, forward.Z)
        X = self.point.polished(forward.solution.require().X, equation)
        active = self._active(moved, [equation.apply(X)[0]])
        return float(self._loss(moved, X, forward.U)), not same_piece(active, self.active)

    def _loss(self, values: Values, X: np.ndarray, columns: np.ndarray) -> Any:
        """Return ℓ(Ŷ) with Ŷ = C X + D U, for real or complex arrays; `columns` are U with the constant feature."""
        Y = values["C"] @ X
        if "D" in values:
            Y = Y + values["D"] @ columns
        return self.loss(Y, self.targets)[0]

    def _active(self, values: Values, arguments: list[np.ndarray]) -> list[np.ndarray]:
        """Return arrays that identify the smooth pieces of φ, for each entry of its arguments, and those of `f`."""
        return [
            *(kink < P[rows] for P in arguments for phi, rows in self.activation.segments for kink in phi.kinks),
            *self.f.active_set(self.model.settings.parametrisation.raw(values)),
        ]


def same_piece(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    """Tell whether the active sets of two points are equal."""
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def slopes(activation: Activation, P: np.ndarray) -> np.ndarray:
    """Return φ′(P) = Im φ(P + ih) / h; at a kink, this is the smaller of the one-sided slopes."""

    def slope(phi: Activation, P: np.ndarray) -> np.ndarray:
        return phi.phi(P + 1j * COMPLEX_STEP).imag / COMPLEX_STEP

    S = slope(activation, P)
    for phi, rows in activation.segments:
        for kink in phi.kinks:
            below, above = (slope(phi, np.nextafter([kink], side)) for side in (-np.inf, np.inf))
            S[rows] = np.where(kink == P[rows], np.minimum(below, above), S[rows])
    return S
