"""Device functions of the CUDA twin: who goes on after an application, and Anderson's trial points.

`proposals` and `safeguarded` in the NumPy twin define and explain them. The history of a tile stands in global memory:
vector k of column c has its entry i at h + (i·HISTORY + k)·w + c.
"""

from __future__ import annotations

from idl_ref.backends import methods
from idl_ref.backends.cuda_api import device, renew
from idl_ref.backends.cuda_columns import finite, larger, largest, total
from idl_ref.backends.cuda_plans import DEPTH, LANES
from idl_ref.backends.cuda_states import (
    BAD,
    BEST,
    BROKEN,
    CONTROL,
    COUNT,
    ENDED,
    GOES_ON,
    GOOD,
    GRAM,
    KNOWN,
    NONFINITE,
    OUT,
    PATIENCE,
    REFUSED,
    SLOT,
    SLOW,
    SYSTEM,
    TRIAL,
    TRIED,
    WAIT,
    WEIGHTS,
    X_NORM,
    X_SIZE,
    X_TOP,
    Z_TOP,
    outcome,
    record,
)  # fmt: skip

BASE, LAST_F, LAST_G, DIFFERENCES = 0, 1, 2, 3  # the vectors of a history, then ΔF and ΔG
HISTORY = DIFFERENCES + 2 * DEPTH
LEASH, RESPITE = methods.LEASH, methods.RESPITE


@device
def settle_picard(N, Q, q, c, w, M, shares, adjoint, levels, limits, j, m, status, iterations, numbers):
    """Count one application of a column and close it if it is done; 1 if it goes on. levels: tol, slow, eps.

    limits: max_iter, slow_steps. Nothing but a look at a column that had ended before.
    """
    if N[CONTROL * w + c] != GOOD:
        N[CONTROL * w + c] = OUT
        return 0
    apart, a = LANES * w, shares + c
    step, top = largest(M, a, w), largest(M, a + apart, w)
    change = total(M, a + 2 * apart, w) if adjoint else step
    size = total(M, a + 3 * apart, w) if adjoint else top
    N[COUNT * w + c] += 1
    ended = outcome(step, top, Q[q + Z_TOP * w + c], False, N[COUNT * w + c], levels, limits[0], Q)
    N[TRIED * w + c] = N[TRIED * w + c] + 1 if step > levels[1] * Q[q + BEST * w + c] else 0
    Q[q + BEST * w + c] = step
    if ended == GOES_ON and N[TRIED * w + c] >= limits[1]:
        ended = SLOW
    if ended == GOES_ON:
        Q[q + X_NORM * w + c] = size
        return 1
    N[CONTROL * w + c] = BROKEN if ended == NONFINITE else ENDED
    record(Q, q, c, w, ended, N[COUNT * w + c], step, change, size, j, m, status, iterations, numbers)
    return 0


@device
def settle_guarded(N, Q, q, c, w, M, shares, adjoint, levels, limits, j, m, status, iterations, numbers):
    """The same for trial points, and whether the way here is given up. levels: tol, decrease, eps."""
    if N[CONTROL * w + c] < GOOD:
        N[CONTROL * w + c] = OUT
        return 0
    apart, a = LANES * w, shares + c
    step, top = largest(M, a, w), largest(M, a + apart, w)
    trial = N[TRIAL * w + c] > 0
    N[COUNT * w + c] += 1
    ended = outcome(step, top, Q[q + Z_TOP * w + c], trial, N[COUNT * w + c], levels, limits[0], Q)
    if ended != GOES_ON:
        change = total(M, a + 2 * apart, w) if adjoint else step
        size = total(M, a + 3 * apart, w) if adjoint else top
        x_size, x_top = total(M, a + X_SIZE * apart, w), largest(M, a + X_TOP * apart, w)
        Q[q + X_NORM * w + c] = x_size if adjoint else x_top
        N[CONTROL * w + c] = BROKEN if ended == NONFINITE else ENDED
        record(Q, q, c, w, ended, N[COUNT * w + c], step, change, size, j, m, status, iterations, numbers)
        return 0
    good = not trial or step <= levels[1] * Q[q + BEST * w + c]
    N[TRIED * w + c] = 0 if good else N[TRIED * w + c] + 1
    refused = not good and (N[TRIED * w + c] >= LEASH or not finite(step))
    N[WAIT * w + c] = N[PATIENCE * w + c] if refused else max(N[WAIT * w + c] - 1, 0)
    if refused:
        N[PATIENCE * w + c] = min(RESPITE * N[PATIENCE * w + c], 1 << 28)
    if good:
        Q[q + BEST * w + c] = min(Q[q + BEST * w + c], step)
    N[CONTROL * w + c] = REFUSED if refused else GOOD if good else BAD
    return 1


@device
def remember(N, V, x, P, p, H, h, n, w, M, shares, tid, threads):
    """f = g − x and what changed since the point before, into the history; shares of ‖ΔF‖∞ and ‖f‖∞."""
    item, apart = renew(tid), LANES * w
    while item < LANES * w:
        c, lane = item % w, item // w
        control, known, slot = N[CONTROL * w + c], N[KNOWN * w + c], N[SLOT * w + c]
        changed = top = M.dtype.type(0)
        i = lane
        while i < n and control >= GOOD:
            o = h + i * HISTORY * w + c
            g = P[p + i * w + c]
            f = g - V[x + i * w + c]
            if control == GOOD:
                H[o + BASE * w] = g
            if control != REFUSED:
                if known == 0:  # at the start, and after a refusal: what led there is forgotten
                    for k in range(DIFFERENCES, HISTORY):
                        H[o + k * w] = H.dtype.type(0)
                else:
                    difference = f - H[o + LAST_F * w]
                    changed = larger(abs(difference), changed)
                    H[o + (DIFFERENCES + slot) * w] = difference
                    H[o + (DIFFERENCES + DEPTH + slot) * w] = g - H[o + LAST_G * w]
                H[o + LAST_F * w], H[o + LAST_G * w] = f, g
            top = larger(abs(f), top)
            i += LANES
        M[shares + item], M[shares + apart + item] = changed, top
        item += threads


@device
def scale(M, r, w):
    """‖·‖∞ of a column, 1 for 0."""
    top = largest(M, r, w)
    return top if top > M.dtype.type(0) else M.dtype.type(1)


@device
def compare(N, H, h, n, w, M, shares, tid, threads):
    """Divide the newest differences by the size of ΔF; shares of ⟨ΔF_a, ΔF_slot⟩ and ⟨ΔF_a, f/‖f‖∞⟩."""
    item, apart = renew(tid), LANES * w
    while item < LANES * w:
        c, lane = item % w, item // w
        slot = N[SLOT * w + c]
        proposing = N[CONTROL * w + c] == GOOD or N[CONTROL * w + c] == BAD
        changed, size = scale(M, shares + c, w), scale(M, shares + apart + c, w)
        i = lane
        while i < n and proposing and N[KNOWN * w + c] > 0:
            H[h + (i * HISTORY + DIFFERENCES + slot) * w + c] /= changed
            H[h + (i * HISTORY + DIFFERENCES + DEPTH + slot) * w + c] /= changed
            i += LANES
        for a in range(DEPTH):
            square = product = M.dtype.type(0)
            i = lane
            while i < n and proposing:
                o = h + i * HISTORY * w + c
                dF = H[o + (DIFFERENCES + a) * w]
                square += dF * H[o + (DIFFERENCES + slot) * w]
                product += dF * (H[o + LAST_F * w] / size)
                i += LANES
            M[shares + (2 + a) * apart + item], M[shares + (2 + DEPTH + a) * apart + item] = square, product
        item += threads


@device
def extrapolate(N, Q, q, c, w, M, shares, eps, max_iter):
    """γ, and whether the next point is a trial."""
    control, slot, apart = N[CONTROL * w + c], N[SLOT * w + c], LANES * w
    ready = False
    if control != REFUSED:
        gram = q + GRAM * w + c
        for a in range(DEPTH):
            if N[KNOWN * w + c] == 0:
                for b in range(DEPTH):
                    Q[gram + (a * DEPTH + b) * w] = Q.dtype.type(0)
            square = total(M, shares + (2 + a) * apart + c, w)
            Q[gram + (a * DEPTH + slot) * w] = Q[gram + (slot * DEPTH + a) * w] = square
        if N[KNOWN * w + c] > 0:
            ready = mix(Q, q, c, w, M, shares, eps)
        N[SLOT * w + c] = (slot + 1) % DEPTH
    N[KNOWN * w + c] = 0 if control == REFUSED else 1
    # the answer must not be a mere trial
    trial = ready and N[WAIT * w + c] == 0 and N[COUNT * w + c] < max_iter - 1
    N[TRIAL * w + c] = 1 if trial else 0
    if not trial:
        N[TRIED * w + c] = 0


@device
def mix(Q, q, c, w, M, shares, eps):
    """(H + damping·diag H) γ = ΔFᵀ f by elimination, H = ΔFᵀ ΔF; an empty slot gets γ = 0. False if it breaks down."""
    zero, one, damping = Q.dtype.type(0), Q.dtype.type(1), Q.dtype.type(64) * eps
    gram, system, weights = q + GRAM * w + c, q + SYSTEM * w + c, q + WEIGHTS * w + c
    size = scale(M, shares + LANES * w + c, w)
    some = False
    for a in range(DEPTH):
        for b in range(DEPTH):
            Q[system + (a * DEPTH + b) * w] = Q[gram + (a * DEPTH + b) * w]
        diagonal = Q[gram + (a * DEPTH + a) * w]
        some = some or diagonal > zero
        Q[system + (a * DEPTH + a) * w] = diagonal * (one + damping) if diagonal > zero else one
        Q[weights + a * w] = total(M, shares + (2 + DEPTH + a) * LANES * w + c, w)
    for k in range(DEPTH):
        pivot = Q[system + (k * DEPTH + k) * w]
        if not pivot > zero:
            return False
        for i in range(k + 1, DEPTH):
            ratio = Q[system + (i * DEPTH + k) * w] / pivot
            for b in range(k + 1, DEPTH):
                Q[system + (i * DEPTH + b) * w] -= ratio * Q[system + (k * DEPTH + b) * w]
            Q[weights + i * w] -= ratio * Q[weights + k * w]
    for back in range(DEPTH):
        k = DEPTH - 1 - back
        value = Q[weights + k * w]
        for b in range(k + 1, DEPTH):
            value -= Q[system + (k * DEPTH + b) * w] * (Q[weights + b * w] / size)
        Q[weights + k * w] = size * (value / Q[system + (k * DEPTH + k) * w])
    return some


@device
def move(N, Q, q, V, x, P, p, H, h, n, w, M, shares, tid, threads):
    """x ← g − ΔG γ, or where Picard goes on; shares of ‖x‖∞ and ‖x‖₁."""
    item, apart = renew(tid), LANES * w
    while item < LANES * w:
        c, lane = item % w, item // w
        control, trial = N[CONTROL * w + c], N[TRIAL * w + c]
        top = size = M.dtype.type(0)
        i = lane
        while i < n and control >= GOOD:
            o = h + i * HISTORY * w + c
            if trial > 0:
                value = P[p + i * w + c]
                for a in range(DEPTH):
                    value -= Q[q + (WEIGHTS + a) * w + c] * H[o + (DIFFERENCES + DEPTH + a) * w]
            else:
                value = H[o + BASE * w]
            V[x + i * w + c] = value
            top = larger(abs(value), top)
            size += abs(value)
            i += LANES
        M[shares + X_TOP * apart + item], M[shares + X_SIZE * apart + item] = top, size
        item += threads
