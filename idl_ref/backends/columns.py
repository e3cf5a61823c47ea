"""Compiled for the Numba twin: packing, products, activations and norms, for contiguous columns.

A panel is LANES rows of a factor, packed: F[p·LANES + l, k] stands at (p K + k)·LANES + l. A column has `end`
entries, n and zeros up to a multiple of ROWS. All arrays are flat.
"""

from __future__ import annotations

import hashlib
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from idl_ref import activations, certificate
from idl_ref.activations import LEAK
from idl_ref.backends import vectors as vec
from idl_ref.backends.vectors import GROUP, VECTOR_BYTES

ROWS = 16  # every column and every packed factor is filled up with zeros to a multiple of this
RELU = activations.get("relu").code
BLOCK = 256  # columns of A that are multiplied at a time: two panels of them stay in the L1 cache

# No fastmath: NaN must stay NaN. No wrappers: only entry points are called from Python, and they alone allocate; the
# others count no references, which would take a good part of the time of small columns.
OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True}
compiled = njit(**OPTIONS, no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False)


def _fingerprint() -> str:
    """Of every file that compiled code is made of. Numba's cache looks at the file of an entry point only."""
    digest = hashlib.sha256()
    for path in [*Path(__file__).parent.glob("*.py"), Path(activations.__file__), Path(certificate.__file__)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


FINGERPRINT = _fingerprint()


def entry(function: Any, parallel: bool = False) -> Any:
    """Compile what is called from Python, and keep it on disk where that is possible.

    Files on disk are named by __qualname__: with the fingerprint in it, no change of the sources finds an old one.
    """
    function.__qualname__ += f"_{FINGERPRINT}"
    try:
        return njit(**OPTIONS, no_cfunc_wrapper=True, parallel=parallel, cache=True)(function)
    except RuntimeError:  # neither the package nor the user's cache directory can be written
        return njit(**OPTIONS, no_cfunc_wrapper=True, parallel=parallel)(function)


parallel_entry = partial(entry, parallel=True)


# --- products ---------------------------------------------------------------------------------------------------------


@entry
def pack(F, down, right, rows, columns, packed, by_columns, weights, sums):
    """F (rows, columns), its entries `down` and `right` apart, in panels; sums = |F| weights, or |F|ᵀ weights, and the
    largest of them, NaN if there is one.

    The sums are rounded in the dtype of F. weights, ones if it is empty, and sums are filled up to a multiple of ROWS.
    """
    lanes, zero, one = VECTOR_BYTES // packed.itemsize, packed.dtype.type(0), packed.dtype.type(1)
    for k in range(len(sums)):
        sums[k] = 0
    for first in range(0, (rows + ROWS - 1) // ROWS * ROWS, lanes):
        panel, inside, done = first * columns, max(0, min(lanes, rows - first)), 0
        if inside == lanes and right == 1:
            done = columns - columns % lanes
            for k in range(0, done, lanes):
                vec.transpose(F, first * down + k, down, packed, panel + k * lanes)
        elif inside == lanes and down == 1:
            done = columns
            for k in range(columns):
                vec.store(packed, panel + k * lanes, vec.load(F, first + k * right))
        for k in range(done, columns):
            for lane in range(lanes):
                packed[panel + k * lanes + lane] = F[(first + lane) * down + k * right] if lane < inside else 0
        row_weights, row_sums = vec.splat(packed, one), vec.splat(packed, zero)
        if by_columns and len(weights) > 0:
            row_weights = vec.load(weights, first)
        for k in range(columns):
            size = vec.magnitude(vec.load(packed, panel + k * lanes))
            if by_columns:
                sums[k] += vec.total(vec.multiply(size, row_weights))
            elif len(weights) > 0:
                row_sums = vec.add(row_sums, vec.multiply(size, vec.splat(packed, weights[k])))
            else:
                row_sums = vec.add(row_sums, size)
        if not by_columns:
            vec.store(sums, first, row_sums)
    top = vec.splat(packed, zero)
    for k in range(0, len(sums), lanes):
        top = vec.larger(vec.load(sums, k), top)
    return np.float64(vec.largest(top))


@compiled
def product(F, rows, inner, X, x, S, s, G, g, count):
    """G[g_c] = S[s_c] + F X[x_c] for the first `count` offsets; F (rows, inner) packed."""
    vec.separate()
    lanes = VECTOR_BYTES // F.itemsize
    end = (rows + ROWS - 1) // ROWS * ROWS
    panel = inner * lanes
    most = 4 if count < GROUP else 2
    row = 0
    while row < end:
        panels = most
        while row + panels * lanes > end:
            panels //= 2
        f = row * inner
        for k0 in range(0, inner, BLOCK):
            k1 = min(inner, k0 + BLOCK)
            if k0 == 0:
                source, o = S, s
            else:
                source, o = G, g
            c = 0
            if panels < 4:
                while c + GROUP <= count:
                    if panels == 2:
                        vec.product_2xg(F, f, panel, X, x, source, o, G, g, row, c, k0, k1)
                    else:
                        vec.product_1xg(F, f, panel, X, x, source, o, G, g, row, c, k0, k1)
                    c += GROUP
            while c < count:
                if panels == 4:
                    vec.product_4x1(F, f, panel, X, x, source, o, G, g, row, c, k0, k1)
                elif panels == 2:
                    vec.product_2x1(F, f, panel, X, x, source, o, G, g, row, c, k0, k1)
                else:
                    vec.product_1x1(F, f, panel, X, x, source, o, G, g, row, c, k0, k1)
                c += 1
        row += panels * lanes


# --- one column -------------------------------------------------------------------------------------------------------


@compiled
def phi(M, i, code):
    """φ of an entry; `code` is that of the activation table. NaN stays NaN, because it is not ≤ 0."""
    vec.separate()
    p, zero, one = M[i], M.dtype.type(0), M.dtype.type(1)
    if code == RELU:
        return zero if p <= zero else p
    if code == 2:
        return M.dtype.type(LEAK) * p if p <= zero else p
    if code == 3:
        return math.tanh(p)
    if code == 4:
        e = math.exp(-abs(p))
        return e / (one + e) if p < zero else one / (one + e)
    if code == 5:
        e = math.log1p(math.exp(-abs(p)))
        return e if p <= zero else p + e
    if code == 6:
        return math.expm1(p) if p <= zero else p
    if code == 7:
        return -one if p <= -one else one if p >= one else p
    if code == 8:
        return p / (one + abs(p))
    return p


@compiled
def norms(M, a, b, end):
    """‖a − b‖∞ and ‖a − b‖₁ of two columns; b < 0 stands for zeros."""
    vec.separate()
    top = vec.splat(M, M.dtype.type(0))
    total = top
    for i in range(0, end, VECTOR_BYTES // M.itemsize):
        value = vec.load(M, a + i)
        if b >= 0:
            value = vec.subtract(value, vec.load(M, b + i))
        total = vec.add(total, vec.magnitude(value))
        top = vec.larger(vec.magnitude(value), top)
    return np.float64(vec.largest(top)), np.float64(vec.total(total))


@compiled
def finish(M, g, x, s, n, end, code):
    """P -> G = S ∘ f(P) in place;   ‖G − X‖∞ and ‖G‖∞, NaN if an entry is."""
    vec.separate()
    if code != RELU:  # that is done on the way
        for i in range(g, g + n):
            M[i] = phi(M, i, code)
        for i in range(g + n, g + end):
            M[i] = 0
    step = vec.splat(M, M.dtype.type(0))
    top = step
    for i in range(0, end, VECTOR_BYTES // M.itemsize):
        value = vec.load(M, g + i)
        if code == RELU:
            value = vec.positive(value)
        if s >= 0:
            value = vec.multiply(vec.load(M, s + i), value)
        if code == RELU or s >= 0:
            vec.store(M, g + i, value)
        step = vec.larger(vec.magnitude(vec.subtract(value, vec.load(M, x + i))), step)
        top = vec.larger(vec.magnitude(value), top)
    return np.float64(vec.largest(step)), np.float64(vec.largest(top))
