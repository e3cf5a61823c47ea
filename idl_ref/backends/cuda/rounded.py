"""Device functions of the CUDA twin: which changes of a column rounding explains, row by row.

`Ledger` and `Application.allowance` of the NumPy twin define and explain the rules. As in `states`, b is the `Block` of
the calling thread and e the `Task`. All threads of a block judge the columns of its tile together: thread tid takes
rows of column tid % w. X and G are tiles (end, w) of the points x and their images g(x); F1 and F2 are the packed
factors; r is the rank, 0 for a dense A; W is room for a tile of 2·narrow rows if r > 0. None of the functions contains
a barrier; `kernels.judge` calls them.
"""

from __future__ import annotations

import math

from idl_ref.backends.cuda.api import device, renew
from idl_ref.backends.cuda.columns import kind, offset, phi
from idl_ref.backends.cuda.states import (
    CONTROL,
    COUNT,
    DOUBT,
    FIRST,
    GOOD,
    LOWEST,
    ROUND,
    SINCE,
    TOP_STEP,
    adjoint,
    asked,
    column_of,
    contracts,
    small,
    top_of,
)
from idl_ref.backends.methods import STALE

# The bits of DOUBT before a judgement: rounding may explain the change g(x) − x, or that from an earlier iterate. After
# a judgement, DOUBT is 1 if rounding explains one of them in every row, else 0.
CHANGE, RETURN = 1, 2


@device
def consider(b, e, c, picard):
    """Count one application to column c, and return which changes are in doubt; thread c.

    The change g(x) − x is in doubt if it is small against the largest entry of the column; the change since the earlier
    iterate of a contraction is in doubt if Picard's iteration has made no progress for more than STALE applications.
    """
    N, Q, w, doubt = b.N, b.M, b.w, 0
    if N[CONTROL * w + c] >= GOOD:
        step, lowest = top_of(b, e, TOP_STEP, c), e.places.state + LOWEST * w + c
        N[COUNT * w + c] += 1
        N[ROUND * w + c] += 1
        N[SINCE * w + c] = 0 if step < Q[lowest] else N[SINCE * w + c] + 1
        if step < Q[lowest]:
            Q[lowest] = step
        if N[ROUND * w + c] == 1:
            e.numbers[FIRST * e.m + column_of(b, e, c)] = step
        if math.isfinite(step) and step > asked(b, e, c):
            doubt = CHANGE if step <= small(b, e, c) else 0
            if picard and N[SINCE * w + c] > STALE and contracts(b, e, c):
                doubt += RETURN
    N[DOUBT * w + c] = doubt
    return doubt


@device
def sums(F, f, down, X, x, Y, y, w, inner):
    """Return Σ_k F_k X_k and Σ_k |F_k Y_k| for k < inner: F_k is F[f + k·down], X_k X[x + k·w] and Y_k Y[y + k·w]."""
    total = size = F.dtype.type(0)
    for _ in range(inner):
        total += F[f] * X[x]
        size += abs(F[f] * Y[y])
        f += down
        x += w
        y += w
    return total, size


@device
def inner_sums(b, e, F2, X, W):
    """Store F₂ x and |F₂||x| of the columns in doubt, in the rows from 0 and from `narrow` on of W."""
    w, c = b.w, renew(b.tid) % b.w
    a = renew(b.tid) // w
    while a < e.r and b.N[DOUBT * w + c] > 0:
        x = X.at + c
        total, size = sums(F2, a, e.narrow, X.array, x, X.array, x, w, e.n)
        W.array[W.at + a * w + c], W.array[W.at + (e.narrow + a) * w + c] = total, size
        a += b.threads // w


@device
def left_of(b, e, F1, r, X, G, W):
    """Return those bits of DOUBT of column tid % w that none of the rows of the calling thread refutes."""
    w, c = b.w, renew(b.tid) % b.w
    i, doubt = renew(b.tid) // w, b.N[DOUBT * b.w + c]
    if doubt > 0:
        j, limit, least = column_of(b, e, c), small(b, e, c), asked(b, e, c)
        while i < e.n and doubt > 0:
            g = G.array[G.at + i * w + c]
            change = abs(g - X.array[X.at + i * w + c])
            since = abs(g - e.out[i * e.m + j]) if doubt >= RETURN else change
            if doubt >= RETURN and not since <= limit:
                doubt -= RETURN
            if doubt > 0:
                if r > 0:
                    at = W.at + c
                    p, size = sums(F1, i, e.end, W.array, at, W.array, at + e.narrow * w, w, r)
                else:
                    at = X.at + c
                    p, size = sums(F1, i, e.end, X.array, at, X.array, at, w, e.n)
                allowed = max(least, allowance(b, e, c, i, j, p, size, g))
                if doubt >= RETURN and not since <= allowed:
                    doubt -= RETURN
                if doubt % RETURN == CHANGE and not change <= allowed:
                    doubt -= CHANGE
            i += b.threads // w
    return doubt


@device
def allowance(b, e, c, i, j, p, size, g):
    """Return the largest change of entry i of column c that rounding explains; −1 where it overflows.

    p and size are entry i of A x and of |A||x|, g is that of g(x), and j is the column of Z.
    """
    number, ulps = b.M.dtype.type, e.levels.rounded
    level = e.levels.gamma if b.N[SINCE * b.w + c] >= STALE else ulps
    z = e.Z.array[offset(e.Z, i, j)]
    delta = level * size + level * abs(z) + e.levels.underflow
    code = kind(e.code, e.codes, i)
    change = phi(p + z + delta, e.out, code) - phi(p + z - delta, e.out, code)
    change /= number(2)
    if adjoint(e):
        change *= abs(e.S.array[offset(e.S, i, j)])
    allowed = change + ulps * abs(g)
    return allowed if math.isfinite(allowed) else number(-1)
