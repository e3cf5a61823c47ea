"""This module bounds linear functions of the states by lines around relu, which is CROWN for implicit models.

Let z = A x + B u and x = φ(z), and let z lie between l and h. For relu and leaky_relu, whose slope is α below 0 and 1
above, x lies between two lines: a∘z ≤ x ≤ s∘z + t. With σ(λ) = a where λ ≥ 0, else s, every vector λ gives

    λᵀx ≥ vᵀz + Σ_{λ<0} λ t      where v = σ(λ)∘λ,      and hence, with r = c + Aᵀv − λ,

    cᵀx + dᵀu = λᵀx − vᵀA x + rᵀx + dᵀu ≥ (Bᵀv + d)ᵀu + rᵀx + Σ_{λ<0} λ t.

The right-hand side is linear in u and x, and its least value over their boxes is a bound, for every λ. The best λ makes
r = 0: it solves λ = c + Aᵀ(σ(λ)∘λ), one more adjoint equation, which contracts with ‖A‖∞ because 0 ≤ σ ≤ 1. It is
iterated without proof, and what is left of r costs accuracy only. With c = ±A_i and d = ±B_i the bound is one of ±z_i,
which narrows l and h, so that the lines become closer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from idl_ref import activations
from idl_ref.analysis.balls import Ball, ball, least
from idl_ref.analysis.boxes import System
from idl_ref.analysis.intervals import Region
from idl_ref.analysis.rivals import rivals

SLOPES = {"relu": 0.0, "leaky_relu": activations.LEAK, "identity": 1.0}  # The slope α of φ below 0; above 0 it is 1.
TOLERANCE, MOST = 1e-10, 1000  # The iteration of λ ends at a step of TOLERANCE·max|c|, or after so many steps.
CHUNK = 4096  # So many functions are bounded at a time, which limits the memory.


class Lines(NamedTuple):
    """The lines a z ≤ φ(z) ≤ s z + t for z between l and h, with 0 ≤ a, s ≤ 1.   all (n, m)"""

    a: np.ndarray
    s: np.ndarray
    t: np.ndarray

    @classmethod
    def between(cls, low: np.ndarray, high: np.ndarray, alpha: Any, flat: bool = False) -> Lines:
        """Return the lines of a convex φ with the slopes α and 1; t is the larger one of φ(z) − s z at both ends.

        The lower line has the slope α if `flat` is true, and else the slope that leaves the smaller area above it.
        """
        open_ = undecided(low, high)
        low_, high_ = np.where(open_, low, -1.0), np.where(open_, high, 1.0)
        decided = np.where(low >= 0, 1.0, alpha)
        s = np.where(open_, np.clip((high_ - alpha * low_) / (high_ - low_), alpha, 1.0), decided)
        a = np.where(open_, np.where((high_ > -low_) & (not flat), 1.0, alpha), decided)
        at_ends = [(slope * (ball(end))).upper() for slope, end in ((ball(alpha) - s, low_), (ball(1.0) - s, high_))]
        return cls(a, s, np.where(open_, np.maximum(*at_ends), 0.0))


def undecided(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Tell which neurons may have arguments of both signs."""
    return (low < 0) & (high > 0)


def alpha_of(system: System, what: str) -> Any:
    """Return the slope of φ below 0, after checking that φ has two slopes at most."""
    for row, _ in system.activation.segments:
        if row.name not in SLOPES or activations.TABLE[row.name] is not row:
            raise ValueError(
                f"{what} needs an activation with one kink at 0: relu, leaky_relu or identity; got {row.name!r}: "
                'use method="interval".'
            )
    return slopes_below(system)


def slopes_below(system: System) -> Any:
    """Return the slope of φ below 0, a number, or an array (n, 1) if rows have different φ."""
    if len(system.activation.segments) == 1:
        return SLOPES[system.activation.name]
    return np.array([[SLOPES[row.name]] for row in system.rows])


def lower_bounds(system: System, found: Region, c: Ball, d: Ball, flat: bool = False) -> np.ndarray:
    """Return a lower bound of cᵀx + dᵀu for each column of c (n, k) and d (p, k), on the boxes of the same column."""
    k = c.mid.shape[1]
    parts = [slice(first, first + CHUNK) for first in range(0, k, CHUNK)]
    with np.errstate(over="ignore", invalid="ignore"):
        return np.concatenate(
            [_bounds(system, found.take(part), c[:, part], d[:, part], flat) for part in parts] or [np.empty(0)]
        )


def _bounds(system: System, found: Region, c: Ball, d: Ball, flat: bool) -> np.ndarray:
    """Return the bounds of `lower_bounds` for one chunk."""
    lines = Lines.between(*found.arguments, slopes_below(system), flat)
    L = _solve(system.A.mid, c.mid, lines)
    V = ball(np.where(L >= 0, lines.a, lines.s)) * L
    residual = c + system.A.T @ V - L
    of_u = least(system.B.T @ V + d, *found.inputs)
    bound = of_u + least(residual, *found.states) + (ball(np.minimum(L, 0)) * lines.t).sum()
    return bound.lower()


def _solve(A: np.ndarray, C: np.ndarray, lines: Lines) -> np.ndarray:
    """Iterate λ = c + Aᵀ(σ(λ)∘λ), where the columns that are done drop out.   (n, k) -> (n, k)"""
    L, running = C.copy(), np.arange(C.shape[1])
    enough = TOLERANCE * np.abs(C).max(axis=0, initial=0.0)
    a, s = lines.a, lines.s
    for _ in range(MOST):
        old = L[:, running]
        new = C[:, running] + A.T @ (np.where(old >= 0, a[:, running], s[:, running]) * old)
        L[:, running] = new
        running = running[np.abs(new - old).max(axis=0, initial=0.0) > enough[running]]
        if not running.size:
            break
    return L


def narrowed(system: System, found: Region, passes: int = 3) -> Region:
    """Return the boxes after `passes` rounds in which the arguments of all undecided neurons are bounded once more.

    Neither kind of lower line is always the better one, so that the rounds alternate.
    """
    for round_ in range(passes):
        low, high = (end.copy() for end in found.arguments)
        i, j = np.nonzero(undecided(low, high) & np.isfinite(low) & np.isfinite(high))
        if not i.size:
            break
        boxes, c, d, flat = found.take(j), system.A[i].T, system.B[i].T, round_ % 2 == 1
        low[i, j] = np.maximum(low[i, j], lower_bounds(system, boxes, c, d, flat))
        high[i, j] = np.minimum(high[i, j], -lower_bounds(system, boxes, -c, -d, flat))
        states = system.image(low, high)
        narrow = np.maximum(found.states[0], states[0]), np.minimum(found.states[1], states[1])
        found = Region(found.inputs, (low, high), narrow)
    return found


def margin_bounds(system: System, found: Region, labels: np.ndarray) -> np.ndarray:
    """Return lower bounds of y_label − y_k; inf in the column of the label.   -> (m, q)"""
    lower = np.full((len(labels), len(system.readout.mid)), np.inf)
    j, k, c, d = rivals(system, labels)
    boxes = found.take(j)
    lower[j, k] = np.maximum(*(lower_bounds(system, boxes, c, d, flat) for flat in (False, True)))
    return lower
