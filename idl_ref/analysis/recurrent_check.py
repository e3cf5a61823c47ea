"""This module differentiates the loss of an implicit RNN without its backward code, and checks its gradients.

The complex step of `idl_ref.derivatives` goes through time in the direction of the equations: a step of h₀ gives one of
v₁, the tangent equation X̃₁ = S₁ ∘ (A X̃₁ + Z̃₁) gives one of h₁, and so on. No adjoint equation is solved.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from idl_ref import checks
from idl_ref import factors as fac
from idl_ref.backends.equation import Equation
from idl_ref.choices import AnyLoss, Method
from idl_ref.comparison import Check
from idl_ref.derivatives import COMPLEX_STEP, Linearised, LossOfModel, Values, doubled, same_piece
from idl_ref.gradcheck import GradientReport


def check_gradients(rnn: Any, U: Any, targets: Any, loss: AnyLoss, H0: Any, entries: int, seed: int) -> GradientReport:
    """Compare every gradient of an implicit RNN with the complex step and with central differences."""
    checks.integer("entries", entries, 1)
    rng = np.random.default_rng(checks.integer("seed", seed, 0))
    _, configured = rnn.loss_and_gradients(U, targets, loss, H0)
    U = rnn.checked_inputs("U", U).astype(np.float64)
    H0 = np.zeros((len(U), rnn.hidden_dim)) if H0 is None else checks.real_array("H0", H0, np.dtype(np.float64))
    check = Check(LossThroughTime(doubled(rnn), U, H0, targets, loss), rng)
    return GradientReport(tuple(check.row(name, configured[name], entries) for name in check.here.loss.values))


class LossThroughTime(LossOfModel):
    """The loss of an implicit RNN as a function of its parameters, U (m, T, p) and H0 (m, h), with its derivatives.

    Parameters
    ----------
    rnn : ImplicitRNN
        An RNN that `doubled` returned.
    U, H0 : (m, T, p) and (m, h) float64 arrays
        The sequences, and the hidden states before them.
    targets, loss
        As for `check_gradients`.
    """

    def __init__(self, rnn: Any, U: np.ndarray, H0: np.ndarray, targets: Any, loss: AnyLoss) -> None:
        self.layer = rnn.layer().cell
        self._begin(rnn, {**rnn.parameters, "U": U, "H0": H0}, targets, loss)
        self.factors = self.layer.weights.factors
        self.points: list[Linearised] = []
        self.value, self.active = self._unrolled(self.values, self.factors)

    def gradients(self, method: Method | None = None) -> Values:
        """Return the gradients of the RNN, which are checked, by its own method of solution or by another one."""
        rnn: Any = self.model if method is None else doubled(self.model, method)
        return rnn.loss_and_gradients(self.values["U"], *self.asked, self.values["H0"])[1]

    def at(self, values: Values) -> LossThroughTime:
        """Return the loss at another point θ."""
        return LossThroughTime(self._rnn(values), values["U"], values["H0"], *self.asked)

    def complex_step(self, direction: Any) -> float:
        """Return Im ℓ(θ + ihE) / h; parameters that are not in the direction E do not move."""
        moved, factors = self._moved(direction, 1j * COMPLEX_STEP), self._complex_factors(direction)
        H = moved["H0"].T
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            for t, point in enumerate(self.points):
                V = self._inputs(moved, t, H)
                H = self._outputs(moved, self._moved_state(point, factors, moved["B"] @ V), V)
            return float(self._loss_of(moved, H).imag) / COMPLEX_STEP

    def _rnn(self, values: Values) -> Any:
        """Return an RNN with other parameters."""
        parameters = {name: value for name, value in values.items() if name not in ("U", "H0")}
        return type(self.model).from_parameters(self.model.settings, parameters)

    def _at(self, moved: Values) -> tuple[float, bool]:
        """Return the loss at another point, and whether that point lies on another smooth piece than θ."""
        value, active = self._unrolled(moved, self._rnn(moved).effective_weights().factors)
        return value, not same_piece(active, self.active)

    def _unrolled(self, values: Values, factors: fac.Factors) -> tuple[float, list[np.ndarray]]:
        """Return the loss and its smooth piece at a point. At θ itself, the equations are linearised on the way."""
        first, H, arguments = not self.points, values["H0"].T, []
        layer = (
            self.layer
            if first
            else type(self.layer)(
                self.layer.weights._replace(factors=factors), self.layer.activation, self.layer.options
            )
        )
        for t in range(values["U"].shape[1]):
            V = self._inputs(values, t, H)
            equation = Equation(factors, self.activation, None, values["B"] @ V)
            X = layer.solve(layer.equation(equation.Z), None if first else self.points[t].X).require().X
            if first:
                self.points.append(Linearised(equation, X))
                X = self.points[t].X
            else:
                X = self.points[t].polished(X, equation)
            arguments.append(equation.apply(X)[0])
            H = self._outputs(values, X, V)
        return float(self._loss_of(values, H)), self._active(values, arguments)

    def _inputs(self, values: Values, t: int, H: np.ndarray) -> np.ndarray:
        """Return v_t = (u_t, h_{t−1}), with the constant feature if there is a bias.   H (h, m) -> (p + h or + 1, m)"""
        return self.layer.inputs(np.concatenate([values["U"][:, t], H.T], axis=1).T)

    def _outputs(self, values: Values, X: np.ndarray, V: np.ndarray) -> np.ndarray:
        """Return h_t = C x_t + D v_t.   X (n, m) -> (h, m)"""
        H = values["C"] @ X
        return H + values["D"] @ V if "D" in values else H

    def _loss_of(self, values: Values, H: np.ndarray) -> Any:
        """Return ℓ(W h_T + w).   H (h, m)"""
        return self.loss(values["W"] @ H + values["w"][:, None], self.targets)[0]
