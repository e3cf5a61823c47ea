"""The kernels of a training step around the two solves: products, slopes, what `f` does to A, and descent.

Matrices are flat; `sizes` are rows, columns, and how far apart they are. Results are stored row by row.
"""

from __future__ import annotations

from idl_ref.backends.cuda_api import cuda, device, kernel
from idl_ref.backends.cuda_columns import slope

TILE = 16  # rows and columns of a product that a block computes, an entry per thread


@kernel
def multiply(F, X, Y, f_sizes, x_sizes, add):
    """Y = F X, or Y + F X.   F (rows, inner), X (inner, columns)"""
    M = cuda.shared.array(0, Y.dtype)
    rows, inner, columns = f_sizes[0], f_sizes[1], x_sizes[1]
    i, j, x = cuda.threadIdx.x // TILE, cuda.threadIdx.x % TILE, TILE * TILE
    across = (columns + TILE - 1) // TILE
    row, column = cuda.blockIdx.x // across * TILE + i, cuda.blockIdx.x % across * TILE + j
    total = Y.dtype.type(0)
    k = 0
    while k < inner:
        a = b = Y.dtype.type(0)
        if row < rows and k + j < inner:
            a = F[row * f_sizes[2] + (k + j) * f_sizes[3]]
        if column < columns and k + i < inner:
            b = X[(k + i) * x_sizes[2] + column * x_sizes[3]]
        M[i * TILE + j], M[x + i * TILE + j] = a, b
        cuda.syncthreads()
        for t in range(TILE):
            total += M[i * TILE + t] * M[x + t * TILE + j]
        cuda.syncthreads()
        k += TILE
    if row < rows and column < columns:
        place = row * columns + column
        Y[place] = Y[place] + total if add > 0 else total


@kernel
def slopes(P, Z, code, S):
    """S = φ′(P + Z)"""
    e = cuda.grid(1)
    if e < S.size:
        S[e] = slope(P[e] + Z[e], S, code)


@kernel
def row_products(G, F, sizes, products):
    """⟨g_i, f_i⟩ of every row: not finite where G is not, whatever F holds."""
    i = cuda.grid(1)
    if i < sizes[0]:
        total = products.dtype.type(0)
        for k in range(sizes[1]):
            at = i * sizes[2] + k * sizes[3]
            total += G[at] * F[at]
        products[i] = total


@kernel
def collect(values, result):
    """result = the largest of some nonnegative numbers, where it first stands, and their sum. One block."""
    M, tid, threads = cuda.shared.array(0, values.dtype), cuda.threadIdx.x, cuda.blockDim.x
    top, place, total = values.dtype.type(-1), 0, values.dtype.type(0)
    i = tid
    while i < values.size:
        if values[i] > top:
            top, place = values[i], i
        total += values[i]
        i += threads
    M[tid], M[threads + tid], M[2 * threads + tid] = top, place, total
    cuda.syncthreads()
    if tid == 0:
        for t in range(1, threads):
            other = M[t]
            if other > top or (other == top and M[threads + t] < M[threads]):
                top, M[threads] = other, M[threads + t]
            total += M[2 * threads + t]
        result[0], result[1], result[2] = top, M[threads], total


# --- what `f` does to a factor, and to its gradient -------------------------------------------------------------------


@device
def shrink(norm, levels, like):
    """κ/ν, a few roundings smaller, for ν > κ; levels: κ, eps"""
    one, four = like.dtype.type(1), like.dtype.type(4)
    return levels[0] / norm * (one - four * levels[1]) if norm > levels[0] else one


@kernel
def scale(F, norms, levels, result):
    """κ F / max(κ, ‖F‖∞)"""
    e = cuda.grid(1)
    if e < F.size:
        result[e] = F[e] * shrink(norms[0], levels, F)


@kernel
def pull_scale(G, F, sizes, norms, products, levels, result):
    """(κ/ν)(G − (⟨G, F⟩/ν) s), s = sign(F) on the row that attains ν > κ; else G."""
    e = cuda.grid(1)
    if e < F.size:
        i, k = e // sizes[1], e % sizes[1]
        at, zero = i * sizes[2] + k * sizes[3], F.dtype.type(0)
        value = G[at]
        if norms[0] > levels[0] and norms[1] == F.dtype.type(i):
            along = products[2] / norms[0]
            value -= along if F[at] > zero else -along if F[at] < zero else zero
        result[at] = value * shrink(norms[0], levels, F)


@kernel
def upper(F, n, result):
    """The strict upper triangle."""
    e = cuda.grid(1)
    if e < F.size:
        result[e] = F[e] if e % n > e // n else F.dtype.type(0)


@device
def threshold(F, sizes, i, kappa):
    """θ ≥ 0 with Σ_k max(|f_ik| − θ, 0) = κ; −1 where the row is inside the ball.

    The mean excess of the entries that are left, which throws out more of them, until none goes. Source: Michelot,
    A finite algorithm for finding the projection of a point onto the canonical simplex, JOTA 50 (1986).
    """
    zero, columns = F.dtype.type(0), sizes[1]
    total = zero
    for k in range(columns):
        total += abs(F[i * sizes[2] + k * sizes[3]])
    if not total > kappa:
        return F.dtype.type(-1)
    theta, left, before = (total - kappa) / F.dtype.type(columns), columns, columns + 1
    while left < before and left > 0:
        before, left, total = left, 0, zero
        for k in range(columns):
            size = abs(F[i * sizes[2] + k * sizes[3]])
            if size > theta:
                total += size
                left += 1
        theta = (total - kappa) / F.dtype.type(max(left, 1))
    return theta


@kernel
def project(F, sizes, levels, result):
    """Each row's nearest point with Σ_k |f_ik| ≤ κ. levels: κ, eps"""
    i = cuda.grid(1)
    if i < sizes[0]:
        theta = threshold(F, sizes, i, levels[0])
        zero, slack = F.dtype.type(0), levels[1] * F.dtype.type(sizes[1])  # rounding must not leave a row outside
        total = zero
        for k in range(sizes[1]):
            value = F[i * sizes[2] + k * sizes[3]]
            if theta >= zero:
                value = value - theta if value > theta else value + theta if value < -theta else zero
            result[i * sizes[2] + k * sizes[3]] = value
            total += abs(value)
        most = levels[0] * (F.dtype.type(1) - slack)
        if theta >= zero and total > most:
            for k in range(sizes[1]):
                result[i * sizes[2] + k * sizes[3]] *= most / total


@kernel
def pull_project(G, F, sizes, levels, result):
    """Rows inside the ball: G. Outside: G_S − σ_S (σ_Sᵀ G_S)/|S| on the support S, σ = sign(f), and 0 off it."""
    i = cuda.grid(1)
    if i < sizes[0]:
        theta = threshold(F, sizes, i, levels[0])
        zero = F.dtype.type(0)
        along, count = zero, 0
        for k in range(sizes[1]):
            at = i * sizes[2] + k * sizes[3]
            if theta >= zero and abs(F[at]) > theta:
                along += G[at] if F[at] > zero else -G[at]
                count += 1
        along /= F.dtype.type(max(count, 1))
        for k in range(sizes[1]):
            at = i * sizes[2] + k * sizes[3]
            value = G[at]
            if theta >= zero:
                sign = along if F[at] > zero else -along
                value = value - sign if abs(F[at]) > theta else zero
            result[at] = value


# --- descent ----------------------------------------------------------------------------------------------------------


@kernel
def descend(w, G, v, levels, nesterov):
    """g ← G + λ w;   v ← μ v + g;   w ← w − η v, or with Nesterov w − η (g + μ v). levels: η, μ, λ"""
    e = cuda.grid(1)
    if e < w.size:
        g = G[e] + levels[2] * w[e]
        velocity = levels[1] * v[e] + g
        v[e] = velocity
        w[e] -= levels[0] * (g + levels[1] * velocity if nesterov > 0 else velocity)
