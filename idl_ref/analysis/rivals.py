"""This module has the margins y_label − y_k of a sample over its rivals k, as functions of its state and input.

With the rows c_k = C_label − C_k and d_k = D_label − D_k, the margin is c_kᵀx + d_kᵀu. Bounding this difference of two
outputs is sharper than bounding both outputs, because what is common to both of them cancels.
"""

from __future__ import annotations

import numpy as np

from idl_ref.analysis.balls import Ball, ball, least
from idl_ref.analysis.boxes import System
from idl_ref.analysis.intervals import Region, influence, region


def rivals(system: System, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, Ball, Ball]:
    """Return samples j and rivals k ≠ label, one pair per column, and c, d with y_label − y_k = cᵀx + dᵀu."""
    q, n, m = len(system.readout.mid), len(system.A.mid), len(labels)
    k, j = np.tile(np.arange(q), m), np.repeat(np.arange(m), q)
    other = k != labels[j]
    k, j = k[other], j[other]
    rows = (system.readout[labels[j]] - system.readout[k]).T
    return j, k, rows[:n], rows[n:]


def interval_bounds(system: System, found: Region, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return lower and upper bounds of y_label − y_k by intervals; inf in the column of the label.   -> (m, q)"""
    j, k, c, d = rivals(system, labels)
    boxes, bounds = found.take(j), []
    with np.errstate(over="ignore", invalid="ignore"):
        for sign in (1, -1):
            rows = (c, d) if sign > 0 else (-c, -d)
            value = least(rows[0], *boxes.states) + least(rows[1], *boxes.inputs)
            bound = np.full((len(labels), len(system.readout.mid)), sign * np.inf)
            bound[j, k] = value.lower()
            bounds.append(sign * bound)
    return bounds[0], bounds[1]


def at(system: System, U: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bounds of the least margin of single raw inputs.   U (m, p) -> (m,), (m,)"""
    lower, upper = interval_bounds(system, region(system, U, U), labels)
    return lower.min(axis=1), upper.min(axis=1)


def sensitivity_bounds(system: System, U: np.ndarray, reach: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return lower bounds of y_label − y_k for inputs that differ from U by at most `reach`.   (m, p) -> (m, q)"""
    centre, _ = interval_bounds(system, region(system, U, U), labels)
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        rows = system.readout[np.full(len(system.readout.mid), label)] - system.readout
        loss = (ball(reach[mine]) @ influence(system, rows).T).upper()
        bounds = (ball(centre[mine]) - loss).lower()
        bounds[:, label] = np.inf
        centre[mine] = bounds
    return centre
