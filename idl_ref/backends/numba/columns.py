"""Compiled for the Numba twin: packing, products, activations and norms, for contiguous columns.

A panel is LANES rows of a factor, packed: F[p·LANES + l, k] stands at (p K + k)·LANES + l behind the boundary of a
vector. A column has `end` entries, n and zeros up to a multiple of ROWS. All arrays are flat.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from idl_ref import activations, certificate
from idl_ref.activations import LEAK
from idl_ref.backends.numba import simd as vec
from idl_ref.backends.numba.simd import GROUP, VECTOR_BYTES

ROWS = 16  # every column and every packed factor is filled up with zeros to a multiple of this
IDENTITY, RELU, LEAKY_RELU, TANH, SIGMOID, SOFTPLUS, ELU, HARDTANH, SOFTSIGN = (
    activations.get(name).code
    for name in ("identity", "relu", "leaky_relu", "tanh", "sigmoid", "softplus", "elu", "hardtanh", "softsign")
)
BLOCK = 128  # terms of an inner product that are summed before they meet the rest: short sums are rounded less

# No fastmath: NaN must stay NaN. No wrappers: only entry points are called from Python, and they alone allocate; the
# others count no references, which would take a good part of the time of small columns.
OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True}
compiled = njit(**OPTIONS, no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False)


def _fingerprint() -> str:
    """Of every file that compiled code is made of, and of the vectors it uses. Numba's cache looks at the file of an
    entry point and at the CPU only."""
    digest = hashlib.sha256(f"{VECTOR_BYTES} {GROUP}".encode())
    for path in [*Path(__file__).parent.glob("*.py"), Path(activations.__file__), Path(certificate.__file__)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


FINGERPRINT = _fingerprint()


def entry(function: Any) -> Any:
    """Compile what is called from Python, and keep it on disk where that is possible.

    Files on disk are named by __qualname__: with the fingerprint in it, no change of the sources finds an old one.
    """
    function.__qualname__ += f"_{FINGERPRINT}"
    try:
        return njit(**OPTIONS, no_cfunc_wrapper=True, cache=True)(function)
    except RuntimeError:  # neither the package nor the user's cache directory can be written
        return njit(**OPTIONS, no_cfunc_wrapper=True)(function)


@compiled
def filled(entries, unit):
    """`entries`, filled up to a multiple of `unit`, a power of two."""
    return (entries + unit - 1) & -unit


@compiled
def fill(M, first, end, value):
    """M[first : end] = value, from one boundary of a vector to another."""
    vec.separate()
    for i in range(first, end, vec.lanes(M)):
        vec.store(M, i, vec.splat(M, M.dtype.type(value)))


# --- products ---------------------------------------------------------------------------------------------------------


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
def pack(F, down, right, rows, columns, packed, by_columns, weights, sums):
    """F (rows, columns), its entries `down` and `right` apart, in panels; sums = |F| weights, or |F|ᵀ weights, and the
    largest of them, NaN if there is one.

    The sums are rounded in the dtype of F. weights, ones if it is empty, and sums are filled up to a multiple of ROWS.
    """
    lanes, zero, one = vec.lanes(packed), packed.dtype.type(0), packed.dtype.type(1)
    for k in range(len(sums)):
        sums[k] = 0
    for first in range(0, filled(rows, ROWS), lanes):
        panel, inside = vec.boundary(packed) + first * columns, lanes
        if first + lanes > rows:
            inside = rows - first if first < rows else first - first
        gather(F, first * down, down, right, packed, panel, lanes, inside, columns, lanes, columns)
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
def product(F, rows, inner, M, x, x_apart, s, s_apart, g, g_apart, count):
    """G = S + F X for `count` columns of M that begin at x, s and g, `apart` from each other; F (rows, inner) packed.

    A few columns more may be computed, up to a multiple of GROUP: there must be room for them.
    """
    vec.separate()
    lanes = vec.lanes(F)
    end = filled(rows, ROWS)
    panel = inner * lanes
    grouped = (count + GROUP // 2) & -GROUP
    most = 2 if grouped > 0 else 4
    row = 0
    while row < end:
        panels = most
        while row + panels * lanes > end:
            panels >>= 1
        f = vec.boundary(F) + row * inner
        for k0 in range(0, inner, BLOCK):
            k1 = k0 + BLOCK if k0 + BLOCK < inner else inner
            o, o_apart = s + row, s_apart
            if k0 > 0:
                o, o_apart = g + row, g_apart
            for c in range(0, grouped, GROUP):
                xc, sc, gc = x + c * x_apart, o + c * o_apart, g + row + c * g_apart
                if panels == 2:
                    vec.product_2xg(F, f, panel, M, xc, x_apart, sc, o_apart, gc, g_apart, k0, k1)
                else:
                    vec.product_1xg(F, f, panel, M, xc, x_apart, sc, o_apart, gc, g_apart, k0, k1)
            for c in range(grouped, count):
                xc, sc, gc = x + c * x_apart, o + c * o_apart, g + row + c * g_apart
                if panels == 4:
                    vec.product_4x1(F, f, panel, M, xc, x_apart, sc, o_apart, gc, g_apart, k0, k1)
                elif panels == 2:
                    vec.product_2x1(F, f, panel, M, xc, x_apart, sc, o_apart, gc, g_apart, k0, k1)
                else:
                    vec.product_1x1(F, f, panel, M, xc, x_apart, sc, o_apart, gc, g_apart, k0, k1)
        row += panels * lanes


# --- one column -------------------------------------------------------------------------------------------------------


@compiled
def copy(M, target, source, end):
    """A column into another one."""
    vec.separate()
    for i in range(0, end, vec.lanes(M)):
        vec.store(M, target + i, vec.load(M, source + i))


@compiled
def phi(M, p, code):
    """φ of a vector; `code` is that of the activation table. NaN stays NaN, because it is not ≤ 0."""
    vec.separate()
    zero, one = vec.splat(M, M.dtype.type(0)), vec.splat(M, M.dtype.type(1))
    if code == RELU:
        return vec.positive(p)
    if code == LEAKY_RELU:
        return vec.choose(p, vec.multiply(vec.splat(M, M.dtype.type(LEAK)), p), p)
    if code == TANH:
        e = vec.expm1(vec.add(vec.negative(p), vec.negative(p)))
        t = vec.divide(e, vec.add(vec.splat(M, M.dtype.type(2)), e))  # −tanh |p|
        return vec.choose(p, t, vec.subtract(zero, t))
    if code == SIGMOID:
        e = vec.exp(vec.negative(p))
        return vec.divide(vec.choose(p, e, one), vec.add(one, e))
    if code == SOFTPLUS:
        return vec.add(vec.positive(p), vec.log1p(vec.exp(vec.negative(p))))
    if code == ELU:
        return vec.choose(p, vec.expm1(vec.negative(p)), p)
    if code == HARDTANH:
        below = vec.choose(vec.subtract(one, p), one, p)
        return vec.choose(vec.add(p, one), vec.subtract(zero, one), below)
    if code == SOFTSIGN:
        return vec.divide(p, vec.add(one, vec.magnitude(p)))
    return p


@compiled
def slope(M, p, code):
    """φ′ of a vector, the smaller one-sided slope at a kink."""
    vec.separate()
    zero, one = vec.splat(M, M.dtype.type(0)), vec.splat(M, M.dtype.type(1))
    if code == RELU:
        return vec.choose(p, zero, one)
    if code == LEAKY_RELU:
        return vec.choose(p, vec.splat(M, M.dtype.type(LEAK)), one)
    if code == TANH:
        t = phi(M, p, code)
        return vec.subtract(one, vec.multiply(t, t))
    if code == SIGMOID:
        e = vec.exp(vec.negative(p))
        return vec.divide(e, vec.multiply(vec.add(one, e), vec.add(one, e)))
    if code == SOFTPLUS:
        return phi(M, p, SIGMOID)
    if code == ELU:
        return vec.choose(p, vec.exp(vec.negative(p)), one)
    if code == HARDTANH:
        return vec.choose(vec.subtract(one, vec.magnitude(p)), zero, one)
    if code == SOFTSIGN:
        size = vec.add(one, vec.magnitude(p))
        return vec.divide(one, vec.multiply(size, size))
    return one


@compiled
def norms(M, a, b, end):
    """‖a − b‖∞ and ‖a − b‖₁ of two columns; b < 0 stands for zeros."""
    vec.separate()
    top = vec.splat(M, M.dtype.type(0))
    total = top
    for i in range(0, end, vec.lanes(M)):
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
    lanes = vec.lanes(M)
    if code > RELU:  # that and the identity are done on the way
        for i in range(0, end, lanes):
            vec.store(M, g + i, phi(M, vec.load(M, g + i), code))
        for i in range(g + n, g + end):
            M[i] = 0
    step = vec.splat(M, M.dtype.type(0))
    top = step
    for i in range(0, end, lanes):
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
