"""This module has the compiled maps `f` from the raw to the effective A, and their pullbacks; `wellposed` defines them.

A matrix is given by its entries as a flat array, and the distances between its rows and between its columns. A function
returns False, and its result is not to be used, where rounding or overflow needs the care of the definition.
"""

from __future__ import annotations

import math

import numpy as np

from idl_ref.backends.numba.compiling import compiled, entry, vec
from idl_ref.backends.numba.functions import largest, total
from idl_ref.backends.numba.products import ROWS as LENGTH
from idl_ref.backends.numba.products import filled

NONE, INF, ROWS, TRIU = range(4)
KINDS = {"none": NONE, "inf": INF, "rows": ROWS, "triu": TRIU}
EPS = float(np.finfo(np.float64).eps)


# --- rows -------------------------------------------------------------------------------------------------------------

# All sums are taken in float64, over rows that are copied to arrays with zeros up to a multiple of LENGTH. Every lane
# of a vector has a sum of its own, before these meet.


@compiled
def take(F, a, right, count, row):
    """row_k = F_ik in float64, for the row of F that begins at a."""
    lanes = vec.lanes(row)
    whole = count & -lanes if right == 1 else 0
    for k in range(0, whole, lanes):
        vec.store(row, k, vec.load_wide(F, a + k))
    for k in range(whole, count):
        row[k] = F[a + k * right]


@compiled
def give(row, out, a, right, count):
    """Write a row to the one that begins at a, in the dtype of `out`."""
    lanes = vec.lanes(row)
    whole = count & -lanes if right == 1 else 0
    for k in range(0, whole, lanes):
        vec.store(out, a + k, vec.load(row, k))
    for k in range(whole, count):
        out[a + k * right] = row[k]


@compiled
def signs(a):
    """1 where a > 0, −1 where a < 0, otherwise 0."""
    zero, one = vec.splat(a, 0.0), vec.splat(a, 1.0)
    return vec.select(vec.below(zero, a), one, vec.select(vec.below(a, zero), vec.negate(one), zero))


@compiled
def size_of(row):
    """Σ_k |row_k|"""
    sums = vec.splat(row, 0.0)
    for k in range(0, len(row), vec.lanes(row)):
        sums = vec.add(sums, vec.magnitude(vec.load(row, k)))
    return total(sums)


@compiled
def product(row, other):
    """Σ_k row_k other_k"""
    sums = vec.splat(row, 0.0)
    for k in range(0, len(row), vec.lanes(row)):
        sums = vec.fma(vec.load(row, k), vec.load(other, k), sums)
    return total(sums)


@compiled
def outside(row, count, kappa):
    """1 for a row with Σⱼ |a_j| > κ, 0 for one inside the ball, and −1 where rounding could decide, or overflow did."""
    size, margin = size_of(row), count * EPS
    if abs(size - kappa) <= margin * kappa or size == math.inf:
        return -1
    return 1 if size > kappa else 0


@compiled
def threshold(row, kappa):
    """The largest |a_j| of a row outside the ball, and θ with Σⱼ max(|a_j| − largest − θ, 0) = κ.

    At first, θ is that of all entries; those that are not above it are left out, until there are none.
    """
    vec.separate()
    lanes, zero, one = vec.lanes(row), vec.splat(row, 0.0), vec.splat(row, 1.0)
    top = zero
    for k in range(0, len(row), lanes):
        top = vec.larger(vec.magnitude(vec.load(row, k)), top)
    most = vec.splat(row, largest(top))
    theta, known = -math.inf, len(row) + 1.0
    while True:
        sums, count, least = zero, zero, vec.splat(row, theta)
        for k in range(0, len(row), lanes):
            size = vec.subtract(vec.magnitude(vec.load(row, k)), most)
            above = vec.below(least, size)
            sums = vec.add(sums, vec.select(above, size, zero))
            count = vec.add(count, vec.select(above, one, zero))
        support = total(count)
        if support == 0 or support == known:
            return largest(top), theta
        theta, known = (total(sums) - kappa) / support, support


@compiled
def project_row(row, kappa, slack):
    """Replace a row outside the ball by its projection."""
    vec.separate()
    lanes, zero, (most, theta) = vec.lanes(row), vec.splat(row, 0.0), threshold(row, kappa)
    for k in range(0, len(row), lanes):
        a = vec.load(row, k)
        size = vec.subtract(vec.subtract(vec.magnitude(a), vec.splat(row, most)), vec.splat(row, theta))
        vec.store(row, k, vec.multiply(signs(a), vec.select(vec.below(zero, size), size, zero)))
    size, bound = size_of(row), kappa * (1 - slack)  # Rounding must not leave a row outside the ball.
    if size > bound:
        for k in range(len(row)):
            row[k] *= bound / size


@compiled
def pull_row(row, G, kappa):
    """G_S ← G_S − σ_S (σ_Sᵀ G_S)/|S| on the support S of the projected row, σ its signs, and 0 elsewhere."""
    vec.separate()
    lanes, zero, one, (most, theta) = vec.lanes(row), vec.splat(row, 0.0), vec.splat(row, 1.0), threshold(row, kappa)
    sums, count, least = zero, zero, vec.splat(row, theta)
    for k in range(0, len(row), lanes):
        a = vec.load(row, k)
        above = vec.below(least, vec.subtract(vec.magnitude(a), vec.splat(row, most)))
        sums = vec.add(sums, vec.select(above, vec.multiply(signs(a), vec.load(G, k)), zero))
        count = vec.add(count, vec.select(above, one, zero))
    along = vec.splat(row, total(sums) / max(total(count), 1.0))
    for k in range(0, len(row), lanes):
        a = vec.load(row, k)
        above = vec.below(least, vec.subtract(vec.magnitude(a), vec.splat(row, most)))
        pulled = vec.subtract(vec.load(G, k), vec.multiply(signs(a), along))
        vec.store(G, k, vec.select(above, pulled, zero))


# --- matrices ---------------------------------------------------------------------------------------------------------


@compiled
def norm(factor, shape, row):
    """‖F‖∞, and the number of the first row that attains it; NaN where there is one. `row` is overwritten."""
    (F, down, right), (rows, columns), nu, first = factor, shape, 0.0, -1
    for i in range(rows):
        take(F, i * down, right, columns, row)
        size = size_of(row)
        if first < 0 or not (size <= nu or math.isnan(nu)):
            nu, first = size, i
    return nu, first


@entry
def effective(kind, factor, shape, kappa, eps, out):
    """Write f(F) to `out`, whose rows and columns are as far apart as those of F.   eps: that of the dtype"""
    (F, down, right), (rows, columns) = factor, shape
    row, scale = np.zeros(filled(columns, LENGTH)), 1.0
    if kind == INF:
        nu, _ = norm(factor, shape, row)
        if nu == math.inf:
            return False
        scale = kappa / nu * (1 - 4 * eps) if nu > kappa else 1.0
    scale = np.float64(out.dtype.type(scale))
    for i in range(rows):
        take(F, i * down, right, columns, row)
        side = outside(row, columns, kappa) if kind == ROWS else 0
        if side < 0:
            return False
        if side > 0:
            project_row(row, kappa, 2 * max(eps, columns * EPS))
        if kind == TRIU:
            row[: min(i + 1, columns)] = 0
        for k in range(len(row)):
            row[k] *= scale
        give(row, out, i * down, right, columns)
    return True


@entry
def pullback(kind, factor, shape, gradient, kappa, eps, out):
    """Write the gradient with respect to F, for that with respect to f(F), to `out`, which is laid out as F is."""
    (F, down, right), (G, g_down, g_right), (rows, columns) = factor, gradient, shape
    nu, first, scale, along, size = 0.0, -1, 1.0, 0.0, filled(columns, LENGTH)
    row, pulled = np.zeros(size), np.zeros(size)
    if kappa == 0 and kind in (INF, ROWS):
        for k in range(out.size):
            out[k] = 0  # f(F) is 0 for every F.
        return True
    if kind == INF:
        nu, first = norm(factor, shape, row)
        if nu == math.inf:
            return False
        if nu > kappa:
            scale = kappa / nu * (1 - 4 * eps)
            for i in range(rows):
                take(F, i * down, right, columns, row)
                take(G, i * g_down, g_right, columns, pulled)
                along += product(row, pulled)
            along /= nu
    scale = np.float64(out.dtype.type(scale))
    for i in range(rows):
        take(G, i * g_down, g_right, columns, pulled)
        if kind == ROWS:
            take(F, i * down, right, columns, row)
            side = outside(row, columns, kappa)
            if side < 0:
                return False
            if side > 0:
                pull_row(row, pulled, kappa)
        if kind == TRIU:
            pulled[: min(i + 1, columns)] = 0
        if i == first and nu > kappa:
            for k in range(columns):
                f = F[i * down + k * right]
                pulled[k] -= along if f > 0 else -along if f < 0 else 0.0
        for k in range(len(pulled)):
            pulled[k] *= scale
        give(pulled, out, i * down, right, columns)
    return True
