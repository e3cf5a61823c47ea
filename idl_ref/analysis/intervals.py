"""This module bounds states and outputs over a box of inputs, by Lipschitz constants and by intervals.

Let φ not decrease, A⁺ = max(A, 0) and A⁻ = min(A, 0). The least and the largest state solve one implicit equation with
2 n states, which has the norm and the Perron root of |A|, so that it is well posed if these show it for the model::

    x_low  = φ(A⁺ x_low  + A⁻ x_high + z_low)
    x_high = φ(A⁺ x_high + A⁻ x_low  + z_high)

Its computed solution (l, h) need not be exact. Let F be its map, d = max(l − F_low(l, h), F_high(l, h) − h, 0), and e =
(I − Lip(φ)|A|)⁻¹ d. Then l − e ≤ F_low(l − e, h + e) and h + e ≥ F_high(l − e, h + e). The iterates of F from this box
move inwards, to the solution, and so the box holds the equilibrium of every input of the box of inputs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from idl_ref import activation_names, checks
from idl_ref.activations import OWN
from idl_ref.analysis.balls import Ball, ball, span
from idl_ref.analysis.boxes import Box, Resolvent, System, scaled
from idl_ref.equilibrium import solve_equilibrium
from idl_ref.model import ImplicitModel
from idl_ref.solution import SolveOptions

OPTIONS = SolveOptions(tol=1e-13, max_iter=5000, on_failure="ignore")  # The bounds hold for unconverged columns, too.


class Interval(NamedTuple):
    """Bounds of outputs and states over a box of inputs.

    Attributes
    ----------
    lower, upper : (m, q) arrays
        Bounds of the outputs Ŷ, one sample per row; −inf and inf where there is no bound.
    X_lower, X_upper : (n, m) arrays
        Bounds of the states X, whose columns are samples.
    """

    lower: np.ndarray
    upper: np.ndarray
    X_lower: np.ndarray
    X_upper: np.ndarray


class Region(NamedTuple):
    """A box of inputs, and boxes of the arguments z = A x + B u of φ and of the states x that belong to them."""

    inputs: Box  # (p, m)
    arguments: Box  # (n, m)
    states: Box  # (n, m)

    def take(self, columns: np.ndarray | slice) -> Region:
        """Return the boxes of the given columns."""
        return Region(*((low[:, columns], high[:, columns]) for low, high in self))

    def outputs(self) -> Box:
        """Return the box of (x; u), by which the outputs are [C D] (x; u).   (n + p, m)"""
        (x_low, x_high), (u_low, u_high) = self.states, self.inputs
        return np.vstack([x_low, u_low]), np.vstack([x_high, u_high])


def region(system: System, low: np.ndarray, high: np.ndarray) -> Region:
    """Return the boxes for raw inputs between low and high.   (m, p)"""
    inputs = system.inputs(low, high)
    with np.errstate(over="ignore", invalid="ignore"):
        state = _state(system, inputs)
        arguments = system.arguments(state, inputs)
        first, last = system.image(*arguments)
        # Both boxes hold the states. NaN would stand for no bound, and there is none here.
        return Region(inputs, arguments, (np.maximum(state[0], first), np.minimum(state[1], last)))


def _state(system: System, inputs: Box) -> Box:
    """Return a box of the states.   (p, m) -> (n, m)"""
    n, m = len(system.A.mid), inputs[0].shape[1]
    least, largest = (np.full((n, m), end) for end in system.activation.range)
    resolvent = Resolvent(system)
    if not resolvent.exists:
        return least, largest  # Every equilibrium lies in the range of φ, however many there are.
    low, high = _solve(system, span(system.B, *inputs))
    F_low, F_high = system.image(*system.arguments((low, high), inputs))
    defect = np.maximum(np.maximum((ball(low) - F_low).upper(), (ball(F_high) - high).upper()), 0)
    E = resolvent(defect)
    low, high = (ball(low) - E).lower(), (ball(high) + E).upper()
    return np.maximum(low, least), np.minimum(high, largest)


def _solve(system: System, Z: tuple[Ball, Ball]) -> Box:
    """Solve the equation of the least and the largest state approximately.   (n, m) -> (n, m)

    The two states of a neuron are neighbours, so that the matrix is strictly triangular where A is, and is solved by
    substitution.
    """
    positive, negative = system.A.parts()
    A = np.kron(positive.mid, np.eye(2)) + np.kron(negative.mid, np.eye(2)[::-1])
    z = np.stack([Z[0].lower(), Z[1].upper()], axis=1).reshape(len(A), -1)
    phi = activation_names.joint([(row, 2) for row in system.rows])
    X = solve_equilibrium(A, z, activation=phi, options=OPTIONS).X
    return X[::2], X[1::2]


def monotone(system: System, what: str) -> System:
    """Return a system after checking that its φ does not decrease, which every built-in activation satisfies."""
    if system.activation.code == OWN:
        raise ValueError(
            f"{what} needs an activation that does not decrease, as all built-in ones; got {system.activation.name!r}, "
            "of which only Lip(φ) is known: use sensitivity(model)."
        )
    return system


def raw_box(model: ImplicitModel, lower: Any, upper: Any) -> Box:
    """Return the ends of a box of raw inputs in float64, after checks.   (m, p)"""
    p, dtype = model.input_dim, np.dtype(np.float64)
    low = checks.finite("lower", checks.samples("lower", lower, "p", p, dtype))
    high = checks.finite("upper", checks.samples("upper", upper, "p", p, dtype, rows=len(low)))
    if (low > high).any():
        row, feature = np.argwhere(low > high)[0]
        raise ValueError(
            f"lower must not exceed upper; got {low[row, feature]:g} > {high[row, feature]:g} in sample {row}, feature "
            f"{feature}: exchange them there."
        )
    return low, high


def interval(model: ImplicitModel, lower: Any, upper: Any) -> Interval:
    """Bound outputs and states of a model for all inputs between `lower` and `upper`, by interval arithmetic.

    For x_low ≤ x ≤ x_high and u_low ≤ u ≤ u_high, the mixed-monotone equations hold::

        x_low  = φ(A⁺ x_low  + A⁻ x_high + B⁺ u_low  + B⁻ u_high)      A⁺ = max(A, 0), A⁻ = min(A, 0)
        x_high = φ(A⁺ x_high + A⁻ x_low  + B⁺ u_high + B⁻ u_low)
        C⁺ x_low + C⁻ x_high + D⁺ u_low + D⁻ u_high ≤ Ŷ ≤ C⁺ x_high + C⁻ x_low + D⁺ u_high + D⁻ u_low

    Parameters
    ----------
    model : ImplicitModel
        A model with a built-in activation, dense or of low rank.
    lower, upper : (m, p) arrays
        The ends of one box per row, in units of the raw inputs, with lower ≤ upper.

    Returns
    -------
    Interval
        Bounds of the outputs (m, q) and of the states (n, m) in real arithmetic, with all rounding included.

    Raises
    ------
    ValueError, TypeError
        Wrong shapes, lower > upper, numbers that are not finite, or an activation of your own, which may decrease.

    Notes
    -----
    The bounds are finite if the Perron root of Lip(φ)|A| is below 1, which ‖A‖∞ < 1/Lip(φ) implies.
    Otherwise, a bounded φ gives its range for the states, which holds for every equilibrium, and relu gives x ≥ 0;
    outputs may then have the bounds −inf and inf. For a feed-forward network, these are the bounds of interval bound
    propagation.
    Cost: one solve with 2 n states, one LU decomposition, and 16 n² m flops for the proof.
    Source: El Ghaoui et al., Implicit Deep Learning, SIAM J. Math. Data Sci. 3 (2021), section on robustness; Gowal et
    al., On the effectiveness of interval bound propagation, 2018.

    Examples
    --------
    >>> model = ImplicitModel(4, 3, 20, kappa=0.5, dtype="float64", seed=0)
    >>> U = np.full((5, 4), 0.5)
    >>> box = interval(model, U - 0.1, U + 0.1)
    >>> bool(((box.lower <= model(U)) & (model(U) <= box.upper)).all())
    True
    """
    system = monotone(System.of(model), "interval")
    found = region(system, *raw_box(model, lower, upper))
    low, high = span(system.readout, *found.outputs())
    return Interval(low.lower().T, high.upper().T, *found.states)


def sensitivity(model: ImplicitModel) -> np.ndarray:
    """Return S (q, p) with |ŷ(U) − ŷ(U′)| ≤ S |U − U′| for all raw inputs, S = |C|(I − L|A|)⁻¹ L|B| + |D|, L = Lip(φ).

    Parameters
    ----------
    model : ImplicitModel
        A model with any activation, dense or of low rank.

    Returns
    -------
    (q, p) array
        S for raw inputs, rounded upwards; with a preprocessing, its columns are divided by the scale. All entries are
        inf unless the Perron root of L|A| is below 1.

    Raises
    ------
    ValueError, TypeError
        What is not an ImplicitModel, or weights that are not finite.

    Notes
    -----
    S is the same for all inputs, because it replaces every slope of φ by L and every sign by the worst one. At κ = 0.99
    it can be a hundred times larger than any change of an output: a baseline for teaching.
    Cost: 2/3 n³ + 4 n² p flops. Source: El Ghaoui et al., 2021, section on robustness.

    Examples
    --------
    >>> model = ImplicitModel(4, 3, 20, kappa=0.5, dtype="float64", seed=0)
    >>> S, u, v = sensitivity(model), np.zeros((1, 4)), np.full((1, 4), 0.1)
    >>> bool((abs(model(u) - model(v)).T <= S @ abs(u - v).T).all())
    True
    """
    system = System.of(model)
    return influence(system, system.readout)


def influence(system: System, rows: Ball) -> np.ndarray:
    """Return by how much rows of [C D] (x; u) change at most if one raw input changes by 1.   (k, n + p) -> (k, p)"""
    n, p = len(system.A.mid), system.B.mid.shape[1] - int(system.bias)
    with np.errstate(over="ignore", invalid="ignore"):
        V = Resolvent(system)(scaled(system.activation.steepness, system.B.size()[:, :p]))
        S = (ball(rows.size()[:, :n]) @ V + rows.size()[:, n : n + p]).upper()
        if system.preprocessing is not None:
            S = np.nextafter(S / system.preprocessing.scale, np.inf)
    return np.where(np.isnan(S), np.inf, S)
