"""The trial points of Anderson and Newton, compiled for the Numba twin; `numpy/trials.py` defines them."""

from __future__ import annotations

import math

import numpy as np

from idl_ref.backends.methods import DEPTH
from idl_ref.backends.numba.compiling import compiled, vec
from idl_ref.backends.numba.functions import largest, total
from idl_ref.backends.numba.mixed import slope_of
from idl_ref.backends.numba.products import GROUP, ROWS, filled, product

LAST_F, LAST_G, DIFFERENCES = 0, 1, 2  # A history consists of f and g of the point before, then of ΔF and ΔG.
HISTORY = DIFFERENCES + 2 * DEPTH


@compiled
def solve_small(H, b, size):
    """Solve H y = b by elimination with row exchanges; y replaces b. Returns False if H is singular."""
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
def solve_system(J, stride, b, size, stop):
    """Solve J y = b by elimination with row exchanges; y replaces b. Returns False if J is singular, or if stop[0] ≠ 0.

    The columns of J are contiguous and begin `stride` apart, a multiple of ROWS. b has `stride` entries as well, and J
    has room for one more column, which holds the multipliers of a step.
    """
    vec.separate()
    lanes, factors = vec.lanes(J), size * stride
    for k in range(size):
        column, pivot = k * stride, k
        for i in range(k + 1, size):
            if abs(J[column + i]) > abs(J[column + pivot]):
                pivot = i
        if vec.fresh(stop) != 0 or not abs(J[column + pivot]) > 0:
            return False
        if pivot != k:
            for j in range(column, factors, stride):
                J[j + k], J[j + pivot] = J[j + pivot], J[j + k]
            b[k], b[pivot] = b[pivot], b[k]
        first, inverse = k & -lanes, vec.splat(J, -1 / J[column + k])
        for i in range(first, stride, lanes):
            vec.store(J, factors + i, vec.multiply(vec.load(J, column + i), inverse))
        for i in range(first, k + 1):
            J[factors + i] = 0
        for j in range(column + stride, factors, stride):
            add_multiple(J, j, J, factors, J[j + k], first, stride)
        add_multiple(b, b.size - b.size, J, factors, b[k], first, stride)
    for k in range(size - 1, -1, -1):
        b[k] /= J[k * stride + k]
        for i in range(k):
            b[i] -= J[k * stride + i] * b[k]
    return True


@compiled
def add_multiple(M, target, N, source, factor, first, end):
    """M[target + i] += factor N[source + i] for first ≤ i < end, both multiples of LANES."""
    vec.separate()
    if factor != 0:
        weight = vec.splat(M, factor)
        for i in range(first, end, vec.lanes(M)):
            vec.store(M, target + i, vec.fma(weight, vec.load(N, source + i), vec.load(M, target + i)))


@compiled
def begin(M, x, g, last_f, last_g, end):
    """Keep f = g − x and g of the first point."""
    for i in range(0, end, vec.lanes(M)):
        g_i = vec.load(M, g + i)
        vec.store(M, last_f + i, vec.subtract(g_i, vec.load(M, x + i)))
        vec.store(M, last_g + i, g_i)


@compiled
def remember(M, x, g, last_f, last_g, new, beside, end):
    """Write f = g − x, g and the differences of f and g from the point before, which this one replaces.

    Both differences are divided by the ∞-norm of that of f, as in the NumPy twin. Returns ‖f‖∞, or 1 if it is 0.
    """
    vec.separate()
    lanes, zero = vec.lanes(M), vec.splat(M, 0.0)
    top, size = zero, zero
    for i in range(0, end, lanes):
        g_i = vec.load(M, g + i)
        f_i = vec.subtract(g_i, vec.load(M, x + i))
        df, dg = vec.subtract(f_i, vec.load(M, last_f + i)), vec.subtract(g_i, vec.load(M, last_g + i))
        top, size = vec.larger(vec.magnitude(f_i), top), vec.larger(vec.magnitude(df), size)
        vec.store(M, last_f + i, f_i)
        vec.store(M, last_g + i, g_i)
        vec.store(M, new + i, df)
        vec.store(M, beside + i, dg)
    scale, unit = largest(top), largest(size)
    scale, unit = scale if scale > 0 else M.dtype.type(1), unit if unit > 0 else M.dtype.type(1)
    for i in range(0, end, lanes):
        vec.store(M, new + i, vec.divide(vec.load(M, new + i), vec.splat(M, unit)))
        vec.store(M, beside + i, vec.divide(vec.load(M, beside + i), vec.splat(M, unit)))
    return np.float64(scale)


@compiled
def dots(M, a, b, c, end):
    """The inner products ⟨a, b⟩ and ⟨a, c⟩ of three columns."""
    vec.separate()
    ab = vec.splat(M, 0.0)
    ac = ab
    for i in range(0, end, vec.lanes(M)):
        a_i = vec.load(M, a + i)
        ab = vec.add(ab, vec.multiply(a_i, vec.load(M, b + i)))
        ac = vec.add(ac, vec.multiply(a_i, vec.load(M, c + i)))
    return np.float64(total(ab)), np.float64(total(ac))


@compiled
def anderson(M, x, g, h, points, end, stride, damping, least_squares):
    """x ← g − ΔG γ with γ = argmin ‖f − ΔF γ‖₂, f = g − x. Returns False where there is no difference that is not 0.

    h is the history of the column, which has so many points. least_squares: gram = ΔFᵀ ΔF, which stays with the column,
    and room for a system.
    """
    vec.separate()
    gram, H, gamma = least_squares
    last_f, last_g, dF = h + LAST_F * stride, h + LAST_G * stride, h + DIFFERENCES * stride
    if points == 0:
        begin(M, x, g, last_f, last_g, end)
        return False
    slot, known, some = (points - 1) % DEPTH, min(points, DEPTH), False
    dG = dF + DEPTH * stride
    new = dF + slot * stride
    scale = remember(M, x, g, last_f, last_g, new, dG + slot * stride, end)
    for a in range(known):
        with_new, with_f = dots(M, dF + a * stride, new, last_f, end)
        gram[a, slot] = gram[slot, a] = with_new
        gamma[a] = with_f / scale
    for a in range(known):
        for b in range(known):
            H[a, b] = gram[a, b]
        some = some or gram[a, a] > 0
        H[a, a] = gram[a, a] * (1 + damping) if gram[a, a] > 0 else 1.0  # γ = 0 for a difference of zeros
    if not (some and solve_small(H, gamma, known)):
        return False
    for i in range(0, end, vec.lanes(M)):
        value = vec.load(M, g + i)
        for a in range(known):
            weight = vec.splat(M, scale * gamma[a])
            value = vec.subtract(value, vec.multiply(weight, vec.load(M, dG + a * stride + i)))
        vec.store(M, x + i, value)
    return True


@compiled
def linearize(M, places, p, n, code):
    """Write the slopes T = S ∘ f′(p), and replace g by the right-hand side of the equation that `newton` solves.

    That is g − x for the change, or g − T F₁ F₂ … x for x⁺ where it is smaller, and then x becomes 0. places: where x,
    g, z, s (< 0: 1 everywhere) and T begin; p = F₁ F₂ … x + z.
    """
    vec.separate()
    (x, g, z, s, slopes), change, whole = places, M.dtype.type(0), M.dtype.type(0)
    for i in range(0, n, vec.lanes(M)):
        vec.store(M, slopes + i, slope_of(M, vec.load(M, p + i), i, code))
    for i in range(n):
        if s >= 0:
            M[slopes + i] *= M[s + i]
        M[p + i] = M[g + i] - M[slopes + i] * M[p + i] + M[slopes + i] * M[z + i]
        M[g + i] -= M[x + i]
        size = abs(M[p + i])
        change, whole = max(change, abs(M[g + i])), max(whole, size if size < math.inf else M.dtype.type(math.inf))
    if whole < change:
        for i in range(n):
            M[g + i], M[x + i] = M[p + i], 0


@compiled
def newton(M, places, p, shape, F, Lt, system):
    """Replace x by the x⁺ of the linearised equation that `trials.Newton` of the NumPy twin defines.

    (I − T F₁ F₂ …) y = b with x⁺ = x + y; low rank: (I − F₂ T F₁) w = F₂ b, y = b + T F₁ w, with F₂ packed in F and
    the rows of F₁ᵀ in Lt. places, p: as for `linearize`. system: room for a matrix of n or r columns and one more, for
    y, and for what `newton_low_rank` multiplies; and the flag that ends a solver. Returns False if y is not finite.
    """
    vec.separate()
    (J, y, room, stop), (n, r, code, _), (x, b, _, _, slopes) = system, shape, places
    width = filled(n if r == 0 else r, ROWS)
    linearize(M, places, p, n, code)
    for i in range(n):
        y[i] = M[b + i]
    if r == 0:
        for j in range(n):
            for i in range(n):
                J[j * width + i] = -M[slopes + i] * Lt[j * n + i]
            for i in range(n, width):
                J[j * width + i] = 0
            J[j * width + j] += 1
        if not solve_system(J, width, y, n, stop):
            return False
        for i in range(n):  # Where the slope is 0, the equation is y = b, which elimination may have rounded.
            if M[slopes + i] == 0:
                y[i] = M[b + i]
    else:
        w = newton_low_rank(M, slopes, n, r, F, Lt, J, y, room)
        if not solve_system(J, width, room[w : w + width], r, stop):
            return False
        for d in range(r):
            for i in range(n):
                y[i] += M[slopes + i] * Lt[d * n + i] * room[w + d]
    for i in range(n):
        if not math.isfinite(y[i]):
            return False
    for i in range(n):
        M[x + i] += y[i]
    return True


@compiled
def newton_low_rank(M, slopes, n, r, F, Lt, J, b, room):
    """J = I − F₂ T F₁ by one product of F₂ with r + 1 columns, T F₁ and b. Returns the place of F₂ b in `room`."""
    vec.separate()
    stride, small = filled(n, ROWS) + ROWS, filled(r, ROWS)
    results, zeros = filled(r + 1, GROUP) * stride, len(room) - small
    for d in range(r + 1):
        for i in range(n):
            room[d * stride + i] = M[slopes + i] * Lt[d * n + i] if d < r else b[i]
    product(F, r, n, room, r - r, stride, zeros, r - r, results, small, r + 1)
    for d in range(r):
        for a in range(small):
            J[d * small + a] = -room[results + d * small + a]
        J[d * small + d] += 1
    return results + r * small
