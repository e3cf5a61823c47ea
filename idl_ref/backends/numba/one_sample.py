"""This module computes the outputs of one sample in a single compiled call: Z = B U, Picard's steps, Ŷ = C X + D U.

The call also measures the norms that the error bound needs. `Layer.forward` serves any number of columns and every
method, and spends most of its time for one sample in Python. Here the factors of A are packed once, and scratch arrays
are reused. If a sample is slow, not finite or at the iteration limit, `Layer.forward` must solve it.
"""

from __future__ import annotations

import math

import numpy as np

from idl_ref.activations import Activation
from idl_ref.backends import methods
from idl_ref.backends.numba.columns import copy, finish, norms
from idl_ref.backends.numba.compiling import compiled, entry, vec
from idl_ref.backends.numba.dots import rows_by_columns
from idl_ref.backends.numba.kernels import (
    CONVERGED,
    DOUBTFUL,
    GOES_ON,
    PRECISION_LIMIT,
    SLOW,
    asked_step,
    largest_term,
    outcome,
    resolve,
)
from idl_ref.backends.numba.launches import NOTHING, by_rows, flat
from idl_ref.backends.numba.mixed import located
from idl_ref.backends.numba.preparing import codes_size, packed_size, write_codes
from idl_ref.backends.numba.products import ROWS, boundary, fill, filled, pack, product
from idl_ref.backends.numba.rounded import ROUNDED, SCRATCH, STALE
from idl_ref.backends.numba.threads import LONG_FLOPS
from idl_ref.backends.numpy.one_sample import G_NORM, ITERATIONS, STEP, TOL, U_NORM, X_NORM, Z_NORM
from idl_ref.certificate import Certifier, Rounding
from idl_ref.solution import SolveOptions
from idl_ref.weights import Weights

# The entries of `sizes`. Those from F1 to END are the places in W where its matrices begin, and where W ends.
N, R, P, Q, BIAS, CODE, LIMIT, SLOW_STEPS, F1, F2, B, C, D, END = range(14)
# The scratch array M has room for zeros, x, g, z, t or y, and what `rounded` needs, which for low rank is two more
# columns, all as long as the longest of them.
VECTORS = 5 + SCRATCH + 2
ROUNDINGS = TOL + 1  # The fields of the Rounding begin here in `numbers`.
LAST_SUCCESS, SLOW_RATIO, STEPS_LEFT = max(CONVERGED, PRECISION_LIMIT), methods.SLOW, methods.STEPS_LEFT
left = compiled(methods.steps_left)


@compiled
def iterate(F1, F2, M, sizes, numbers, places, roundings):
    """Iterate x ← g(x) from x = 0 until the sample is done or given up; return its status and the place of x.

    places: where x, g, z, t, zeros, the scratch columns of `rounded`, and the codes of a mix begin.
    """
    vec.separate()
    x, g, z, t, zeros, scratch, codes = places
    n, r, end, z_norm, no = sizes[N], sizes[R], filled(sizes[N], ROWS), numbers[Z_NORM], sizes[N] * 0
    nowhere = no - 1  # Neither is a literal, which would compile what takes it once more.
    code = located(F1, M, codes, end, sizes[CODE])
    slowed, stale, before, lowest, count, ended = 0, 0, math.inf, math.inf, 0, GOES_ON
    asked = asked_step(numbers[TOL], z_norm)
    while ended == GOES_ON:
        if count == 0:
            copy(M, g, z, end)  # The first application needs no product, because A·0 = 0.
        elif r > 0:
            product(F2, r, n, M, x, no, zeros, no, t, no, 1)
            product(F1, n, r, M, t, no, z, no, g, no, 1)
        else:
            product(F1, n, n, M, x, no, z, no, g, no, 1)
        step, top = finish(M, g, x, nowhere, n, end, code)
        count += 1
        noise = ROUNDED * 2 * roundings.unit * largest_term(z_norm, top, roundings.norm)
        ended = outcome(step, z_norm, noise, 0, False, count, asked, sizes[LIMIT], roundings.tiny)
        if ended == DOUBTFUL:
            columns, measured = (x, g, z, nowhere, scratch), (step, top, z_norm)
            counts, shape = (count, sizes[LIMIT]), (n, r, code, end)
            ended = resolve(F1, F2, M, columns, shape, measured, no, nowhere, asked, roundings, counts)
        slowed = slowed + 1 if step > SLOW_RATIO * before else 0
        stale = 0 if step < lowest else stale + 1
        stuck = slowed >= sizes[SLOW_STEPS] and left(step, before, asked) > STEPS_LEFT
        if ended == GOES_ON and (stuck or stale >= STALE):
            ended = SLOW
        before, lowest = step, min(step, lowest)
        x, g = g, x
    numbers[STEP], numbers[G_NORM], numbers[ITERATIONS] = step, top, count
    numbers[X_NORM] = norms(M, g, -end, end)[0]
    return ended, x


@entry
def predict(U, Y, W, M, sizes, numbers):
    """Call `outputs`. In an entry point, the parts of W would count references, which takes a tenth of a small call."""
    return outputs(U, Y, W, M, sizes, numbers)


@compiled
def outputs(U, Y, W, M, sizes, numbers):
    """Write Ŷ (1, q) for U (1, p) to Y, and return whether the sample converged.

    W holds the factors of A, packed, and B, C and D, row by row. `numbers` receives the measured norms; tol and the
    fields of the Rounding stand behind them.
    """
    n, r, p, q, width = sizes[N], sizes[R], sizes[P], sizes[Q], sizes[P] + sizes[BIAS]
    wide = filled(max(n, max(q, r)), ROWS)
    zeros = boundary(M)
    x, z, t, u = zeros + wide, zeros + 3 * wide, zeros + 4 * wide, zeros + VECTORS * wide
    fill(M, zeros, x + wide, 0.0)
    fill(M, z, z + wide, 0.0)
    for k in range(p):
        M[u + k] = U[0, k]
    for k in range(p, filled(width, ROWS)):
        M[u + k] = 1 if k < width else 0  # The constant feature of a bias, and zeros up to a whole vector.
    rows_by_columns(W[sizes[B] : sizes[C]], n, width, M, u, width, M, z, n, 1)
    numbers[U_NORM] = norms(M, u, -filled(width, ROWS), filled(width, ROWS))[0]
    numbers[Z_NORM] = norms(M, z, -filled(n, ROWS), filled(n, ROWS))[0]
    places = x, x + wide, z, t, zeros, zeros + 5 * wide, u + filled(width, ROWS)
    first, second = W[sizes[F1] : sizes[F2]], W[sizes[F2] : sizes[B]]
    o = ROUNDINGS
    rounding = Rounding(
        numbers[o], numbers[o + 1], numbers[o + 2], numbers[o + 3], numbers[o + 4], numbers[o + 5], numbers[o + 6]
    )
    ended, x = iterate(first, second, M, sizes, numbers, places, rounding)
    rows_by_columns(W[sizes[C] : sizes[D]], q, n, M, x, n, M, t, q, 1)
    for i in range(q):
        Y[0, i] = M[t + i]
    if sizes[D] < sizes[END]:
        rows_by_columns(W[sizes[D] : sizes[END]], q, width, M, u, width, M, t, q, 1)
        for i in range(q):
            Y[0, i] += M[t + i]
    return ended <= LAST_SUCCESS


class OneSample:
    """Computes the outputs of one sample; it keeps a scratch array for each call that ever ran at the same time."""

    def __init__(self, weights: Weights, activation: Activation, options: SolveOptions, impatient: bool) -> None:
        factors, B, C, D, bias = weights
        (n, width), q, r = B.shape, len(C), factors[1].shape[0] if len(factors) == 2 else 0
        p, nothing = width - int(bias), NOTHING[B.dtype]
        others = [by_rows(B), by_rows(C), nothing[0] if D is None else by_rows(D)]
        codes = codes_size(n, activation)
        rooms = [packed_size(n, r or n) + codes, packed_size(r, n) if r else 0, *(F.size for F in others)]
        places = np.cumsum([0, *rooms])
        self.W = np.zeros(places[-1], B.dtype)  # Panels begin at an aligned address, so that W must not move.
        F1, F2, *rest = np.split(self.W, places[1:-1])
        pack(flat(factors[0]), flat(factors[1]) if r else nothing, (n, r), False, F1, F2)
        write_codes(activation, F1)
        for place, F in zip(rest, others, strict=True):
            place[:] = F
        self.numbers = [0.0] * TOL + [options.tol, *Certifier(factors, activation, False, B.dtype).rounding]
        # A sample that takes longer goes to `Layer.forward`, which can be interrupted.
        limit = min(options.max_iter, int(LONG_FLOPS / (2 * max(F.size for F in factors) + n)))
        patience = methods.SLOW_STEPS if impatient else methods.ENDLESS
        self.sizes = np.array([n, r, p, q, bias, activation.code, limit, patience, *places], np.int64)
        self.room = VECTORS * methods.filled(max(n, q, r), ROWS) + width + 2 * ROWS
        self.room += 2 * codes
        self.free = [self._scratch()]
        self(np.zeros((1, p), B.dtype), np.empty((1, q), B.dtype))  # This call compiles the kernel.

    def _scratch(self) -> tuple[np.ndarray, np.ndarray]:
        """Allocate the scratch array M and the array `numbers` of one call."""
        return np.empty(self.room, self.W.dtype), np.array(self.numbers)

    def __call__(self, U: np.ndarray, Y: np.ndarray, measured: np.ndarray | None = None) -> bool:
        """Do the same as in the NumPy twin; the lines are repeated, because sharing them would cost one more call."""
        try:
            mine = self.free.pop()
        except IndexError:
            mine = self._scratch()
        done = predict(U, Y, self.W, mine[0], self.sizes, mine[1])
        if measured is not None:
            measured[:] = mine[1][:ROUNDINGS]
        self.free.append(mine)
        return done
