"""Compiled for the Numba twin: the solver of one tile of columns, and the entry points that are called from Python.

Columns are contiguous, filled up with zeros to a multiple of ROWS, and begin `stride` apart in one flat array M.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from idl_ref import certificate
from idl_ref.backends.columns import ROWS, activate, compiled, distance, finish, pack, product, row_sums, size
from idl_ref.backends.trials import DEPTH, DIFFERENCES, HISTORY, anderson, copy, newton

excess = compiled(certificate.excess)

PICARD, AUTO, ANDERSON, NEWTON = 0, 1, 2, 3  # methods; Newton's has code of its own, compiled when Lt is given
CONVERGED, PRECISION_LIMIT, MAX_ITER, NONFINITE = 0, 1, 2, 3  # statuses
# Rows of the state of a column, whole numbers and reals; X and G say where its two columns begin.
X, G, ITERATIONS, SLOW, GUARDED, TRIAL, TRIED, PATIENCE, WAIT, SLOT, KNOWN = range(11)
BEST, Z_NORM = range(2)
PLANES = 5  # columns that everyone has: x, g, z, s and the base, where Picard goes on
# What is recorded of a column that is done; the bound is EXCESS / (1 − KAPPA) where that is positive.
STATUS, COUNT, STEP, LIPSCHITZ, KAPPA, EXCESS, BOUND = range(7)


@compiled
def gather(source, down, right, first, M, o, w, n, stride):
    """The columns first … first + w of an (n, m) array into M, filled up with zeros."""
    for i0 in range(0, n, ROWS):
        for c in range(w):
            at = (first + c) * right
            for i in range(i0, min(n, i0 + ROWS)):
                M[o + c * stride + i] = source[i * down + at]
    for c in range(w):
        for i in range(n, stride):
            M[o + c * stride + i] = 0


@compiled
def start(M, c, w, end, stride, S, X0, ints, reals):
    """The state of a column before its first step; False if z, s or x is not finite."""
    ints[:, c] = 0
    ints[X, c], ints[G, c], ints[PATIENCE, c] = c * stride, (w + c) * stride, 1
    reals[BEST, c], reals[Z_NORM, c] = np.inf, size(M, (2 * w + c) * stride, end)
    if X0.size == 0:
        for i in range(stride):
            M[c * stride + i] = 0
    finite = math.isfinite(reals[Z_NORM, c]) and math.isfinite(size(M, c * stride, end))
    return finite and (S.size == 0 or math.isfinite(size(M, (3 * w + c) * stride, end)))


@compiled
def load(first, M, w, n, stride, Z, S, X0, where, ints, reals, active, guarded, out, record):
    """The columns of a tile, and how many of them are finite: those stand in `active`; the others are done."""
    gather(Z, where[0], where[1], first, M, 2 * w * stride, w, n, stride)
    if S.size > 0:
        gather(S, where[2], where[3], first, M, 3 * w * stride, w, n, stride)
    if X0.size > 0:
        gather(X0, where[4], where[5], first, M, 0, w, n, stride)
    count = 0
    for c in range(w):
        if start(M, c, w, stride - ROWS, stride, S, X0, ints, reals):
            active[count] = c
            count += 1
            ints[GUARDED, c] = guarded
        else:
            out[first + c, :], record[first + c, :] = math.nan, math.nan
            record[first + c, STATUS], record[first + c, COUNT], record[first + c, BOUND] = NONFINITE, 0, math.inf
    return count


@compiled
def write_down(M, x, g, z, s, n, status, iterations, step, adjoint, roundings, out, record):
    """A column that is done: its answer, or NaN, and its certificate."""
    for i in range(n):
        out[i] = math.nan if status == NONFINITE else M[g + i]
    step_norm, x_norm = distance(M, g, x, n, adjoint), distance(M, x, -1, n, adjoint)
    z_norm, g_norm = distance(M, z, -1, n, adjoint), distance(M, g, -1, n, adjoint)
    lipschitz = np.float64(size(M, s, (n + ROWS - 1) // ROWS * ROWS)) if adjoint else roundings.lipschitz
    kappa = lipschitz * roundings.norm
    numerator = excess(kappa, lipschitz, step_norm, x_norm, z_norm, g_norm, n if adjoint else 1, roundings)
    bound = numerator / (1 - kappa) if kappa < 1 and status != NONFINITE else math.inf
    record[STATUS], record[COUNT], record[STEP], record[LIPSCHITZ] = status, iterations, step, lipschitz
    record[KAPPA], record[EXCESS], record[BOUND] = kappa, numerator, bound if math.isfinite(bound) else math.inf


@compiled
def outcome(step, top, c, ints, reals, tol, max_iter, eps):
    """The status of a column after one more application, or −1 if it goes on."""
    ints[ITERATIONS, c] += 1
    z = reals[Z_NORM, c]
    if step <= max(tol * min(1.0, z), 4 * eps * max(z, top)):
        return CONVERGED if step <= tol else PRECISION_LIMIT
    if not math.isfinite(step) and ints[TRIAL, c] == 0:
        return NONFINITE
    return MAX_ITER if ints[ITERATIONS, c] >= max_iter else -1


@compiled
def picard_step(c, step, ints, reals, method, slow, slow_steps):
    """x ← g; with AUTO, a column that was slow for `slow_steps` steps gets a guard and trial points from now on."""
    ints[SLOW, c] = ints[SLOW, c] + 1 if step > slow * reals[BEST, c] else 0
    reals[BEST, c] = step
    ints[X, c], ints[G, c] = ints[G, c], ints[X, c]
    if method == AUTO and ints[SLOW, c] >= slow_steps:
        ints[GUARDED, c], reals[BEST, c] = 1, np.inf


@compiled
def judge(c, step, ints, reals, decrease, leash, respite):
    """Whether the way here is given up; TRIED = 0 tells a good point. `safeguarded` in the NumPy twin says why."""
    good = ints[TRIAL, c] == 0 or step <= decrease * reals[BEST, c]
    ints[TRIED, c] = 0 if good else ints[TRIED, c] + 1
    refused = not good and (ints[TRIED, c] >= leash or not math.isfinite(step))
    if good:
        reals[BEST, c] = min(reals[BEST, c], step)
    ints[WAIT, c] = ints[PATIENCE, c] if refused else max(ints[WAIT, c] - 1, 0)
    if refused:
        ints[PATIENCE, c] *= respite
    return refused


@compiled
def extrapolate(M, x, g, h, f, gram, c, ints, step, refused, end, stride, eps, H, gamma):
    """Anderson's trial point in x, if there is one. What led to a refused point is forgotten."""
    if refused or ints[GUARDED, c] == 1:
        ints[GUARDED, c], ints[KNOWN, c] = 2, 0
        gram[:] = 0
        for i in range(h + DIFFERENCES * stride, h + HISTORY * stride):
            M[i] = 0
    if refused:
        return False
    slot, known = ints[SLOT, c], ints[KNOWN, c] > 0
    ints[KNOWN, c], ints[SLOT, c] = 1, (slot + 1) % DEPTH
    return anderson(M, x, g, h, f, gram, slot, known, step, end, stride, 64 * eps, H, gamma)


@compiled
def apply(F1, F2, M, T, x, g, z, t, zeros, count, n, r, skip):
    """G = F₁ F₂ X + Z for the columns that still run; with `skip`, X is 0 and no product is needed."""
    if skip:
        for a in range(count):
            copy(M, g[a], z[a], (n + ROWS - 1) // ROWS * ROWS)
    elif r == 0:
        product(F1, n, n, M, x, M, z, M, g, count)
    else:
        product(F2, r, n, M, x, T, zeros, T, t, count)
        product(F1, n, r, T, t, M, z, M, g, count)


@compiled
def solve_tile(first, last, F1, F2, Lt, Z, S, X0, sizes, where, rules, levels, roundings, out, record):
    """Solve the columns first … last − 1 of X = S ∘ f(F₁ F₂ … X + Z), each until it is done.

    sizes: n, r (0 for one factor), activation, method, max_iter, and 1 if the first product, A·0, can be left out.
    where: how far apart the rows and the columns of Z, S and X0 are.   S and X0 are empty where there is none.
    """
    n, r, code, method, max_iter, skip = sizes
    slow_steps, leash, respite = rules
    tol, slow, decrease = levels
    w, end = last - first, (n + ROWS - 1) // ROWS * ROWS
    stride, small = end + ROWS, (r + ROWS - 1) // ROWS * ROWS
    eps, adjoint = np.finfo(F1.dtype).eps, S.size > 0
    histories = HISTORY * w if method in (AUTO, ANDERSON) else 0
    M = np.empty((PLANES * w + histories + 2) * stride, F1.dtype)
    T = np.empty((w + 1) * small, F1.dtype)
    T[w * small :] = 0
    scratch = (PLANES * w + histories) * stride  # two columns: P for Newton, f for Anderson
    gram, H, gamma = np.empty((w, DEPTH, DEPTH)), np.empty((DEPTH, DEPTH)), np.empty(DEPTH)
    ints, reals = np.empty((11, w), np.int64), np.empty((2, w))
    x, g, z, t, zeros, active = np.empty((6, w), np.int64)
    if Lt is not None:
        k = n if r == 0 else r
        J, delta, columns = np.empty((k, k), F1.dtype), np.empty(n, F1.dtype), np.empty((3, k + 1), np.int64)
        N = np.zeros((r + 1) * (stride + small) + small, F1.dtype)

    count = load(first, M, w, n, stride, Z, S, X0, where, ints, reals, active, method >= ANDERSON, out, record)
    while count > 0:
        for a in range(count):
            c = active[a]
            x[a], g[a], z[a], t[a], zeros[a] = ints[X, c], ints[G, c], (2 * w + c) * stride, a * small, w * small
        apply(F1, F2, M, T, x, g, z, t, zeros, count, n, r, skip)
        skip = 0
        kept = 0
        for a in range(count):
            c = active[a]
            s = (3 * w + c) * stride if adjoint else -1
            if Lt is not None:
                copy(M, scratch, g[a], end)  # P, before it becomes G
            step, top = finish(M, g[a], x[a], s, n, end, code)
            status = outcome(step, top, c, ints, reals, tol, max_iter, eps)
            if status >= 0:
                write_down(M, x[a], g[a], z[a], s, n, status, ints[ITERATIONS, c], step, adjoint, roundings,
                           out[first + c], record[first + c])  # fmt: skip
                continue
            active[kept] = c
            kept += 1
            if ints[GUARDED, c] == 0:
                picard_step(c, step, ints, reals, method, slow, slow_steps)
                continue
            refused = judge(c, step, ints, reals, decrease, leash, respite)
            base = (4 * w + c) * stride
            if ints[TRIED, c] == 0:
                copy(M, base, g[a], end)
            if Lt is not None:
                ready = newton(M, x[a], g[a], scratch, s, n, r, code, F2, Lt, J, delta, N, columns)
            else:
                h = (PLANES * w + HISTORY * c) * stride
                ready = extrapolate(
                    M, x[a], g[a], h, scratch + stride, gram[c], c, ints, step, refused, end, stride, eps, H, gamma
                )
            last_one = ints[ITERATIONS, c] >= max_iter - 1  # the answer must not be a mere trial
            ints[TRIAL, c] = ready and not refused and ints[WAIT, c] == 0 and not last_one
            if ints[TRIAL, c] == 0:
                ints[TRIED, c] = 0
                copy(M, x[a], base, end)
        count = kept


@compiled
def substitute(first, last, A, packed, Z, S, n, code, where, tol, upper, roundings, out, record):
    """One sweep over a strictly triangular A, whose columns are the rows of the flat array A: when x_k is known, it
    goes into every p_i = Σ_j A_ij x_j + z_i. The answer is g(x), by a product like all others."""
    w, end = last - first, (n + ROWS - 1) // ROWS * ROWS
    stride = end + ROWS
    adjoint = S.size > 0
    M = np.zeros(4 * w * stride, packed.dtype)
    gather(Z, where[0], where[1], first, M, 2 * w * stride, w, n, stride)
    if adjoint:
        gather(S, where[2], where[3], first, M, 3 * w * stride, w, n, stride)
    x, g, z = np.arange(w) * stride, (w + np.arange(w)) * stride, (2 * w + np.arange(w)) * stride
    for c in range(w):
        copy(M, x[c], z[c], end)
    for position in range(n):
        k = n - 1 - position if upper else position
        low, high = (0, k) if upper else (k + 1, n)
        for c in range(w):
            activate(M, x[c] + k, x[c] + k + 1, code)
            if adjoint:
                M[x[c] + k] *= M[(3 * w + c) * stride + k]
            value = M[x[c] + k]
            for i in range(low, high):
                M[x[c] + i] += A[k * n + i] * value
    product(packed, n, n, M, x, M, z, M, g, w)
    for c in range(w):
        s = (3 * w + c) * stride if adjoint else -1
        finite = math.isfinite(size(M, z[c], end)) and (s < 0 or math.isfinite(size(M, s, end)))
        step, _ = finish(M, g[c], x[c], s, n, end, code)
        status = CONVERGED if step <= tol else PRECISION_LIMIT
        if not math.isfinite(step) or not finite:
            status = NONFINITE
        write_down(M, x[c], g[c], z[c], s, n, status, 1 if finite else 0, step if finite else math.nan, adjoint,
                   roundings, out[first + c], record[first + c])  # fmt: skip


# --- entry points: the only functions that are called from Python and kept on disk ------------------------------------


def entries(fingerprint):
    """The entry points, as plain Python functions.

    Numba's cache notices a change in the file of an entry point only, but takes in what a closure holds: so each of
    them holds the fingerprint of everything that it is compiled from.
    """

    def prepare(F, rows, columns, down, right, packed, by_columns, weights, sums):
        """Pack a factor, and weigh its rows, or with `by_columns` its columns: sums = |F| weights or |F|ᵀ weights."""
        fingerprint  # noqa: B018
        pack(F, rows, columns, down, right, packed)
        if by_columns:
            row_sums(F, columns, rows, right, down, weights, sums)
        else:
            row_sums(F, rows, columns, down, right, weights, sums)

    def solve_serial(tile, F1, F2, Lt, Z, S, X0, sizes, where, rules, levels, roundings, out, record):
        fingerprint  # noqa: B018
        m = len(record)
        for first in range(0, m, tile):
            last = min(m, first + tile)
            solve_tile(first, last, F1, F2, Lt, Z, S, X0, sizes, where, rules, levels, roundings, out, record)

    def solve_parallel(tile, F1, F2, Lt, Z, S, X0, sizes, where, rules, levels, roundings, out, record):
        fingerprint  # noqa: B018
        m = len(record)
        for number in prange((m + tile - 1) // tile):
            first = number * tile
            last = min(m, first + tile)
            solve_tile(first, last, F1, F2, Lt, Z, S, X0, sizes, where, rules, levels, roundings, out, record)

    def sweep(tile, packed, At, Z, S, n, code, where, tol, upper, roundings, out, record):
        fingerprint  # noqa: B018
        m = len(record)
        for first in range(0, m, tile):
            last = min(m, first + tile)
            substitute(first, last, At, packed, Z, S, n, code, where, tol, upper, roundings, out, record)

    return prepare, solve_serial, solve_parallel, sweep
