"""This module has the compiled solution of an equation whose units form no cycle: a sweep over levels of units.

X_b = φ(Σ_c A_bc X_c + Z_b), over the blocks c before b; in the adjoint equation V_b = S_b ∘ (Σ_c (Aᵀ)_bc V_c + G_b)

In the memory of a tile, the units of a block follow each other, and zeros fill them up to a multiple of ROWS. The first
axis of a `table` is that of the blocks; its columns are

    AT, COUNT      the place of the block in a column, and its number of units
    LOW, HIGH      the places, from LOW to HIGH, of the units on which it depends
    PACKED         where its F begins, in panels over these places
    FIRST          its first unit if its units follow each other in X as well, otherwise −1
"""

from __future__ import annotations

import math

import numpy as np

from idl_ref.backends.numba.columns import copy, finish, norms
from idl_ref.backends.numba.compiling import compiled, entry, vec
from idl_ref.backends.numba.functions import largest
from idl_ref.backends.numba.passes import readout
from idl_ref.backends.numba.products import GROUP, ROWS, boundary, fill, filled, gather, strided

AT, COUNT, LOW, HIGH, PACKED, FIRST = range(6)
CONSTANT, SIZE, SLOPE = range(3)  # what is measured of a block: the norms of Z and X, and max(S)


@compiled
def collect(source, first, n, table, units, M, place, stride, w, room):
    """Copy the columns first … first + w − 1 of `source`, n entries each, to M, block by block."""
    one = np.int64(1)  # As a literal, it would compile `gather` once more.
    for b in range(len(table)):
        at, count, unit = table[b, AT], table[b, COUNT], table[b, FIRST]
        if unit >= 0:
            gather(source, first * n + unit, one, n, M, place + at, stride, count, w, filled(count, ROWS), room)
            continue
        for c in range(room):
            o = place + c * stride + at
            fill(M, o, o + filled(count, ROWS), 0.0)
            for i in range(count if c < w else 0):
                M[o + i] = source[(first + c) * n + units[at + i]]


@compiled
def deliver(M, place, stride, w, table, units, out, first, n):
    """Copy w columns of M to the columns of `out` from `first` on: the reverse of `collect`."""
    vec.separate()
    lanes = vec.lanes(M)
    for b in range(len(table)):
        at, count, unit = table[b, AT], table[b, COUNT], table[b, FIRST]
        whole = count & -lanes if unit >= 0 else 0
        for c in range(w):
            m, o = place + c * stride + at, (first + c) * n
            for i in range(0, whole, lanes):
                vec.store(out, o + unit + i, vec.load(M, m + i))
            for i in range(whole, count):
                out[o + units[at + i]] = M[m + i]


@compiled
def size(M, a, end, rows, adjoint):
    """The norm of a part of a column: ‖·‖∞, or ‖·‖₁ for the adjoint; not finite only if one of its entries is not."""
    top, total = norms(M, a, -end, end)
    if adjoint:  # A sum that overflows in its dtype is replaced by a larger number that does not.
        return total if math.isfinite(total) else rows * top
    return top


@compiled
def sweep(F, table, M, places, stride, w, code, first, measured):
    """X, block by block, from Z, and the numbers that a certificate needs.   measured: (3, blocks, m)

    places: where x, z, s and a column of zeros begin in M; s < 0 for the forward equation
    """
    (x, z, s, zeros), start, lanes = places, boundary(F), vec.lanes(F)
    for b in range(len(table)):
        at, count, low, high = table[b, AT], table[b, COUNT], table[b, LOW], table[b, HIGH]
        end = filled(count, ROWS)
        for c in range(w):
            measured[CONSTANT, b, first + c] = size(M, z + c * stride + at, end, count, s >= 0)
            if s >= 0:
                measured[SLOPE, b, first + c] = size(M, s + c * stride + at, end, count, s < 0)
        if low < high:
            place, shape = (start + table[b, PACKED], (high - low) * lanes, lanes), (count, high - low)
            strided(F, place, shape, M, x + low, stride, M, z + at, stride, x + at, stride, w)
        else:
            for c in range(w):
                copy(M, x + c * stride + at, z + c * stride + at, end)
        for c in range(w):
            g = x + c * stride + at
            finish(M, g, zeros, s + c * stride + at if s >= 0 else s, count, end, code)
            measured[SIZE, b, first + c] = size(M, g, end, count, s >= 0)


@entry
def solve(first, last, F, table, units, columns, sizes, answer):
    """X for some columns of Z, or V for some of G and S.

    columns: Z and S, one column after the other; S is empty for the forward equation. sizes: n, the length of a column
    in M, and the activation. answer: X, and the numbers measured
    """
    (Z, S), (n, end, code), (X, measured) = columns, sizes, answer
    w, stride = last - first, end + ROWS
    room, adjoint = filled(w, GROUP), S.size > 0
    block = room * stride
    M = np.empty((3 if adjoint else 2) * block + stride + ROWS, F.dtype)
    x = boundary(M)
    z, s, zeros = x + block, x + 2 * block if adjoint else -1, x + (3 if adjoint else 2) * block
    fill(M, zeros, zeros + end, 0.0)
    collect(Z, first, n, table, units, M, z, stride, w, room)
    if adjoint:
        collect(S, first, n, table, units, M, s, stride, w, room)
    sweep(F, table, M, (x, z, s, zeros), stride, w, code, first, measured)
    deliver(M, x, stride, w, table, units, X, first, n)
    return 0


@compiled
def widened(B, row, p, low, high):
    """Extend a span of entries to the nonzero ones of a row, which begins at `row`."""
    vec.separate()
    lanes, top = vec.lanes(B), vec.splat(B, 0.0)
    whole = p & -lanes
    for k in range(row, row + whole, lanes):
        top = vec.larger(vec.magnitude(vec.load(B, k)), top)
    k = whole if largest(top) == 0 else p - p  # Zeros are passed by vectors.
    while k < low and B[row + k] == 0:
        k += 1
    low, k = min(low, k), p
    while k > max(high, low) and B[row + k - 1] == 0:
        k -= 1
    return low, max(high, k)


@entry
def pack_inputs(B, p, table, units, spans, packed):
    """Write the rows of B to `packed` in panels, block by block, without the inputs before and behind those it reads.

    The inputs of a block, from LOW to HIGH, and where its panels begin, are written to `spans` (blocks, 3). Returns the
    number of flops of B U for one column.   B is flat, one row of p entries after the other
    """
    lanes, place, flops, across = vec.lanes(packed), boundary(packed), p - p, np.int64(1)
    start = place
    for b in range(len(table)):
        at, count = table[b, AT], table[b, COUNT]
        low, high = p, p - p
        for i in range(count):
            low, high = widened(B, units[at + i] * p, p, low, high)
        high = max(low, high)
        spans[b, 0], spans[b, 1], spans[b, 2] = low, high, place - start
        flops += 2 * count * (high - low)
        for top in range(0, filled(count, ROWS), lanes):
            inside, unit = min(lanes, max(count - top, count - count)), table[b, FIRST]
            if unit >= 0:
                from_entry = (unit + top) * p + low
                gather(B, from_entry, p, across, packed, place, lanes, inside, high - low, lanes, high - low)
            else:
                for i in range(place, place + lanes * (high - low)):
                    packed[i] = 0
                for i in range(inside):
                    row = units[at + top + i] * p
                    for k in range(low, high):
                        packed[place + (k - low) * lanes + i] = B[row + k]
            place += lanes * (high - low)
    return flops


@entry
def forward(first, last, F, table, units, around, sizes, answer):
    """Z = B U, X, and Y = C X + D U for some columns of U.

    around: B in panels and its `spans`, see `pack_inputs`; C and D; U, one column after the other. sizes: n, p, q, the
    length of a column in M, and the activation. answer: Z, X and Y, and the numbers measured
    """
    (B, spans), (C, D), U = around
    (n, p, q, end, code), (Z, X, Y, measured), lanes = sizes, answer, vec.lanes(F)
    w, stride, inputs = last - first, end + ROWS, filled(p, ROWS)
    room, apart, one, start = filled(w, GROUP), inputs + ROWS, np.int64(1), boundary(B)
    block = room * stride
    M = np.empty(2 * block + room * apart + stride + ROWS, F.dtype)
    x = boundary(M)
    z, u, zeros, still = x + block, x + 2 * block, x + 2 * block + room * apart, p - p
    fill(M, zeros, zeros + end, 0.0)
    gather(U, first * p, one, p, M, u, apart, p, w, inputs, room)
    for b in range(len(table)):
        at, count, low, high = table[b, AT], table[b, COUNT], spans[b, 0], spans[b, 1]
        place, shape = (start + spans[b, 2], (high - low) * lanes, lanes), (count, high - low)
        if low < high:
            strided(B, place, shape, M, u + low, apart, M, zeros, still, z + at, stride, w)
        else:
            for c in range(w):
                fill(M, z + c * stride + at, z + c * stride + at + filled(count, ROWS), 0.0)
    sweep(F, table, M, (x, z, -one, zeros), stride, w, code, first, measured)
    for c in range(w):  # An input that is not finite counts even if no block reads it.
        measured[CONSTANT, 0, first + c] += 0 * norms(M, u + c * apart, -inputs, inputs)[0]
    deliver(M, z, stride, w, table, units, Z, first, n)
    deliver(M, x, stride, w, table, units, X, first, n)
    readout(first, last, C, D, X, U, (n, p, q, p), Y)
    return 0
