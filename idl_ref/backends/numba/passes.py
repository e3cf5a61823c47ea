"""This module has the compiled parts of a forward and of a backward pass, for some of the columns of a batch.

forward     Z = B U            X by a solver       Y = C X + D U
backward    S = φ′(A X + Z)    G = Cᵀ G_Y          V by a solver       ∂ = L Rᵀ, such as ∂B = V Uᵀ or ∂Uᵀ = Vᵀ B

All arrays are flat. U, Z, X, Y, S and G have one column after the other; B, C and D have one row after the other.
"""

from __future__ import annotations

import numpy as np

from idl_ref.activations import MIXED
from idl_ref.backends.numba.compiling import compiled, entry, vec
from idl_ref.backends.numba.dots import rows_by_columns
from idl_ref.backends.numba.functions import slope
from idl_ref.backends.numba.kernels import apply, picard
from idl_ref.backends.numba.mixed import located, room_of_codes, slope_of
from idl_ref.backends.numba.products import BLOCK, GROUP, ROWS, boundary, fill, filled, gather, strided

# So many entries of a row of ∂ are computed before the next ones, so that what they are computed from stays in cache.
PART = 1024
COLUMNS = 8  # So many columns of D U are computed, and then added to C X.


@compiled
def write(M, source, apart, out, place, n, count):
    """Copy the first n entries of each of `count` columns, which are `apart` in M, to `out`, one after the other."""
    vec.separate()
    lanes = vec.lanes(M)
    whole = n & -lanes
    for c in range(count):
        m, o = source + c * apart, place + c * n
        for i in range(0, whole, lanes):
            vec.store(out, o + i, vec.load(M, m + i))
        for i in range(whole, n):
            out[o + i] = M[m + i]


# --- forward ----------------------------------------------------------------------------------------------------------


@entry
def take(first, last, samples, chosen, width, U, apart):
    """Write the rows of `samples` with the chosen numbers, of `width` entries each, to the columns of U."""
    for j in range(first, last):
        write(samples, chosen[j] * width, width, U, j * apart, width, last - last + 1)
    return 0


@entry
def constant(first, last, B, U, sizes, Z):
    """Z = B U.   sizes: n, p, q, and the distance between the columns of U"""
    n, p, _, apart = sizes
    rows_by_columns(B, n, p, U, first * apart, apart, Z, first * n, n, last - first)
    return 0


@entry
def readout(first, last, C, D, X, U, sizes, Y):
    """Y = C X + D U; D is empty where there is none.   sizes: as for `constant`"""
    n, p, q, apart = sizes
    rows_by_columns(C, q, n, X, first * n, n, Y, first * q, q, last - first)
    if D.size > 0:
        M = np.empty(q * COLUMNS, D.dtype)
        for c in range(first, last, COLUMNS):
            some = min(COLUMNS, last - c)
            rows_by_columns(D, q, p, U, c * apart, apart, M, n - n, q, some)
            for i in range(some * q):
                Y[c * q + i] += M[i]
    return 0


@entry
def forward(first, last, around, F1, F2, columns, shape, levels, roundings, answer):
    """Z, X by Picard's iteration, and Y. Returns how many columns were slow, whose X and Y are not those wanted yet.

    around: B, C and D; U; the sizes that `constant` takes; and Y. The rest is what `picard` takes.
    """
    (B, C, D), U, sizes, Y = around
    constant(first, last, B, U, sizes, columns[0][0])
    left = picard(first, last, F1, F2, columns, shape, levels, roundings, answer)
    readout(first, last, C, D, answer[0], U, sizes, Y)
    return left


# --- backward ---------------------------------------------------------------------------------------------------------


@entry
def terms(first, last, F1, F2, C, columns, sizes, answer):
    """The terms of the adjoint equation, S = φ′(A X + Z) and G = Cᵀ G_Y.

    columns: X, Z and G_Y. sizes: n, r (0 for one factor), q and the activation. answer: S and G.
    """
    (X, Z, G_Y), (n, r, q, kind), (S, G) = columns, sizes, answer
    w, end, small, lanes = last - first, filled(n, ROWS), filled(r, ROWS), vec.lanes(C)
    stride, apart, room = end + ROWS, filled(q, ROWS) + ROWS, filled(w, GROUP)
    block = room * stride
    size = 3 * block + (room + 3) * small + (q + 1) * stride + room * apart
    M = np.empty(size + room_of_codes(end, kind) + ROWS, C.dtype)
    x = boundary(M)
    code = located(F1, M, x + size, end, kind)
    z, p, t = x + block, x + 2 * block, x + 3 * block
    c = t + (room + 3) * small
    y = c + (q + 1) * stride
    one, skip = np.int64(1), w < 0  # As literals, 1 and False would compile what takes them once more.
    gather(X, first * n, one, n, M, x, stride, n, w, end, room)
    gather(Z, first * n, one, n, M, z, stride, n, w, end, room)
    fill(M, t, t + small, 0.0)
    apply(F1, F2, M, (x, p, z, t), stride, small, w, n, r, skip)
    for a in range(p, p + w * stride, stride):
        if code >= MIXED:
            for i in range(0, end, lanes):
                vec.store(M, a + i, slope_of(M, vec.load(M, a + i), i, code))
        else:
            for i in range(a, a + end, lanes):
                vec.store(M, i, slope(vec.load(M, i), code))
    write(M, p, stride, S, first * n, n, w)
    gather(C, n - n, one, n, M, c, stride, n, q, end, q)
    fill(M, c + q * stride, c + q * stride + end, 0.0)
    gather(G_Y, first * q, one, q, M, y, apart, q, w, filled(q, ROWS), room)
    strided(M, (c, lanes, stride), (n, q), M, y, apart, M, c + q * stride, n - n, p, stride, w)
    write(M, p, stride, G, first * n, n, w)
    return 0


@entry
def backward(first, last, around, F1, F2, columns, shape, levels, roundings, answer):
    """S and G, and V by Picard's iteration. Returns how many columns were slow, whose V is not the one wanted yet.

    around: what `terms` takes for these columns. The rest is what `picard` takes for the adjoint equation.
    """
    terms(first, last, *around)
    return picard(first, last, F1, F2, columns, shape, levels, roundings, answer)


@entry
def outer(first, last, left, R, sizes, out):
    """∂ = L Rᵀ for the rows first … last − 1: sums over samples, one block of them after the other.

    left: Lᵀ (m, a), and the distances between its rows and between its columns. R (b, m) has one column after the
    other, and ∂ one row after the other. `out` has room for `filled(a, GROUP)` rows, and for a row of zeros behind
    them.   sizes: a, b, m, and the distance between the columns of R
    """
    (a, b, m, across), (Lt, rows, columns) = sizes, left
    w, lanes, most = last - first, vec.lanes(R), filled(min(m, BLOCK), ROWS)
    # The rows of R are the lanes of a product. Those that do not fill ROWS lanes are copied, with zeros beside them.
    whole, room, down = b & -ROWS, filled(w, GROUP), most + ROWS
    M = np.empty(most * ROWS + room * (down + ROWS) + 2 * ROWS, R.dtype)
    r = boundary(M)
    lt, g = r + most * ROWS, r + most * ROWS + room * down
    zeros, rest, apart, narrow = filled(a, GROUP) * b, g + room * ROWS, b - b, b - b
    one, high = np.int64(1), np.int64(ROWS)  # Literals would compile what takes them once more.
    fill(M, rest, rest + ROWS, 0.0)
    for i in range(zeros, zeros + b):
        out[i] = 0  # Every tile does this, so that none has to wait for another one.
    for k in range(0, m, BLOCK):
        count = min(BLOCK, m - k)
        gather(Lt, k * rows + first * columns, rows, columns, M, lt, down, count, w, filled(count, ROWS), room)
        for f in range(0, whole, PART):
            place, o = (k * across + f, lanes, across), first * b + f
            s = o if k > 0 else zeros
            strided(R, place, (min(PART, whole - f), count), M, lt, down, out, s, apart, o, b, w)
        if whole < b:
            gather(R, k * across + whole, one, across, M, r, high, b - whole, count, high, count)
            strided(M, (r, lanes, high), (high, count), M, lt, down, M, rest, narrow, g, high, w)
        apart, rest, narrow = b, g, high  # The next blocks are added to what is there.
    for c in range(w):
        for i in range(whole, b):
            out[(first + c) * b + i] = M[g + c * ROWS + i - whole]
    return 0


@entry
def outers(first, last, left, products):
    """L Rᵀ for several R, and for the rows first … last − 1 of L; some products may be those of its first rows only.

    products: for each of them R, the sizes and the result, as `outer` takes them
    """
    for R, sizes, out in products:
        if first < sizes[0]:
            outer(first, min(last, sizes[0]), left, R, sizes, out)
    return 0
