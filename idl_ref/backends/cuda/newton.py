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
    """Compute the next point of every column that goes on: the trial point x + δ, or else g(last good point).

    δ solves (I − diag(s) F₁ F₂ …) δ = f with f = g − x, and s is the slope of g, s ∘ φ′(p). For a low rank, y in
    (I − F₂ diag(s) F₁) y = F₂ f gives δ = f + s ∘ F₁ y. If δ is not finite, the system was singular, and there is no
    trial point. All threads of a block solve one system together, then that of the next column; J has room for one
    system per block.
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
    """Overwrite one column of P with the slopes s ∘ φ′(p), and of G with f = g − x; one thread per entry.

    The column j of Z begins at index `at` in X, P and G, and its entries are WIDE apart.
    """
    i = cuda.threadIdx.x
    while i < e.n:
        s = slope(P[at + i * WIDE] + e.Z.array[offset(e.Z, i, j)], e.out, kind(e.code, e.codes, i))
        if adjoint(e):
            s *= e.S.array[offset(e.S, i, j)]
        P[at + i * WIDE] = s
        G[at + i * WIDE] -= X[at + i * WIDE]
        i += cuda.blockDim.x


# A system of `size` unknowns is stored column by column, entry (i, k) at k·size + i, with the right-hand side as its
# last column. In the functions below, S and f are the columns of slopes and of g − x that `linearize` left in P and G.


@device
def fill_dense(F1, S, f, at, system, n, end):
    """Set the system to I − diag(s) F₁ with the right-hand side f; one thread per entry."""
    item, zero, one = cuda.threadIdx.x, S.dtype.type(0), S.dtype.type(1)
    while item < n * (n + 1):
        i, k = item % n, item // n
        entry = (one if i == k else zero) - S[at + i * WIDE] * F1[k * end + i] if k < n else f[at + i * WIDE]
        system.array[system.at + item] = entry
        item += cuda.blockDim.x


@device
def fill_low_rank(F1, F2, S, f, at, system, e):
    """Set the system to I − F₂ diag(s) F₁ with the right-hand side F₂ f; one thread per entry, a sum over n in each."""
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
def correct(F1, system, S, f, at, e):
    """Overwrite f with δ; one thread per entry. Return how many threads found an entry that is not finite."""
    i, r, bad = cuda.threadIdx.x, e.r, 0
    b = system.at + (r * r if r > 0 else e.n * e.n)
    while i < e.n:
        if r > 0:
            delta = f.dtype.type(0)
            for d in range(r):
                delta += F1[d * e.end + i] * system.array[b + d]
            delta = f[at + i * WIDE] + S[at + i * WIDE] * delta
        else:  # Where the slope is 0, the equation is δ = f, which elimination may have rounded.
            delta = system.array[b + i] if S[at + i * WIDE] != S.dtype.type(0) else f[at + i * WIDE]
        if not math.isfinite(delta):
            bad = 1
        f[at + i * WIDE] = delta
        i += cuda.blockDim.x
    return cuda.syncthreads_count(bad)
