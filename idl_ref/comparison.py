"""This module decides what it means if a gradient and a derivative that is computed without it differ.

**What is compared.** Let G be the gradient of one parameter, and E a direction whose entries are random, with either
sign and magnitudes between ½ and 1. If G is right, the inner product ⟨G, E⟩ is the derivative ∂ℓ[E], which the complex
step computes to the last digits; see `idl_ref.derivatives`. If one entry of G is wrong by δ, the two numbers differ by
δ/2 or more, because no entry of E is small. If many entries are wrong, their errors cancel in a random direction with
probability 0. DIRECTIONS directions and a sample of single entries are compared.

**What rounding allows.** In float64, a right gradient behaves as if all numbers that it is computed from had other last
digits, and an ill-conditioned equation magnifies such changes by an amount that depends on the model. It is therefore
measured: all parameters and inputs are changed by a few units of rounding, several times, and the gradient and the
complex step are computed again. The largest change of ⟨G, E⟩ and of ∂ℓ[E], times SAFETY, is allowed. The gradient is
also computed by another method of solution, which tells how much is due to the solver.

**What cannot be judged.** If more than LIMIT, relative to the largest entry of G, is allowed, then agreement means
little, and the verdict is "cannot tell". Entries that change by more than LIMIT between the neighbours are not smooth
there: a kink of φ or of `f` is as close as rounding. If the comparison with all entries fails, they are left out, and
the others decide between "WRONG" and "cannot tell". Finally, a φ or an `f` that is not written for complex numbers
makes the complex step wrong. Central differences contradict it then, and the verdict is "cannot tell".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from idl_ref.backends import methods
from idl_ref.choices import Method
from idl_ref.derivatives import LossOfModel, same_piece
from idl_ref.settings import Settings
from idl_ref.solution import NotConvergedError

EPS = float(np.finfo(np.float64).eps)
STEP = EPS ** (1 / 3)  # This h balances the truncation error h² and the rounding error eps/h of central differences.
STEPS = 5  # The number of steps h, each an eighth of the one before, by which differences may confirm a direction.
DIRECTIONS = 4  # The number of random directions per parameter.
NEIGHBOURS = 6  # The number of points near θ at which everything is computed again.
NEAR = 4 * EPS  # Their relative distance from θ.
SAFETY = 256  # The measured changes are multiplied by this.
LIMIT = 1e-6  # If rounding may explain an error above this, relative to the largest entry, there is no verdict.
FLOOR = 64 * EPS  # The rounding error of ⟨G, E⟩ itself, relative to ‖G‖₂.
UNDERFLOW = 1e-270  # The complex step cannot resolve derivatives below this.

ROUNDING = (
    "rounding may change this gradient by more than 1e-6 of its largest entry: check the model at smaller weights or "
    "inputs, where the same code has a better conditioned gradient"
)
KINK = (
    "φ or f has a kink at this point, as near as rounding can tell: check the model at other inputs, or change its "
    "parameters a little"
)
NOTHING = "there are no samples, so that every gradient is 0: check the model with one sample or more"
CONTRADICTION = (
    "central differences contradict the complex step: φ or f must take complex arrays, and select its smooth pieces by "
    "the real part"
)


class Point:
    """The loss and its derivatives at one point θ, together with the gradients that are checked."""

    def __init__(self, loss: LossOfModel) -> None:
        self.loss, self.gradients = loss, loss.gradients()

    def slope(self, name: str, E: np.ndarray) -> float:
        """Return ⟨G, E⟩ for the gradient G of one parameter."""
        return float((self.gradients[name] * E).sum())

    def derivative(self, name: str, E: np.ndarray) -> float:
        """Return the derivative of the loss in the direction E of one parameter, by the complex step."""
        return self.loss.complex_step({name: E})

    def neighbour(self, rng: np.random.Generator) -> Point | None:
        """Return a point whose numbers differ from those of θ in the last digits; None if it has no equilibrium."""
        near = {name: v * (1 + NEAR * rng.uniform(-1, 1, v.shape)) for name, v in self.loss.values.items()}
        try:
            return Point(self.loss.at(near))
        except NotConvergedError:
            return None


@dataclass(frozen=True)
class GradientRow:
    """The result of the check for one parameter; errors are relative to the largest entry of its gradient.

    Attributes
    ----------
    name : str
        The name of the parameter, or "U" for the inputs.
    entries, total : int
        Number of entries that were compared one by one, and number of all entries. In addition, the derivatives in
        random directions, which involve all entries, were compared.
    complex_error : float
        Largest difference from the complex step, over the entries and the random directions.
    allowed : float
        The largest such difference that rounding can explain, or a kink as near as rounding.
    difference_error : float
        Largest difference of an entry from central differences, which are less accurate than the complex step; NaN if
        every entry was at a kink.
    kinks : int
        Number of entries with a kink between −h and +h, which `difference_error` leaves out.
    configured_error : float
        Error of the gradient that the model computes with its own dtype and tolerances.
    verdict : {"ok", "WRONG", "cannot tell"}
        "ok" if the gradient agrees with the complex step and `allowed` is at most 1e-6.
    reason : str
        Why the verdict is "cannot tell", and what to do; empty for the other two.
    """

    name: str
    entries: int
    total: int
    complex_error: float
    allowed: float
    difference_error: float
    kinks: int
    configured_error: float
    verdict: str
    reason: str = ""


class Comparison(NamedTuple):
    """The differences between the gradient of one parameter and the complex step.

    Attributes
    ----------
    error, smooth_error : float
        The largest difference, and the largest one that remains if only smooth entries move.
    allowed : float
        The largest difference that rounding can explain.
    contradicted : bool
        Whether central differences show that the complex step is wrong.
    kink : bool
        Whether a neighbour lies on another smooth piece of φ or `f`.
    """

    error: float
    smooth_error: float
    allowed: float
    contradicted: bool
    kink: bool

    def verdict(self, largest: float) -> tuple[str, str]:
        """Return the verdict, and its reason if it is "cannot tell"; `largest` is the largest entry of the gradient."""
        if self.contradicted:
            return "cannot tell", CONTRADICTION
        if self.error <= self.allowed:
            if self.allowed <= (LIMIT * largest if largest > 0 else UNDERFLOW):
                return "ok", ""
            return "cannot tell", ROUNDING
        if self.smooth_error > self.allowed:
            return "WRONG", ""
        return "cannot tell", KINK if self.kink else ROUNDING


class Check:
    """The gradients of a model, and those that tell what rounding or a kink may change.

    Attributes
    ----------
    judged : dict of arrays
        The gradients that are compared with the complex step.
    here, neighbours, others
        The gradients at θ, at points next to it, and by another method of solution, all without the preprocessing.
    """

    def __init__(self, loss: LossOfModel, rng: np.random.Generator) -> None:
        self.rng, self.here = rng, Point(loss)
        self.judged = dict(self.here.gradients)
        near = [self.here.neighbour(rng) for _ in range(NEIGHBOURS)]
        self.neighbours = [point for point in near if point is not None]
        try:
            self.others = loss.gradients(_other_method(loss.model.settings))
        except NotConvergedError:  # What rounding allows is then known from the neighbours alone.
            self.others = self.here.gradients

    def row(self, name: str, configured: np.ndarray, entries: int) -> GradientRow:
        """Check the gradient of one parameter."""
        G = self.judged[name]
        directions = [self._random_direction(G.shape) for _ in range(DIRECTIONS)]
        chosen = np.sort(self.rng.choice(G.size, size=min(entries, G.size), replace=False))
        units = [(np.arange(G.size) == flat).reshape(G.shape).astype(float) for flat in chosen]
        found = self._compare(name, directions, units)
        differences = [self._difference_error(name, E) for E in units]
        verdict, reason = found.verdict(_largest(G)) if len(self.here.loss.values["U"]) else ("cannot tell", NOTHING)
        allowed = max(found.allowed, found.error) if reason in (ROUNDING, KINK) else found.allowed
        scale = _largest(G) or 1.0
        return GradientRow(
            name=name,
            entries=len(chosen),
            total=G.size,
            complex_error=found.error / scale,
            allowed=allowed / scale,
            difference_error=max((error for error in differences if not np.isnan(error)), default=np.nan) / scale,
            kinks=int(np.isnan(differences).sum()),
            configured_error=_largest(configured - G) / scale,
            verdict=verdict,
            reason=reason,
        )

    def _random_direction(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return random numbers of either sign with magnitudes between ½ and 1."""
        return self.rng.choice([-1.0, 1.0], shape) * self.rng.uniform(0.5, 1, shape)

    def _compare(self, name: str, directions: list[np.ndarray], units: list[np.ndarray]) -> Comparison:
        """Compare the gradient of one parameter with the complex step in random and in unit directions."""
        smooth = self._smooth(name)
        inside = [E * smooth for E in directions]
        error = max(self._error(name, E) for E in directions + units)
        smooth_error = error if smooth.all() else max(self._error(name, E * smooth) for E in directions + units)
        kink = not all(same_piece(point.loss.active, self.here.loss.active) for point in self.neighbours)
        return Comparison(error, smooth_error, self._allowed(name, inside), self._contradicted(name, inside[0]), kink)

    def _smooth(self, name: str) -> np.ndarray:
        """Tell which entries of a gradient are the same at all neighbours, relative to the largest entry."""
        G = self.here.gradients[name]
        rough = np.zeros(G.shape, bool)
        for point in self.neighbours:
            rough |= np.abs(point.gradients[name] - G) > LIMIT * _largest(G)
        return ~rough

    def _error(self, name: str, E: np.ndarray) -> float:
        """Return |∂ℓ[E] − ⟨G, E⟩|, or inf if this is not a number."""
        return _number(self.here.derivative(name, E) - float((self.judged[name] * E).sum()), np.inf)

    def _allowed(self, name: str, directions: list[np.ndarray]) -> float:
        """Return how much rounding may change ⟨G, E⟩ or ∂ℓ[E] in these directions."""
        G = self.here.gradients[name]
        noise = 0.0 if self.neighbours else np.inf
        solver = 0.0
        for E in directions:
            derivative, slope = self.here.derivative(name, E), self.here.slope(name, E)
            for point in self.neighbours:
                near = E * (1 + NEAR * self.rng.uniform(-1, 1, E.shape))
                noise = max(noise, _number(point.derivative(name, near) - derivative, np.inf))
                noise = max(noise, _number(point.slope(name, near) - slope, 0.0))
            solver = max(solver, _number(float((self.others[name] * E).sum()) - slope, 0.0))
        return SAFETY * noise + 4 * solver + FLOOR * _number(float(np.linalg.norm(G)), 0.0) + UNDERFLOW

    def _contradicted(self, name: str, E: np.ndarray) -> bool:
        """Tell whether accurate central differences exist, and all of them contradict the complex step.

        The truncation error of a difference with the step h/2 is estimated from its distance to that with h, of which
        it is a third where the error is O(h²). Four times the distance, and the rounding of the loss, are allowed.
        """
        loss, derivative = self.here.loss, self.here.derivative(name, E)
        scale = max(_largest(self.here.gradients[name]), abs(derivative))
        rounding = max((abs(point.loss.value - loss.value) for point in self.neighbours), default=0.0)
        h = STEP * (_largest(loss.values[name]) or 1.0) / max(E.shape[-1], 1) ** 0.5
        accurate = []
        for _ in range(STEPS):
            (wide, kink), (narrow, kink_of_half) = (loss.difference({name: E}, step) for step in (h, h / 2))
            error = 4 * abs(wide - narrow) + (64 * rounding + 4 * EPS * abs(loss.value)) / h
            if not (kink or kink_of_half) and error <= 1e-3 * scale:
                accurate.append(abs(narrow - derivative) > error + 1e-5 * scale)
            h /= 8
        return bool(accurate) and all(accurate)

    def _difference_error(self, name: str, E: np.ndarray) -> float:
        """Return the difference of one entry from its central difference; NaN if there is a kink between −h and +h."""
        theta = abs(float((self.here.loss.values[name] * E).sum()))
        value, kink = self.here.loss.difference({name: E}, STEP * max(1.0, theta))
        return np.nan if kink else abs(value - float((self.judged[name] * E).sum()))


def _other_method(s: Settings) -> Method:
    """Return a method of solution that a model does not use: Newton's, unless A is too large for it."""
    if s.method != "newton" and (s.is_low_rank or s.hidden_dim <= methods.NEWTON_LIMIT):
        return "newton"
    return "picard" if s.method == "anderson" else "anderson"


def _largest(G: np.ndarray) -> float:
    """Return the largest |g| of the entries that are numbers, and 0 if there are none."""
    return float(np.abs(G, where=np.isfinite(G), out=np.zeros(G.shape)).max(initial=0.0))


def _number(difference: float, otherwise: float) -> float:
    """Return |difference|, or another number where the difference is not finite."""
    return abs(difference) if np.isfinite(difference) else otherwise
