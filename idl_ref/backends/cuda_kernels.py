"""The kernels of the CUDA twin: solvers of a tile of columns per block, and their parts for what is too large for that.

Threads wait for each other here and nowhere else. `places` says where things begin in the shared memory of a block, M
for reals and N for integers, which are in front; `cuda_plans` draws that map.
"""

from __future__ import annotations

from functools import cache

from numba.core import types

from idl_ref.backends import cuda_columns as col
from idl_ref.backends import cuda_states as states
from idl_ref.backends import cuda_trials as trials
from idl_ref.backends.cuda_api import cuda, device, kernel, load4, renew, store4
from idl_ref.backends.cuda_plans import INTEGERS, LANES, REALS, WIDE

SHARED, STREAMED, LOW_RANK = range(3)
KINDS = {"shared": SHARED, "streamed": STREAMED, "low_rank": LOW_RANK}
int32 = types.int32
begin, survey, finish, deliver = states.begin, states.survey, states.finish, states.deliver
BLOCK = 128  # rows of a block of `apply`

filled, sweep = col.filled, col.sweep
sweep_slices, join_slices = col.sweep_slices, col.join_slices
settle_picard, settle_guarded = trials.settle_picard, trials.settle_guarded
remember, compare, extrapolate, move = trials.remember, trials.compare, trials.extrapolate, trials.move


# --- parts ------------------------------------------------------------------------------------------------------------


@device
def copy(source, M, f, size, tid, threads):
    """M[f:] = source, four numbers at a time"""
    i = 4 * tid
    while i < size:
        store4(M, f + i, load4(source, i))
        i += 4 * threads


@device
def narrow(F2, r, end, M, x, w, t, tid, threads):
    """T = Rᵀ X at t, by way of its slices behind it."""
    size = filled(r) * w
    sweep_slices(F2, filled(r), end, M, x, w, M, t + size, tid, threads)
    cuda.syncthreads()
    join_slices(M, t + size, size, t, tid, threads)
    cuda.syncthreads()


@device
def start(N, M, places, sizes, w, lipschitz, Z, S, X0, index, where, V, x, out, status, iterations, numbers):
    """Bring in the start, look at the columns, hand out what is not finite; how many columns go on."""
    n, m = sizes[0], sizes[3]
    tid, threads, first = cuda.threadIdx.x, cuda.blockDim.x, cuda.blockIdx.x * w
    count = min(w, index.size - first)
    survey(V, x, w, first, count, Z, S, X0, index, where, n, filled(n), M, places[1], tid, threads)
    cuda.syncthreads()
    goes_on = 0
    if tid < w:  # also columns that are not there
        for k in range(INTEGERS):
            N[k * w + tid] = 0
        for k in range(REALS):
            M[places[0] + k * w + tid] = M.dtype.type(0)
    if tid < count:
        adjoint, j = S.size > 0, index[first + tid]
        goes_on = begin(
            N, M, places[0], tid, w, M, places[1], adjoint, lipschitz, j, m, status, iterations, numbers
        )  # fmt: skip
    running = cuda.syncthreads_count(goes_on)
    deliver(N, V, x, w, first, count, index, n, m, out, tid, threads)
    return running


@device
def close_picard(N, M, places, sizes, w, levels, V, x, S, index, out, status, iterations, numbers):
    """Close the columns that are done and hand out their answers, which stand in V; how many columns go on."""
    n, m = sizes[0], sizes[3]
    tid, threads, first = cuda.threadIdx.x, cuda.blockDim.x, cuda.blockIdx.x * w
    count = min(w, index.size - first)
    goes_on, tid = 0, renew(tid)
    if tid < count:
        j, limits = index[first + tid], (sizes[5], sizes[6])
        goes_on = settle_picard(
            N, M, places[0], tid, w, M, places[1], S.size > 0, levels, limits, j, m, status, iterations, numbers
        )
    running = cuda.syncthreads_count(goes_on)
    deliver(N, V, x, w, first, count, index, n, m, out, tid, threads)
    return running


@device
def close_guarded(N, M, places, sizes, w, levels, V, x, P, p, H, S, index, out, status, iterations, numbers):
    """The same for trial points, whose images stand in P, and the next points into V."""
    n, m = sizes[0], sizes[3]
    tid, threads, first = cuda.threadIdx.x, cuda.blockDim.x, renew(cuda.blockIdx.x) * w
    count, end, q, shares = min(w, index.size - first), filled(n), places[0], places[1]
    h = renew(cuda.blockIdx.x) * trials.HISTORY * end * w
    goes_on, tid = 0, renew(tid)
    if tid < count:
        j, limits = index[first + tid], (sizes[5], sizes[6])
        goes_on = settle_guarded(
            N, M, q, tid, w, M, shares, S.size > 0, levels, limits, j, m, status, iterations, numbers
        )  # fmt: skip
    running = cuda.syncthreads_count(goes_on)
    deliver(N, P, p, w, first, count, index, n, m, out, tid, threads)
    remember(N, V, x, P, p, H, h, n, w, M, shares, tid, threads)
    cuda.syncthreads()
    compare(N, H, h, n, w, M, shares, tid, threads)
    cuda.syncthreads()
    tid = renew(tid)
    if tid < count and N[states.CONTROL * w + tid] >= states.GOOD:
        extrapolate(N, M, q, tid, w, M, shares, levels[2], sizes[5])
    cuda.syncthreads()
    move(N, M, q, V, x, P, p, H, h, n, w, M, shares, tid, threads)
    cuda.syncthreads()
    return running


# --- a tile per block, to the end -------------------------------------------------------------------------------------
# The width of a tile is known when a kernel is compiled: offsets become part of the instructions, not of the registers.


@cache
def picard(name, w):
    """The kernel x ← g(x) for a tile, each column until it is done, or was slow for `slow_steps` steps in a row."""
    kind = KINDS[name]

    def solve(F1, F2, Z, S, X0, index, sizes, where, places, levels, out, status, iterations, numbers):
        """sizes: n, r, w, m, activation, max_iter, slow_steps.   levels: tol, slow, eps, Lip(φ)"""
        M, N = cuda.shared.array(0, F1.dtype), cuda.shared.array(0, int32)
        tid, threads = cuda.threadIdx.x, cuda.blockDim.x
        n, r, code = sizes[0], sizes[1], sizes[4]
        shares, x, p, t, f = places[1], places[2], places[3], places[4], places[5]
        first, end = cuda.blockIdx.x * w, filled(n)
        count, block = min(w, index.size - first), threads // (w // 4) * 8 if kind == LOW_RANK else end
        if kind == SHARED:
            copy(F1, M, f, end * end, tid, threads)
        running = start(
            N, M, places, sizes, w, levels[3], Z, S, X0, index, where, M, x, out, status, iterations, numbers
        )
        while running > 0:
            if kind == LOW_RANK:
                narrow(F2, r, end, M, x, w, t, tid, threads)
            row = 0
            while row < end:
                last = min(row + block, end)
                if kind == SHARED:
                    sweep(M, f, end, end, M, x, w, M, p, row, last, tid, threads)
                elif kind == STREAMED:
                    sweep(F1, 0, end, end, M, x, w, M, p, row, last, tid, threads)
                else:
                    sweep(F1, 0, end, filled(r), M, t, w, M, p, row, last, tid, threads)
                cuda.syncthreads()
                finish(
                    M, x, M, p, M, x, row, min(last, n), w, first, count, Z, S, index, where, code, M, shares, tid,
                    threads,
                )  # fmt: skip
                cuda.syncthreads()
                row += block
            running = close_picard(N, M, places, sizes, w, levels, M, x, S, index, out, status, iterations, numbers)

    solve.__name__ = solve.__qualname__ = f"picard_{name}_{w}"
    return kernel(solve)


@cache
def guarded(name, w):
    """The kernel of Anderson's trial points, kept only if they help: `safeguarded` in the NumPy twin."""
    kind = KINDS[name]

    def solve(F1, F2, Z, S, X0, index, sizes, where, places, levels, H, out, status, iterations, numbers):
        """sizes and levels as for `picard`, with `decrease` in the place of `slow`."""
        M, N = cuda.shared.array(0, F1.dtype), cuda.shared.array(0, int32)
        tid, threads = cuda.threadIdx.x, cuda.blockDim.x
        n, r, code = sizes[0], sizes[1], sizes[4]
        shares, x, p, t, f = places[1], places[2], places[3], places[4], places[5]
        end = filled(n)
        if kind == SHARED:
            copy(F1, M, f, end * end, tid, threads)
        running = start(
            N, M, places, sizes, w, levels[3], Z, S, X0, index, where, M, x, out, status, iterations, numbers
        )
        while running > 0:
            if kind == SHARED:
                sweep(M, f, end, end, M, x, w, M, p, 0, end, tid, threads)
            elif kind == STREAMED:
                sweep(F1, 0, end, end, M, x, w, M, p, 0, end, tid, threads)
            else:
                narrow(F2, r, end, M, x, w, t, tid, threads)
                sweep(F1, 0, end, filled(r), M, t, w, M, p, 0, end, tid, threads)
            cuda.syncthreads()
            first = renew(cuda.blockIdx.x) * w
            count = min(w, index.size - first)
            finish(M, x, M, p, M, p, 0, n, w, first, count, Z, S, index, where, code, M, shares, tid, threads)
            cuda.syncthreads()
            running = close_guarded(
                N, M, places, sizes, w, levels, M, x, M, p, H, S, index, out, status, iterations, numbers
            )

    solve.__name__ = solve.__qualname__ = f"guarded_{name}_{w}"
    return kernel(solve)


# --- a step per launch, for what is too large for that ----------------------------------------------------------------
# Tiles stand one after the other in global memory, X (end, w) and P (end, w); what is known of columns in between, too.


@kernel
def apply(F, X, P, sizes, running):
    """P = F X for the rows of a block and one tile. sizes: rows, inner, row blocks."""
    rows, inner, blocks = sizes
    tile, part = cuda.blockIdx.x // blocks, cuda.blockIdx.x % blocks
    if running[tile] > 0:
        first = part * BLOCK
        last = min(first + BLOCK, rows)
        x, p = tile * inner * WIDE, (tile * rows + first) * WIDE
        sweep(F, 0, rows, inner, X, x, WIDE, P, p, first, last, cuda.threadIdx.x, cuda.blockDim.x)


@device
def keep(N, M, q, w, kept_N, kept_Q, back):
    """What is known of the columns of a tile, out of shared memory, or back into it."""
    i, b = cuda.threadIdx.x, cuda.blockIdx.x
    while i < REALS * w:
        if back:
            M[q + i] = kept_Q[b * REALS * w + i]
        else:
            kept_Q[b * REALS * w + i] = M[q + i]
        if i < INTEGERS * w:
            if back:
                N[i] = kept_N[b * INTEGERS * w + i]
            else:
                kept_N[b * INTEGERS * w + i] = N[i]
        i += cuda.blockDim.x


@kernel
def open_tiles(X, Z, S, X0, index, sizes, where, places, levels, kept, out, status, iterations, numbers):
    """The start of every tile. kept: integers, reals, shares of ‖x‖, and how many columns of a tile go on."""
    M, N = cuda.shared.array(0, X.dtype), cuda.shared.array(0, int32)
    w, q = WIDE, places[0]
    x = cuda.blockIdx.x * filled(sizes[0]) * w
    count = start(N, M, places, sizes, w, levels[3], Z, S, X0, index, where, X, x, out, status, iterations, numbers)
    cuda.syncthreads()
    keep(N, M, q, w, kept[0], kept[1], False)
    keep_shares(M, places[1], w, kept[2], False)
    if cuda.threadIdx.x == 0:
        kept[3][cuda.blockIdx.x] = count


@device
def keep_shares(M, shares, w, kept, back):
    """The shares of ‖x‖∞ and ‖x‖₁, likewise."""
    i, b, size = cuda.threadIdx.x, cuda.blockIdx.x, 2 * LANES * w
    at = shares + states.X_TOP * LANES * w
    while i < size:
        if back:
            M[at + i] = kept[b * size + i]
        else:
            kept[b * size + i] = M[at + i]
        i += cuda.blockDim.x


@kernel
def step_picard(X, P, Z, S, index, sizes, where, places, levels, kept, out, status, iterations, numbers):
    """What follows on P = A X in one step of Picard, for the tile of a block."""
    M, N = cuda.shared.array(0, X.dtype), cuda.shared.array(0, int32)
    tid, threads, b = cuda.threadIdx.x, cuda.blockDim.x, cuda.blockIdx.x
    n, w, code, q = sizes[0], WIDE, sizes[4], places[0]
    first, x = b * w, b * filled(n) * w
    if kept[3][b] > 0:
        keep(N, M, q, w, kept[0], kept[1], True)
        count = min(w, index.size - first)
        finish(X, x, P, x, X, x, 0, n, w, first, count, Z, S, index, where, code, M, places[1], tid, threads)
        cuda.syncthreads()
        running = close_picard(N, M, places, sizes, w, levels, X, x, S, index, out, status, iterations, numbers)
        keep(N, M, q, w, kept[0], kept[1], False)
        if tid == 0:
            kept[3][b] = running


@kernel
def step_guarded(X, P, Z, S, index, sizes, where, places, levels, kept, H, out, status, iterations, numbers):
    """What follows on P = A X in one step of Anderson."""
    M, N = cuda.shared.array(0, X.dtype), cuda.shared.array(0, int32)
    tid, threads, b = cuda.threadIdx.x, cuda.blockDim.x, cuda.blockIdx.x
    n, w, code, q = sizes[0], WIDE, sizes[4], places[0]
    first, x = b * w, b * filled(n) * w
    if kept[3][b] > 0:
        keep(N, M, q, w, kept[0], kept[1], True)
        keep_shares(M, places[1], w, kept[2], True)
        count = min(w, index.size - first)
        finish(X, x, P, x, P, x, 0, n, w, first, count, Z, S, index, where, code, M, places[1], tid, threads)
        cuda.syncthreads()
        running = close_guarded(
            N, M, places, sizes, w, levels, X, x, P, x, H, S, index, out, status, iterations, numbers
        )  # fmt: skip
        keep(N, M, q, w, kept[0], kept[1], False)
        keep_shares(M, places[1], w, kept[2], False)
        if tid == 0:
            kept[3][b] = running


# --- strictly triangular A --------------------------------------------------------------------------------------------


@kernel
def substitute(F1, Z, S, index, sizes, where, places, levels, X, out, status, iterations, numbers):
    """One sweep, row by row: x_i = s_i φ(Σ_k A_ik x_k + z_i) needs what is known already. The answer is g(x).

    sizes: n, 1 for an upper triangle, w, m, activation. X holds the tiles.
    """
    M, N = cuda.shared.array(0, X.dtype), cuda.shared.array(0, int32)
    tid, threads = cuda.threadIdx.x, cuda.blockDim.x
    n, upper, w, m, code = sizes[0], sizes[1], WIDE, sizes[3], sizes[4]
    first, end, shares, apart = cuda.blockIdx.x * w, filled(n), places[1], LANES * w
    count, x = min(w, index.size - first), cuda.blockIdx.x * 2 * filled(n) * w
    p = x + end * w
    start(N, M, places, sizes, w, levels[3], Z, S, X[:0], index, where, X, x, out, status, iterations, numbers)
    for turn in range(n):
        i = n - 1 - turn if upper > 0 else turn
        low, high = (i + 1, n) if upper > 0 else (0, i)
        item = tid
        while item < LANES * w:
            c, lane = item % w, item // w
            total = M.dtype.type(0)
            k = low + lane
            while k < high:
                total += F1[k * end + i] * X[x + k * w + c]
                k += LANES
            M[shares + item] = total
            item += threads
        cuda.syncthreads()
        if tid < count:
            X[p + i * w + tid] = col.total(M, shares + tid, w)
            X[x + i * w + tid] = states.entry(X, p + i * w + tid, Z, S, where, i, index[first + tid], code)
        cuda.syncthreads()
    sweep(F1, 0, end, end, X, x, w, X, p, 0, end, tid, threads)
    cuda.syncthreads()
    finish(X, x, X, p, X, p, 0, n, w, first, count, Z, S, index, where, code, M, shares, tid, threads)
    item = tid
    while item < LANES * w:
        M[shares + 4 * apart + item], M[shares + 5 * apart + item] = col.norms(X, x + item % w, w, n, item // w)
        item += threads
    cuda.syncthreads()
    if tid < count and N[states.CONTROL * w + tid] == states.GOOD:
        close_substitute(N, M, places, w, tid, S.size > 0, levels, index[first + tid], m, status, iterations, numbers)
    cuda.syncthreads()
    deliver(N, X, p, w, first, count, index, n, m, out, tid, threads)


@device
def close_substitute(N, M, places, w, c, adjoint, levels, j, m, status, iterations, numbers):
    """Exact but for rounding, which is all that the step can show."""
    q, a, apart = places[0], places[1] + c, LANES * w
    step, top = col.largest(M, a, w), col.largest(M, a + apart, w)
    change = col.total(M, a + 2 * apart, w) if adjoint else step
    size = col.total(M, a + 3 * apart, w) if adjoint else top
    x_size, x_top = col.total(M, a + 5 * apart, w), col.largest(M, a + 4 * apart, w)
    M[q + states.X_NORM * w + c] = x_size if adjoint else x_top
    ended = states.CONVERGED if step <= levels[0] else states.PRECISION_LIMIT
    if not col.finite(step):
        ended = states.NONFINITE
    N[states.CONTROL * w + c] = states.BROKEN if ended == states.NONFINITE else states.ENDED
    states.record(M, q, c, w, ended, 1, step, change, size, j, m, status, iterations, numbers)


# --- factors ----------------------------------------------------------------------------------------------------------


@kernel
def pack(F, sizes, packed):
    """packed[k, i] = F[i, k], filled up with zeros. sizes: rows, columns, and how far apart they are in F."""
    rows, columns, down, right = sizes
    height, width = filled(rows), filled(columns)
    e = cuda.grid(1)
    while e < height * width:
        i, k = e % height, e // height
        packed[e] = F[i * down + k * right] if i < rows and k < columns else packed.dtype.type(0)
        e += cuda.gridsize(1)


@kernel
def row_sums(F, sizes, weights, sums, upper, lower):
    """sums_i = Σ_k |F_ik| weights_k, and whether row i has entries on or above, and on or below, the diagonal."""
    rows, columns, down, right = sizes
    i = cuda.grid(1)
    if i < rows:
        total = sums.dtype.type(0)
        above = below = 0
        for k in range(columns):
            value = F[i * down + k * right]
            total += abs(value) * (weights[k] if weights.size > 0 else sums.dtype.type(1))
            if value != sums.dtype.type(0):
                above, below = (1 if k >= i else above), (1 if k <= i else below)
        sums[i], upper[i], lower[i] = total, above, below
