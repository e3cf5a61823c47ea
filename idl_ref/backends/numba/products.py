"""This module has compiled functions that pack factors, and multiply them with contiguous columns.

A panel holds LANES rows of a factor with K columns: the entry F[p·LANES + l, k] is at (p K + k)·LANES + l, counted from
the first aligned element of the array. A column has n entries, and zeros up to a multiple of ROWS. All arrays are flat.

Every sum is a chain of fused multiply-adds that starts at 0, and is then added to the sum of the earlier terms:

    p_i = fma(a_ik, x_k, p_i)   for k = k0, k0 + 1, …, k1 − 1.

Each row i has a lane of its own, in kernels for any number of columns. An answer therefore does not depend on the
kernel that computed it.
"""

from __future__ import annotations

import numpy as np

from idl_ref.backends import methods
from idl_ref.backends.numba.compiling import compiled, entry, inlined, vec
from idl_ref.backends.numba.functions import largest, total

GROUP, VECTOR_BYTES = vec.GROUP, vec.VECTOR_BYTES
ROWS = 16  # every column and every packed factor is filled up with zeros to a multiple of this
BLOCK = 128  # terms of an inner product that are summed before they meet the rest: short sums are rounded less


filled = compiled(methods.filled)


@compiled
def boundary(array):
    """Return the first index at which `array` is aligned to the size of a vector; it is at most LANES − 1."""
    return (-vec.address(array) & (VECTOR_BYTES - 1)) // (VECTOR_BYTES // vec.lanes(array))


@compiled
def fill(M, first, end, value):
    """Set M[first : end] to a value; the length must be a multiple of LANES."""
    vec.separate()
    for i in range(first, end, vec.lanes(M)):
        vec.store(M, i, vec.splat(M, value))


# --- packing ----------------------------------------------------------------------------------------------------------


@compiled
def gather(source, start, down, right, M, o, apart, rows, columns, height, width):
    """M[o + apart c + i] = source[start + down i + right c] for i < rows, c < columns, and 0 up to height and width."""
    vec.separate()
    lanes = vec.lanes(M)
    whole, squares = 0, 0
    if right == 1:  # rows are contiguous: turned square by square
        whole, squares = rows & -lanes, columns & -lanes
    elif down == 1:
        whole, squares = rows & -lanes, columns
    for i in range(0, whole, lanes):
        if down == 1:
            for c in range(columns):
                vec.store(M, o + c * apart + i, vec.load(source, start + i + c * right))
        else:
            for c in range(0, squares, lanes):
                vec.transpose(source, start + i * down + c, down, M, o + c * apart + i, apart)
    for c in range(columns):
        for i in range(whole if c < squares else 0, rows):
            M[o + c * apart + i] = source[start + i * down + c * right]
        for i in range(rows, height):
            M[o + c * apart + i] = 0
    for c in range(columns, width):
        fill(M, o + c * apart, o + c * apart + height, 0.0)


@entry
def pack(first, second, shape, adjoint, F1, F2):
    """Write the factors of an equation to F1 and F2 in panels, and return a norm of their product, but for rounding.

    The norm is ‖F₁‖∞, or the largest entry of |F₁| |F₂| 1; with `adjoint` it is that of |F₁|ᵀ 1, or of |F₂|ᵀ |F₁|ᵀ 1.
    first, second: the entries of a factor, and the distances between its rows and its columns. The second factor is
    empty if there is only one. shape: n and r
    """
    (n, r), ones = shape, np.empty(0, F1.dtype)
    sums = np.empty(filled(n, ROWS), F1.dtype)
    if r == 0:
        return pack_factor(first, (n, n), F1, adjoint, ones, sums)
    inner = np.empty(filled(r, ROWS), F1.dtype)
    if adjoint:
        pack_factor(first, (n, r), F1, adjoint, ones, inner)
        return pack_factor(second, (r, n), F2, adjoint, inner, sums)
    pack_factor(second, (r, n), F2, adjoint, ones, inner)
    return pack_factor(first, (n, r), F1, adjoint, inner, sums)


@compiled
def pack_factor(factor, shape, packed, by_columns, weights, sums):
    """Write F (rows, columns) to `packed` in panels, and |F| weights, or |F|ᵀ weights with `by_columns`, to `sums`.

    Returns the largest of the sums, or NaN if one of them is NaN. An empty `weights` stands for ones. `weights` and
    `sums` have zeros up to a multiple of ROWS, and the sums are rounded in the dtype of F.
    """
    (F, down, right), (rows, columns), lanes = factor, shape, vec.lanes(packed)
    for k in range(len(sums)):
        sums[k] = 0
    for first in range(0, filled(rows, ROWS), lanes):
        panel, inside = boundary(packed) + first * columns, lanes
        if first + lanes > rows:
            inside = rows - first if first < rows else first - first
        gather(F, first * down, down, right, packed, panel, lanes, inside, columns, lanes, columns)
        row_weights, row_sums = vec.splat(packed, 1.0), vec.splat(packed, 0.0)
        if by_columns and len(weights) > 0:
            row_weights = vec.load(weights, first)
        for k in range(columns):
            size = vec.magnitude(vec.load(packed, panel + k * lanes))
            if by_columns:
                sums[k] += total(vec.multiply(size, row_weights))
            elif len(weights) > 0:
                row_sums = vec.add(row_sums, vec.multiply(size, vec.broadcast(weights, k)))
            else:
                row_sums = vec.add(row_sums, size)
        if not by_columns:
            vec.store(sums, first, row_sums)
    top = vec.splat(packed, 0.0)
    for k in range(0, len(sums), lanes):
        top = vec.larger(vec.load(sums, k), top)
    return np.float64(largest(top))


# --- products that stay in registers ----------------------------------------------------------------------------------

# The partial sums of a kernel are a tuple of vectors, which LLVM keeps in registers. The suffix of a name is the number
# of panels and the number of columns.


@compiled
def chain_2(a, x, t):
    """t + a x for two panels and one column."""
    return vec.fma(a[0], x, t[0]), vec.fma(a[1], x, t[1])


@compiled
def chain_3(a, x, t):
    """t + a x for three panels and one column."""
    return vec.fma(a[0], x, t[0]), vec.fma(a[1], x, t[1]), vec.fma(a[2], x, t[2])


@compiled
def chain_2x4(a, M, x, apart, t):
    """t + a x for two panels and four columns, whose entries x stand `apart` from each other in M."""
    return (
        chain_2(a, vec.broadcast(M, x), t[0]),
        chain_2(a, vec.broadcast(M, x + apart), t[1]),
        chain_2(a, vec.broadcast(M, x + 2 * apart), t[2]),
        chain_2(a, vec.broadcast(M, x + 3 * apart), t[3]),
    )


@compiled
def chain_3x4(a, M, x, apart, t):
    """t + a x for three panels and four columns."""
    return (
        chain_3(a, vec.broadcast(M, x), t[0]),
        chain_3(a, vec.broadcast(M, x + apart), t[1]),
        chain_3(a, vec.broadcast(M, x + 2 * apart), t[2]),
        chain_3(a, vec.broadcast(M, x + 3 * apart), t[3]),
    )


@compiled
def chain_1x4(a, M, x, apart, t):
    """t + a x for one panel and four columns."""
    return (
        vec.fma(a, vec.broadcast(M, x), t[0]),
        vec.fma(a, vec.broadcast(M, x + apart), t[1]),
        vec.fma(a, vec.broadcast(M, x + 2 * apart), t[2]),
        vec.fma(a, vec.broadcast(M, x + 3 * apart), t[3]),
    )


@compiled
def put(N, s, g, t):
    """G = S + t for one panel and one column."""
    vec.store(N, g, vec.add(vec.load(N, s), t))


@compiled
def put_1x4(N, s, s_apart, g, g_apart, t):
    """G = S + t for one panel and four columns."""
    put(N, s, g, t[0])
    put(N, s + s_apart, g + g_apart, t[1])
    put(N, s + 2 * s_apart, g + 2 * g_apart, t[2])
    put(N, s + 3 * s_apart, g + 3 * g_apart, t[3])


@compiled
def put_2x4(N, s, s_apart, g, g_apart, t):
    """G = S + t for two panels and four columns."""
    lanes = vec.lanes(N)
    put_1x4(N, s, s_apart, g, g_apart, (t[0][0], t[1][0], t[2][0], t[3][0]))
    put_1x4(N, s + lanes, s_apart, g + lanes, g_apart, (t[0][1], t[1][1], t[2][1], t[3][1]))


@compiled
def product_2x8(F, place, M, x, x_apart, N, s, s_apart, g, g_apart, span):
    """G = S + F X over k0 ≤ k < k1 for two panels and eight columns; eight columns need the 32 registers of AVX-512."""
    (f, panel, step), (k0, k1) = place, span
    zero = vec.splat(F, 0.0)
    none = zero, zero
    t = none, none, none, none
    u = t
    for k in range(k0, k1):
        a = vec.load(F, f + k * step), vec.load(F, f + panel + k * step)
        t = chain_2x4(a, M, x + k, x_apart, t)
        u = chain_2x4(a, M, x + 4 * x_apart + k, x_apart, u)
    put_2x4(N, s, s_apart, g, g_apart, t)
    put_2x4(N, s + 4 * s_apart, s_apart, g + 4 * g_apart, g_apart, u)


@compiled
def product_3x4(F, place, M, x, x_apart, N, s, s_apart, g, g_apart, span):
    """G = S + F X over k0 ≤ k < k1 for three panels and four columns, which fill 16 registers."""
    (f, panel, step), (k0, k1) = place, span
    zero, lanes = vec.splat(F, 0.0), vec.lanes(F)
    none = zero, zero, zero
    t = none, none, none, none
    for k in range(k0, k1):
        at = f + k * step
        a = vec.load(F, at), vec.load(F, at + panel), vec.load(F, at + 2 * panel)
        t = chain_3x4(a, M, x + k, x_apart, t)
    for_two = (t[0][0], t[0][1]), (t[1][0], t[1][1]), (t[2][0], t[2][1]), (t[3][0], t[3][1])
    put_2x4(N, s, s_apart, g, g_apart, for_two)
    put_1x4(N, s + 2 * lanes, s_apart, g + 2 * lanes, g_apart, (t[0][2], t[1][2], t[2][2], t[3][2]))


@compiled
def product_2x4(F, place, M, x, x_apart, N, s, s_apart, g, g_apart, span):
    """G = S + F X over k0 ≤ k < k1 for two panels and four columns, where three panels do not fit the rows."""
    (f, panel, step), (k0, k1) = place, span
    zero = vec.splat(F, 0.0)
    none = zero, zero
    t = none, none, none, none
    for k in range(k0, k1):
        a = vec.load(F, f + k * step), vec.load(F, f + panel + k * step)
        t = chain_2x4(a, M, x + k, x_apart, t)
    put_2x4(N, s, s_apart, g, g_apart, t)


@compiled
def product_1x8(F, place, M, x, x_apart, N, s, s_apart, g, g_apart, span):
    """G = S + F X over k0 ≤ k < k1 for one panel and eight columns."""
    (f, _, step), (k0, k1) = place, span
    zero = vec.splat(F, 0.0)
    t = zero, zero, zero, zero
    u = t
    for k in range(k0, k1):
        a = vec.load(F, f + k * step)
        t = chain_1x4(a, M, x + k, x_apart, t)
        u = chain_1x4(a, M, x + 4 * x_apart + k, x_apart, u)
    put_1x4(N, s, s_apart, g, g_apart, t)
    put_1x4(N, s + 4 * s_apart, s_apart, g + 4 * g_apart, g_apart, u)


@compiled
def product_4x1(F, place, M, x, N, s, g, span):
    """G = S + F X over k0 ≤ k < k1 for four panels and one column."""
    (f, panel, step), (k0, k1) = place, span
    zero, lanes = vec.splat(F, 0.0), vec.lanes(F)
    t = zero, zero
    u = t
    for k in range(k0, k1):
        entry, at = vec.broadcast(M, x + k), f + k * step
        t = chain_2((vec.load(F, at), vec.load(F, at + panel)), entry, t)
        u = chain_2((vec.load(F, at + 2 * panel), vec.load(F, at + 3 * panel)), entry, u)
    put(N, s, g, t[0])
    put(N, s + lanes, g + lanes, t[1])
    put(N, s + 2 * lanes, g + 2 * lanes, u[0])
    put(N, s + 3 * lanes, g + 3 * lanes, u[1])


@compiled
def product_3x1(F, place, M, x, N, s, g, span):
    """G = S + F X over k0 ≤ k < k1 for three panels and one column."""
    (f, panel, step), (k0, k1) = place, span
    zero, lanes = vec.splat(F, 0.0), vec.lanes(F)
    t = zero, zero, zero
    for k in range(k0, k1):
        at = f + k * step
        a = vec.load(F, at), vec.load(F, at + panel), vec.load(F, at + 2 * panel)
        t = chain_3(a, vec.broadcast(M, x + k), t)
    put(N, s, g, t[0])
    put(N, s + lanes, g + lanes, t[1])
    put(N, s + 2 * lanes, g + 2 * lanes, t[2])


@compiled
def product_2x1(F, place, M, x, N, s, g, span):
    """G = S + F X over k0 ≤ k < k1 for two panels and one column."""
    (f, panel, step), (k0, k1) = place, span
    zero, lanes = vec.splat(F, 0.0), vec.lanes(F)
    t = zero, zero
    for k in range(k0, k1):
        a = vec.load(F, f + k * step), vec.load(F, f + panel + k * step)
        t = chain_2(a, vec.broadcast(M, x + k), t)
    put(N, s, g, t[0])
    put(N, s + lanes, g + lanes, t[1])


@compiled
def product_1x1(F, place, M, x, N, s, g, span):
    """G = S + F X over k0 ≤ k < k1 for one panel and one column."""
    (f, _, step), (k0, k1) = place, span
    t = vec.splat(F, 0.0)
    for k in range(k0, k1):
        t = vec.fma(vec.load(F, f + k * step), vec.broadcast(M, x + k), t)
    put(N, s, g, t)


# A group of columns is multiplied with MANY panels at a time, and with FEW where these do not divide the rows.
if GROUP == 8:
    MANY, FEW, many, few, many_x1, few_x1 = 2, 1, product_2x8, product_1x8, product_2x1, product_1x1
else:  # Vectors of 16 and 32 bytes have an even number of panels.
    MANY, FEW, many, few, many_x1, few_x1 = 3, 2, product_3x4, product_2x4, product_3x1, product_2x1


# --- products of any size ---------------------------------------------------------------------------------------------


@compiled
def product(F, rows, inner, M, x, x_apart, s, s_apart, g, g_apart, count):
    """Compute G = S + F X for `count` columns of M; F (rows, inner) is packed.

    The columns of X, S and G begin at x, s and g, at the distances x_apart, s_apart and g_apart. The number of computed
    columns is rounded up to a multiple of GROUP, and M must have room for them.
    """
    vec.separate()
    lanes = vec.lanes(F)
    place = boundary(F), inner * lanes, lanes
    strided(F, place, (rows, inner), M, x, x_apart, M, s, s_apart, g, g_apart, count)


@inlined
def strided(F, place, shape, M, x, x_apart, N, s, s_apart, g, g_apart, count):
    """Compute G = S + F X as `product` does, for an F whose panels stand anywhere in its array, and S and G in N.

    place: where the first panel begins, and the distances between two panels, and between two columns of a panel.
    shape: the numbers of rows and of columns of F
    """
    (start, panel, step), (rows, inner) = place, shape
    lanes = vec.lanes(F)
    end = filled(rows, ROWS)
    grouped = (count + GROUP // 2) & -GROUP
    row = 0
    while row < end:
        left = (end - row) // lanes
        if grouped > 0:
            panels = MANY if left == MANY or left >= MANY + FEW else FEW
        else:  # A single column has as many sums as it has panels, which take turns.
            panels = 4 if left >= 4 else min(left, 2)
        at = start + row // lanes * panel, panel, step
        for k0 in range(0, inner, BLOCK):
            span = k0, k0 + BLOCK if k0 + BLOCK < inner else inner
            o, o_apart = s + row, s_apart
            if k0 > 0:
                o, o_apart = g + row, g_apart
            for c in range(0, grouped, GROUP):
                xc, sc, gc = x + c * x_apart, o + c * o_apart, g + row + c * g_apart
                if panels == MANY:
                    many(F, at, M, xc, x_apart, N, sc, o_apart, gc, g_apart, span)
                else:
                    few(F, at, M, xc, x_apart, N, sc, o_apart, gc, g_apart, span)
            for c in range(grouped, count):
                xc, sc, gc = x + c * x_apart, o + c * o_apart, g + row + c * g_apart
                if panels == 4:
                    product_4x1(F, at, M, xc, N, sc, gc, span)
                elif panels == MANY:
                    many_x1(F, at, M, xc, N, sc, gc, span)
                else:
                    few_x1(F, at, M, xc, N, sc, gc, span)
        row += panels * lanes
