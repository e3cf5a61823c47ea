"""The kernels of Newton: a step of the safeguarded iteration, and a linear system per column.

`proposals.Newton` in the NumPy twin defines the trial points. Both work on tiles in global memory, between the same
products as the other kernels that take a step per launch.
"""

from __future__ import annotations

import math

from numba.core.types import int32

from idl_ref.backends.cuda.api import cuda, device, kernel
from idl_ref.backends.cuda.columns import offset, slope
from idl_ref.backends.cuda.kernels import keep, leave
from idl_ref.backends.cuda.plans import INTEGERS, LANES, WIDE, Rows
from idl_ref.backends.cuda.states import (
    CONTROL,
    GOOD,
    REFUSED,
    TRIAL,
    TRIED,
    adjoint,
    block_of,
    deliver,
    finish,
    measure,
)
from idl_ref.backends.cuda.trials import attempt, settle_guarded


@kernel
def step_newton(X, P, G, base, e, kept):
    """What follows on P = A X for the tile of a block: G = g(X), which columns go on, and which of them want a trial.

    base: g(last good point), where Picard goes on.
    """
    M, N = cuda.shared.array(0, X.dtype), cuda.shared.array(0, int32)
    b = block_of(N, M, e, WIDE, cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x)
    w, at = WIDE, cuda.blockIdx.x * e.end * WIDE
    if kept.running[cuda.blockIdx.x] > 0:
        keep(b, e, kept, True)
        cuda.syncthreads()
        finish(b, e, Rows(X, at), Rows(P, at), Rows(G, at), 0, e.n)
        measure(b, e, Rows(X, at))
        cuda.syncthreads()
        goes_on = 0
        if b.tid < b.used:
            goes_on = settle_guarded(b, e, b.tid)
            if goes_on > 0:
                attempt(b, e, b.tid, N[CONTROL * w + b.tid] != REFUSED)
        running = cuda.syncthreads_count(goes_on)
        deliver(b, e, Rows(G, at))
        item = b.tid
        while item < e.n * w:
            if N[CONTROL * w + item % w] == GOOD:
                base[at + item] = G[at + item]
            item += b.threads
        leave(b, e, kept, running)


@kernel
def solve_systems(F1, F2, X, P, G, base, J, e, kept):
    """x ← x + δ with (I − S F₁ F₂ …) δ = f, f = g − x, S = S ∘ f′(p); g(last good point) where no trial is wanted.

    A block takes one column after the other, and has room for its system in J. Low rank: (I − F₂ S F₁) y = F₂ f,
    δ = f + S ∘ F₁ y.
    """
    M = cuda.shared.array(0, X.dtype)
    n, item = e.n, cuda.blockIdx.x
    size = e.r if e.r > 0 else n
    system = Rows(J, cuda.blockIdx.x * size * (size + 1))
    while item < e.columns.size:
        tile, c, ready = item // WIDE, item % WIDE, False
        at, known = tile * e.end * WIDE + c, tile * INTEGERS * WIDE + c
        running, wanted = kept.integers[known + CONTROL * WIDE] >= GOOD, kept.integers[known + TRIAL * WIDE] > 0
        if running and wanted:
            linearize(X, P, G, at, e, e.columns[item])
            cuda.syncthreads()
            if e.r > 0:
                fill_low_rank(F1, F2, P, G, at, system, e)
            else:
                fill_dense(F1, P, G, at, system, n, e.end)
            cuda.syncthreads()
            eliminate(system, size, M)
            ready = correct(F1, system, P, G, at, e) == 0
        i = cuda.threadIdx.x
        while i < n and running:
            X[at + i * WIDE] = X[at + i * WIDE] + G[at + i * WIDE] if ready else base[at + i * WIDE]
            i += cuda.blockDim.x
        if running and wanted and not ready and cuda.threadIdx.x == 0:
            kept.integers[known + TRIAL * WIDE] = kept.integers[known + TRIED * WIDE] = 0
        item += cuda.gridDim.x


@device
def linearize(X, P, G, at, e, j):
    """S ∘ f′(p) in the place of P, and f = g − x in that of g."""
    i = cuda.threadIdx.x
    while i < e.n:
        s = slope(P[at + i * WIDE] + e.Z.array[offset(e.Z, i, j)], e.out, e.code)
        if adjoint(e):
            s *= e.S.array[offset(e.S, i, j)]
        P[at + i * WIDE] = s
        G[at + i * WIDE] -= X[at + i * WIDE]
        i += cuda.blockDim.x


# A system of `size` unknowns stands column by column, entry (i, k) at k·size + i, its right side as one more column.


@device
def fill_dense(F1, S, f, at, system, n, end):
    """I − S F₁, and f."""
    item, zero, one = cuda.threadIdx.x, S.dtype.type(0), S.dtype.type(1)
    while item < n * (n + 1):
        i, k = item % n, item // n
        entry = (one if i == k else zero) - S[at + i * WIDE] * F1[k * end + i] if k < n else f[at + i * WIDE]
        system.array[system.at + item] = entry
        item += cuda.blockDim.x


@device
def fill_low_rank(F1, F2, S, f, at, system, e):
    """I − F₂ S F₁, and F₂ f."""
    item, r, one = cuda.threadIdx.x, e.r, S.dtype.type(1)
    while item < r * (r + 1):
        a, d = item % r, item // r
        total = S.dtype.type(0)
        for i in range(e.n):
            if d < r:
                total -= F2[i * e.narrow + a] * (S[at + i * WIDE] * F1[d * e.end + i])
            else:
                total += F2[i * e.narrow + a] * f[at + i * WIDE]
        system.array[system.at + item] = total + one if a == d else total
        item += cuda.blockDim.x


@device
def find_pivot(J, column, k, size, M):
    """The row at or below k with the largest entry of a column, the first of them; one share of the rows per lane."""
    lane = cuda.threadIdx.x
    while lane < LANES:
        top, place = M.dtype.type(-1), k
        i = k + lane
        while i < size:
            if abs(J[column + i]) > top:
                top, place = abs(J[column + i]), i
            i += LANES
        M[lane], M[LANES + lane] = top, place
        lane += cuda.blockDim.x
    cuda.syncthreads()
    top, place = M[0], M[LANES]
    for lane in range(1, LANES):
        other = M[LANES + lane]
        if M[lane] > top or (M[lane] == top and other < place):
            top, place = M[lane], other
    return int(place)


@device
def eliminate(system, size, M):
    """J y = b in place of b, by elimination with row exchanges. Where J is singular, y is not finite."""
    J, at, b = system.array, system.at, system.at + size * size
    tid, threads = cuda.threadIdx.x, cuda.blockDim.x
    for k in range(size):
        column = at + k * size
        pivot, rows = find_pivot(J, column, k, size, M), size - k - 1
        d = k + tid
        while d <= size and pivot != k:
            J[at + d * size + k], J[at + d * size + pivot] = J[at + d * size + pivot], J[at + d * size + k]
            d += threads
        cuda.syncthreads()
        i = k + 1 + tid
        while i < size:
            J[column + i] /= J[column + k]
            i += threads
        cuda.syncthreads()
        item = tid
        while item < rows * (size - k):
            i, other = k + 1 + item % rows, at + (k + 1 + item // rows) * size
            J[other + i] -= J[column + i] * J[other + k]
            item += threads
        cuda.syncthreads()
    for back in range(size):
        k = size - 1 - back
        value = J[b + k] / J[at + k * size + k]
        i = tid
        while i < k:
            J[b + i] -= J[at + k * size + i] * value
            i += threads
        cuda.syncthreads()
    i = tid
    while i < size:
        J[b + i] /= J[at + i * size + i]
        i += threads
    cuda.syncthreads()


@device
def correct(F1, system, S, f, at, e):
    """δ in the place of f; how many threads found an entry that is not finite."""
    i, r, bad = cuda.threadIdx.x, e.r, 0
    b = system.at + (r * r if r > 0 else e.n * e.n)
    while i < e.n:
        if r > 0:
            delta = f.dtype.type(0)
            for d in range(r):
                delta += F1[d * e.end + i] * system.array[b + d]
            delta = f[at + i * WIDE] + S[at + i * WIDE] * delta
        else:
            delta = system.array[b + i]
        if not math.isfinite(delta):
            bad = 1
        f[at + i * WIDE] = delta
        i += cuda.blockDim.x
    return cuda.syncthreads_count(bad)
