"""Device functions of the CUDA twin: what is known of each column of a tile, and how it is judged.

Integers stand in N, reals in Q: row k of column c at offset + k·w + c. Shares of a column, one per lane, stand in M:
lane l of quantity k at shares + (k·LANES + l)·w + c.
"""

from __future__ import annotations

import math

from idl_ref.backends.cuda_api import device, renew
from idl_ref.backends.cuda_columns import finite, larger, largest, norms, phi, total
from idl_ref.backends.cuda_plans import DEPTH, LANES

# Rows of integers, and what CONTROL tells the lanes to do.
COUNT, TRIED, TRIAL, PATIENCE, WAIT, SLOT, KNOWN, CONTROL = range(8)
OUT, ENDED, BROKEN, GOOD, BAD, REFUSED = range(6)
# Rows of reals. BEST is the smallest step so far, for Picard the step before, and TRIED counts its slow steps.
Z_TOP, Z_NORM, X_NORM, SLOPE, BEST, WEIGHTS, GRAM, SYSTEM = 0, 1, 2, 3, 4, 5, 5 + DEPTH, 5 + DEPTH + DEPTH * DEPTH
# The statuses, and two more; and the rows of `numbers`, (6, m): what the certificate wants to know.
CONVERGED, PRECISION_LIMIT, MAX_ITER, NONFINITE, GOES_ON, SLOW = range(6)
STEP, CHANGE, X, Z, G, LIPSCHITZ = range(6)
X_TOP, X_SIZE = 4, 5  # quantities whose shares stay from one point to the next


@device
def survey(V, x, w, first, count, Z, S, X0, index, where, n, end, M, shares, tid, threads):
    """Copy the start into V, and put down shares of ‖z‖∞, ‖z‖₁, max |s|, and, where they stay, ‖x‖∞ and ‖x‖₁.

    where: how far apart the rows and the columns of Z, S and X0 are. S and X0 are empty where there is none.
    """
    item = renew(tid)
    while item < LANES * w:
        c, lane = item % w, item // w
        j = index[first + min(c, count - 1)]
        a = shares + item
        M[a], M[a + LANES * w] = norms(Z, j * where[1], where[0], n, lane)
        M[a + 2 * LANES * w] = norms(S, j * where[3], where[2], n, lane)[0] if S.size > 0 else M.dtype.type(0)
        M[a + X_TOP * LANES * w] = M[a + X_SIZE * LANES * w] = M.dtype.type(0)
        if X0.size > 0:
            M[a + X_TOP * LANES * w], M[a + X_SIZE * LANES * w] = norms(X0, j * where[5], where[4], n, lane)
        i = lane
        while i < end:
            V[x + i * w + c] = X0[i * where[4] + j * where[5]] if X0.size > 0 and i < n else V.dtype.type(0)
            i += LANES
        item += threads


@device
def begin(N, Q, q, c, w, M, shares, adjoint, lipschitz, j, m, status, iterations, numbers):
    """What is known of a column before the first application; 1 if it goes on. Not finite: it is done."""
    apart, a = LANES * w, shares + c
    z_top, slope, x_top = largest(M, a, w), largest(M, a + 2 * apart, w), largest(M, a + X_TOP * apart, w)
    Q[q + Z_TOP * w + c] = z_top
    Q[q + Z_NORM * w + c] = total(M, a + apart, w) if adjoint else z_top
    Q[q + X_NORM * w + c] = total(M, a + X_SIZE * apart, w) if adjoint else x_top
    Q[q + SLOPE * w + c] = slope if adjoint else lipschitz
    Q[q + BEST * w + c] = Q.dtype.type(math.inf)
    N[COUNT * w + c] = iterations[j]
    N[PATIENCE * w + c] = 1
    if finite(z_top) and finite(slope) and finite(x_top):
        N[CONTROL * w + c] = GOOD
        return 1
    N[CONTROL * w + c] = BROKEN
    status[j] = NONFINITE
    for k in range(6):
        numbers[k * m + j] = Q.dtype.type(math.nan)
    return 0


@device
def entry(P, p, Z, S, where, i, j, code):
    """s φ(p + z)"""
    value = phi(P[p] + Z[i * where[0] + j * where[1]], P, code)
    if S.size > 0:
        value *= S[i * where[2] + j * where[3]]
    return value


@device
def finish(V, x, P, p, T, t, i0, i1, w, first, count, Z, S, index, where, code, M, shares, tid, threads):
    """T = s φ(P + Z) in the rows i0 … i1, P (i1 − i0, w), and shares of the norms of G − X and G. T may be X or P."""
    item, apart = renew(tid), LANES * w
    while item < LANES * w:
        c, lane = item % w, item // w
        j, a = index[first + min(c, count - 1)], shares + item
        step = top = change = size = M.dtype.type(0)
        if i0 > 0:
            step, top, change, size = M[a], M[a + apart], M[a + 2 * apart], M[a + 3 * apart]
        i = i0 + lane
        while i < i1:
            value = entry(P, p + (i - i0) * w + c, Z, S, where, i, j, code)
            difference = abs(value - V[x + i * w + c])
            step, top = larger(difference, step), larger(abs(value), top)
            change += difference
            size += abs(value)
            T[t + i * w + c] = value
            i += LANES
        M[a], M[a + apart], M[a + 2 * apart], M[a + 3 * apart] = step, top, change, size
        item += threads


@device
def outcome(step, top, z_top, trial, count, levels, max_iter, like):
    """How a column stands after `count` applications."""
    tol, eps = levels[0], levels[2]
    one, four = like.dtype.type(1), like.dtype.type(4)
    if finite(step) and step <= max(tol * min(one, z_top), four * eps * max(z_top, top)):
        return CONVERGED if step <= tol else PRECISION_LIMIT
    if not finite(step) and not trial:
        return NONFINITE
    return MAX_ITER if count >= max_iter else GOES_ON


@device
def record(Q, q, c, w, ended, count, step, change, g_norm, j, m, status, iterations, numbers):
    """Write down how a column ended, and what its certificate needs."""
    status[j], iterations[j] = ended, count
    numbers[STEP * m + j], numbers[CHANGE * m + j] = step, change
    numbers[X * m + j], numbers[Z * m + j] = Q[q + X_NORM * w + c], Q[q + Z_NORM * w + c]
    numbers[G * m + j], numbers[LIPSCHITZ * m + j] = g_norm, Q[q + SLOPE * w + c]


@device
def deliver(N, V, v, w, first, count, index, n, m, out, tid, threads):
    """The answers of the columns that have just ended, NaN where one is not finite."""
    item = renew(tid)
    while item < LANES * w:
        c, lane = item % w, item // w
        control = N[CONTROL * w + c]
        if c < count and (control == ENDED or control == BROKEN):  # noqa: SIM109
            j, i = index[first + c], lane
            while i < n:
                out[i * m + j] = V[v + i * w + c] if control == ENDED else V.dtype.type(math.nan)
                i += LANES
        item += threads
