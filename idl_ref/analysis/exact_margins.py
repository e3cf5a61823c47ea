"""This module finds least margins by mixed-integer programming, and proves them positive by linear programs.

For relu and leaky_relu with the slope α below 0, x = φ(z) for l ≤ z ≤ h is the same as one binary δ and four
inequalities::

    x ≥ z    x ≥ α z    x ≤ z + (α − 1) l (1 − δ)    x ≤ α z + (1 − α) h δ

Only the undecided neurons, with l < 0 < h, need a δ. SciPy's solver returns the least margin within its tolerances, and
an input where it is attained. Neither is trusted: the input is evaluated with all rounding, and that no margin is below
0 is proved.

The proof splits the box of a z at 0 until, in each part, the linear relaxation x ≥ z, x ≥ α z, x ≤ s z + t has a bound
above 0. For any μ₁, μ₂, μ₃ ≥ 0 and any ν, cᵀx + dᵀu is at least::

    cᵀx + dᵀu + μ₁ᵀ(z − x) + μ₂ᵀ(α z − x) + μ₃ᵀ(x − s∘z − t) + νᵀ(z − A x − B u)

which is linear in x, z and u, and has a least value over their boxes. The duals of a linear program make it large, and
no other property of them is used. If the same bound with c = d = 0 is above 0, the part is empty.

Source: Tjeng et al., Evaluating robustness of neural networks with mixed integer programming, ICLR 2019; Neumaier and
Shcherbina, Safe bounds in linear and mixed-integer linear programming, Mathematical Programming 99 (2004).
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np

from idl_ref.analysis.balls import Ball, ball, least
from idl_ref.analysis.boxes import System
from idl_ref.analysis.crown import Lines, slopes_below, undecided
from idl_ref.analysis.intervals import Region


class Problem(NamedTuple):
    """Minimise cᵀx + dᵀu over the boxes of one sample."""

    system: System
    found: Region  # with one column
    c: Ball  # (n, 1)
    d: Ball  # (p, 1)

    @property
    def alpha(self) -> np.ndarray:
        """The slope of φ below 0 in each row.   (n, 1)"""
        return np.broadcast_to(np.asarray(slopes_below(self.system)), (len(self.system.B.mid), 1))

    def relaxation(self, lines: Lines) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return G and g of the inequalities G (x; z; u) ≤ g, and E of the equations E (x; z; u) = 0."""
        n, p = self.system.B.mid.shape
        one, nothing = np.eye(n), np.zeros((n, p))
        G = np.block([[-one, one, nothing], [-one, self.alpha * one, nothing], [one, -np.diag(lines.s[:, 0]), nothing]])
        g = np.concatenate([np.zeros(2 * n), lines.t[:, 0]])
        return G, g, np.hstack([-self.system.A.mid, one, -self.system.B.mid])

    def boxes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends of the box of (x; z; u)."""
        ends = (self.found.states, self.found.arguments, self.found.inputs)
        return np.concatenate([low[:, 0] for low, _ in ends]), np.concatenate([high[:, 0] for _, high in ends])

    def cost(self) -> np.ndarray:
        """Return the cost of (x; z; u)."""
        return np.concatenate([self.c.mid[:, 0], np.zeros(len(self.c.mid)), self.d.mid[:, 0]])

    def bound(self, lines: Lines, mu: np.ndarray, nu: np.ndarray, weight: float = 1.0) -> float:
        """Return the safe lower bound for multipliers μ (3, n) ≥ 0 and ν (n,); the weight 0 leaves c and d out."""
        (m1, m2, m3), v, A, B = mu[:, :, None], ball(nu[:, None]), self.system.A, self.system.B
        of_x = ball(m3) - m1 - m2 - A.T @ v
        of_z = v + m1 + ball(m2) * self.alpha - ball(m3) * lines.s
        of_u = -(B.T @ v)
        if weight:
            of_x, of_u = of_x + self.c, of_u + self.d
        parts = zip((of_x, of_z, of_u), (self.found.states, self.found.arguments, self.found.inputs), strict=True)
        total = -(ball(m3) * lines.t).sum()
        for coefficients, (low, high) in parts:
            total = total + least(coefficients, low, high)
        return float(total.lower()[0])


def optimise() -> Any:
    """Return scipy.optimize, or refuse with a sentence where SciPy is not installed."""
    try:
        from scipy import optimize
    except ImportError:
        raise ImportError(
            'method="exact" needs SciPy: pip install "idl-ref[analysis]", or use method="crown".'
        ) from None
    return optimize


def minimum(problem: Problem, seconds: float) -> np.ndarray | None:
    """Return the u (p,) of the least value of a problem, within the tolerances of the solver; None after the limit."""
    solver, (n, p) = optimise(), problem.system.B.mid.shape
    low, high = (end[:, 0] for end in problem.found.arguments)
    open_ = np.flatnonzero(undecided(low, high))
    lines, k, alpha = Lines.between(low[:, None], high[:, None], problem.alpha), len(open_), problem.alpha[open_, 0]
    G, g, E = problem.relaxation(lines)
    nothing, x, z = np.zeros((k, p)), np.eye(n)[open_], np.eye(n)[open_]
    binary = np.block(
        [
            [x, -z, nothing, np.diag((alpha - 1) * low[open_])],
            [x, -alpha[:, None] * z, nothing, np.diag((alpha - 1) * high[open_])],
        ]
    )
    wide = [np.hstack([M, np.zeros((len(M), k))]) for M in (G, E)]
    limits = np.concatenate([(alpha - 1) * low[open_], np.zeros(k)])
    result = solver.milp(
        np.concatenate([problem.cost(), np.zeros(k)]),
        integrality=np.concatenate([np.zeros(2 * n + p), np.ones(k)]),
        bounds=solver.Bounds(
            *(np.concatenate([e, np.full(k, v)]) for e, v in zip(problem.boxes(), (0, 1), strict=True))
        ),
        constraints=[
            solver.LinearConstraint(wide[0], -np.inf, g),
            solver.LinearConstraint(wide[1], 0, 0),
            solver.LinearConstraint(binary, -np.inf, limits),
        ],
        options={"time_limit": max(seconds, 1e-3), "mip_rel_gap": 0.0},
    )
    return None if result.x is None else result.x[2 * n : 2 * n + p]


def proof(problem: Problem, deadline: float) -> float | None:
    """Return a lower bound above 0, with all rounding included; None if none is found before the deadline."""
    worst, parts = np.inf, [problem]
    while parts:
        if time.monotonic() > deadline:
            return None
        part = parts.pop()
        bound, gaps = _relaxed(part, deadline - time.monotonic())
        if bound > 0:
            worst = min(worst, bound)
            continue
        low, high = (end[:, 0] for end in part.found.arguments)
        gaps = np.where(undecided(low, high), gaps, -1.0)
        i = int(gaps.argmax())
        if gaps[i] < 0:
            return None  # All neurons are decided: the relaxation is exact, and its bound is not above 0.
        parts += [_part(part, i, above) for above in (False, True)]
    return worst


def _part(problem: Problem, i: int, above: bool) -> Problem:
    """Return the part of a problem in which the argument of neuron i is at least 0, or at most 0."""
    low, high = (end.copy() for end in problem.found.arguments)
    (low if above else high)[i] = 0.0
    states = problem.system.image(low, high)
    narrow = np.maximum(problem.found.states[0], states[0]), np.minimum(problem.found.states[1], states[1])
    return problem._replace(found=Region(problem.found.inputs, (low, high), narrow))


def _relaxed(problem: Problem, seconds: float) -> tuple[float, np.ndarray]:
    """Return the safe bound by the duals of the relaxation, and |x − φ(z)| at its solution.   -> number, (n,)"""
    options = {"time_limit": max(seconds, 1e-3)}
    n = len(problem.c.mid)
    lines = Lines.between(*problem.found.arguments, problem.alpha)
    G, g, E = problem.relaxation(lines)
    low, high = problem.boxes()
    limits = np.column_stack([low, np.maximum(low, high)])
    result = optimise().linprog(problem.cost(), G, g, E, np.zeros(n), limits, method="highs", options=options)
    if result.status == 0:
        mu = np.maximum(-result.ineqlin.marginals, 0).reshape(3, n)
        x, z = result.x[:n], result.x[n : 2 * n]
        return problem.bound(lines, mu, -result.eqlin.marginals), np.abs(x - np.maximum(z, problem.alpha[:, 0] * z))
    return (_emptiness(problem, lines, options) if result.status == 2 else -np.inf), np.zeros(n)


def _emptiness(problem: Problem, lines: Lines, options: dict[str, float]) -> float:
    """Return inf if a part is proved to be empty, else −inf.

    One slack τ ≥ 0 for all rows makes the linear program feasible, and its least value is above 0 if the part is empty.
    """
    G, g, E = problem.relaxation(lines)
    n, (low, high) = len(E), problem.boxes()
    rows = np.hstack([np.vstack([G, E, -E]), -np.ones((5 * n, 1))])
    limits = np.vstack([np.column_stack([low, np.maximum(low, high)]), [0, np.inf]])
    cost = np.append(np.zeros(len(low)), 1.0)
    result = optimise().linprog(
        cost, rows, np.append(g, np.zeros(2 * n)), bounds=limits, method="highs", options=options
    )
    if result.status != 0:
        return -np.inf
    dual = np.maximum(-result.ineqlin.marginals, 0).reshape(5, n)
    return np.inf if problem.bound(lines, dual[:3], dual[3] - dual[4], weight=0.0) > 0 else -np.inf
