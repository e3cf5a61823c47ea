"""Device functions of the CUDA twin: which columns go on after an application, and Anderson's trial points.

`trials` and `solve.safeguarded` of the NumPy twin define and explain both. As in `states`, b is the `Block` of the
calling thread and e the `Task`; functions with an argument c compute for that column alone, in the calling thread, and
all others are called by all threads of the block, which divide LANES·w partial reductions among them. None of the
functions contains a barrier.

The history of a tile is in global memory: entry i of its vector k for column c is h[H.at + (i·HISTORY + k)·w + c].
"""

from __future__ import annotations

import math

from idl_ref.backends.cuda.api import device, renew
from idl_ref.backends.cuda.columns import larger
from idl_ref.backends.cuda.plans import DEPTH, LANES
from idl_ref.backends.cuda.states import (
    BACK,
    BAD,
    BEST,
    CONTROL,
    COUNT,
    G_SIZE,
    G_TOP,
    GOES_ON,
    GOOD,
    GRAM,
    KNOWN,
    LEFT,
    MARK,
    NEAREST,
    NOTED,
    OUT,
    PATIENCE,
    REFUSED,
    ROUND,
    SINCE,
    SLOT,
    STEP,
    SYSTEM,
    TOP_STEP,
    TRIAL,
    TRIED,
    WAIT,
    WEIGHTS,
    X_NORM,
    X_SIZE,
    X_TOP,
    adjoint,
    asked,
    close,
    column_of,
    contracts,
    depart,
    distance,
    hold,
    noise,
    outcome,
    overflowed,
    sum_of,
    top_of,
)
from idl_ref.backends.methods import DAMPING, LEASH, RESPITE, STALE

# The vectors of a history: g(last good point), where Picard goes on; f = g − x and g of the point before; then the
# DEPTH columns of ΔF and those of ΔG.
BASE, LAST_F, LAST_G, DIFFERENCES = 0, 1, 2, 3
HISTORY = DIFFERENCES + 2 * DEPTH
# The quantities that Anderson reduces: ‖Δf‖∞ of the newest difference, ‖f‖∞, and for every column a of ΔF the inner
# products ⟨ΔF_a, ΔF_slot⟩ with the newest difference and ⟨ΔF_a, f/‖f‖∞⟩.
CHANGED, LENGTH, SQUARES, PRODUCTS = 0, 1, 2, 2 + DEPTH


@device
def settle_picard(b, e, c):
    """Close column c if it is done after an application of Picard. Return 1 if it goes on, else 0.

    A column is also closed, with the status SLOW, after `slow_steps` slow steps in a row or `enough` applications, or
    where it overflows, if another method can continue. A column that ended before this application only becomes OUT, so
    that its answer is not delivered again. The iterates that `rounded.judge` compares with later ones are NOTED: they
    lie longer and longer ago, as no period is known.
    """
    N, Q, q, w = b.N, b.M, e.places.state, b.w
    if N[CONTROL * w + c] < GOOD:
        N[CONTROL * w + c] = OUT
        return 0
    step, top, since = top_of(b, e, TOP_STEP, c), top_of(b, e, G_TOP, c), N[SINCE * w + c]
    ended = outcome(b, e, c, step, False)
    N[TRIED * w + c] = N[TRIED * w + c] + 1 if step > e.levels.ratio * Q[q + BEST * w + c] else 0
    Q[q + BEST * w + c] = step
    slow = ended == GOES_ON and (N[TRIED * w + c] >= e.slow_steps or N[COUNT * w + c] >= e.enough)
    if slow or (overflowed(b, e, c, ended) and e.enough <= e.max_iter):
        depart(b, e, c, step, top)
        return 0
    if ended == GOES_ON:
        N[CONTROL * w + c] = NOTED if since >= STALE and since & (since - 1) == 0 else GOOD
        Q[q + X_NORM * w + c] = sum_of(b, e, G_SIZE, c) if adjoint(e) else top
        return 1
    close(b, e, c, ended, step, top)
    return 0


@device
def settle_guarded(b, e, c):
    """Close column c if it is done after an application at a point that may be a trial point; see `settle_picard`.

    CONTROL becomes GOOD, BAD or REFUSED. A REFUSED column returns to its last good point, and takes PATIENCE steps of
    Picard before its next trial point. A column that is left to another method is closed with the status SLOW.
    """
    N, Q, q, w = b.N, b.M, e.places.state, b.w
    if N[CONTROL * w + c] < GOOD:
        N[CONTROL * w + c] = OUT
        return 0
    step, top = top_of(b, e, TOP_STEP, c), top_of(b, e, G_TOP, c)
    trial = N[TRIAL * w + c] > 0
    ended, latest = outcome(b, e, c, step, trial), STEP * e.m + column_of(b, e, c)
    if ended != GOES_ON:
        hold(b, e, c)
        if overflowed(b, e, c, ended) and math.isfinite(e.levels.other):
            depart(b, e, c, step, top)
        else:
            close(b, e, c, ended, step, top)
        return 0
    good = not trial or step <= e.levels.ratio * Q[q + BEST * w + c]
    nearest = q + NEAREST * w + c
    N[TRIED * w + c] = 0 if good or step <= e.levels.ratio * Q[nearest] else N[TRIED * w + c] + 1
    refused = not good and (N[TRIED * w + c] >= LEASH or not math.isfinite(step))
    Q[nearest] = Q.dtype.type(math.inf) if good or refused else min(Q[nearest], step)
    N[WAIT * w + c] = N[PATIENCE * w + c] if refused else max(N[WAIT * w + c] - 1, 0)
    if refused:
        N[PATIENCE * w + c] = min(RESPITE * N[PATIENCE * w + c], 1 << 28)
    if good:
        Q[q + BEST * w + c] = min(Q[q + BEST * w + c], step)
        e.numbers[latest] = step
    N[CONTROL * w + c] = REFUSED if refused else GOOD if good else BAD
    if leaves(b, e, c):
        hold(b, e, c)
        depart(b, e, c, e.numbers[latest], top)
        if not good and N[CONTROL * w + c] != BACK:
            N[CONTROL * w + c] = LEFT if contracts(b, e, c) else BACK
        return 0
    return 1


@device
def leaves(b, e, c):
    """Whether column c is left to another method; `ledger.Leavers` of the NumPy twin and `methods` define the rule."""
    N, Q, q, w = b.N, b.M, e.places.state, b.w
    leaving = N[COUNT * w + c] >= e.enough
    if (N[ROUND * w + c] - 1) % e.window == 0:
        best, mark, other = Q[q + BEST * w + c], Q[q + MARK * w + c], e.levels.other
        if N[ROUND * w + c] > 1 and math.isfinite(other):
            limit, kappa = max(asked(b, e, c), noise(b, e, c)), max(Q.dtype.type(1) - distance(b, e, c), e.levels.tiny)
            anderson = e.levels.rate * steps_left(best, limit, best / mark, Q)
            leaving = leaving or min(anderson, steps_left(best, limit, kappa, Q)) > other
        Q[q + MARK * w + c] = best
    return leaving


@device
def steps_left(step, limit, ratio, like):
    """Estimate how many more steps are needed, in the dtype of the array `like`; `methods.steps_left` explains it.

    ratio: that of a step to the step before.
    """
    zero, one = like.dtype.type(0), like.dtype.type(1)
    if zero < step and zero < limit and zero < ratio < one:
        return like.dtype.type(math.log(limit / step)) / like.dtype.type(math.log(ratio))
    return like.dtype.type(math.inf)


@device
def deliver_base(b, e, H):
    """Copy g(last good point) of the columns that are LEFT to `Task.out`; all threads of the block."""
    w = b.w
    item = renew(b.tid)
    while item < LANES * w:
        c, i = item % w, item // w
        if c < b.used and b.N[CONTROL * w + c] == LEFT:
            while i < e.n:
                e.out[i * e.m + e.columns[b.first + c]] = H.array[H.at + (i * HISTORY + BASE) * w + c]
                i += LANES
        item += b.threads


@device
def attempt(b, e, c, ready):
    """Decide whether the next point of column c is a trial point; `ready` says that one could be computed.

    The last application before max_iter is never at a trial point, because its result is the answer.
    """
    N, w = b.N, b.w
    trial = ready and N[WAIT * w + c] == 0 and N[COUNT * w + c] < e.max_iter - 1
    N[TRIAL * w + c] = 1 if trial else 0
    if not trial:
        N[TRIED * w + c] = 0


@device
def remember(b, e, V, P, H):
    """Store f = g − x, g and their differences from the point before in the history; reduce ‖Δf‖∞ and ‖f‖∞ partially.

    V holds the points x and P their images g(x), both (end, w). At the first point, `Task.F` may hold f of a point
    before it, whose g is x.
    """
    N, M, w, apart, h = b.N, b.M, b.w, LANES * b.w, H.array
    item = renew(b.tid)
    while item < apart:
        c, lane = item % w, item // w
        control, known, slot = N[CONTROL * w + c], N[KNOWN * w + c], N[SLOT * w + c]
        first = e.F.size > 0 and N[ROUND * w + c] == 1
        changed = top = M.dtype.type(0)
        i = lane
        while i < e.n and control >= GOOD:
            o = H.at + i * HISTORY * w + c
            g = P.array[P.at + i * w + c]
            x = V.array[V.at + i * w + c]
            f = g - x
            if control == GOOD:
                h[o + BASE * w] = g
            if control != REFUSED:
                if known == 0:  # the first point, or the first one after a refusal: clear the differences
                    for k in range(DIFFERENCES, HISTORY):
                        h[o + k * w] = M.dtype.type(0)
                    last_f, last_g = e.F[i * e.m + column_of(b, e, c)] if first else M.dtype.type(math.nan), x
                else:
                    last_f, last_g = h[o + LAST_F * w], h[o + LAST_G * w]
                if last_f == last_f:
                    difference = f - last_f
                    changed = larger(abs(difference), changed)
                    h[o + (DIFFERENCES + slot) * w] = difference
                    h[o + (DIFFERENCES + DEPTH + slot) * w] = g - last_g
                h[o + LAST_F * w], h[o + LAST_G * w] = f, g
            top = larger(abs(f), top)
            i += LANES
        a = e.places.partials + item
        M[a + CHANGED * apart], M[a + LENGTH * apart] = changed, top
        item += b.threads


@device
def scale(b, e, k, c):
    """Return the maximum of the partial results of quantity k for column c, or 1 if it is 0: a number to divide by."""
    top = top_of(b, e, k, c)
    return top if top > b.M.dtype.type(0) else b.M.dtype.type(1)


@device
def compare(b, e, H):
    """Divide the newest Δf and Δg by ‖Δf‖∞; reduce ⟨ΔF_a, ΔF_slot⟩ and ⟨ΔF_a, f/‖f‖∞⟩ partially for a < DEPTH.

    The scaling changes no trial point, and keeps the products from overflow and underflow. A thread reads only rows of
    the history that it has written itself, so that no barrier is needed between the two parts.
    """
    N, M, w, apart, n, h = b.N, b.M, b.w, LANES * b.w, e.n, H.array
    item = renew(b.tid)
    while item < apart:
        c, lane, partials = item % w, item // w, e.places.partials + item
        slot = N[SLOT * w + c]
        proposing = N[CONTROL * w + c] == GOOD or N[CONTROL * w + c] == BAD
        changed, size = scale(b, e, CHANGED, c), scale(b, e, LENGTH, c)
        i = lane
        while i < n and proposing:
            o = H.at + i * HISTORY * w + c
            h[o + (DIFFERENCES + slot) * w] /= changed
            h[o + (DIFFERENCES + DEPTH + slot) * w] /= changed
            i += LANES
        for a in range(DEPTH):
            square = product = M.dtype.type(0)
            i = lane
            while i < n and proposing:
                o = H.at + i * HISTORY * w + c
                dF = h[o + (DIFFERENCES + a) * w]
                square += dF * h[o + (DIFFERENCES + slot) * w]
                product += dF * (h[o + LAST_F * w] / size)
                i += LANES
            M[partials + (SQUARES + a) * apart], M[partials + (PRODUCTS + a) * apart] = square, product
        item += b.threads


@device
def extrapolate(b, e, c):
    """Complete ΔFᵀ ΔF of column c, compute γ, and decide whether the next point is a trial point."""
    N, Q, w, gram = b.N, b.M, b.w, e.places.state + GRAM * b.w + c
    control, slot = N[CONTROL * w + c], N[SLOT * w + c]
    ready = False
    if control != REFUSED:
        for a in range(DEPTH):
            if N[KNOWN * w + c] == 0:
                for d in range(DEPTH):
                    Q[gram + (a * DEPTH + d) * w] = Q.dtype.type(0)
            square = sum_of(b, e, SQUARES + a, c)
            Q[gram + (a * DEPTH + slot) * w] = Q[gram + (slot * DEPTH + a) * w] = square
        ready = mix(b, e, c)
        N[SLOT * w + c] = (slot + 1) % DEPTH
    N[KNOWN * w + c] = 0 if control == REFUSED else 1
    attempt(b, e, c, ready)


@device
def mix(b, e, c):
    """Solve (H + damping·diag H) γ = ΔFᵀ f by elimination, with H = ΔFᵀ ΔF, and store γ in WEIGHTS.

    An empty slot gets γ = 0. Return False if a pivot is not positive, or if every slot is empty.
    """
    Q, w, q = b.M, b.w, e.places.state + c
    zero, one, damping = Q.dtype.type(0), Q.dtype.type(1), Q.dtype.type(DAMPING) * e.levels.eps
    gram, system, weights = q + GRAM * w, q + SYSTEM * w, q + WEIGHTS * w
    size = scale(b, e, LENGTH, c)
    some = False
    for a in range(DEPTH):
        for d in range(DEPTH):
            Q[system + (a * DEPTH + d) * w] = Q[gram + (a * DEPTH + d) * w]
        diagonal = Q[gram + (a * DEPTH + a) * w]
        some = some or diagonal > zero
        Q[system + (a * DEPTH + a) * w] = diagonal * (one + damping) if diagonal > zero else one
        Q[weights + a * w] = sum_of(b, e, PRODUCTS + a, c)
    for k in range(DEPTH):
        pivot = Q[system + (k * DEPTH + k) * w]
        if not pivot > zero:
            return False
        for i in range(k + 1, DEPTH):
            ratio = Q[system + (i * DEPTH + k) * w] / pivot
            for d in range(k + 1, DEPTH):
                Q[system + (i * DEPTH + d) * w] -= ratio * Q[system + (k * DEPTH + d) * w]
            Q[weights + i * w] -= ratio * Q[weights + k * w]
    for back in range(DEPTH):
        k = DEPTH - 1 - back
        value = Q[weights + k * w]
        for d in range(k + 1, DEPTH):
            value -= Q[system + (k * DEPTH + d) * w] * (Q[weights + d * w] / size)
        Q[weights + k * w] = size * (value / Q[system + (k * DEPTH + k) * w])
    return some


@device
def move(b, e, V, P, H):
    """x ← g − ΔG γ where the next point is a trial point, else g(last good point); reduce ‖x‖∞ and ‖x‖₁ partially.

    V receives the points x, P holds the images g, both (end, w).
    """
    N, M, w, apart, h = b.N, b.M, b.w, LANES * b.w, H.array
    item = renew(b.tid)
    while item < apart:
        c, lane = item % w, item // w
        control, trial, weights = N[CONTROL * w + c], N[TRIAL * w + c], e.places.state + WEIGHTS * w + c
        top = size = M.dtype.type(0)
        i = lane
        while i < e.n and control >= GOOD:
            o = H.at + i * HISTORY * w + c
            if trial > 0:
                value = P.array[P.at + i * w + c]
                for a in range(DEPTH):
                    value -= M[weights + a * w] * h[o + (DIFFERENCES + DEPTH + a) * w]
            else:
                value = h[o + BASE * w]
            V.array[V.at + i * w + c] = value
            top = larger(abs(value), top)
            size += abs(value)
            i += LANES
        a = e.places.partials + item
        M[a + X_TOP * apart], M[a + X_SIZE * apart] = top, size
        item += b.threads
