"""This module has the passes through time of a recurrent cell, for some of the sequences of a batch, in one call.

The cell returns h_t = C x_t + D v_t, which is a part of its next input v_{t+1} = (u_{t+1}, h_t). Sequences never meet,
so that a tile of them goes through all time steps. The arrays have the columns of all time steps, one step after the
other: sequence j of m in step t is column t m + j.
"""

from __future__ import annotations

from idl_ref.backends.numba.compiling import entry
from idl_ref.backends.numba.kernels import picard
from idl_ref.backends.numba.passes import forward, readout, terms, write


@entry
def unroll(first, last, around, F1, F2, columns, shape, levels, roundings, answer, times):
    """x_t and h_t for t = 1 … T. Returns how many columns were slow in the step that ended the call; 0 after the last.

    times: T, m and p. The rest is what `forward` takes; its U holds u_t and the constant feature, and gets h_{t−1}.
    """
    (steps, m, p), (_, width, h, _), U, Y = times, around[2], around[1], around[3]
    for t in range(steps):
        a, b = t * m + first, t * m + last
        left = forward(a, b, around, F1, F2, columns, shape, levels, roundings, answer)
        if left > 0:
            return left
        if t + 1 < steps:
            for c in range(a, b):
                write(Y, c * h, h, U, (c + m) * width + p, h, last - last + 1)
    return 0


@entry
def unroll_back(first, last, forth, back, weights, given, G_V, tiny, times):
    """The adjoint equations for t = T … 1. Returns how many columns were slow, as `unroll` does.

    forth: F1, F2 and the sizes that `terms` takes. back: what `picard` takes for the adjoint equation. weights: C, Bᵀ
    and Dᵀ. given: X, Z, and the gradients of h_t, of which those of the last step are known. Entries below `tiny` count
    as 0. G_V gets the gradients of v_t. times: T, m and p.
    """
    (F1, F2, sizes), (A1, A2, columns, shape, levels, roundings, answer) = forth, back
    (C, Bt, Dt), (steps, m, p), (n, _, h, _), G = weights, times, sizes, given[2]
    width = len(G_V) // (steps * m)
    S_and_G = columns[1][0], columns[0][0]
    for t in range(steps - 1, -1, -1):
        a, b = t * m + first, t * m + last
        terms(a, b, F1, F2, C, given, sizes, S_and_G)
        left = picard(a, b, A1, A2, columns, shape, levels, roundings, answer)
        if left > 0:
            return left
        readout(a, b, Bt, Dt, answer[0], G, (n, h, width, h), G_V)
        if t > 0:
            for c in range(a, b):
                for i in range(h):
                    g = G_V[c * width + p + i]
                    G[(c - m) * h + i] = 0 if abs(g) < tiny else g
    return 0
