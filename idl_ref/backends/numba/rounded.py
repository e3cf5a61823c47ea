"""This module judges whether rounding explains a change of a column; `Certifier.allowance` defines when it does."""

from __future__ import annotations

import math

import numpy as np

from idl_ref import certificate
from idl_ref.activations import LEAKY_RELU
from idl_ref.backends import methods
from idl_ref.backends.numba.columns import norms
from idl_ref.backends.numba.compiling import compiled, vec
from idl_ref.backends.numba.functions import largest
from idl_ref.backends.numba.mixed import phi_of
from idl_ref.backends.numba.products import ROWS, boundary, filled

largest_term = compiled(certificate.largest_term)
ROUNDED, STALLED, STALE = certificate.ROUNDED, certificate.STALLED, methods.STALE
SCRATCH = 3  # the number of columns that `explained` needs besides those of F₂ x


@compiled
def with_magnitudes(F, rows, inner, M, x, size_x, z, p, size):
    """p = F x + z and size = |F| size_x for a packed F (rows, inner) and one column; z = 0 where z < 0.

    Both are computed in one pass, because F does not stay in the fastest cache.
    """
    vec.separate()
    lanes = vec.lanes(F)
    for row in range(0, filled(rows, ROWS), lanes):
        sizes, panel = vec.splat(F, 0.0), boundary(F) + row * inner
        sums = vec.load(M, z + row) if z >= 0 else sizes
        for k in range(inner):
            f = vec.load(F, panel + k * lanes)
            sums = vec.fma(f, vec.broadcast(M, x + k), sums)
            sizes = vec.fma(vec.magnitude(f), vec.broadcast(M, size_x + k), sizes)
        vec.store(M, p + row, sums)
        vec.store(M, size + row, sizes)


@compiled
def evident(M, places, sizes, earlier, asked, gamma, roundings):
    """Whether `explained` is true already for the least |A||x| + |z| that g allows, which takes no product.

    These terms are at least |p|. If φ is linear on both sides of 0, half of φ(p + γ|p|) − φ(p − γ|p|) is γ|g|, and so
    it is for S ∘ p; all other φ are increasing, so that it is not negative. Terms that may overflow are not evident.
    """
    (x, g, z, _, _), (_, _, code, end) = places, sizes
    if not roundings.norm * norms(M, x, -end, end)[0] + norms(M, z, -end, end)[0] < roundings.largest / 2:
        return False
    share = ROUNDED * 2 * roundings.unit + (gamma if code <= LEAKY_RELU else 0.0)
    share *= 1 - 16 * roundings.unit  # `explained` rounds its sums, too.
    zero, one = vec.splat(M, 0.0), vec.splat(M, 1.0)
    least, worst = vec.splat(M, asked), zero
    for i in range(0, end, vec.lanes(M)):
        g_i = vec.load(M, g + i)
        allowed = vec.multiply(vec.splat(M, share), vec.magnitude(g_i))
        allowed = vec.select(vec.at_most(allowed, least), least, allowed)
        moved = vec.magnitude(vec.subtract(g_i, vec.load(M, earlier + i)))
        worst = vec.larger(vec.select(vec.at_most(moved, allowed), zero, one), worst)
    return largest(worst) == 0


@compiled
def explained(F1, F2, M, places, sizes, earlier, stalled, asked, roundings):
    """Whether tol or rounding explains the change from the column `earlier` to g in every row, as in the NumPy twin.

    places: where x, g, z and s of the column begin, s < 0 for the forward equation, and where there is room for SCRATCH
    columns and two columns of F₂ x. sizes: n, r, the code of the activation, and `end`, the length of a filled column.
    """
    vec.separate()
    (x, g, z, s, room), (n, r, code, end) = places, sizes
    ulps = ROUNDED * 2 * roundings.unit
    gamma = STALLED * roundings.gamma if stalled else ulps
    if evident(M, places, sizes, earlier, asked, gamma, roundings):
        return True
    size, p, t, small = room, room + end, room + 2 * end, room + SCRATCH * end
    for i in range(0, end, vec.lanes(M)):
        vec.store(M, t + i, vec.magnitude(vec.load(M, x + i)))
    if r > 0:
        sizes_t, nowhere = small + filled(r, ROWS), np.int64(-1)  # A literal would compile what takes it once more.
        with_magnitudes(F2, r, n, M, x, t, nowhere, small, sizes_t)
        with_magnitudes(F1, n, r, M, small, sizes_t, z, p, size)
    else:
        with_magnitudes(F1, n, n, M, x, t, z, p, size)
    zero, one, none, half = vec.splat(M, 0.0), vec.splat(M, 1.0), vec.splat(M, -1.0), vec.splat(M, 0.5)
    least, top, worst = vec.splat(M, asked), vec.splat(M, roundings.largest), vec.splat(M, 0.0)
    for i in range(0, end, vec.lanes(M)):
        g_i, p_i = vec.load(M, g + i), vec.load(M, p + i)
        terms = vec.add(vec.load(M, size + i), vec.magnitude(vec.load(M, z + i)))
        delta = vec.fma(vec.splat(M, gamma), terms, vec.splat(M, 2 * roundings.unit * roundings.underflow))
        above, below = vec.add(p_i, delta), vec.subtract(p_i, delta)
        change = vec.subtract(phi_of(M, above, i, code), phi_of(M, below, i, code))
        change = vec.multiply(half, change)
        if s >= 0:
            change = vec.multiply(vec.magnitude(vec.load(M, s + i)), change)
        allowed = vec.fma(vec.splat(M, ulps), vec.magnitude(g_i), change)
        allowed = vec.select(vec.at_most(allowed, top), allowed, none)  # An overflow explains nothing.
        allowed = vec.select(vec.at_most(allowed, least), least, allowed)
        moved = vec.magnitude(vec.subtract(g_i, vec.load(M, earlier + i)))
        worst = vec.larger(vec.select(vec.at_most(moved, allowed), zero, one), worst)
    return largest(worst) == 0


@compiled
def contraction(M, s, end, roundings):
    """The contraction factor of a column: Lip(φ)‖A‖∞, for the adjoint max(S)‖A‖∞; s < 0 for the forward equation."""
    return (norms(M, s, -end, end)[0] if s >= 0 else roundings.lipschitz) * roundings.norm


@compiled
def rounded(F1, F2, M, places, sizes, measured, stale, earlier, asked, roundings):
    """Whether rounding keeps a column from getting better, as `Ledger.rounded` in the NumPy twin defines.

    measured: ‖g − x‖∞, ‖g‖∞ and ‖z‖∞. `earlier` is the place of an earlier iterate of Picard's iteration, or −1.
    """
    (step, top, z_norm), end = measured, sizes[3]
    stalled, eps = stale >= STALE, 2 * roundings.unit
    limit = (math.sqrt(eps) if stalled else ROUNDED * eps) * largest_term(z_norm, top, roundings.norm)
    limit = max(limit, roundings.tiny) if stalled else limit
    if step <= limit and explained(F1, F2, M, places, sizes, places[0], stalled, asked, roundings):
        return True
    if earlier < 0 or stale <= STALE:
        return False
    contracts = contraction(M, places[3], end, roundings) < 1
    if not (contracts and norms(M, places[1], earlier, end)[0] <= limit):
        return False
    return explained(F1, F2, M, places, sizes, earlier, stalled, asked, roundings)
