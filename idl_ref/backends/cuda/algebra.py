"""The kernels of a training step besides the solvers: products, slopes, the parametrisations `f`, and the descent.

F, X, Y and G are of type `api.Matrix`, `result` is a flat array; G and `result` have the same layout as F. `levels`
are numbers of the dtype. Kernels without shared memory run with one thread per entry, or one per row of F.
"""

from __future__ import annotations

import math

from idl_ref.backends.cuda import plans
from idl_ref.backends.cuda.api import cuda, device, kernel
from idl_ref.backends.cuda.columns import kind, larger, offset, slope

filled = device(plans.filled)
TILE = 16  # A block of `multiply` computes TILE × TILE entries of the product, one per thread.


@kernel
def multiply(F, X, Y, add):
    """Y = F X, or Y + F X if add > 0.   F (rows, inner), X (inner, columns), Y (rows, columns), row by row

    The threads of a block copy a TILE × TILE part of F and one of X to shared memory, multiply them, and go on with the
    next TILE values of the inner index.
    """
    y = Y.array
    M = cuda.shared.array(0, y.dtype)
    rows, inner, columns = F.shape[0], F.shape[1], X.shape[1]
    i, j, x = cuda.threadIdx.x // TILE, cuda.threadIdx.x % TILE, TILE * TILE
    across = (columns + TILE - 1) // TILE
    row, column = cuda.blockIdx.x // across * TILE + i, cuda.blockIdx.x % across * TILE + j
    total = y.dtype.type(0)
    k = 0
    while k < inner:
        a = b = y.dtype.type(0)
        if row < rows and k + j < inner:
            a = F.array[offset(F, row, k + j)]
        if column < columns and k + i < inner:
            b = X.array[offset(X, k + i, column)]
        M[i * TILE + j], M[x + i * TILE + j] = a, b
        cuda.syncthreads()
        for t in range(TILE):
            total += M[i * TILE + t] * M[x + t * TILE + j]
        cuda.syncthreads()
        k += TILE
    if row < rows and column < columns:
        place = row * columns + column
        y[place] = y[place] + total if add > 0 else total


@kernel
def slopes(P, Z, code, codes, S):
    """S = φ′(P + Z), all three row by row; one thread per entry. `codes` are those of the rows, if `code` is MIXED."""
    e, s = cuda.grid(1), S.array
    if e < s.size:
        s[e] = slope(P.array[e] + Z.array[e], s, kind(code, codes, e // S.shape[1]))


@kernel
def row_products(F, G, products):
    """products_i = ⟨g_i, f_i⟩ of rows i of G and F; one thread per row. A row of G with NaN or inf gives NaN or inf."""
    i = cuda.grid(1)
    if i < F.shape[0]:
        total = products.dtype.type(0)
        for k in range(F.shape[1]):
            at = offset(F, i, k)
            total += G.array[at] * F.array[at]
        products[i] = total


@kernel
def collect(values, result):
    """result = the largest of the nonnegative `values`, the first place where it occurs, and the sum of all values.

    One block: each thread reduces every `threads`-th value, and thread 0 joins the partial results in shared memory.
    """
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


# --- the parametrisations `f`: each maps a raw factor to the effective one, and pulls a gradient back -----------------


@device
def shrink(norm, levels, like):
    """Return the factor κ/ν, or 1 if the norm ν ≤ κ; 0 if κ = 0. levels: κ, eps.

    κ/ν is reduced by a few roundings, so that the norm of the scaled matrix cannot exceed κ.
    """
    zero, one, four = like.dtype.type(0), like.dtype.type(1), like.dtype.type(4)
    if levels[0] == zero:
        return zero
    return levels[0] / norm * (one - four * levels[1]) if norm > levels[0] else one


@kernel
def scale(F, norms, levels, result):
    """result = κ F / max(κ, ‖F‖∞); norms[0] is ‖F‖∞. One thread per entry."""
    e = cuda.grid(1)
    if e < result.size:
        result[e] = F.array[e] * shrink(norms[0], levels, result)


@kernel
def pull_scale(F, G, norms, products, levels, result):
    """The gradient with respect to F from that with respect to κ F / max(κ, ‖F‖∞); one thread per entry.

    It is (κ/ν)(G − (⟨G, F⟩/ν) s) for ν = ‖F‖∞ > κ, with s = sign(F) on the row that attains ν and 0 on the others; for
    ν ≤ κ it is G. norms: ν and the number of that row; products[2]: ⟨G, F⟩.
    """
    e = cuda.grid(1)
    if e < result.size:
        i, k = e // F.shape[1], e % F.shape[1]
        at, zero = offset(F, i, k), result.dtype.type(0)
        value = G.array[at]
        if norms[0] > levels[0] and norms[1] == result.dtype.type(i):
            along = products[2] / norms[0]
            value -= along if F.array[at] > zero else -along if F.array[at] < zero else zero
        result[at] = value * shrink(norms[0], levels, result)


@kernel
def upper(F, result):
    """result = the strict upper triangle of a square F, both row by row; one thread per entry."""
    e, n = cuda.grid(1), F.shape[0]
    if e < result.size:
        result[e] = F.array[e] if e % n > e // n else result.dtype.type(0)


@device
def threshold(F, i, kappa):
    """Return t = max |f_ik| and θ with Σ_k max(|f_ik| − t − θ, 0) = κ for row i; t = −1 if Σ_k |f_ik| ≤ κ.

    Differences from the largest entry are at least −κ where they count, so that κ is not lost beside large entries. At
    first θ is −κ, and then it is computed from the entries that exceed it, until their number stays the same.
    Source: Michelot, A finite algorithm for finding the projection of a point onto the canonical simplex, J. Optim.
    Theory Appl. 50 (1986).
    """
    number, columns = F.array.dtype.type, F.shape[1]
    total = top = number(0)
    for k in range(columns):
        size = abs(F.array[offset(F, i, k)])
        total += size
        top = larger(size, top)
    if not total > kappa:
        return number(-1), number(0)
    theta, left, before = -kappa, columns + 1, columns + 2
    while left < before and left > 0:
        before, left, total = left, 0, number(0)
        for k in range(columns):
            size = abs(F.array[offset(F, i, k)]) - top
            if size > theta:
                total += size
                left += 1
        if left > 0:
            theta = (total - kappa) / number(left)
    return top, theta


@kernel
def project(F, levels, result):
    """result = the Euclidean projection of each row of F onto the ball Σ_k |f_ik| ≤ κ; one thread per row.

    levels: κ, eps.
    """
    i = cuda.grid(1)
    if i < F.shape[0]:
        top, theta = threshold(F, i, levels[0])
        zero, one, columns = result.dtype.type(0), result.dtype.type(1), F.shape[1]
        total = zero
        for k in range(columns):
            at = offset(F, i, k)
            value = F.array[at]
            if top >= zero:
                size = max(abs(value) - top - theta, zero)
                value = size if value > zero else -size
            result[at] = value
            total += abs(value)
        most = levels[0] * (one - levels[1] * result.dtype.type(columns))  # less than κ by the rounding of the sum
        if top >= zero and total > most:
            for k in range(columns):
                result[offset(F, i, k)] *= most / total


@kernel
def pull_project(F, G, levels, result):
    """The gradient with respect to F from that with respect to its projection by `project`; one thread per row.

    It is G for a row inside the ball. Outside, it is G_S − σ_S (σ_Sᵀ G_S)/|S| on the support S of the projection, with
    σ = sign(f), and 0 on the other entries.
    """
    i = cuda.grid(1)
    if i < F.shape[0]:
        top, theta = threshold(F, i, levels[0])
        zero = result.dtype.type(0)
        along, count = zero, 0
        for k in range(F.shape[1]):
            at = offset(F, i, k)
            if top >= zero and abs(F.array[at]) - top > theta:
                along += G.array[at] if F.array[at] > zero else -G.array[at]
                count += 1
        along /= result.dtype.type(max(count, 1))
        for k in range(F.shape[1]):
            at = offset(F, i, k)
            value = G.array[at]
            if levels[0] == zero:
                value = zero  # The projection is 0 for every F.
            elif top >= zero:
                sign = along if F.array[at] > zero else -along
                value = value - sign if abs(F.array[at]) - top > theta else zero
            result[at] = value


# --- descent ----------------------------------------------------------------------------------------------------------


@kernel
def descend(W, G, V, levels, nesterov):
    """g = G + λ w;   v ← μ v + g;   w ← w − η v, or with Nesterov's momentum w ← w − η (g + μ v). One thread per entry.

    levels: the learning rate η, the momentum μ, the weight decay λ, and what G is multiplied by. W, G and V have the
    same layout.
    """
    e, w, v = cuda.grid(1), W.array, V.array
    if e < w.size:
        g = levels[3] * G.array[e] + levels[2] * w[e]
        velocity = levels[1] * v[e] + g
        v[e] = velocity
        w[e] -= levels[0] * (g + levels[1] * velocity if nesterov > 0 else velocity)


@kernel
def adam(W, G, M, S, levels):
    """m ← β₁ m + (1 − β₁) g;   s ← β₂ s + (1 − β₂) g²;   w ← w − η m/(ρ √s + ε) − δ w. One thread per entry.

    levels: η, ρ, ε and δ of this step; β₁, 1 − β₁, β₂ and 1 − β₂; and what G is multiplied by. W, G, M and S have the
    same layout.
    """
    e, w = cuda.grid(1), W.array
    if e < w.size:
        g = levels[8] * G.array[e]
        mean = levels[4] * M.array[e] + levels[5] * g
        square = levels[6] * S.array[e] + levels[7] * (g * g)
        M.array[e] = mean
        S.array[e] = square
        w[e] -= levels[0] * mean / (levels[1] * math.sqrt(square) + levels[2]) + levels[3] * w[e]


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
