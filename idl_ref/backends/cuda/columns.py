"""Device functions of the CUDA twin: products, activations and norms. None of them contains a barrier.

A block works on a tile of w columns. The matrix of a tile is stored row by row: entry (i, c) is at `at + i·w + c`, and
the number of rows is padded with zeros to a multiple of 8. A factor F is packed column by column: entry (i, k) is at
`k·height + i`, where `height` is its padded number of rows. In a product, one thread accumulates 8 rows × 4 columns in
registers; 8 entries of a column of F are two aligned 16-byte loads.
"""

from __future__ import annotations

import math

from numba.core.types import int32

from idl_ref.activations import ELU, HARDTANH, LEAK, LEAKY_RELU, MIXED, RELU, SIGMOID, SOFTPLUS, SOFTSIGN, TANH
from idl_ref.backends.cuda.api import device, load4, renew, store4
from idl_ref.backends.cuda.plans import LANES, SLICES, Rows

# --- products ---------------------------------------------------------------------------------------------------------


@device
def axpy(a, x, y):
    """y + a x for tuples x and y of four numbers"""
    return y[0] + a * x[0], y[1] + a * x[1], y[2] + a * x[2], y[3] + a * x[3]


@device
def rank_one(F, f, X, x, t):
    """t + F[:, k] X[k, :] for the 8 rows and 4 columns of a thread: 32 multiply-adds in the calling thread.

    F[f : f + 8] are the 8 entries of column k of the factor, X[x : x + 4] the 4 entries of row k of the tile; t is a
    tuple of 8 rows, each a tuple of 4 numbers, which the compiler keeps in registers.
    """
    a, b, row = load4(F, f), load4(F, f + 4), load4(X, x)
    return (
        axpy(a[0], row, t[0]),
        axpy(a[1], row, t[1]),
        axpy(a[2], row, t[2]),
        axpy(a[3], row, t[3]),
        axpy(b[0], row, t[4]),
        axpy(b[1], row, t[5]),
        axpy(b[2], row, t[6]),
        axpy(b[3], row, t[7]),
    )


@device
def zeros(like):
    """Return the initial sums of a thread: 8 rows × 4 columns of zeros, of the dtype of the array `like`."""
    zero = like.dtype.type(0)
    row = (zero, zero, zero, zero)
    return row, row, row, row, row, row, row, row


@device
def product(F, height, X, w, inner):
    """Σ_k F[:, k] X[k, :] over k < inner for the 8 rows and 4 columns of the calling thread, in the order of k.

    F.at and X.at point to the first of these rows and columns. `inner` is even: the loop is unrolled twice.
    """
    t, f, x = zeros(X.array), F.at, X.at
    # `renew` hides these values from LLVM, which would otherwise rewrite the index arithmetic with more additions per
    # step. So the loop updates only two addresses and one count.
    left, height = int32(renew(inner)), renew(height)
    twice = renew(2 * height)
    while left > 0:
        t = rank_one(F.array, f, X.array, x, t)
        t = rank_one(F.array, f + height, X.array, x + w, t)
        f += twice
        x += 2 * w
        left = int32(left - 2)
    return t


@device
def put(P, p, down, t):
    """Store the 8 × 4 sums t of the calling thread, row i from P[p + i·down] on, with one 16-byte store per row."""
    store4(P, p, t[0])
    store4(P, p + down, t[1])
    store4(P, p + 2 * down, t[2])
    store4(P, p + 3 * down, t[3])
    store4(P, p + 4 * down, t[4])
    store4(P, p + 5 * down, t[5])
    store4(P, p + 6 * down, t[6])
    store4(P, p + 7 * down, t[7])


@device
def sweep(team, F, height, inner, X, P, first, last):
    """P = F X for the rows first ≤ i < last of one tile, by all threads of `team`.

    F is packed with `height` rows and `inner` columns, X (inner, w), P (last − first, w). P is divided into items of
    8 × 4 entries, column groups first; thread tid computes the items tid, tid + threads, …
    """
    w, groups = team.w, team.w // 4
    item = renew(team.tid)
    while item < (last - first) // 8 * groups:
        i, c = item // groups * 8, item % groups * 4
        t = product(Rows(F.array, F.at + first + i), height, Rows(X.array, X.at + c), w, inner)
        put(P.array, P.at + i * w + c, w, t)
        item += team.threads


@device
def sweep_slices(team, F, height, inner, X, P):
    """P[s] = the part of F X that slice s of the inner index k contributes, by all threads of `team`.

    It is for a factor of few rows and many columns, as Rᵀ: SLICES times as many threads have work. F is packed with
    `height` rows and `inner` columns, X (inner, w), P (SLICES, height, w). As in `sweep`, an item is 8 × 4 entries.
    """
    w, groups, share = team.w, team.w // 4, (inner + 31) // 32 * 4  # values of k in a slice; even, as `product` needs
    item = renew(team.tid)
    while item < SLICES * (height // 8) * groups:
        s, i, c = item // (height // 8 * groups), item // groups % (height // 8) * 8, item % groups * 4
        k0, k1 = min(inner, s * share), min(inner, (s + 1) * share)
        t = product(Rows(F, k0 * height + i), height, Rows(X.array, X.at + k0 * w + c), w, k1 - k0)
        put(P.array, P.at + (s * height + i) * w + c, w, t)
        item += team.threads


@device
def join_slices(team, P, size, T):
    """T[e] = Σ_s P[s][e] for e < size, in the order of s, one thread per entry."""
    e = renew(team.tid)
    while e < size:
        total = P.array[P.at + e]
        for s in range(1, SLICES):
            total += P.array[P.at + s * size + e]
        T.array[T.at + e] = total
        e += team.threads


# --- entries ----------------------------------------------------------------------------------------------------------


@device
def phi(p, like, code):
    """φ(p) for a number of the dtype of the array `like`; `code` is one of `activations`. NaN stays NaN."""
    zero, one = like.dtype.type(0), like.dtype.type(1)
    if code == RELU:
        return zero if p <= zero else p
    if code == LEAKY_RELU:
        return like.dtype.type(LEAK) * p if p <= zero else p
    if code == TANH:
        return like.dtype.type(math.tanh(p))
    if code == SIGMOID:
        e = math.exp(-abs(p))
        return e / (one + e) if p < zero else one / (one + e)
    if code == SOFTPLUS:
        e = math.log1p(math.exp(-abs(p)))
        return e if p <= zero else p + e
    if code == ELU:
        return math.expm1(p) if p <= zero else p
    if code == HARDTANH:
        return -one if p <= -one else one if p >= one else p
    if code == SOFTSIGN:
        return p / (one + abs(p))
    return p


@device
def kind(code, codes, i):
    """The code of the activation of row i."""
    return codes[i] if code == MIXED else code


@device
def slope(p, like, code):
    """φ′(p) for a number of the dtype of the array `like`; at a kink, the smaller of the two one-sided slopes."""
    zero, one = like.dtype.type(0), like.dtype.type(1)
    if code == RELU:
        return one if p > zero else zero
    if code == LEAKY_RELU:
        return one if p > zero else like.dtype.type(LEAK)
    if code == TANH:
        e = math.exp(like.dtype.type(-2) * abs(p))  # 1/cosh² p = 4e/(1 + e)²
        return like.dtype.type(4) * e / ((one + e) * (one + e))
    if code == SIGMOID:
        e = math.exp(-abs(p))
        return e / ((one + e) * (one + e))
    if code == SOFTPLUS:
        return phi(p, like, SIGMOID)
    if code == ELU:
        return one if p > zero else math.exp(p)
    if code == HARDTANH:
        return one if abs(p) < one else zero
    if code == SOFTSIGN:
        return one / ((one + abs(p)) * (one + abs(p)))
    return one


@device
def larger(a, b):
    """max(a, b), which is NaN if a or b is NaN."""
    return a if a > b or a != a else b


@device
def offset(F, i, k):
    """Return the index of entry (i, k) of an `api.Matrix` in its flat array."""
    return i * F.down + k * F.right


@device
def norms(V, v, down, n, lane):
    """Return max |v_i| and Σ |v_i| over the rows i = lane, lane + LANES, … < n of a column: one partial reduction.

    Entry i of the column is V[v + i·down].
    """
    top = V.dtype.type(0)
    total = top
    i = lane
    while i < n:
        size = abs(V[v + i * down])
        top = larger(size, top)
        total += size
        i += LANES
    return top, total
