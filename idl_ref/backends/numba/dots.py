"""This module has compiled functions that multiply a matrix by columns without packing it, by inner products.

A row of F and a column of X are both contiguous. LANES chains of fused multiply-adds run along them, and the upper half
of the sums is added to the lower one until one is left. An entry of F X depends only on its row and its column.
Packing F would not pay for a matrix that serves once, such as B, C and D in a training step.
"""

from __future__ import annotations

from idl_ref.backends.numba.compiling import compiled, vec
from idl_ref.backends.numba.functions import fold_1, fold_2, fold_4, fold_8, total

HEIGHT = 4
BLOCK_ROWS = 2 * HEIGHT
WIDTH = 4 if vec.GROUP == 8 else 2  # 4 × 4 sums need the 32 registers of AVX-512

# Tuples of vectors stay in registers. The suffix of a name is the number of rows and the number of columns.


@compiled
def chain_4(a, x, t):
    """t + a x for four rows and one column."""
    return vec.fma(a[0], x, t[0]), vec.fma(a[1], x, t[1]), vec.fma(a[2], x, t[2]), vec.fma(a[3], x, t[3])


@compiled
def rows_4(F, f, down, k):
    """The entries k … k + LANES − 1 of four rows, which are `down` apart."""
    return vec.load(F, f + k), vec.load(F, f + down + k), vec.load(F, f + 2 * down + k), vec.load(F, f + 3 * down + k)


@compiled
def ends_4(F, f, down, count):
    """The last `count` entries of four rows, with zeros behind them."""
    return (
        vec.load_some(F, f, count),
        vec.load_some(F, f + down, count),
        vec.load_some(F, f + 2 * down, count),
        vec.load_some(F, f + 3 * down, count),
    )


@compiled
def half_met(t):
    """Four vectors in one, in which a quarter of the lanes stands for each."""
    return fold_2(fold_1(t[0], t[1]), fold_1(t[2], t[3]))


@compiled
def meet_4x1(out, place, t):
    """Write the sums over the lanes for four rows and one column."""
    lanes = vec.lanes(out)
    if lanes == 2:
        vec.store(out, place, fold_1(t[0], t[1]))
        vec.store(out, place + 2, fold_1(t[2], t[3]))
    else:
        sums = half_met(t)
        if lanes > 8:
            sums = fold_4(sums, sums)
            sums = fold_8(sums, sums)
        elif lanes > 4:
            sums = fold_4(sums, sums)
        vec.store_some(out, place, sums, 4)


@compiled
def meet_4x2(out, place, apart, t, u):
    """Write the sums over the lanes for four rows and two columns, which are `apart` in `out`."""
    if vec.lanes(out) == 8:
        sums = fold_4(half_met(t), half_met(u))
        vec.store_some(out, place, sums, 4)
        vec.store_some(out, place + apart, vec.down(sums, 4), 4)
    else:
        meet_4x1(out, place, t)
        meet_4x1(out, place + apart, u)


@compiled
def meet_4x4(out, place, apart, t, u, v, w):
    """Write the sums over the lanes for four rows and four columns."""
    if vec.lanes(out) == 16:
        left, right = fold_4(half_met(t), half_met(u)), fold_4(half_met(v), half_met(w))
        sums = fold_8(left, right)
        vec.store_some(out, place, sums, 4)
        vec.store_some(out, place + apart, vec.down(sums, 4), 4)
        vec.store_some(out, place + 2 * apart, vec.down(sums, 8), 4)
        vec.store_some(out, place + 3 * apart, vec.down(sums, 12), 4)
    else:
        meet_4x2(out, place, apart, t, u)
        meet_4x2(out, place + 2 * apart, apart, v, w)


@compiled
def dots_4x4(F, f, down, X, x, apart, inner, out, place, out_apart):
    """Write F X for four rows and four columns."""
    lanes, zero = vec.lanes(F), vec.splat(F, 0.0)
    whole = inner & -lanes
    none = zero, zero, zero, zero
    t, u, v, w = none, none, none, none
    for k in range(0, whole, lanes):
        a = rows_4(F, f, down, k)
        t, u = chain_4(a, vec.load(X, x + k), t), chain_4(a, vec.load(X, x + apart + k), u)
        v, w = chain_4(a, vec.load(X, x + 2 * apart + k), v), chain_4(a, vec.load(X, x + 3 * apart + k), w)
    if whole < inner:
        count, x = inner - whole, x + whole
        a = ends_4(F, f + whole, down, count)
        t, u = chain_4(a, vec.load_some(X, x, count), t), chain_4(a, vec.load_some(X, x + apart, count), u)
        v = chain_4(a, vec.load_some(X, x + 2 * apart, count), v)
        w = chain_4(a, vec.load_some(X, x + 3 * apart, count), w)
    meet_4x4(out, place, out_apart, t, u, v, w)


@compiled
def dots_4x2(F, f, down, X, x, apart, inner, out, place, out_apart):
    """Write F X for four rows and two columns."""
    lanes, zero = vec.lanes(F), vec.splat(F, 0.0)
    whole = inner & -lanes
    t = zero, zero, zero, zero
    u = t
    for k in range(0, whole, lanes):
        a = rows_4(F, f, down, k)
        t, u = chain_4(a, vec.load(X, x + k), t), chain_4(a, vec.load(X, x + apart + k), u)
    if whole < inner:
        count, x = inner - whole, x + whole
        a = ends_4(F, f + whole, down, count)
        t, u = chain_4(a, vec.load_some(X, x, count), t), chain_4(a, vec.load_some(X, x + apart, count), u)
    meet_4x2(out, place, out_apart, t, u)


@compiled
def dots_4x1(F, f, down, X, x, inner, out, place):
    """Write F X for four rows and one column."""
    lanes, zero = vec.lanes(F), vec.splat(F, 0.0)
    whole = inner & -lanes
    t = zero, zero, zero, zero
    for k in range(0, whole, lanes):
        t = chain_4(rows_4(F, f, down, k), vec.load(X, x + k), t)
    if whole < inner:
        count = inner - whole
        t = chain_4(ends_4(F, f + whole, down, count), vec.load_some(X, x + whole, count), t)
    meet_4x1(out, place, t)


@compiled
def dots_1x1(F, f, X, x, inner, out, place):
    """Write F X for one row and one column."""
    lanes, t = vec.lanes(F), vec.splat(F, 0.0)
    whole = inner & -lanes
    for k in range(0, whole, lanes):
        t = vec.fma(vec.load(F, f + k), vec.load(X, x + k), t)
    if whole < inner:
        t = vec.fma(vec.load_some(F, f + whole, inner - whole), vec.load_some(X, x + whole, inner - whole), t)
    out[place] = total(t)


dots_4xw = dots_4x4 if WIDTH == 4 else dots_4x2


@compiled
def rows_by_columns(F, rows, inner, X, x, apart, out, place, out_apart, count):
    """Write F X for `count` columns, which are `apart` in X, to columns that are `out_apart` in `out`.

    F (rows, inner) is flat. What does not fill the last group of rows or of columns is computed together with its
    neighbours in front, which get the same bits again.
    """
    vec.separate()
    height = HEIGHT if rows >= HEIGHT else 1
    width = WIDTH if count >= WIDTH and height > 1 else 1
    for top in range(0, rows, BLOCK_ROWS):  # These rows stay in the fastest cache, with a group of columns.
        for c in range(0, count, width):
            j = min(c, count - width)
            y = x + j * apart
            for r in range(top, min(top + BLOCK_ROWS, rows), height):
                i = min(r, rows - height)
                f, o = i * inner, place + i + j * out_apart
                if width > 1:
                    dots_4xw(F, f, inner, X, y, apart, inner, out, o, out_apart)
                elif height > 1:
                    dots_4x1(F, f, inner, X, y, inner, out, o)
                else:
                    dots_1x1(F, f, X, y, inner, out, o)
