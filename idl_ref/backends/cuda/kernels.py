"""The kernels of the CUDA twin: solvers of a tile of columns per block, and their parts for what is too large for that.

Threads wait for each other here and in the kernels of Newton, and nowhere else. `plans.places` is the map of the
shared memory of a block.
"""

from __future__ import annotations

from functools import cache

from numba.core.types import int32

from idl_ref.backends.cuda import plans
from idl_ref.backends.cuda.api import cuda, device, kernel, load4, renew, store4
from idl_ref.backends.cuda.columns import join_slices, offset, sweep, sweep_slices
from idl_ref.backends.cuda.plans import INTEGERS, KEPT, LANES, REALS, WIDE, Rows, Team
from idl_ref.backends.cuda.states import (
    CONTROL,
    GOOD,
    begin,
    block_of,
    close_substitute,
    column_of,
    deliver,
    entry,
    finish,
    measure,
    sum_of,
    survey,
)
from idl_ref.backends.cuda.trials import (
    HISTORY,
    compare,
    extrapolate,
    move,
    remember,
    settle_guarded,
    settle_picard,
)

SHARED, STREAMED, LOW_RANK = range(3)
KINDS = {"shared": SHARED, "streamed": STREAMED, "low_rank": LOW_RANK}
BLOCK = 128  # rows of a block of `apply`
filled = device(plans.filled)


# --- parts ------------------------------------------------------------------------------------------------------------


@device
def here(e, w):
    """The block of a thread, whose tile has the number of the block."""
    M, N = cuda.shared.array(0, e.out.dtype), cuda.shared.array(0, int32)
    return block_of(N, M, e, w, cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x)


@device
def copy(b, S, T, size):
    """T = S, four numbers at a time"""
    i = 4 * b.tid
    while i < size:
        store4(T.array, T.at + i, load4(S.array, S.at + i))
        i += 4 * b.threads


@device
def start(b, e, V):
    """Look at the columns, bring in where they start, hand out what is not finite; how many go on."""
    survey(b, e, V)
    cuda.syncthreads()
    goes_on = 0
    if b.tid < b.w:  # also columns that are not there
        for k in range(INTEGERS):
            b.N[k * b.w + b.tid] = 0
        for k in range(REALS):
            b.M[e.places.state + k * b.w + b.tid] = b.M.dtype.type(0)
    if b.tid < b.used:
        goes_on = begin(b, e, b.tid)
    running = cuda.syncthreads_count(goes_on)
    deliver(b, e, V)
    return running


@device
def narrow(b, e, F2):
    """T = Rᵀ X, by way of its slices behind it."""
    height, T = e.narrow, Rows(b.M, e.places.t)
    slices = Rows(b.M, e.places.t + height * b.w)
    sweep_slices(b, F2, height, e.end, Rows(b.M, e.places.x), slices)
    cuda.syncthreads()
    join_slices(b, slices, height * b.w, T)
    cuda.syncthreads()


@device
def image(b, e, kind, F1, first, last):
    """P = A X, or L T, for the rows first … last."""
    X, P, end = Rows(b.M, e.places.x), Rows(b.M, e.places.p), e.end
    if kind == SHARED:
        sweep(b, Rows(b.M, e.places.f), end, end, X, P, first, last)
    elif kind == STREAMED:
        sweep(b, Rows(F1, 0), end, end, X, P, first, last)
    else:
        sweep(b, Rows(F1, 0), end, e.narrow, Rows(b.M, e.places.t), P, first, last)


@device
def close_picard(b, e, V):
    """Close the columns that are done and hand out their answers, which stand in V; how many columns go on."""
    goes_on, c = 0, renew(b.tid)
    if c < b.used:
        goes_on = settle_picard(b, e, c)
    running = cuda.syncthreads_count(goes_on)
    deliver(b, e, V)
    return running


@device
def close_guarded(b, e, V, P, H):
    """The same for trial points, whose images stand in P, and the next points into V."""
    goes_on, c = 0, renew(b.tid)
    if c < b.used:
        goes_on = settle_guarded(b, e, c)
    running = cuda.syncthreads_count(goes_on)
    deliver(b, e, P)
    remember(b, e, V, P, H)
    cuda.syncthreads()
    compare(b, e, H)
    cuda.syncthreads()
    c = renew(b.tid)
    if c < b.used and b.N[CONTROL * b.w + c] >= GOOD:
        extrapolate(b, e, c)
    cuda.syncthreads()
    move(b, e, V, P, H)
    cuda.syncthreads()
    return running


# --- a tile per block, to the end -------------------------------------------------------------------------------------
# The width of a tile is known when a kernel is compiled: offsets become part of the instructions, not of the registers.


@cache
def picard(name, w):
    """The kernel x ← g(x) for a tile, each column until it is done, or was slow for `slow_steps` steps in a row."""
    kind = KINDS[name]

    def solve(F1, F2, e):
        b, n, end = here(e, w), e.n, e.end
        X, P = Rows(b.M, e.places.x), Rows(b.M, e.places.p)
        block = b.threads // (w // 4) * 8 if kind == LOW_RANK else end
        if kind == SHARED:
            copy(b, Rows(F1, 0), Rows(b.M, e.places.f), end * end)
        running = start(b, e, X)
        while running > 0:
            if kind == LOW_RANK:
                narrow(b, e, F2)
            row = 0
            while row < end:
                last = min(row + block, end)
                image(b, e, kind, F1, row, last)
                cuda.syncthreads()
                finish(b, e, X, P, X, row, min(last, n))
                cuda.syncthreads()
                row += block
            running = close_picard(b, e, X)

    solve.__name__ = solve.__qualname__ = f"picard_{name}_{w}"
    return kernel(solve)


@cache
def guarded(name, w):
    """The kernel of Anderson's trial points, kept only if they help: `safeguarded` in the NumPy twin."""
    kind = KINDS[name]

    def solve(F1, F2, H, e):
        b, n, end = here(e, w), e.n, e.end
        X, P = Rows(b.M, e.places.x), Rows(b.M, e.places.p)
        if kind == SHARED:
            copy(b, Rows(F1, 0), Rows(b.M, e.places.f), end * end)
        running = start(b, e, X)
        while running > 0:
            b = here(e, w)
            if kind == LOW_RANK:
                narrow(b, e, F2)
            image(b, e, kind, F1, 0, end)
            cuda.syncthreads()
            b = here(e, w)
            finish(b, e, X, P, P, 0, n)
            cuda.syncthreads()
            running = close_guarded(b, e, X, P, Rows(H, cuda.blockIdx.x * HISTORY * end * w))

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
        first, team = part * BLOCK, Team(cuda.threadIdx.x, cuda.blockDim.x, WIDE)
        here, there = Rows(X, tile * inner * WIDE), Rows(P, (tile * rows + first) * WIDE)
        sweep(team, Rows(F, 0), rows, inner, here, there, first, min(first + BLOCK, rows))


@device
def keep(b, e, kept, back):
    """What is known of the columns of a tile, out of shared memory, or back into it."""
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
    """Keep what is known, and tell how many columns go on."""
    keep(b, e, kept, False)
    if b.tid == 0:
        kept.running[b.first // b.w] = running


@kernel
def open_tiles(X, e, kept):
    """The start of every tile."""
    b = here(e, WIDE)
    running = start(b, e, Rows(X, cuda.blockIdx.x * e.end * WIDE))
    cuda.syncthreads()
    leave(b, e, kept, running)


@kernel
def step_picard(X, P, e, kept):
    """What follows on P = A X in one step of Picard, for the tile of a block."""
    b, at = here(e, WIDE), cuda.blockIdx.x * e.end * WIDE
    if kept.running[cuda.blockIdx.x] > 0:
        keep(b, e, kept, True)
        finish(b, e, Rows(X, at), Rows(P, at), Rows(X, at), 0, e.n)
        cuda.syncthreads()
        leave(b, e, kept, close_picard(b, e, Rows(X, at)))


@kernel
def step_guarded(X, P, H, e, kept):
    """What follows on P = A X in one step of Anderson."""
    b, at = here(e, WIDE), cuda.blockIdx.x * e.end * WIDE
    if kept.running[cuda.blockIdx.x] > 0:
        keep(b, e, kept, True)
        finish(b, e, Rows(X, at), Rows(P, at), Rows(P, at), 0, e.n)
        cuda.syncthreads()
        running = close_guarded(b, e, Rows(X, at), Rows(P, at), Rows(H, HISTORY * at))
        leave(b, e, kept, running)


# --- strictly triangular A --------------------------------------------------------------------------------------------


@kernel
def substitute(F1, X, P, upper, e):
    """One sweep, row by row: x_i = s_i φ(Σ_k A_ik x_k + z_i) needs what is known already. The answer is g(x).

    upper: 1 for an upper triangle. X and P hold the tiles.
    """
    b, n, w, end = here(e, WIDE), e.n, WIDE, e.end
    x = cuda.blockIdx.x * end * w
    start(b, e, Rows(X, x))
    for turn in range(n):
        i = n - 1 - turn if upper > 0 else turn
        low, high = (i + 1, n) if upper > 0 else (0, i)
        item = b.tid
        while item < LANES * w:
            c, lane = item % w, item // w
            total = b.M.dtype.type(0)
            k = low + lane
            while k < high:
                total += F1[k * end + i] * X[x + k * w + c]
                k += LANES
            b.M[e.places.shares + item] = total
            item += b.threads
        cuda.syncthreads()
        if b.tid < b.used:
            p = sum_of(b, e, 0, b.tid)
            X[x + i * w + b.tid] = entry(p, e, i, column_of(b, e, b.tid))
        cuda.syncthreads()
    sweep(b, Rows(F1, 0), end, end, Rows(X, x), Rows(P, x), 0, end)
    cuda.syncthreads()
    finish(b, e, Rows(X, x), Rows(P, x), Rows(P, x), 0, n)
    measure(b, e, Rows(X, x))
    cuda.syncthreads()
    if b.tid < b.used and b.N[CONTROL * w + b.tid] == GOOD:
        close_substitute(b, e, b.tid)
    cuda.syncthreads()
    deliver(b, e, Rows(P, x))


# --- factors ----------------------------------------------------------------------------------------------------------


@kernel
def pack(F, packed):
    """packed[k, i] = F[i, k], filled up with zeros."""
    rows, columns = F.shape
    height, width = filled(rows), filled(columns)
    e = cuda.grid(1)
    while e < height * width:
        i, k = e % height, e // height
        packed[e] = F.array[offset(F, i, k)] if i < rows and k < columns else packed.dtype.type(0)
        e += cuda.gridsize(1)


@kernel
def row_sums(F, weights, sums, sides):
    """sums_i = Σ_k |F_ik| weights_k; sides_i = 1 if row i has an entry on or above the diagonal, + 2 if on or below."""
    rows, columns = F.shape
    i = cuda.grid(1)
    if i < rows:
        total = sums.dtype.type(0)
        above = below = 0
        for k in range(columns):
            value = F.array[offset(F, i, k)]
            total += abs(value) * (weights[k] if weights.size > 0 else sums.dtype.type(1))
            if value != sums.dtype.type(0):
                above, below = (1 if k >= i else above), (2 if k <= i else below)
        sums[i], sides[i] = total, above + below
