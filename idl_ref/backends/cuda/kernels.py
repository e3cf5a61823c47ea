"""The kernels of the CUDA twin: solvers that keep a tile in shared memory, and others that take one step per launch.

Each block of threads works on one tile of w columns. All barriers between the threads of a block are here and in
`newton`; between two barriers, no thread reads shared memory that another thread writes. `plans.places` lays out the
shared memory of a block. In every function, b is the `Block` of the calling thread and e the `Task`.
"""

from __future__ import annotations

from functools import cache

from numba.core.types import int32

from idl_ref.backends.cuda.api import cuda, device, kernel, renew
from idl_ref.backends.cuda.columns import join_slices, sweep, sweep_slices
from idl_ref.backends.cuda.plans import APPLY_ROWS, INTEGERS, LANES, REALS, WIDE, Rows, Team
from idl_ref.backends.cuda.rounded import CHANGE, RETURN, consider, inner_sums, left_of
from idl_ref.backends.cuda.states import (
    CONTROL,
    DOUBT,
    GOOD,
    REFUSED,
    begin,
    block_of,
    close_substitute,
    column_of,
    copy,
    deliver,
    entry,
    finish,
    keep,
    leave,
    measure,
    restart,
    sum_of,
    survey,
)
from idl_ref.backends.cuda.trials import (
    HISTORY,
    attempt,
    compare,
    deliver_base,
    extrapolate,
    move,
    remember,
    settle_guarded,
    settle_picard,
)

SHARED, STREAMED, LOW_RANK = range(3)
KINDS = {"shared": SHARED, "streamed": STREAMED, "low_rank": LOW_RANK}  # by the names in plans.TABLE


# --- parts ------------------------------------------------------------------------------------------------------------


@device
def here(e, w):
    """Return the `Block` of the calling thread, for tiles of w columns: block number t works on tile number t."""
    M, N = cuda.shared.array(0, e.out.dtype), cuda.shared.array(0, int32)
    return block_of(N, M, e, w, cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x)


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
    restart(b, e, V)
    deliver(b, e, V, V)
    cuda.syncthreads()
    return running


@device
def narrow(b, e, F2, X):
    """T = Rᵀ X (narrow, w) in shared memory, from its SLICES partial sums, which are stored behind T."""
    height, T, slices = e.narrow, Rows(b.M, e.places.t), behind(b, e)
    sweep_slices(b, F2, height, e.end, X, slices)
    cuda.syncthreads()
    join_slices(b, slices, height * b.w, T)
    cuda.syncthreads()


@device
def behind(b, e):
    """Return the room behind T in shared memory, 8·narrow rows of w in kernels for a low rank."""
    return Rows(b.M, e.places.t + e.narrow * b.w)


@device
def image(b, e, kind, F1, X, P):
    """P = A X, or L T with T = Rᵀ X, for tiles (end, w) in shared memory. A is read from shared memory or from F1."""
    end = e.end
    if kind == SHARED:
        sweep(b, Rows(b.M, e.places.f), end, end, X, P, 0, end)
    elif kind == STREAMED:
        sweep(b, Rows(F1, 0), end, end, X, P, 0, end)
    else:
        sweep(b, Rows(F1, 0), end, e.narrow, Rows(b.M, e.places.t), P, 0, end)


@device
def judge(b, e, picard, F1, F2, r, X, G, W):
    """Count an application, and decide for every column whether rounding explains its change, as `rounded` describes.

    After the call, thread c may read DOUBT of column c. Products are computed only for tiles with a column in doubt.
    """
    doubt, c = 0, renew(b.tid)
    if c < b.used:
        doubt = consider(b, e, c, picard)
    if cuda.syncthreads_count(doubt) > 0:
        if r > 0:
            inner_sums(b, e, F2, X, W)
            cuda.syncthreads()
        join_rows(b, left_of(b, e, F1, r, X, G, W))


@device
def join_rows(b, left):
    """DOUBT of every column becomes 1 if one of its bits is `left` in all rows, else 0; all threads of the block."""
    N, w = b.N, b.w
    for c in range(b.used):
        if N[DOUBT * w + c] > 0:
            mine = renew(b.tid) % w == c
            changes = cuda.syncthreads_count(1 if mine and left % RETURN != CHANGE else 0)
            returns = cuda.syncthreads_count(1 if mine and left < RETURN else 0)
            if b.tid == c:
                N[DOUBT * w + c] = 1 if changes == 0 or returns == 0 else 0


@device
def close_picard(b, e, V, P):
    """Close the columns that are done, and deliver their answers. Return how many columns go on.

    V and P (end, w) hold the points x and their images g(x).
    """
    goes_on, c = 0, renew(b.tid)
    if c < b.used:
        goes_on = settle_picard(b, e, c)
    running = cuda.syncthreads_count(goes_on)
    deliver(b, e, V, P)
    cuda.syncthreads()
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
    deliver(b, e, V, P)
    deliver_base(b, e, H)
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

    Each column iterates until it is done or left to another method. F1 and F2: the packed factors. The tiles X and P
    exchange their places in every iteration, because the points x are needed until the columns are judged.
    """
    kind = KINDS[name]

    def solve(F1, F2, e):
        b, end, x, p = here(e, w), e.end, e.places.x, e.places.p
        if kind == SHARED:
            copy(b, Rows(F1, 0), Rows(b.M, e.places.f), end * end)
        running = start(b, e, Rows(b.M, x))
        while running > 0:
            b = here(e, w)
            X, P = Rows(b.M, x), Rows(b.M, p)
            if kind == LOW_RANK:
                narrow(b, e, F2, X)
            image(b, e, kind, F1, X, P)
            cuda.syncthreads()
            b = here(e, w)
            finish(b, e, X, P, P)
            cuda.syncthreads()
            judge(b, e, True, F1, F2, e.r if kind == LOW_RANK else 0, X, P, behind(b, e))
            running = close_picard(b, e, X, P)
            x, p = p, x

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
        b, end = here(e, w), e.end
        X, P = Rows(b.M, e.places.x), Rows(b.M, e.places.p)
        if kind == SHARED:
            copy(b, Rows(F1, 0), Rows(b.M, e.places.f), end * end)
        running = start(b, e, X)
        while running > 0:
            b = here(e, w)
            if kind == LOW_RANK:
                narrow(b, e, F2, X)
            image(b, e, kind, F1, X, P)
            cuda.syncthreads()
            b = here(e, w)
            finish(b, e, X, P, P)
            cuda.syncthreads()
            judge(b, e, False, F1, F2, e.r if kind == LOW_RANK else 0, X, P, behind(b, e))
            running = close_guarded(b, e, X, P, Rows(H, renew(cuda.blockIdx.x) * HISTORY * end * w))

    solve.__name__ = solve.__qualname__ = f"guarded_{name}_{w}"
    return kernel(solve)


# --- one step per launch, for tiles that do not fit into shared memory ------------------------------------------------
# X and P hold all tiles in global memory, (tiles, end, WIDE). The state of the columns is also there between launches.
# W is room for `rounded.judge`, (tiles, 2·narrow, WIDE); empty for a dense A.


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
def room(e, W):
    """Return the part of W for the tile of this block."""
    return Rows(W, cuda.blockIdx.x * 2 * e.narrow * WIDE)


@kernel
def open_tiles(X, e, kept):
    """Copy the start into X and set the state of all columns; one block for each tile."""
    b = here(e, WIDE)
    running = start(b, e, Rows(X, cuda.blockIdx.x * e.end * WIDE))
    leave(b, e, kept, running)


@kernel
def step_picard(F1, F2, X, P, W, e, kept):
    """Complete one step of Picard after P = A X: P ← S ∘ φ(P + Z), and close the columns that are done.

    The host exchanges X and P for the next step. One block for each tile; tiles whose columns are all done are skipped.
    """
    b, at = here(e, WIDE), cuda.blockIdx.x * e.end * WIDE
    if kept.running[cuda.blockIdx.x] > 0:
        keep(b, e, kept, True)
        finish(b, e, Rows(X, at), Rows(P, at), Rows(P, at))
        cuda.syncthreads()
        judge(b, e, True, F1, F2, e.r, Rows(X, at), Rows(P, at), room(e, W))
        leave(b, e, kept, close_picard(b, e, Rows(X, at), Rows(P, at)))


@kernel
def step_guarded(F1, F2, X, P, H, W, e, kept):
    """Complete one step of Anderson after P = A X: the next points in X, and close the columns that are done.

    H holds the histories, (tiles, end, HISTORY, WIDE). One block for each tile; tiles that are done are skipped.
    """
    b, at = here(e, WIDE), cuda.blockIdx.x * e.end * WIDE
    if kept.running[cuda.blockIdx.x] > 0:
        keep(b, e, kept, True)
        finish(b, e, Rows(X, at), Rows(P, at), Rows(P, at))
        cuda.syncthreads()
        judge(b, e, False, F1, F2, e.r, Rows(X, at), Rows(P, at), room(e, W))
        running = close_guarded(b, e, Rows(X, at), Rows(P, at), Rows(H, HISTORY * at))
        leave(b, e, kept, running)


@kernel
def step_newton(F1, F2, X, P, G, base, W, e, kept):
    """Compute G = g(X) after P = A X, close the columns that are done, and decide which others take a trial point.

    One block for each tile; tiles whose columns are all done are skipped. `base` receives g(last good point), from
    where Picard goes on.
    """
    b, w, at = here(e, WIDE), WIDE, cuda.blockIdx.x * e.end * WIDE
    if kept.running[cuda.blockIdx.x] > 0:
        keep(b, e, kept, True)
        cuda.syncthreads()
        finish(b, e, Rows(X, at), Rows(P, at), Rows(G, at))
        measure(b, e, Rows(X, at))
        cuda.syncthreads()
        judge(b, e, False, F1, F2, e.r, Rows(X, at), Rows(G, at), room(e, W))
        goes_on = 0
        if b.tid < b.used:
            goes_on = settle_guarded(b, e, b.tid)
            if goes_on > 0:
                attempt(b, e, b.tid, b.N[CONTROL * w + b.tid] != REFUSED)
        running = cuda.syncthreads_count(goes_on)
        deliver(b, e, Rows(X, at), Rows(G, at))
        item = b.tid
        while item < e.n * w:
            if b.N[CONTROL * w + item % w] == GOOD:
                base[at + item] = G[at + item]
            item += b.threads
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
    finish(b, e, Rows(X, x), Rows(P, x), Rows(P, x))
    measure(b, e, Rows(X, x))
    cuda.syncthreads()
    if b.tid < b.used and b.N[CONTROL * w + b.tid] == GOOD:
        close_substitute(b, e, b.tid)
    cuda.syncthreads()
    deliver(b, e, Rows(X, x), Rows(P, x))
