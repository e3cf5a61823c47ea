"""This module has the compiled maps `f` from the raw to the effective A, and their pullbacks; `wellposed` defines them.

A matrix is given by its entries as a flat array, and the distances between its rows and between its columns. A function
returns False, and its result is not to be used, where rounding or overflow needs the care of the definition.
"""

from __future__ import annotations

import math

import numpy as np

from idl_ref.backends.numba.compiling import compiled, entry

NONE, INF, ROWS, TRIU = range(4)
KINDS = {"none": NONE, "inf": INF, "rows": ROWS, "triu": TRIU}
EPS = float(np.finfo(np.float64).eps)


@compiled
def sign(f):
    """1 for f > 0, −1 for f < 0, otherwise 0."""
    return 1.0 if f > 0 else -1.0 if f < 0 else 0.0


@compiled
def row_sum(F, a, right, count):
    """Σ_k |F_ik| in float64 for the row that begins at a. Four sums run side by side, as an addition takes long."""
    s, t, u, v, whole = 0.0, 0.0, 0.0, 0.0, count & -4
    for k in range(a, a + whole * right, 4 * right):
        s += np.float64(abs(F[k]))
        t += np.float64(abs(F[k + right]))
        u += np.float64(abs(F[k + 2 * right]))
        v += np.float64(abs(F[k + 3 * right]))
    for k in range(a + whole * right, a + count * right, right):
        s += np.float64(abs(F[k]))
    return (s + t) + (u + v)


@compiled
def row_product(F, a, right, G, b, g_right, count):
    """Σ_k F_ik G_ik in float64 for the rows that begin at a and b."""
    s, t, u, v, whole = 0.0, 0.0, 0.0, 0.0, count & -4
    for k in range(0, whole, 4):
        s += np.float64(F[a + k * right]) * G[b + k * g_right]
        t += np.float64(F[a + (k + 1) * right]) * G[b + (k + 1) * g_right]
        u += np.float64(F[a + (k + 2) * right]) * G[b + (k + 2) * g_right]
        v += np.float64(F[a + (k + 3) * right]) * G[b + (k + 3) * g_right]
    for k in range(whole, count):
        s += np.float64(F[a + k * right]) * G[b + k * g_right]
    return (s + t) + (u + v)


@compiled
def norm(factor, shape):
    """‖F‖∞, and the number of the first row that attains it; NaN where there is one."""
    (F, down, right), (rows, columns), nu, row = factor, shape, 0.0, -1
    for i in range(rows):
        size = row_sum(F, i * down, right, columns)
        if row < 0 or not (size <= nu or math.isnan(nu)):
            nu, row = size, i
    return nu, row


@compiled
def threshold(F, a, right, count, kappa):
    """The largest |a_j| of a row outside the ball, and θ with Σⱼ max(|a_j| − largest − θ, 0) = κ.

    At first, θ is that of all entries; those that are not above it are left out, until there are none.
    """
    largest = 0.0
    for k in range(a, a + count * right, right):
        largest = max(largest, np.float64(abs(F[k])))
    theta, known = -math.inf, count + 1
    while True:
        total, support = 0.0, 0
        for k in range(a, a + count * right, right):
            size = np.float64(abs(F[k])) - largest
            if size > theta:
                total += size
                support += 1
        if support == 0 or support == known:
            return largest, theta
        theta, known = (total - kappa) / support, support


@compiled
def outside(F, a, right, count, kappa):
    """1 for a row with Σⱼ |a_j| > κ, 0 for one inside the ball, and −1 where rounding could decide, or overflow did."""
    size, margin = row_sum(F, a, right, count), count * EPS
    if abs(size - kappa) <= margin * kappa or size == math.inf:
        return -1
    return 1 if size > kappa else 0


@compiled
def project_row(F, a, right, count, kappa, slack, out):
    """Write the projection of a row outside the ball to `out`, which may be F."""
    largest, theta = threshold(F, a, right, count, kappa)
    total = 0.0
    for k in range(a, a + count * right, right):
        total += max(np.float64(abs(F[k])) - largest - theta, 0.0)
    most = kappa * (1 - slack)  # Rounding must not leave a row outside the ball.
    scale = most / total if total > most else 1.0
    for k in range(a, a + count * right, right):
        size = max(np.float64(abs(F[k])) - largest - theta, 0.0) * scale
        out[k] = size if F[k] > 0 else -size


@entry
def effective(kind, factor, shape, kappa, eps, out):
    """Write f(F) to `out`, whose rows and columns are as far apart as those of F.   eps: that of the dtype"""
    (F, down, right), (rows, columns) = factor, shape
    if kind == INF:
        nu, _ = norm(factor, shape)
        if nu == math.inf:
            return False
        scale = out.dtype.type(kappa / nu * (1 - 4 * eps) if nu > kappa else 1.0)
        for i in range(F.size):
            out[i] = F[i] * scale
    for i in range(rows):
        a = i * down
        side = outside(F, a, right, columns, kappa) if kind == ROWS else 0
        if side < 0:
            return False
        if side > 0:
            project_row(F, a, right, columns, kappa, 2 * max(eps, columns * EPS), out)
        elif kind != INF:
            for k in range(columns):
                out[a + k * right] = F[a + k * right] if kind == ROWS or k > i else 0
    return True


@entry
def pullback(kind, factor, shape, gradient, kappa, eps, out):
    """Write the gradient with respect to F, for that with respect to f(F), to `out`, which is laid out as F is."""
    (F, down, right), (G, g_down, g_right), (rows, columns) = factor, gradient, shape
    nu, row, scale, along = 0.0, -1, 1.0, 0.0
    if kappa == 0 and kind in (INF, ROWS):
        for k in range(out.size):
            out[k] = 0  # f(F) is 0 for every F.
        return True
    if kind == INF:
        nu, row = norm(factor, shape)
        if nu == math.inf:
            return False
        if nu > kappa:
            scale = kappa / nu * (1 - 4 * eps)
            for i in range(rows):
                along += row_product(F, i * down, right, G, i * g_down, g_right, columns)
            along /= nu
    scale = out.dtype.type(scale)
    for i in range(rows):
        a, b = i * down, i * g_down
        side = outside(F, a, right, columns, kappa) if kind == ROWS else 0
        if side < 0:
            return False
        if side > 0:
            pull_row(F, a, right, G, b, g_right, columns, kappa, out)
            continue
        for k in range(columns):
            out[a + k * right] = G[b + k * g_right] * scale
        if kind == TRIU:
            for k in range(min(i + 1, columns)):
                out[a + k * right] = 0
        if i == row and nu > kappa:
            for k in range(columns):
                out[a + k * right] = (G[b + k * g_right] - sign(F[a + k * right]) * along) * scale
    return True


@compiled
def pull_row(F, a, right, G, b, g_right, count, kappa, out):
    """G_S − σ_S (σ_Sᵀ G_S)/|S| on the support S of the projected row, σ its signs, and 0 elsewhere."""
    largest, theta = threshold(F, a, right, count, kappa)
    along, support = 0.0, 0
    for k in range(count):
        f = np.float64(F[a + k * right])
        if abs(f) - largest > theta:
            along += sign(f) * G[b + k * g_right]
            support += 1
    along /= max(support, 1)
    for k in range(count):
        f, g = np.float64(F[a + k * right]), G[b + k * g_right]
        out[a + k * right] = g - sign(f) * along if abs(f) - largest > theta else 0.0
