"""The kernels of the CUDA twin: solvers that keep a tile in shared memory, and others that take one step per launch.

Each block of threads works on one tile of w columns. All barriers between the threads of a block are here and in
`newton`; between two barriers, no thread reads shared memory that another thread writes. `plans.places` lays out the
shared memory of a block. In every function, b is the `Block` of the calling thread and e the `Task`.
"""

from __future__ import annotations

from functools import cache

from numba.core.types import int32

from idl_ref.backends.cuda import plans
from idl_ref.backends.cuda.api import cuda, device, kernel, load4, renew, store4
from idl_ref.backends.cuda.columns import join_slices, offset, sweep, sweep_slices
from idl_ref.backends.cuda.plans import APPLY_ROWS, INTEGERS, KEPT, LANES, REALS, WIDE, Rows, Team
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
KINDS = {"shared": SHARED, "streamed": STREAMED, "low_rank": LOW_RANK}  # by the names in plans.TABLE
filled = device(plans.filled)


# --- parts ------------------------------------------------------------------------------------------------------------


@device
def here(e, w):
    """Return the `Block` of the calling thread, for tiles of w columns: block number t works on tile number t."""
    M, N = cuda.shared.array(0, e.out.dtype), cuda.shared.array(0, int32)
    return block_of(N, M, e, w, cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x)


@device
def copy(b, S, T, size):
    """Copy `size` numbers, a multiple of four, from S to T by 16-byte loads and stores; all threads of the block."""
    i = 4 * b.tid
    while i < size:
        store4(T.array, T.at + i, load4(S.array, S.at + i))
        i += 4 * b.threads


@device
def start(b, e, V):
    """Copy the start into the tile V (end, w) and set the state of its columns. Return how many columns go on.

    Columns with an input that is not finite end here and get their answer, NaN.
    """
    survey(b, e, V)
    cuda.syncthreads()
    goes_on = 0
    if b.tid < b.w:  # also for c ≥ b.used, where the last tile has no columns: their state is read, too
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
    """T = Rᵀ X (narrow, w) in shared memory, from its SLICES partial sums, which are stored behind T."""
    height, T = e.narrow, Rows(b.M, e.places.t)
    slices = Rows(b.M, e.places.t + height * b.w)
    sweep_slices(b, F2, height, e.end, Rows(b.M, e.places.x), slices)
    cuda.syncthreads()
    join_slices(b, slices, height * b.w, T)
    cuda.syncthreads()


@device
def image(b, e, kind, F1, first, last):
    """P = A X, or L T with T = Rᵀ X, for the rows first ≤ i < last. A is read from shared memory or from F1."""
    X, P, end = Rows(b.M, e.places.x), Rows(b.M, e.places.p), e.end
    if kind == SHARED:
        sweep(b, Rows(b.M, e.places.f), end, end, X, P, first, last)
    elif kind == STREAMED:
        sweep(b, Rows(F1, 0), end, end, X, P, first, last)
    else:
        sweep(b, Rows(F1, 0), end, e.narrow, Rows(b.M, e.places.t), P, first, last)


@device
def close_picard(b, e, V):
    """Close the columns that are done, and deliver their answers from V (end, w). Return how many columns go on."""
    goes_on, c = 0, renew(b.tid)
    if c < b.used:
        goes_on = settle_picard(b, e, c)
    running = cuda.syncthreads_count(goes_on)
    deliver(b, e, V)
    return running


@device
def close_guarded(b, e, V, P, H):
    """Close the columns that are done, and compute the next points of the others. Return how many columns go on.

    V (end, w) holds the points x, and receives the next ones; P (end, w) holds g(x); H is the history of the tile.
    """
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


# --- solvers: one launch, in which each block iterates until all columns of its tile are done -------------------------
# The width w of a tile is a compile-time constant: address offsets are immediate operands, which need no registers.


@cache
def picard(name, w):
    """Return the kernel of Picard, x ← g(x), of the kind `name` for tiles of w columns.

    Each column iterates until it is done, or was slow for `slow_steps` steps in a row. F1 and F2: the packed factors.
    """
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
    """Return the kernel of Anderson of the kind `name` for tiles of w columns.

    `solve.safeguarded` of the NumPy twin defines the iteration. F1 and F2: the packed factors. H: the histories of all
    tiles, (tiles, end, HISTORY, w).
    """
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


# --- one step per launch, for tiles that do not fit into shared memory ------------------------------------------------
# X and P hold all tiles in global memory, (tiles, end, WIDE). The state of the columns is also there between launches.


@kernel
def apply(F, X, P, sizes, running):
    """P = F X: each block computes APPLY_ROWS rows for one tile, unless all columns of the tile are done.

    F is packed (rows, inner), X (tiles, inner, WIDE), P (tiles, rows, WIDE); sizes: rows, inner, and how many blocks
    share a tile.
    """
    rows, inner, blocks = sizes
    tile, part = cuda.blockIdx.x // blocks, cuda.blockIdx.x % blocks
    if running[tile] > 0:
        first, team = part * APPLY_ROWS, Team(cuda.threadIdx.x, cuda.blockDim.x, WIDE)
        here, there = Rows(X, tile * inner * WIDE), Rows(P, (tile * rows + first) * WIDE)
        sweep(team, Rows(F, 0), rows, inner, here, there, first, min(first + APPLY_ROWS, rows))


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


@kernel
def open_tiles(X, e, kept):
    """Copy the start into X and set the state of all columns; one block for each tile."""
    b = here(e, WIDE)
    running = start(b, e, Rows(X, cuda.blockIdx.x * e.end * WIDE))
    cuda.syncthreads()
    leave(b, e, kept, running)


@kernel
def step_picard(X, P, e, kept):
    """Complete one step of Picard after P = A X: X ← S ∘ φ(P + Z), and close the columns that are done.

    One block for each tile; tiles whose columns are all done are skipped.
    """
    b, at = here(e, WIDE), cuda.blockIdx.x * e.end * WIDE
    if kept.running[cuda.blockIdx.x] > 0:
        keep(b, e, kept, True)
        finish(b, e, Rows(X, at), Rows(P, at), Rows(X, at), 0, e.n)
        cuda.syncthreads()
        leave(b, e, kept, close_picard(b, e, Rows(X, at)))


@kernel
def step_guarded(X, P, H, e, kept):
    """Complete one step of Anderson after P = A X: the next points in X, and close the columns that are done.

    H holds the histories, (tiles, end, HISTORY, WIDE). One block for each tile; tiles that are done are skipped.
    """
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
    """Solve the equation with a strictly triangular A by substitution, x_i = s_i φ(Σ_k A_ik x_k + z_i), row by row.

    In the order of the rows, each sum needs only entries that are already known. Then one application measures the
    rounding of x, and its result g(x) is the answer. F1 is A, packed; X and P hold all tiles in global memory, (tiles,
    end, WIDE), one block for each; upper is 1 for an upper triangle, else 0.
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
            b.M[e.places.partials + item] = total
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


# --- preparation of a factor ------------------------------------------------------------------------------------------


@kernel
def pack(F, packed):
    """Pack the matrix F: entry (i, k) goes to packed[k·height + i], and the padding gets zeros.

    height and width are the numbers of rows and columns, rounded up to multiples of UNIT. The threads of the grid take
    the entries in order, so that writes are coalesced.
    """
    rows, columns = F.shape
    height, width = filled(rows), filled(columns)
    e = cuda.grid(1)
    while e < height * width:
        i, k = e % height, e // height
        packed[e] = F.array[offset(F, i, k)] if i < rows and k < columns else packed.dtype.type(0)
        e += cuda.gridsize(1)


@kernel
def row_sums(F, weights, sums, sides):
    """sums_i = Σ_k |F_ik| weights_k, and on which sides of the diagonal row i has nonzero entries; one thread per row.

    An empty `weights` stands for ones. sides_i is 1 if an entry is on or above the diagonal, plus 2 if one is on or
    below.
    """
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
