"""Device functions of the CUDA twin: what is known of each column of a tile, and how it is judged.

b is the block of a thread, e the task. Of column c of a tile, row k of the integers stands in b.N at k·w + c, row k of
the reals in b.M at places.state + k·w + c, and there, too, the share of a lane in quantity k at places.shares +
(k·LANES + lane)·w + c.
"""

from __future__ import annotations

import math

from idl_ref.backends.cuda.api import device, renew
from idl_ref.backends.cuda.columns import larger, norms, offset, phi
from idl_ref.backends.cuda.plans import DEPTH, LANES, Block

# Rows of integers, and what CONTROL tells the lanes to do.
COUNT, TRIED, TRIAL, PATIENCE, WAIT, SLOT, KNOWN, CONTROL = range(8)
OUT, ENDED, BROKEN, GOOD, BAD, REFUSED = range(6)
# Rows of reals. BEST is the smallest step so far, for Picard the step before, and TRIED counts its slow steps.
Z_TOP, Z_NORM, X_NORM, SLOPE, BEST, WEIGHTS, GRAM, SYSTEM = 0, 1, 2, 3, 4, 5, 5 + DEPTH, 5 + DEPTH + DEPTH * DEPTH
# Quantities whose shares are put down: ‖x‖∞ and ‖x‖₁, which stay from one point to the next, then of g − x and of g.
X_TOP, X_SIZE, TOP_STEP, G_TOP, SUM_STEP, G_SIZE = range(6)
# The statuses, and two more; and the rows of `numbers`, (6, m): what the certificate wants to know.
CONVERGED, PRECISION_LIMIT, MAX_ITER, NONFINITE, GOES_ON, SLOW = range(6)
STEP, CHANGE, X, Z, G, LIPSCHITZ = range(6)


@device
def block_of(N, M, e, w, tile, tid, threads):
    """A thread and its block. Asked again, they are found again, and need not wait in registers in the meantime."""
    first = renew(tile) * w
    return Block(N, M, renew(tid), threads, first, min(w, e.columns.size - first), w)


@device
def top_of(b, e, k, c):
    """The largest of the shares of quantity k of a column, NaN if one is."""
    M, at = b.M, e.places.shares + k * LANES * b.w + c
    top = M[at]
    for lane in range(1, LANES):
        top = larger(M[at + lane * b.w], top)
    return top


@device
def sum_of(b, e, k, c):
    """Their sum."""
    M, at = b.M, e.places.shares + k * LANES * b.w + c
    total = M[at]
    for lane in range(1, LANES):
        total += M[at + lane * b.w]
    return total


@device
def column_of(b, e, c):
    """Which column of Z is column c of the tile; the last one of the tile for those that are not there."""
    return e.columns[b.first + min(c, b.used - 1)]


@device
def adjoint(e):
    """Whether the equation is the adjoint one, whose norms are sums."""
    return e.S.array.size > 0


# --- the start --------------------------------------------------------------------------------------------------------


@device
def survey(b, e, V):
    """Copy the start into V, and put down shares of ‖x‖∞ and ‖x‖₁, ‖z‖∞, ‖z‖₁ and max |s|."""
    M, w, apart, X0, Z, S = b.M, b.w, LANES * b.w, e.X0, e.Z, e.S
    item = renew(b.tid)
    while item < apart:
        c, lane, a = item % w, item // w, e.places.shares + item
        j = column_of(b, e, c)
        M[a], M[a + apart] = norms(X0.array, j * X0.right, X0.down, X0.shape[0], lane)  # an empty matrix has no rows
        M[a + 2 * apart], M[a + 3 * apart] = norms(Z.array, j * Z.right, Z.down, Z.shape[0], lane)
        M[a + 4 * apart] = norms(S.array, j * S.right, S.down, S.shape[0], lane)[0]
        i = lane
        while i < e.end:
            start = X0.array[offset(X0, i, j)] if i < X0.shape[0] else M.dtype.type(0)
            V.array[V.at + i * w + c] = start
            i += LANES
        item += b.threads


@device
def begin(b, e, c):
    """What is known of a column before the first application; 1 if it goes on. Not finite: it is done."""
    N, Q, q, w, j = b.N, b.M, e.places.state, b.w, column_of(b, e, c)
    x_top, z_top, slope = top_of(b, e, X_TOP, c), top_of(b, e, 2, c), top_of(b, e, 4, c)
    Q[q + Z_TOP * w + c] = z_top
    Q[q + Z_NORM * w + c] = sum_of(b, e, 3, c) if adjoint(e) else z_top
    Q[q + X_NORM * w + c] = sum_of(b, e, X_SIZE, c) if adjoint(e) else x_top
    Q[q + SLOPE * w + c] = slope if adjoint(e) else e.lipschitz
    Q[q + BEST * w + c] = Q.dtype.type(math.inf)
    N[COUNT * w + c] = e.iterations[j]
    N[PATIENCE * w + c] = 1
    if math.isfinite(z_top) and math.isfinite(slope) and math.isfinite(x_top):
        N[CONTROL * w + c] = GOOD
        return 1
    N[CONTROL * w + c] = BROKEN
    e.status[j] = NONFINITE
    for k in range(6):
        e.numbers[k * e.m + j] = Q.dtype.type(math.nan)
    return 0


# --- an application ---------------------------------------------------------------------------------------------------


@device
def entry(p, e, i, j):
    """s φ(p + z)"""
    value = phi(p + e.Z.array[offset(e.Z, i, j)], e.out, e.code)
    if adjoint(e):
        value *= e.S.array[offset(e.S, i, j)]
    return value


@device
def finish(b, e, V, P, T, i0, i1):
    """T = s φ(P + Z) in the rows i0 … i1, P (i1 − i0, w), and shares of the norms of T − V and T. T may be V or P."""
    M, w, apart = b.M, b.w, LANES * b.w
    item = renew(b.tid)
    while item < apart:
        c, lane, a = item % w, item // w, e.places.shares + TOP_STEP * apart + item
        j = column_of(b, e, c)
        step = top = change = size = M.dtype.type(0)
        if i0 > 0:
            step, top, change, size = M[a], M[a + apart], M[a + 2 * apart], M[a + 3 * apart]
        i = i0 + lane
        while i < i1:
            value = entry(P.array[P.at + (i - i0) * w + c], e, i, j)
            difference = abs(value - V.array[V.at + i * w + c])
            step, top = larger(difference, step), larger(abs(value), top)
            change += difference
            size += abs(value)
            T.array[T.at + i * w + c] = value
            i += LANES
        M[a], M[a + apart], M[a + 2 * apart], M[a + 3 * apart] = step, top, change, size
        item += b.threads


@device
def measure(b, e, V):
    """Shares of ‖x‖∞ and ‖x‖₁ of a point in V."""
    item = renew(b.tid)
    while item < LANES * b.w:
        a = e.places.shares + item
        b.M[a], b.M[a + LANES * b.w] = norms(V.array, V.at + item % b.w, b.w, e.n, item // b.w)
        item += b.threads


# --- the end ----------------------------------------------------------------------------------------------------------


@device
def outcome(b, e, c, step, top, trial):
    """How a column stands after so many applications."""
    tol, eps, z_top = e.tol, e.eps, b.M[e.places.state + Z_TOP * b.w + c]
    one, four = b.M.dtype.type(1), b.M.dtype.type(4)
    if math.isfinite(step) and step <= max(tol * min(one, z_top), four * eps * max(z_top, top)):
        return CONVERGED if step <= tol else PRECISION_LIMIT
    if not math.isfinite(step) and not trial:
        return NONFINITE
    return MAX_ITER if b.N[COUNT * b.w + c] >= e.max_iter else GOES_ON


@device
def hold(b, e, c):
    """The norm of the point that was applied to, from its shares."""
    size, top = sum_of(b, e, X_SIZE, c), top_of(b, e, X_TOP, c)
    b.M[e.places.state + X_NORM * b.w + c] = size if adjoint(e) else top


@device
def close(b, e, c, ended, step, top):
    """Write down how a column ended, and what its certificate needs."""
    j, m, numbers, known = column_of(b, e, c), e.m, e.numbers, e.places.state + c
    b.N[CONTROL * b.w + c] = BROKEN if ended == NONFINITE else ENDED
    e.status[j], e.iterations[j] = ended, b.N[COUNT * b.w + c]
    numbers[STEP * m + j], numbers[CHANGE * m + j] = step, sum_of(b, e, SUM_STEP, c) if adjoint(e) else step
    numbers[X * m + j], numbers[Z * m + j] = b.M[known + X_NORM * b.w], b.M[known + Z_NORM * b.w]
    numbers[G * m + j] = sum_of(b, e, G_SIZE, c) if adjoint(e) else top
    numbers[LIPSCHITZ * m + j] = b.M[known + SLOPE * b.w]


@device
def close_substitute(b, e, c):
    """Exact but for rounding, which is all that the step can show."""
    step, top = top_of(b, e, TOP_STEP, c), top_of(b, e, G_TOP, c)
    ended = CONVERGED if step <= e.tol else PRECISION_LIMIT
    if not math.isfinite(step):
        ended = NONFINITE
    b.N[COUNT * b.w + c] = 1
    hold(b, e, c)
    close(b, e, c, ended, step, top)


@device
def deliver(b, e, V):
    """The answers of the columns that have just ended, NaN where one is not finite."""
    n, m, w = e.n, e.m, b.w
    item = renew(b.tid)
    while item < LANES * w:
        c, lane = item % w, item // w
        control = b.N[CONTROL * w + c]
        if c < b.used and (control == ENDED or control == BROKEN):  # noqa: SIM109
            j, i = e.columns[b.first + c], lane
            while i < n:
                e.out[i * m + j] = V.array[V.at + i * w + c] if control == ENDED else b.M.dtype.type(math.nan)
                i += LANES
        item += b.threads
