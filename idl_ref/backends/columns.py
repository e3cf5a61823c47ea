"""Compiled for the Numba twin: packing, products, activations and norms, for contiguous columns.

A panel is LANES rows of a factor, packed: F[p·LANES + l, k] stands at (p K + k)·LANES + l. A column has `end`
entries, n and zeros up to a multiple of ROWS. All arrays are flat.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from idl_ref.activations import LEAK
from idl_ref.backends import vectors as vec
from idl_ref.backends.vectors import GROUP, VECTOR_BYTES

ROWS = 16  # every column and every packed factor is filled up with zeros to a multiple of this
BLOCK = 256  # columns of A that are multiplied at a time: two panels of them stay in the L1 cache

# No fastmath: NaN must stay NaN. No wrappers: only the entry points are called from Python.
compiled = njit(error_model="numpy", nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)


# --- products ---------------------------------------------------------------------------------------------------------


@compiled
def pack(F, rows, columns, down, right, packed):
    """F (rows, columns), with its entries `down` and `right` apart, in panels."""
    lanes = VECTOR_BYTES // packed.itemsize
    end = (rows + ROWS - 1) // ROWS * ROWS
    for first in range(0, end, lanes):
        panel = first * columns
        inside = max(0, min(lanes, rows - first))
        if inside < lanes:
            packed[panel : panel + lanes * columns] = 0
        for k0 in range(0, columns, ROWS):  # small squares: both sides stay in the cache
            for lane in range(inside):
                source = (first + lane) * down
                for k in range(k0, min(k0 + ROWS, columns)):
                    packed[panel + k * lanes + lane] = F[source + k * right]


@compiled
def row_sums(F, rows, columns, down, right, weights, sums):
    """Σ_k |F_ik| weights_k, in float64, for F as in `pack`."""
    sums[:] = 0
    if right != 1:
        for k in range(columns):
            weight = weights[k]
            for i in range(rows):
                sums[i] += abs(np.float64(F[i * down + k * right])) * weight
        return
    parts = np.zeros(ROWS)
    for i in range(rows):
        parts[:] = 0
        source = i * down
        for k0 in range(0, columns - ROWS + 1, ROWS):
            for lane in range(ROWS):
                parts[lane] += abs(np.float64(F[source + k0 + lane])) * weights[k0 + lane]
        for k in range(columns - columns % ROWS, columns):
            parts[0] += abs(np.float64(F[source + k])) * weights[k]
        for lane in range(ROWS):
            sums[i] += parts[lane]


@compiled
def product(F, rows, inner, X, x, S, s, G, g, count):
    """G[g_c] = S[s_c] + F X[x_c] for the first `count` offsets; F (rows, inner) packed."""
    lanes = VECTOR_BYTES // F.itemsize
    end = (rows + ROWS - 1) // ROWS * ROWS
    panel = inner * lanes
    most = 4 if count < GROUP else 2
    row = 0
    while row < end:
        panels = most
        while row + panels * lanes > end:
            panels //= 2
        f = row * inner
        for k0 in range(0, inner, BLOCK):
            k1 = min(inner, k0 + BLOCK)
            if k0 == 0:
                source, o = S, s
            else:
                source, o = G, g
            c = 0
            if panels < 4:
                while c + GROUP <= count:
                    if panels == 2:
                        vec.product_2xg(F, f, panel, X, x, source, o, G, g, row, c, k0, k1)
                    else:
                        vec.product_1xg(F, f, panel, X, x, source, o, G, g, row, c, k0, k1)
                    c += GROUP
            while c < count:
                if panels == 4:
                    vec.product_4x1(F, f, panel, X, x, source, o, G, g, row, c, k0, k1)
                elif panels == 2:
                    vec.product_2x1(F, f, panel, X, x, source, o, G, g, row, c, k0, k1)
                else:
                    vec.product_1x1(F, f, panel, X, x, source, o, G, g, row, c, k0, k1)
                c += 1
        row += panels * lanes


# --- one column -------------------------------------------------------------------------------------------------------


@compiled
def activate(M, first, last, code):
    """φ in place; `code` is that of the activation table."""
    zero, one, leak = M.dtype.type(0), M.dtype.type(1), M.dtype.type(LEAK)
    if code == 1:
        for i in range(first, last):
            M[i] = zero if M[i] <= zero else M[i]  # NaN is not ≤ 0, and stays
    elif code == 2:
        for i in range(first, last):
            M[i] = leak * M[i] if M[i] <= zero else M[i]
    elif code == 3:
        for i in range(first, last):
            M[i] = math.tanh(M[i])
    elif code == 4:
        for i in range(first, last):
            e = math.exp(-abs(M[i]))
            M[i] = e / (one + e) if M[i] < zero else one / (one + e)
    elif code == 5:
        for i in range(first, last):
            e = math.log1p(math.exp(-abs(M[i])))
            M[i] = e if M[i] <= zero else M[i] + e
    elif code == 6:
        for i in range(first, last):
            M[i] = math.expm1(M[i]) if M[i] <= zero else M[i]
    elif code == 7:
        for i in range(first, last):
            low = -one if M[i] <= -one else M[i]
            M[i] = one if low >= one else low
    elif code == 8:
        for i in range(first, last):
            M[i] = M[i] / (one + abs(M[i]))


@compiled
def slope(M, i, code):
    """φ′ of an entry, the smaller one-sided slope at a kink."""
    p, zero, one = M[i], M.dtype.type(0), M.dtype.type(1)
    if code == 1:
        return one if p > zero else zero
    if code == 2:
        return one if p > zero else M.dtype.type(LEAK)
    if code == 3:
        return one - math.tanh(p) * math.tanh(p)
    if code == 4 or code == 5:
        e = math.exp(-abs(p))
        if code == 4:
            return e / ((one + e) * (one + e))
        return e / (one + e) if p < zero else one / (one + e)
    if code == 6:
        return math.exp(p) if p <= zero else one
    if code == 7:
        return one if abs(p) < one else zero
    if code == 8:
        return one / ((one + abs(p)) * (one + abs(p)))
    return one


@compiled
def size(M, o, end):
    """‖·‖∞ of a column; NaN or inf where an entry is."""
    lanes = VECTOR_BYTES // M.itemsize
    top = vec.splat(M, M.dtype.type(0))
    bad = top
    for i in range(o, o + end, lanes):
        value = vec.load(M, i)
        top = vec.larger(vec.magnitude(value), top)
        bad = vec.add(bad, vec.subtract(value, value))  # 0 for a finite number, else NaN
    return vec.largest(top) + vec.total(bad)


@compiled
def finish(M, g, x, s, n, end, code):
    """P -> G = S ∘ f(P) in place;   step = ‖G − X‖∞, NaN where an entry of G − X is not finite, and ‖G‖∞."""
    lanes = VECTOR_BYTES // M.itemsize
    activate(M, g, g + n, code)
    for i in range(g + n, g + end):
        M[i] = 0
    step = vec.splat(M, M.dtype.type(0))
    top, bad = step, step
    for i in range(0, end, lanes):
        value = vec.load(M, g + i)
        if s >= 0:
            value = vec.multiply(vec.load(M, s + i), value)
            vec.store(M, g + i, value)
        difference = vec.subtract(value, vec.load(M, x + i))
        step = vec.larger(vec.magnitude(difference), step)
        top = vec.larger(vec.magnitude(value), top)
        bad = vec.add(bad, vec.subtract(difference, difference))
    return np.float64(vec.largest(step) + vec.total(bad)), np.float64(vec.largest(top))


@compiled
def distance(M, a, b, n, by_sum):
    """‖a − b‖∞, or with `by_sum` ‖a − b‖₁, in float64; b < 0 stands for zeros."""
    parts = np.zeros(ROWS)
    for i0 in range(0, n, ROWS):
        for lane in range(min(ROWS, n - i0)):
            value = np.float64(M[a + i0 + lane])
            if b >= 0:
                value -= np.float64(M[b + i0 + lane])
            if by_sum:
                parts[lane] += abs(value)
            elif abs(value) > parts[lane]:
                parts[lane] = abs(value)
    result = parts[0]
    for lane in range(1, ROWS):
        result = result + parts[lane] if by_sum else max(result, parts[lane])
    return result
