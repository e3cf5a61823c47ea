"""This module has compiled functions of one column: copies, norms, and the steps that follow a product.

A column begins at an index of the flat array M, and `end` is its length, filled up with zeros to a multiple of ROWS.
"""

from __future__ import annotations

import numpy as np

from idl_ref.activations import MIXED, RELU
from idl_ref.backends.numba.compiling import compiled, vec
from idl_ref.backends.numba.functions import largest, largest_two, phi, total
from idl_ref.backends.numba.mixed import phi_of_rows


@compiled
def copy(M, target, source, end):
    """Copy the column that begins at `source` to `target`."""
    vec.separate()
    if target != source:  # The last column of a tile takes its own place when it is done.
        for i in range(0, end, vec.lanes(M)):
            vec.store(M, target + i, vec.load(M, source + i))


@compiled
def norms(M, a, b, end):
    """Return ‖a − b‖∞ and ‖a − b‖₁ of two columns; if b < 0, b stands for a column of zeros."""
    vec.separate()
    top = vec.splat(M, 0.0)
    sums = top
    for i in range(0, end, vec.lanes(M)):
        value = vec.load(M, a + i)
        if b >= 0:
            value = vec.subtract(value, vec.load(M, b + i))
        sums = vec.add(sums, vec.magnitude(value))
        top = vec.larger(vec.magnitude(value), top)
    return np.float64(largest(top)), np.float64(total(sums))


@compiled
def finish(M, g, x, s, n, end, code):
    """Replace P by G = S ∘ f(P), and return ‖G − X‖∞ and ‖G‖∞; a norm is NaN if one of its entries is NaN."""
    vec.separate()
    lanes = vec.lanes(M)
    if code > RELU:  # that and the identity are done on the way
        if code >= MIXED:
            phi_of_rows(M, g, end, code)
        else:
            for i in range(0, end, lanes):
                vec.store(M, g + i, phi(vec.load(M, g + i), code))
        for i in range(g + n, g + end):
            M[i] = 0
    zero = vec.splat(M, 0.0)
    step, top = zero, zero
    for i in range(0, end, lanes):
        value = vec.load(M, g + i)
        if code == RELU:
            value = vec.select(vec.at_most(value, zero), zero, value)
        if s >= 0:
            value = vec.multiply(vec.load(M, s + i), value)
        if code == RELU or s >= 0:
            vec.store(M, g + i, value)
        step = vec.larger(vec.magnitude(vec.subtract(value, vec.load(M, x + i))), step)
        top = vec.larger(vec.magnitude(value), top)
    step, top = largest_two(step, top)
    return np.float64(step), np.float64(top)
