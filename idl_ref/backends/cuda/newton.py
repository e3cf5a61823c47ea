"""The second kernel of Newton: the linear systems, one per column, for the trial points.

`trials.Newton` of the NumPy twin defines the trial points, `solve.safeguarded` the iteration. The first kernel,
`kernels.step_newton`, completes a step. The tiles X, P, G and base (tiles, end, WIDE) are in global memory.
"""

from __future__ import annotations

import math

from idl_ref.backends.cuda.api import cuda, device, kernel
from idl_ref.backends.cuda.columns import kind, offset, slope
from idl_ref.backends.cuda.plans import INTEGERS, LANES, WIDE, Rows
from idl_ref.backends.cuda.states import CONTROL, GOOD, TRIAL, TRIED, adjoint


@kernel
def solve_systems(F1, F2, X, P, G, base, J, e, kept):
    """Compute the next point of every column that goes on: the trial point, or else g(last good point).

    The trial point is x + y, where (I − diag(s) F₁ F₂ …) y = b and s is the slope of g, s ∘ φ′(p); `linearize` chooses
    b. For a low rank, w in (I − F₂ diag(s) F₁) w = F₂ b gives y = b + s ∘ F₁ w. If y is not finite, the system was
    singular, and there is no trial point. All threads of a block solve one system together, then that of the next
    column; J has room for one system per block.
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
            linearize(X, P, G, at, e, e.columns[item], M)
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
def linearize(X, P, G, at, e, j, M):
    """Overwrite one column of P with the slopes, and of G with the right-hand side b; one thread per entry.

    b is g − x, or g − s ∘ F₁ F₂ … x where its ∞-norm is smaller, and then x becomes 0. The column j of Z begins at
    index `at` in X, P and G, and its entries are WIDE apart. M: shared memory for 2·LANES numbers.
    """
    direct, i = is_smaller(X, P, G, at, e, j, M), cuda.threadIdx.x
    cuda.syncthreads()
    while i < e.n:
        place = at + i * WIDE
        s = slope_at(P, place, e, i, j)
        G[place] -= s * P[place] if direct else X[place]
        X[place] = X.dtype.type(0) if direct else X[place]
        P[place] = s
        i += cuda.blockDim.x


@device
def is_smaller(X, P, G, at, e, j, M):
    """Return whether ‖g − s ∘ F₁ F₂ … x‖∞ < ‖g − x‖∞; the same in all threads. An overflow makes it no smaller.

    Thread l < LANES takes the rows l, l + LANES, …; then every thread joins the results, which are in M.
    """
    lane = cuda.threadIdx.x
    while lane < LANES:
        change, whole = M.dtype.type(0), M.dtype.type(0)
        i = lane
        while i < e.n:
            place = at + i * WIDE
            value = abs(G[place] - slope_at(P, place, e, i, j) * P[place])
            change = max(change, abs(G[place] - X[place]))
            whole = max(whole, value if value < math.inf else M.dtype.type(math.inf))
            i += LANES
        M[lane], M[LANES + lane] = change, whole
        lane += cuda.blockDim.x
    cuda.syncthreads()
    change, whole = M[0], M[LANES]
    for lane in range(1, LANES):
        change, whole = max(change, M[lane]), max(whole, M[LANES + lane])
    return whole < change


@device
def slope_at(P, place, e, i, j):
    """Return the slope of g in row i, s φ′(p), where P[place] is p without z."""
    s = slope(P[place] + e.Z.array[offset(e.Z, i, j)], e.out, kind(e.code, e.codes, i))
    return s * e.S.array[offset(e.S, i, j)] if adjoint(e) else s


# A system of `size` unknowns is stored column by column, entry (i, k) at k·size + i, with the right-hand side as its
# last column. In the functions below, S and B are the columns of slopes and right-hand sides that `linearize` left in P
# and G.


@device
def fill_dense(F1, S, B, at, system, n, end):
    """Set the system to I − diag(s) F₁ with the right-hand side b; one thread per entry."""
    item, zero, one = cuda.threadIdx.x, S.dtype.type(0), S.dtype.type(1)
    while item < n * (n + 1):
        i, k = item % n, item // n
        entry = (one if i == k else zero) - S[at + i * WIDE] * F1[k * end + i] if k < n else B[at + i * WIDE]
        system.array[system.at + item] = entry
        item += cuda.blockDim.x


@device
def fill_low_rank(F1, F2, S, B, at, system, e):
    """Set the system to I − F₂ diag(s) F₁ with the right-hand side F₂ b; one thread per entry, a sum over n in each."""
    item, r, one = cuda.threadIdx.x, e.r, S.dtype.type(1)
    while item < r * (r + 1):
        a, d = item % r, item // r
        total = S.dtype.type(0)
        for i in range(e.n):
            if d < r:
                total -= F2[i * e.narrow + a] * (S[at + i * WIDE] * F1[d * e.end + i])
            else:
                total += F2[i * e.narrow + a] * B[at + i * WIDE]
        system.array[system.at + item] = total + one if a == d else total
        item += cuda.blockDim.x


@device
def find_pivot(J, column, k, size, M):
    """Return the row i ≥ k with the largest |J[column + i]|, the first of equal ones; the same in all threads.

    Thread l < LANES searches the rows k + l, k + l + LANES, …; then every thread compares the LANES results in M.
    """
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
    """Solve the system by Gaussian elimination with row exchanges; the solution replaces the right-hand side.

    All threads of the block share the rows and columns of each step. If the matrix is singular, the solution is not
    finite. M: shared memory for 2·LANES numbers.
    """
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
def correct(F1, system, S, B, at, e):
    """Overwrite b with y; one thread per entry. Return how many threads found an entry that is not finite."""
    i, r, bad = cuda.threadIdx.x, e.r, 0
    solved = system.at + (r * r if r > 0 else e.n * e.n)
    while i < e.n:
        if r > 0:
            y = B.dtype.type(0)
            for d in range(r):
                y += F1[d * e.end + i] * system.array[solved + d]
            y = B[at + i * WIDE] + S[at + i * WIDE] * y
        else:  # Where the slope is 0, the equation is y = b, which elimination may have rounded.
            y = system.array[solved + i] if S[at + i * WIDE] != S.dtype.type(0) else B[at + i * WIDE]
        if not math.isfinite(y):
            bad = 1
        B[at + i * WIDE] = y
        i += cuda.blockDim.x
    return cuda.syncthreads_count(bad)
