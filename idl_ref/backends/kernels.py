"""Compiled for the Numba twin: the solvers of one tile of columns, and the entry points that are called from Python.

Columns are contiguous, filled up with zeros to a multiple of ROWS, and begin `stride` apart in one flat array M: first
all x, then all g, z and s.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from idl_ref import certificate
from idl_ref.backends import vectors as vec
from idl_ref.backends.columns import ROWS, compiled, entry, finish, norms, parallel_entry, phi, product
from idl_ref.backends.trials import DEPTH, DIFFERENCES, HISTORY, anderson, copy, newton

excess, Rounding = compiled(certificate.excess), certificate.Rounding

CONVERGED, PRECISION_LIMIT, MAX_ITER, NONFINITE, GOES_ON, SLOW = 0, 1, 2, 3, 4, 5  # the statuses, and two more
# What is recorded, besides status and iterations: rows of `numbers`, (5, m). BOUND is EXCESS / (1 − KAPPA) for κ < 1.
STEP, BOUND, EXCESS, KAPPA, LIPSCHITZ = range(5)


# --- a tile and its columns -------------------------------------------------------------------------------------------


@compiled
def gather(source, down, right, first, M, o, w, n, stride):
    """The columns first … first + w of an (n, m) array, filled up with zeros."""
    vec.separate()
    for i0 in range(0, n, ROWS):
        for c in range(w):
            for i in range(i0, min(n, i0 + ROWS)):
                M[o + c * stride + i] = source[i * down + (first + c) * right]
    for c in range(w):
        for i in range(n, stride):
            M[o + c * stride + i] = 0


@compiled
def load(Z, S, X0, where, first, M, w, n, end, stride, z_norm, active, out, status, numbers):
    """The columns of a tile, and how many of them are finite: those stand in `active`, and the others are done."""
    vec.separate()
    origin = first - first  # not the literal 0, which would be a type of its own to Numba
    for c in range(w * stride):
        M[c] = 0
    if X0.size > 0:
        gather(X0, where[4], where[5], first, M, origin, w, n, stride)
    if S.size > 0:
        gather(S, where[2], where[3], first, M, origin + 3 * w * stride, w, n, stride)
    gather(Z, where[0], where[1], first, M, origin + 2 * w * stride, w, n, stride)
    count = 0
    for c in range(w):
        z_norm[c] = norms(M, (2 * w + c) * stride, -end, end)[0]
        finite = math.isfinite(z_norm[c])
        if X0.size > 0:
            finite = finite and math.isfinite(norms(M, c * stride, -end, end)[0])
        if finite and (S.size == 0 or math.isfinite(norms(M, (3 * w + c) * stride, -end, end)[0])):
            active[count] = c
            count += 1
        else:
            status[first + c], numbers[:, first + c], numbers[STEP, first + c] = NONFINITE, math.inf, math.nan
            for i in range(n):
                out[first + c, i] = math.nan
    return count


@compiled
def apply(F1, F2, M, T, offsets, count, n, r, skip):
    """G = F₁ F₂ X + Z for the columns that still run; with `skip`, X is 0 and no product is needed."""
    x, g, z, t, zeros = offsets[0], offsets[1], offsets[2], offsets[3], offsets[4]
    inner, source = n, M
    if skip:
        for a in range(count):
            copy(M, g[a], z[a], (n + ROWS - 1) // ROWS * ROWS)
        return
    if r > 0:
        product(F2, r, n, M, x, T, zeros, T, t, count)
        inner, source, x = r, T, t
    product(F1, n, inner, source, x, M, z, M, g, count)


@compiled
def outcome(step, top, z_norm, trial, count, tol, max_iter, eps):
    """How a column stands after `count` applications."""
    finite = math.isfinite(step)
    if finite and step <= max(tol * min(1.0, z_norm), 4 * eps * max(z_norm, top)):
        return CONVERGED if step <= tol else PRECISION_LIMIT
    if not finite and not trial:
        return NONFINITE
    return MAX_ITER if count >= max_iter else GOES_ON


@compiled
def conclude(M, x, g, z, s, n, end, ended, step, top, z_norm, roundings, j, out, status, numbers):
    """Write down the answer of a column, or NaN, and its certificate: in the ∞-norm, for the adjoint in the 1-norm."""
    vec.separate()
    status[j], numbers[STEP, j] = ended, step
    x_norm, g_norm = norms(M, x, -end, end)[0], top
    lipschitz, entries = roundings.lipschitz, 1
    if s >= 0:
        lipschitz, entries = norms(M, s, -end, end)[0], n
        step, x_norm, z_norm = norms(M, g, x, end)[1], norms(M, x, -end, end)[1], norms(M, z, -end, end)[1]
        g_norm = norms(M, g, -end, end)[1]
    kappa = lipschitz * roundings.norm
    sums = 1 + 4 * (entries + 1) * roundings.unit  # the norms themselves were rounded
    numerator = sums * excess(kappa, lipschitz, step, x_norm, z_norm, g_norm, entries, roundings)
    bound = numerator / (1 - kappa) if kappa < 1 and ended != NONFINITE else math.inf
    numbers[BOUND, j] = bound if math.isfinite(bound) else math.inf
    numbers[EXCESS, j], numbers[KAPPA, j], numbers[LIPSCHITZ, j] = numerator, kappa, lipschitz
    for i in range(n):
        out[j, i] = math.nan if ended == NONFINITE else M[g + i]


@entry
def picard(first, last, F1, F2, Z, S, X0, sizes, where, levels, roundings, out, status, iterations, numbers):
    """x ← g(x) for the columns first … last − 1, each until it is done, or was slow for `slow_steps` steps in a row.

    sizes: n, r (0 for one factor), activation, max_iter, slow_steps, and 1 if the first product, A·0, can be left out.
    where: how far apart the rows and the columns of Z, S and X0 are.   S and X0 are empty where there is none.
    """
    n, r, code, max_iter, slow_steps, skip = sizes
    (tol, slow), roundings = levels, Rounding(*roundings)
    eps = 2 * roundings.unit
    w, end = last - first, (n + ROWS - 1) // ROWS * ROWS
    stride, small = end + ROWS, (r + ROWS - 1) // ROWS * ROWS
    M, T = np.empty(4 * w * stride, F1.dtype), np.empty((w + 1) * small, F1.dtype)
    offsets, state = np.empty((8, w), np.int64), np.empty((2, w), np.float64)
    active, swapped, slowed = offsets[5], offsets[6], offsets[7]
    z_norm, before = state[0], state[1]
    count = load(Z, S, X0, where, first, M, w, n, end, stride, z_norm, active, out, status, numbers)
    for c in range(w):
        before[c], swapped[c], slowed[c] = math.inf, 0, 0
    for i in range(w * small, (w + 1) * small):
        T[i] = 0
    while count > 0:
        for a in range(count):
            c = active[a]
            offsets[0, a], offsets[1, a] = (c + swapped[c] * w) * stride, (c + w - swapped[c] * w) * stride
            offsets[2, a], offsets[3, a], offsets[4, a] = (2 * w + c) * stride, a * small, w * small
        apply(F1, F2, M, T, offsets, count, n, r, skip)
        kept, skip = 0, 0
        for a in range(count):
            c, j = active[a], first + active[a]
            x, g, z = offsets[0, a], offsets[1, a], offsets[2, a]
            s = (3 * w + c) * stride if S.size > 0 else -1
            step, top = finish(M, g, x, s, n, end, code)
            iterations[j] += 1
            ended = outcome(step, top, z_norm[c], False, iterations[j], tol, max_iter, eps)
            slowed[c] = slowed[c] + 1 if step > slow * before[c] else 0
            before[c] = step
            if ended == GOES_ON and slowed[c] < slow_steps:
                swapped[c] = 1 - swapped[c]
                active[kept] = c
                kept += 1
            else:
                ended = SLOW if ended == GOES_ON else ended
                conclude(M, x, g, z, s, n, end, ended, step, top, z_norm[c], roundings, j, out, status, numbers)
        count = kept


# --- trial points, guarded --------------------------------------------------------------------------------------------

# Rows of the state of a column.
TRIAL, TRIED, PATIENCE, WAIT, SLOT, KNOWN = range(6)


@compiled
def judge(step, best, state, decrease, leash, respite):
    """Whether the way here is given up; TRIED = 0 tells a good point. `safeguarded` in the NumPy twin says why."""
    vec.separate()
    good = state[TRIAL] == 0 or step <= decrease * best
    state[TRIED] = 0 if good else state[TRIED] + 1
    refused = not good and (state[TRIED] >= leash or not math.isfinite(step))
    state[WAIT] = state[PATIENCE] if refused else max(state[WAIT] - 1, 0)
    if refused:
        state[PATIENCE] *= respite
        state[KNOWN] = 0
    return refused


@compiled
def extrapolate(M, x, g, h, f, gram, state, end, stride, eps, H, gamma):
    """Anderson's trial point in x, if there is one."""
    vec.separate()
    if state[KNOWN] == 0:  # at the start, and after a refusal: what led there is forgotten
        gram[:] = 0
        for i in range(h + DIFFERENCES * stride, h + HISTORY * stride):
            M[i] = 0
    slot, known = state[SLOT], state[KNOWN] > 0
    state[KNOWN], state[SLOT] = 1, (slot + 1) % DEPTH
    return anderson(M, x, g, h, f, gram, slot, known, end, stride, 64 * eps, H, gamma)


@entry
def guarded(first, last, F1, F2, Lt, Z, S, X0, sizes, where, levels, roundings, out, status, iterations, numbers):
    """Trial points of Newton, where the columns of the first factor are given in Lt, or of Anderson, kept only if they
    help: `safeguarded` in the NumPy twin. sizes: as for `picard`, with leash and respite instead of slow_steps."""
    n, r, code, max_iter, leash, respite, skip = sizes
    (tol, decrease), roundings = levels, Rounding(*roundings)
    w, end = last - first, (n + ROWS - 1) // ROWS * ROWS
    stride, small = end + ROWS, (r + ROWS - 1) // ROWS * ROWS
    eps = 2 * roundings.unit
    per_column = 5 if Lt is not None else 5 + HISTORY  # x, g, z, s, where Picard goes on, the history
    M, T = np.empty((per_column * w + 1) * stride, F1.dtype), np.zeros((w + 1) * small, F1.dtype)
    scratch = per_column * w * stride
    offsets, states, reals = np.empty((6, w), np.int64), np.zeros((w, 6), np.int64), np.empty((2, w))
    active, z_norm, best = offsets[5], reals[0], reals[1]
    if Lt is not None:
        k = n if r == 0 else r
        J, delta, columns = np.empty((k, k), F1.dtype), np.empty(n, F1.dtype), np.empty((3, k + 1), np.int64)
        N = np.zeros((r + 1) * (stride + small) + small, F1.dtype)
    else:
        gram, H, gamma = np.empty((w, DEPTH, DEPTH)), np.empty((DEPTH, DEPTH)), np.empty(DEPTH)
    count = load(Z, S, X0, where, first, M, w, n, end, stride, z_norm, active, out, status, numbers)
    states[:, PATIENCE], best[:] = 1, math.inf
    while count > 0:
        for a in range(count):
            c = active[a]
            offsets[0, a], offsets[1, a], offsets[2, a] = c * stride, (w + c) * stride, (2 * w + c) * stride
            offsets[3, a], offsets[4, a] = a * small, w * small
        apply(F1, F2, M, T, offsets, count, n, r, skip)
        kept, skip = 0, 0
        for a in range(count):
            c, j = active[a], first + active[a]
            x, g, z = offsets[0, a], offsets[1, a], offsets[2, a]
            s, base = (3 * w + c) * stride if S.size > 0 else -1, (4 * w + c) * stride
            state = states[c]
            iterations[j] += 1
            if Lt is not None:
                copy(M, scratch, g, end)  # P, before it becomes G
            step, top = finish(M, g, x, s, n, end, code)
            ended = outcome(step, top, z_norm[c], state[TRIAL] > 0, iterations[j], tol, max_iter, eps)
            if ended != GOES_ON:
                conclude(M, x, g, z, s, n, end, ended, step, top, z_norm[c], roundings, j, out, status, numbers)
                continue
            active[kept] = c
            kept += 1
            refused = judge(step, best[c], state, decrease, leash, respite)
            if state[TRIED] == 0:
                best[c] = min(best[c], step)
                copy(M, base, g, end)
            ready = False
            if Lt is not None:
                ready = newton(M, x, g, scratch, s, n, r, code, F2, Lt, J, delta, N, columns)
            elif not refused:
                h = (5 * w + HISTORY * c) * stride
                ready = extrapolate(M, x, g, h, scratch, gram[c], state, end, stride, eps, H, gamma)
            # the answer must not be a mere trial
            state[TRIAL] = ready and not refused and state[WAIT] == 0 and iterations[j] < max_iter - 1
            if state[TRIAL] == 0:
                state[TRIED] = 0
                copy(M, x, base, end)
        count = kept


@entry
def substitute(first, last, A, packed, Z, S, sizes, where, tol, roundings, out, status, iterations, numbers):
    """One sweep over a strictly triangular A, whose columns are the rows of the flat array A: when x_k is known, it
    goes into every p_i = Σ_j A_ij x_j + z_i. The answer is g(x), by a product like all others. sizes: n, activation,
    and 1 for an upper triangle."""
    n, code, upper = sizes
    w, end = last - first, (n + ROWS - 1) // ROWS * ROWS
    stride = end + ROWS
    adjoint, roundings = S.size > 0, Rounding(*roundings)
    M = np.zeros(4 * w * stride, packed.dtype)
    origin = first - first
    gather(Z, where[0], where[1], first, M, origin + 2 * w * stride, w, n, stride)
    if adjoint:
        gather(S, where[2], where[3], first, M, origin + 3 * w * stride, w, n, stride)
    x, g, z = np.arange(w) * stride, (w + np.arange(w)) * stride, (2 * w + np.arange(w)) * stride
    for c in range(w):
        copy(M, x[c], z[c], end)
    for position in range(n):
        k = n - 1 - position if upper else position
        low, high = (0, k) if upper else (k + 1, n)
        for c in range(w):
            M[x[c] + k] = phi(M, x[c] + k, code)
            if adjoint:
                M[x[c] + k] *= M[(3 * w + c) * stride + k]
            value = M[x[c] + k]
            for i in range(low, high):
                M[x[c] + i] += A[k * n + i] * value
    product(packed, n, n, M, x, M, z, M, g, w)
    for c in range(w):
        s = (3 * w + c) * stride if adjoint else -1
        z_norm = norms(M, z[c], -end, end)[0]
        finite = math.isfinite(z_norm) and (s < 0 or math.isfinite(norms(M, s, -end, end)[0]))
        step, top = finish(M, g[c], x[c], s, n, end, code)
        ended = CONVERGED if step <= tol else PRECISION_LIMIT
        if not math.isfinite(step) or not finite:
            ended = NONFINITE
        iterations[first + c] = 1 if finite else 0
        j, step = first + c, step if finite else math.nan
        conclude(M, x[c], g[c], z[c], s, n, end, ended, step, top, z_norm, roundings, j, out, status, numbers)


# --- on several threads: loops over tiles ----------------------------------------------------------------------------


@parallel_entry
def picard_parallel(tile, F1, F2, Z, S, X0, sizes, where, levels, roundings, out, status, iterations, numbers):
    m = len(status)
    for number in prange((m + tile - 1) // tile):
        first = number * tile
        picard(
            first,
            min(m, first + tile),
            F1,
            F2,
            Z,
            S,
            X0,
            sizes,
            where,
            levels,
            roundings,
            out,
            status,
            iterations,
            numbers,
        )


@parallel_entry
def guarded_parallel(tile, F1, F2, Lt, Z, S, X0, sizes, where, levels, roundings, out, status, iterations, numbers):
    m = len(status)
    for number in prange((m + tile - 1) // tile):
        first = number * tile
        guarded(
            first,
            min(m, first + tile),
            F1,
            F2,
            Lt,
            Z,
            S,
            X0,
            sizes,
            where,
            levels,
            roundings,
            out,
            status,
            iterations,
            numbers,
        )
