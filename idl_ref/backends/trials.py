"""Compiled for the Numba twin: the trial points of Anderson and Newton; `proposals` defines them."""

from __future__ import annotations

import math

import numpy as np

from idl_ref.activations import LEAK
from idl_ref.backends import vectors as vec
from idl_ref.backends.columns import (
    ELU,
    HARDTANH,
    LEAKY_RELU,
    RELU,
    ROWS,
    SIGMOID,
    SOFTPLUS,
    SOFTSIGN,
    TANH,
    compiled,
    copy,
    filled,
    phi,
    product,
)
from idl_ref.backends.vectors import GROUP

DEPTH = 5  # differences that Anderson remembers: the rows of gram and the columns of a history
LAST_F, LAST_G, DIFFERENCES = 0, 1, 2  # a history is f and g of the point before, then ΔF and ΔG, each a column
HISTORY = DIFFERENCES + 2 * DEPTH


@compiled
def dot(M, a, b, end):
    """⟨a, b⟩ of two columns."""
    vec.separate()
    result = vec.splat(M, M.dtype.type(0))
    for i in range(0, end, vec.lanes(M)):
        result = vec.add(result, vec.multiply(vec.load(M, a + i), vec.load(M, b + i)))
    return np.float64(vec.total(result))


@compiled
def subtract(M, target, a, b, end):
    """target = a − b, and the size of it, ‖a − b‖∞, or 1 where that is 0."""
    vec.separate()
    top = vec.splat(M, M.dtype.type(0))
    for i in range(0, end, vec.lanes(M)):
        value = vec.subtract(vec.load(M, a + i), vec.load(M, b + i))
        vec.store(M, target + i, value)
        top = vec.larger(vec.magnitude(value), top)
    size = vec.largest(top)
    return size if size > 0 else M.dtype.type(1)


@compiled
def solve_small(H, b, size):
    """H y = b in place of b, by elimination with row exchanges; False if H is singular."""
    vec.separate()
    for k in range(size):
        pivot = k
        for i in range(k + 1, size):
            if abs(H[i, k]) > abs(H[pivot, k]):
                pivot = i
        if not abs(H[pivot, k]) > 0:
            return False
        if pivot != k:
            for j in range(k, size):
                H[k, j], H[pivot, j] = H[pivot, j], H[k, j]
            b[k], b[pivot] = b[pivot], b[k]
        for i in range(k + 1, size):
            ratio = H[i, k] / H[k, k]
            if ratio != 0:
                for j in range(k + 1, size):
                    H[i, j] -= ratio * H[k, j]
                b[i] -= ratio * b[k]
    for k in range(size - 1, -1, -1):
        value = b[k]
        for j in range(k + 1, size):
            value -= H[k, j] * b[j]
        b[k] = value / H[k, k]
    return True


@compiled
def anderson(M, x, g, h, f, gram, slot, known, end, stride, damping, H, gamma):
    """x ← g − ΔG γ with γ = argmin ‖f − ΔF γ‖₂, f = g − x; False where nothing is remembered yet.

    Differences are divided by the size of ΔF, and f by its own, as in the NumPy twin.
    """
    vec.separate()
    scale = np.float64(subtract(M, f, g, x, end))
    dF, dG = h + DIFFERENCES * stride, h + (DIFFERENCES + DEPTH) * stride
    new, beside = dF + slot * stride, dG + slot * stride
    if known:
        size = subtract(M, new, f, h + LAST_F * stride, end)
        subtract(M, beside, g, h + LAST_G * stride, end)
        for i in range(end):
            M[new + i] /= size
            M[beside + i] /= size
        for a in range(DEPTH):
            gram[a, slot] = gram[slot, a] = dot(M, dF + a * stride, new, end)
    copy(M, h + LAST_F * stride, f, end)
    copy(M, h + LAST_G * stride, g, end)
    some = False
    for a in range(DEPTH):
        for b in range(DEPTH):
            H[a, b] = gram[a, b]
        some = some or gram[a, a] > 0
        H[a, a] = gram[a, a] * (1 + damping) if gram[a, a] > 0 else 1.0  # an empty slot gets γ = 0
        gamma[a] = dot(M, dF + a * stride, f, end) / scale
    if not (some and solve_small(H, gamma, DEPTH)):
        return False
    copy(M, x, g, end)
    for a in range(DEPTH):
        weight = M.dtype.type(scale * gamma[a])
        source = dG + a * stride
        for i in range(end):
            M[x + i] -= weight * M[source + i]
    return True


@compiled
def slope(M, p, code):
    """φ′ of a vector, the smaller one-sided slope at a kink."""
    vec.separate()
    zero, one = vec.splat(M, M.dtype.type(0)), vec.splat(M, M.dtype.type(1))
    if code == RELU:
        return vec.choose(p, zero, one)
    if code == LEAKY_RELU:
        return vec.choose(p, vec.splat(M, M.dtype.type(LEAK)), one)
    if code == TANH:
        t = phi(M, p, code)
        return vec.subtract(one, vec.multiply(t, t))
    if code == SIGMOID:
        e = vec.exp(vec.negative(p))
        return vec.divide(e, vec.multiply(vec.add(one, e), vec.add(one, e)))
    if code == SOFTPLUS:
        return phi(M, p, SIGMOID)
    if code == ELU:
        return vec.choose(p, vec.exp(vec.negative(p)), one)
    if code == HARDTANH:
        return vec.choose(vec.subtract(one, vec.magnitude(p)), zero, one)
    if code == SOFTSIGN:
        size = vec.add(one, vec.magnitude(p))
        return vec.divide(one, vec.multiply(size, size))
    return one


@compiled
def newton(M, x, g, p, s, n, r, code, F, Lt, J, delta, T):
    """x ← x + δ with (I − S F₁ F₂ …) δ = f, f = g − x, S = S ∘ f′(p); False where that has no finite solution.

    Low rank: (I − F₂ S F₁) w = F₂ f,  δ = f + S ∘ F₁ w, with F₂ packed in F and the rows of F₁ᵀ in Lt.
    """
    vec.separate()
    for i in range(0, n, vec.lanes(M)):
        vec.store(M, p + i, slope(M, vec.load(M, p + i), code))
    for i in range(n):
        if s >= 0:
            M[p + i] *= M[s + i]
        delta[i] = M[g + i] - M[x + i]
    if r == 0:
        for i in range(n):
            for j in range(n):
                J[i, j] = -M[p + i] * Lt[j * n + i]
            J[i, i] += 1
        if not solve_small(J, delta, n):
            return False
    else:
        w = newton_low_rank(M, p, n, r, F, Lt, J, delta, T)
        if not solve_small(J, T[w : w + r], r):
            return False
        for b in range(r):
            for i in range(n):
                delta[i] += M[p + i] * Lt[b * n + i] * T[w + b]
    for i in range(n):
        if not math.isfinite(delta[i]):
            return False
    for i in range(n):
        M[x + i] += delta[i]
    return True


@compiled
def newton_low_rank(M, p, n, r, F, Lt, J, delta, T):
    """J = I − F₂ S F₁, and where in T stands F₂ f: both out of one product of F₂ with r + 1 columns, S ∘ F₁ and f."""
    vec.separate()
    stride, small, room = filled(n, ROWS) + ROWS, filled(r, ROWS), filled(r + 1, GROUP)
    for b in range(r + 1):
        for i in range(n):
            T[b * stride + i] = M[p + i] * Lt[b * n + i] if b < r else delta[i]
    results, zeros = room * stride, len(T) - small
    product(F, r, n, T, r - r, stride, zeros, r - r, results, small, r + 1)
    for a in range(r):
        for b in range(r):
            J[a, b] = -T[results + b * small + a]
        J[a, a] += 1
    return results + r * small
