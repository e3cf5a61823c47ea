"""The solver of one tile of columns for a strictly triangular A, compiled for the Numba twin; see `kernels`."""

from __future__ import annotations

import math

import numpy as np

from idl_ref.backends.numba.columns import copy, finish, norms
from idl_ref.backends.numba.compiling import entry, vec
from idl_ref.backends.numba.kernels import CONVERGED, NONFINITE, PRECISION_LIMIT, Rounding, asked_step, conclude
from idl_ref.backends.numba.mixed import located, phi_of, room_of_codes
from idl_ref.backends.numba.products import GROUP, ROWS, filled, gather, product


@entry
def substitute(first, last, A, packed, columns, sizes, tol, roundings, answer):
    """One sweep over a strictly triangular matrix, whose columns are the rows of the flat array A.

    As soon as x_k is known, A_ik x_k is added to every p_i = Σ_j A_ij x_j + z_i. The answer is g(x), by a product as
    in the other solvers. sizes: n, activation, and 1 for an upper triangle. X0 is not read.
    """
    n, kind, upper = sizes
    (Z, z_down, z_right), (S, s_down, s_right), _ = columns
    w, end = last - first, filled(n, ROWS)
    stride, room = end + ROWS, filled(w, GROUP)
    block, adjoint, roundings = room * stride, S.size > 0, Rounding(*roundings)
    M = np.zeros(4 * block + room_of_codes(end, kind), packed.dtype)
    code = located(packed, M, 4 * block, end, kind)
    gather(Z, first * z_right, z_down, z_right, M, 2 * block, stride, n, w, end, room)
    if adjoint:
        gather(S, first * s_right, s_down, s_right, M, 3 * block, stride, n, w, end, room)
    copy(M, 0, 2 * block, w * stride)
    for position in range(n):
        k = n - 1 - position if upper else position
        low, high = (0, k) if upper else (k + 1, n)
        for x in range(0, w * stride, stride):
            M[x + k] = vec.first(phi_of(M, vec.load(M, x + k), k, code))
            if adjoint:
                M[x + k] *= M[3 * block + x + k]
            value = M[x + k]
            for i in range(low, high):
                M[x + i] += A[k * n + i] * value
    product(packed, n, n, M, block - block, stride, 2 * block, stride, block, stride, w)
    for c in range(w):
        x, g, z, s = c * stride, block + c * stride, 2 * block + c * stride, 3 * block + c * stride if adjoint else -1
        z_norm = norms(M, z, -end, end)[0]
        finite = math.isfinite(z_norm) and (s < 0 or math.isfinite(norms(M, s, -end, end)[0]))
        step, top = finish(M, g, x, s, n, end, code)
        ended = CONVERGED if step <= asked_step(tol, z_norm) else PRECISION_LIMIT
        if not math.isfinite(step) or not finite:
            ended = NONFINITE
        answer[2][first + c] = 1 if finite else 0
        j, step = first + c, step if finite else math.nan
        conclude(M, (x, g, z, s, -1), n, end, ended, (step, top, z_norm), roundings, j, answer)
    return 0
