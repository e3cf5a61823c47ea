"""Device functions of the CUDA twin: the state and the norms of each column of a tile, and whether the column is done.

In every function, b is the `Block` of the calling thread and e the `Task`. The state of the w columns of a tile is in
shared memory. For column c of the tile,

- row k of the integers is b.N[k·w + c],
- row k of the reals is b.M[places.state + k·w + c],
- the partial reduction of quantity k by a lane is b.M[places.partials + (k·LANES + lane)·w + c].

Functions over whole columns divide the work into LANES·w items: item number lane·w + c is one partial reduction of
column c. Thread tid takes the items tid, tid + threads, …, so that consecutive threads access consecutive columns.
Functions with an argument c compute for that column alone, in the calling thread; those that write are called by thread
c only. None of the functions contains a barrier.
"""

from __future__ import annotations

import math

from idl_ref.backends.cuda.api import device, load4, renew, store4
from idl_ref.backends.cuda.columns import kind, larger, norms, offset, phi
from idl_ref.backends.cuda.plans import DEPTH, INTEGERS, KEPT, LANES, Block, Rows
from idl_ref.backends.methods import STALE

# Rows of the integers: COUNT is the number of applications so far; TRIED that of trial points in a row that are neither
# good nor nearer, for Picard that of slow steps in a row; TRIAL is 1 if the current point is a trial point; WAIT is how
# many Picard steps are left before the next trial point, and PATIENCE what WAIT is set to when trial points are given
# up; SLOT is the place of the oldest difference in Anderson's history, which the next one overwrites; KNOWN is 1 if the
# history holds the point before; ROUND is the number of applications by this method, and SINCE that of applications
# since the smallest step; DOUBT says which changes rounding may explain, and then whether it does so (see `rounded`).
COUNT, TRIED, TRIAL, PATIENCE, WAIT, SLOT, KNOWN, CONTROL, ROUND, SINCE, DOUBT = range(11)
# Values of CONTROL. The column was already done before this application (OUT), or has just ended: with the answer
# g(last good point) (LEFT), g(x) (ENDED), x (HELD), NaN (BROKEN) or its start (BACK). Otherwise it goes on from a point
# that is good (GOOD, or NOTED if g(x) is to be kept as an earlier iterate) or not yet good (BAD), or its trial points
# are given up (REFUSED). Every column that goes on has a value ≥ GOOD.
OUT, LEFT, ENDED, HELD, BROKEN, BACK, GOOD, NOTED, BAD, REFUSED = range(10)
# Rows of the reals: ‖z‖∞; ‖z‖ and ‖x‖ in the norm of the certificate; SLOPE is Lip(φ), for the adjoint max |s|; BEST is
# the smallest step of a good point so far, for Picard the step before; LOWEST is the smallest step so far, and NEAREST
# that since the last good point; MARK is BEST of one window of applications before; then Anderson's γ, its matrix
# ΔFᵀ ΔF, and room for its system.
Z_TOP, Z_NORM, X_NORM, SLOPE, BEST, LOWEST, NEAREST, MARK, WEIGHTS = range(9)
GRAM, SYSTEM = WEIGHTS + DEPTH, WEIGHTS + DEPTH + DEPTH * DEPTH
# Quantities that are reduced: ‖x‖∞ and ‖x‖₁, which are kept until the next point, then ‖g − x‖∞, ‖g‖∞, ‖g − x‖₁, ‖g‖₁.
X_TOP, X_SIZE, TOP_STEP, G_TOP, SUM_STEP, G_SIZE = range(6)
# The quantities that `survey` reduces before the first application, beside those of x: ‖z‖∞, ‖z‖₁ and max |s|.
START_Z_TOP, START_Z_SIZE, START_SLOPE = 2, 3, 4
# The values of `Status`, then two more: the column goes on, and the column is left to another method.
CONVERGED, PRECISION_LIMIT, MAX_ITER, NONFINITE, GOES_ON, SLOW = range(6)
# Rows of `Task.numbers`: the step ‖g − x‖∞; then ‖g − x‖, ‖x‖, ‖z‖ and ‖g‖ in the norm of the certificate, which is the
# 1-norm for the adjoint and otherwise the ∞-norm; then SLOPE; then the step of the first application of a solver. While
# Anderson's or Newton's method goes on, STEP is the step at the last good point.
STEP, CHANGE, X, Z, G, LIPSCHITZ, FIRST = range(7)


@device
def block_of(N, M, e, w, tile, tid, threads):
    """Return the `Block` of thread `tid`, whose block works on the tile number `tile`.

    `renew` makes every call compute the fields anew, so that they need not stay in registers between two calls.
    """
    first = renew(tile) * w
    return Block(N, M, renew(tid), threads, first, min(w, e.columns.size - first), w)


@device
def top_of(b, e, k, c):
    """Return the maximum of the LANES partial results of quantity k for column c, NaN if one of them is NaN."""
    M, at = b.M, e.places.partials + k * LANES * b.w + c
    top = M[at]
    for lane in range(1, LANES):
        top = larger(M[at + lane * b.w], top)
    return top


@device
def sum_of(b, e, k, c):
    """Return the sum of the LANES partial results of quantity k for column c, in the order of the lanes."""
    M, at = b.M, e.places.partials + k * LANES * b.w + c
    total = M[at]
    for lane in range(1, LANES):
        total += M[at + lane * b.w]
    return total


@device
def column_of(b, e, c):
    """Return the column of Z that is column c of the tile; for c ≥ b.used, which has none, that of the last column."""
    return e.columns[b.first + min(c, b.used - 1)]


@device
def adjoint(e):
    """Whether the equation is the adjoint one, which has slopes S and is certified in the 1-norm."""
    return e.S.array.size > 0


@device
def copy(b, S, T, size):
    """Copy `size` numbers, a multiple of four, from S to T by 16-byte loads and stores; all threads of the block."""
    i = 4 * b.tid
    while i < size:
        store4(T.array, T.at + i, load4(S.array, S.at + i))
        i += 4 * b.threads


@device
def keep(b, e, kept, back):
    """Copy the state of the columns of a tile from shared memory to `kept`, or with `back` the other way round."""
    w, tile = b.w, b.first // b.w
    N, integers = Rows(b.N, 0), Rows(kept.integers, tile * INTEGERS * w)
    M, reals = Rows(b.M, e.places.state), Rows(kept.reals, tile * KEPT * w)
    if back:
        copy(b, integers, N, INTEGERS * w)
        copy(b, reals, M, KEPT * w)
    else:
        copy(b, N, integers, INTEGERS * w)
        copy(b, M, reals, KEPT * w)


@device
def leave(b, e, kept, running):
    """Copy the state of the tile to `kept`, and with it how many of its columns go on, at the end of a kernel."""
    keep(b, e, kept, False)
    if b.tid == 0:
        kept.running[b.first // b.w] = running


# --- the start --------------------------------------------------------------------------------------------------------


@device
def survey(b, e, V):
    """Copy X0, or 0, into the tile V (end, w), and reduce ‖x‖∞, ‖x‖₁, ‖z‖∞, ‖z‖₁ and max |s| partially.

    All threads of the block; one barrier later the partial results can be joined.
    """
    M, w, apart, X0, Z, S = b.M, b.w, LANES * b.w, e.X0, e.Z, e.S
    item = renew(b.tid)
    while item < apart:
        c, lane, a = item % w, item // w, e.places.partials + item
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
    """Set the state of column c before its first application; thread c. Return 1 if the column goes on, else 0.

    A column whose z, s or start is not finite ends here, with the status NONFINITE. DOUBT becomes 1 if the start has to
    be replaced by 0.
    """
    N, Q, q, w, j = b.N, b.M, e.places.state, b.w, column_of(b, e, c)
    x_top, z_top, slope = top_of(b, e, X_TOP, c), top_of(b, e, START_Z_TOP, c), top_of(b, e, START_SLOPE, c)
    Q[q + Z_TOP * w + c] = z_top
    Q[q + Z_NORM * w + c] = sum_of(b, e, START_Z_SIZE, c) if adjoint(e) else z_top
    Q[q + X_NORM * w + c] = sum_of(b, e, X_SIZE, c) if adjoint(e) else x_top
    Q[q + SLOPE * w + c] = slope if adjoint(e) else e.levels.lipschitz
    for k in (BEST, LOWEST, NEAREST, MARK):
        Q[q + k * w + c] = Q.dtype.type(math.inf)
    N[COUNT * w + c] = e.iterations[j]
    N[PATIENCE * w + c] = 1
    if math.isfinite(z_top) and math.isfinite(slope) and math.isfinite(x_top):
        N[CONTROL * w + c] = GOOD
        if far(b, e, c):
            N[DOUBT * w + c] = 1
            Q[q + X_NORM * w + c] = Q.dtype.type(0)
        return 1
    N[CONTROL * w + c] = BROKEN
    e.status[j] = NONFINITE
    for k in range(FIRST + 1):
        e.numbers[k * e.m + j] = Q.dtype.type(math.nan)
    return 0


@device
def contracts(b, e, c):
    """Whether g is known to be a contraction for column c, by exactly the κ of the certificate."""
    return b.M[e.places.state + SLOPE * b.w + c] <= e.levels.steepest


@device
def distance(b, e, c):
    """Return 1 − κ of column c, without cancellation."""
    s = b.M[e.places.state + SLOPE * b.w + c]
    return (b.M.dtype.type(1) - s) + s * e.levels.gap


@device
def far(b, e, c):
    """Whether 0 is nearer to the solution of column c than its start is; `Certifier.start` explains the rule."""
    Q, q, w, two = b.M, e.places.state + c, b.w, b.M.dtype.type(2)
    s, x, z = Q[q + SLOPE * w], Q[q + X_NORM * w], Q[q + Z_NORM * w]
    return contracts(b, e, c) and math.isfinite(x) and distance(b, e, c) * x > two * (s * z + e.levels.at_zero)


@device
def restart(b, e, V):
    """Replace by 0 the starts in the tile V (end, w) that are `far`, and their partial norms; all threads."""
    M, w, apart = b.M, b.w, LANES * b.w
    item = renew(b.tid)
    while item < apart:
        c, i, a = item % w, item // w, e.places.partials + item
        if b.N[DOUBT * w + c] > 0:
            M[a + X_TOP * apart] = M[a + X_SIZE * apart] = M.dtype.type(0)
            while i < e.n:
                V.array[V.at + i * w + c] = M.dtype.type(0)
                i += LANES
        item += b.threads


# --- an application of g ----------------------------------------------------------------------------------------------


@device
def entry(p, e, i, j):
    """Return s φ(p + z), entry i of g(x) for column j of Z, where p is entry i of A x; forward, s = 1."""
    value = phi(p + e.Z.array[offset(e.Z, i, j)], e.out, kind(e.code, e.codes, i))
    if adjoint(e):
        value *= e.S.array[offset(e.S, i, j)]
    return value


@device
def finish(b, e, V, P, T):
    """T = S ∘ φ(P + Z), and the partial norms of T − V and of T; all threads of the block.

    V, P and T are tiles (end, w), and T may be P.
    """
    M, w, apart = b.M, b.w, LANES * b.w
    item = renew(b.tid)
    while item < apart:
        c, lane, a = item % w, item // w, e.places.partials + TOP_STEP * apart + item
        j = column_of(b, e, c)
        step = top = change = size = M.dtype.type(0)
        i = lane
        while i < e.n:
            value = entry(P.array[P.at + i * w + c], e, i, j)
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
    """Reduce ‖x‖∞ and ‖x‖₁ of the columns of the tile V (end, w) partially; all threads of the block."""
    item = renew(b.tid)
    while item < LANES * b.w:
        a = e.places.partials + item
        b.M[a], b.M[a + LANES * b.w] = norms(V.array, V.at + item % b.w, b.w, e.n, item // b.w)
        item += b.threads


# --- the end ----------------------------------------------------------------------------------------------------------


@device
def asked(b, e, c):
    """Return the step at which column c is converged; `certificate.asked_step` defines it."""
    return e.levels.tol * min(b.M.dtype.type(1), b.M[e.places.state + Z_TOP * b.w + c])


@device
def size_of(b, e, c):
    """Return max(‖z‖∞, ‖g‖∞, ‖A‖∞‖g‖∞) of column c."""
    one = b.M.dtype.type(1)
    return max(b.M[e.places.state + Z_TOP * b.w + c], max(one, one - e.levels.gap) * top_of(b, e, G_TOP, c))


@device
def noise(b, e, c):
    """Return what rounding may add to the largest entry of column c."""
    return e.levels.rounded * size_of(b, e, c)


@device
def small(b, e, c):
    """Return the step from which on column c is judged row by row: a change that is small against the whole column."""
    if b.N[SINCE * b.w + c] >= STALE:
        return max(e.levels.root * size_of(b, e, c), e.levels.tiny)
    return noise(b, e, c)


@device
def outcome(b, e, c, step, trial):
    """Return the status of column c after an application that `rounded.judge` has judged, or GOES_ON; thread c.

    step: ‖g − x‖∞, trial: whether x is a trial point, where a step that is not finite is no failure.
    """
    if not math.isfinite(step) and not trial:
        return NONFINITE
    if math.isfinite(step) and step <= asked(b, e, c):
        return CONVERGED
    if b.N[DOUBT * b.w + c] > 0:
        return PRECISION_LIMIT
    if b.N[COUNT * b.w + c] < e.max_iter:
        return GOES_ON
    return PRECISION_LIMIT if step < e.levels.tiny else MAX_ITER


@device
def hold(b, e, c):
    """Join the partial norms of x, the argument of the last application, and store the result as X_NORM; thread c."""
    size, top = sum_of(b, e, X_SIZE, c), top_of(b, e, X_TOP, c)
    b.M[e.places.state + X_NORM * b.w + c] = size if adjoint(e) else top


@device
def close(b, e, c, ended, step, top):
    """Record how column c ended: its status, its iterations, and the norms that its certificate needs; thread c.

    The answer is g(x). Where g is no contraction, it may enlarge the error of x, so that x is the answer.
    """
    j, m, numbers, known = column_of(b, e, c), e.m, e.numbers, e.places.state + c
    answer = ENDED if contracts(b, e, c) else HELD
    b.N[CONTROL * b.w + c] = BROKEN if ended == NONFINITE else answer
    e.status[j], e.iterations[j] = ended, b.N[COUNT * b.w + c]
    numbers[STEP * m + j], numbers[CHANGE * m + j] = step, sum_of(b, e, SUM_STEP, c) if adjoint(e) else step
    numbers[X * m + j], numbers[Z * m + j] = b.M[known + X_NORM * b.w], b.M[known + Z_NORM * b.w]
    numbers[G * m + j] = sum_of(b, e, G_SIZE, c) if adjoint(e) else top
    numbers[LIPSCHITZ * m + j] = b.M[known + SLOPE * b.w]


@device
def overflowed(b, e, c, ended):
    """Whether the iteration made column c NONFINITE, not what is given, and another method may still solve it."""
    return ended == NONFINITE and b.N[COUNT * b.w + c] < e.max_iter and e.levels.steepest >= b.M.dtype.type(0)


@device
def depart(b, e, c, step, top):
    """Close column c, with which another method continues, from the answer, or from its start if `step` is longer now.

    For a trial point x that is not good, the caller then sets CONTROL.
    """
    close(b, e, c, SLOW, step, top)
    if not step <= e.numbers[FIRST * e.m + column_of(b, e, c)]:
        b.N[CONTROL * b.w + c] = BACK


@device
def close_substitute(b, e, c):
    """End column c after substitution; thread c. The answer is exact up to rounding, which the step measures.

    It is g(x), whatever the norm of A is, because x was computed from the same entries.
    """
    step, top = top_of(b, e, TOP_STEP, c), top_of(b, e, G_TOP, c)
    ended = CONVERGED if step <= asked(b, e, c) else PRECISION_LIMIT
    if not math.isfinite(step):
        ended = NONFINITE
    b.N[COUNT * b.w + c] = 1
    hold(b, e, c)
    close(b, e, c, ended, step, top)
    if ended != NONFINITE:
        b.N[CONTROL * b.w + c] = ENDED


@device
def deliver(b, e, V, P):
    """Copy the answers of the columns that have just ended from the tiles V or P (end, w) to `Task.out`; all threads.

    V holds the points x and P their images g(x). A column that is BROKEN gets NaN. `Task.out` also keeps the earlier
    iterates of the columns that are NOTED. `Task.F` gets g(x) − x where the answer is g(x), and NaN elsewhere. The
    threads read CONTROL, so a barrier must follow before it changes.
    """
    m, w = e.m, b.w
    item = renew(b.tid)
    while item < LANES * w:
        c, i = item % w, item // w
        control = b.N[CONTROL * w + c]
        if c < b.used and (LEFT < control < GOOD or control == NOTED):
            j = e.columns[b.first + c]
            while i < e.n:
                value = V.array[V.at + i * w + c] if control == HELD else P.array[P.at + i * w + c]
                if control == BACK:
                    value = e.X0.array[offset(e.X0, i, j)] if i < e.X0.shape[0] else b.M.dtype.type(0)
                e.out[i * m + j] = b.M.dtype.type(math.nan) if control == BROKEN else value
                if renew(e.F.size) > 0:
                    change = value - V.array[V.at + i * w + c]
                    e.F[i * m + j] = change if control == ENDED else b.M.dtype.type(math.nan)
                i += LANES
        item += b.threads
