"""The solvers that iterate on one tile of columns, compiled for the Numba twin: `picard` and `guarded`.

Columns are contiguous, filled up with zeros to a multiple of ROWS, and begin `stride` apart in one flat array M: first
all x, then all g, z and s. When a column is done, the last one takes its place, so that the columns that go on stand
side by side. The solvers take what belongs together as tuples:

columns     Z, S and X0, each with its entries and the distances between its rows and its columns. S and X0 are empty
            where there is none.
roundings   The fields of a `certificate.Rounding`.
answer      x column by column, status, iterations, and numbers (6, m), whose rows are STEP … FIRST; and a flag that
            ends the solver before its columns are done, where it is not 0.
"""

from __future__ import annotations

import math

import numpy as np

from idl_ref import certificate
from idl_ref.backends import methods
from idl_ref.backends.methods import DAMPING, DEPTH
from idl_ref.backends.numba.columns import copy, finish, norms
from idl_ref.backends.numba.compiling import compiled, entry, vec
from idl_ref.backends.numba.mixed import located, room_of_codes
from idl_ref.backends.numba.products import GROUP, ROWS, boundary, fill, filled, gather, product
from idl_ref.backends.numba.rounded import ROUNDED, SCRATCH, contraction, largest_term, rounded
from idl_ref.backends.numba.trials import HISTORY, LAST_F, LAST_G, anderson, newton

excess, norms_rounding = compiled(certificate.excess), compiled(certificate.norms_rounding)
asked_step, enough, window = compiled(certificate.asked_step), compiled(methods.enough), compiled(methods.window)
slower, steps_left = compiled(methods.slower), compiled(methods.steps_left)
Rounding, STALE = certificate.Rounding, methods.STALE

# The members of `Status`, and two more: the column is not done yet; the column is left to another method.
# A column is doubtful as long as it is not known whether rounding explains its change.
CONVERGED, PRECISION_LIMIT, MAX_ITER, NONFINITE, GOES_ON, SLOW, DOUBTFUL = 0, 1, 2, 3, 4, 5, 6
# BOUND is EXCESS / (1 − KAPPA) for κ < 1, inf otherwise. FIRST is the step of the first application of a solver.
STEP, BOUND, EXCESS, KAPPA, LIPSCHITZ, FIRST = range(6)


@compiled
def load(columns, first, M, x, w, room, n, stride, z_norm):
    """Copy the columns of a tile to M, write ‖z‖∞ of each, NaN if its z, s or x is not finite; return whether X0 is 0.

    x, g, z and s have room for `room` columns each, because products take columns in groups and may read a few more
    than there are.
    """
    vec.separate()
    (Z, z_down, z_right), (S, s_down, s_right), (X0, x_down, x_right) = columns[:3]
    end, block = stride - ROWS, room * stride
    z, s = x + 2 * block, x + 3 * block
    gather(Z, first * z_right, z_down, z_right, M, z, stride, n, w, end, room)
    if S.size > 0:
        gather(S, first * s_right, s_down, s_right, M, s, stride, n, w, end, room)
    if X0.size > 0:
        gather(X0, first * x_right, x_down, x_right, M, x, stride, n, w, end, room)
    else:
        fill(M, x, x + block, 0.0)
    for c in range(w):
        z_norm[c] = norms(M, z + c * stride, -end, end)[0]
        finite = math.isfinite(z_norm[c])
        if X0.size > 0:
            finite = finite and math.isfinite(norms(M, x + c * stride, -end, end)[0])
        if S.size > 0:
            finite = finite and math.isfinite(norms(M, s + c * stride, -end, end)[0])
        if not finite:
            z_norm[c] = math.nan
    return X0.size == 0


@compiled
def apply(F1, F2, M, starts, stride, small, count, n, r, skip):
    """G = F₁ F₂ X + Z for `count` columns; with `skip`, X is 0 and no product is needed.

    starts: where x, g, z and t begin. For low rank, F₂ X goes to t behind a column of zeros, `small` entries apart.
    """
    x, g, z, t = starts
    if skip:
        copy(M, g, z, filled(count, GROUP) * stride)
    elif r > 0:
        no = stride - stride  # A literal 0 would trigger a second specialisation of `product`.
        product(F2, r, n, M, x, stride, t, no, t + small, small, count)
        product(F1, n, r, M, t + small, small, z, stride, g, stride, count)
    else:
        product(F1, n, n, M, x, stride, z, stride, g, stride, count)


@compiled
def outcome(step, z_norm, noise, stale, trial, count, asked, max_iter, tiny):
    """The status of a column after `count` applications, or DOUBTFUL if rounding may keep it from getting better.

    This is computed for every column and application, so that it takes numbers only. noise: what rounding may add to
    the largest entry. stale: how many applications ago the smallest step was. asked: the step of a converged column.
    """
    if math.isnan(z_norm) or not (math.isfinite(step) or trial):
        return NONFINITE
    if step <= asked:
        return CONVERGED
    if math.isfinite(step) and (stale >= STALE or step <= noise):
        return DOUBTFUL
    return spent(step, count, max_iter, tiny)


@compiled
def spent(step, count, max_iter, tiny):
    """The status of a column that is not done. At the limit, a step below the smallest normal number counts as none."""
    if count < max_iter:
        return GOES_ON
    return PRECISION_LIMIT if step < tiny else MAX_ITER


@compiled
def resolve(F1, F2, M, places, shape, measured, stale, earlier, asked, roundings, counts):
    """The status of a DOUBTFUL column; see `rounded`. counts: the number of applications, and the largest number."""
    vec.separate()
    if rounded(F1, F2, M, places, shape, measured, stale, earlier, asked, roundings):
        return PRECISION_LIMIT
    if earlier >= 0 and stale >= STALE and stale & (stale - 1) == 0:
        copy(M, earlier, places[1], shape[3])
    return spent(measured[0], counts[0], counts[1], roundings.tiny)


@compiled
def conclude(M, places, n, end, ended, measured, roundings, j, answer):
    """Write the answer of a column, or NaN, and its certificate: in the ∞-norm, for the adjoint in the 1-norm.

    places: where x, g, z and s of the column begin, s < 0 for the forward equation, and the scratch of an iteration,
    which is < 0 after a sweep of substitution. measured: ‖g − x‖∞, ‖g‖∞, ‖z‖∞. The answer is g; where the map is no
    contraction and was iterated, it is x, whose change was judged. There, another method goes on.
    """
    vec.separate()
    out, status, _, numbers, _, _ = answer
    (x, g, z, s, scratch), (step, top, z_norm) = places, measured
    status[j], numbers[STEP, j] = ended, step + (z_norm - z_norm)  # The step is NaN where z_norm is.
    x_norm, g_norm = norms(M, x, -end, end)[0], top
    lipschitz, entries = roundings.lipschitz, 1
    if s >= 0:
        lipschitz, entries = norms(M, s, -end, end)[0], n
        step, x_norm, z_norm = norms(M, g, x, end)[1], norms(M, x, -end, end)[1], norms(M, z, -end, end)[1]
        g_norm = norms(M, g, -end, end)[1]
    kappa = lipschitz * roundings.norm
    numerator = excess(kappa, lipschitz, step, x_norm, z_norm, g_norm, entries, roundings)
    numerator *= norms_rounding(entries, roundings.unit)
    bound = numerator / (1 - kappa) if kappa < 1 and ended != NONFINITE else math.inf
    numbers[BOUND, j] = bound if math.isfinite(bound) else math.inf
    numbers[EXCESS, j], numbers[KAPPA, j], numbers[LIPSCHITZ, j] = numerator, kappa, lipschitz
    place, whole, result = j * n, n & -vec.lanes(M), g if kappa < 1 or scratch < 0 else x
    for i in range(0, whole, vec.lanes(M)):
        vec.store(out, place + i, vec.load(M, result + i))
    for i in range(0 if ended == NONFINITE else whole, n):
        out[place + i] = math.nan if ended == NONFINITE else M[result + i]


@compiled
def hand_over(M, places, n, end, ended, step, roundings, j, changes):
    """Write F = g − x of a SLOW column, with which another method continues from g; NaN if it begins elsewhere."""
    vec.separate()
    if ended != SLOW:
        return
    x, g, _, s, _ = places
    known = math.isfinite(step) and contraction(M, s, end, roundings) < 1
    for i in range(n):
        changes[j * n + i] = M[g + i] - M[x + i] if known else math.nan


@entry
def picard(first, last, F1, F2, columns, sizes, levels, roundings, answer):
    """x ← g(x) for the columns first … last − 1, each until it is done, or was slow for `slow_steps` steps in a row.

    Unless `slow_steps` is ENDLESS, a column that overflows is left to another method like a slow one.

    sizes: n, r (0 for one factor), activation, max_iter and slow_steps. levels: tol, and the ratio of two steps from
    which on the second one is slow. Returns how many columns were slow.
    """
    n, r, kind, max_iter, slow_steps = sizes
    (tol, slow), roundings = levels, Rounding(*roundings)
    w, another = last - first, slow_steps < methods.ENDLESS
    most = enough(max_iter) if another else methods.ENDLESS
    end, small, room = filled(n, ROWS), filled(r, ROWS), filled(w, GROUP)
    stride = end + ROWS
    block, adjoint = room * stride, columns[1][0].size > 0
    M = np.empty(5 * block + (room + 3) * small + SCRATCH * stride + room_of_codes(end, kind) + ROWS, F1.dtype)
    x, iterations = boundary(M), answer[2]
    g, z, kept, t, count, left = x + block, x + 2 * block, x + 4 * block, x + 5 * block, w, 0
    scratch = t + (room + 1) * small
    shape = n, r, located(F1, M, scratch + SCRATCH * stride + 2 * small, end, kind), end
    index, slowed, stale = np.empty(w, np.int64), np.empty(w, np.int64), np.empty(w, np.int64)
    z_norm, asked, before, lowest, eps = np.empty(w), np.empty(w), np.empty(w), np.empty(w), 2 * roundings.unit
    tiny = roundings.tiny
    at_zero = load(columns, first, M, x, w, room, n, stride, z_norm)
    skip = at_zero and math.isfinite(roundings.norm)  # A·0 = 0, unless A has an entry NaN or inf.
    for c in range(w):
        index[c], before[c], lowest[c], slowed[c], stale[c] = first + c, math.inf, math.inf, 0, 0
        asked[c] = asked_step(tol, z_norm[c])
    fill(M, t, t + small, 0.0)
    while count > 0 and vec.fresh(answer[4]) == 0:
        apply(F1, F2, M, (x, g, z, t), stride, small, count, n, r, skip)
        skip = False
        for a in range(count - 1, -1, -1):
            j, at = index[a], a * stride
            s = z + block + at if adjoint else -1
            step, top = finish(M, g + at, x + at, s, n, end, shape[2])
            iterations[j] += 0 if math.isnan(z_norm[a]) else 1
            lowest[a], stale[a] = min(step, lowest[a]), 0 if step < lowest[a] else stale[a] + 1
            noise = ROUNDED * eps * largest_term(z_norm[a], top, roundings.norm)
            ended = outcome(step, z_norm[a], noise, stale[a], False, iterations[j], asked[a], max_iter, tiny)
            places, measured = (x + at, g + at, z + at, s, scratch), (step, top, z_norm[a])
            if ended == DOUBTFUL:
                counts, earlier = (iterations[j], max_iter), kept + at
                ended = resolve(F1, F2, M, places, shape, measured, stale[a], earlier, asked[a], roundings, counts)
            slowed[a] = slowed[a] + 1 if step > slow * before[a] else 0
            if before[a] == math.inf:
                answer[3][FIRST, j] = step
            before[a] = step
            given = not math.isnan(z_norm[a])
            lost = another and given and overflowed(ended, iterations[j], max_iter, roundings)
            if lost or (ended == GOES_ON and (slowed[a] >= slow_steps or iterations[j] >= most)):
                ended, left = SLOW, left + 1
            if ended != GOES_ON:
                hand_over(M, places, n, end, ended, step, roundings, j, answer[5])
                conclude(M, places, n, end, ended, measured, roundings, j, answer)
                count -= 1  # The last column takes the place of this one.
                index[a], z_norm[a], before[a], slowed[a] = index[count], z_norm[count], before[count], slowed[count]
                asked[a], lowest[a], stale[a] = asked[count], lowest[count], stale[count]
                copy(M, g + at, g + count * stride, end)
                if stale[a] >= STALE:
                    copy(M, kept + at, kept + count * stride, end)
                copy(M, z + at, z + count * stride, end)
                if adjoint:
                    copy(M, s, z + block + count * stride, end)
        x, g = g, x
    return left


# The entries of the state of a column; `safeguarded` in the NumPy twin says what they are for.
TRIAL, TRIED, PATIENCE, WAIT, KNOWN = range(5)


@compiled
def refuse(M, step, steps, c, state, base, g, end, rules):
    """Whether the trial points since the last good one are given up. If x is a good point, g is kept at `base`.

    steps: the smallest one, the one that led to `base`, and the smallest one since then, for all columns. rules: the
    ratio of the steps of good points, leash and respite.
    """
    vec.separate()
    (decrease, leash, respite), (best, latest, nearest) = rules, steps
    good = state[TRIAL] == 0 or step <= decrease * best[c]
    if good:
        best[c], latest[c] = min(best[c], step), step
        copy(M, base, g, end)
    state[TRIED] = 0 if good or step <= decrease * nearest[c] else state[TRIED] + 1
    refused = not good and (state[TRIED] >= leash or not math.isfinite(step))
    nearest[c] = math.inf if good or refused else min(nearest[c], step)
    state[WAIT] = state[PATIENCE] if refused else max(state[WAIT] - 1, 0)
    if refused:
        state[PATIENCE] *= respite
        state[KNOWN] = 0
    return refused


@compiled
def overflowed(ended, count, max_iter, roundings):
    """Whether the iteration made a column NONFINITE, not A, and other applications are left for it."""
    return ended == NONFINITE and count < max_iter and math.isfinite(roundings.norm)


@compiled
def leaves(M, s, end, ended, marks, c, limits, other, roundings):
    """Whether column c is left to another method of the cost `other`; `methods.slower` is asked after every window.

    marks: the smallest steps, and those of one window before. limits: the step at which the column would be done, the
    applications of this method, those of the column, and the largest number of them.
    """
    (best, mark), (limit, rounds, count, max_iter) = marks, limits
    lost = overflowed(ended, count, max_iter, roundings)
    if other < math.inf and (lost or (ended == GOES_ON and count >= enough(max_iter))):
        return True
    if ended != GOES_ON or (rounds - 1) % window(max_iter) != 0:
        return False
    before, mark[c] = mark[c], best[c]
    anderson = window(max_iter) * steps_left(best[c], before, limit)
    picard = steps_left(best[c], best[c] / contraction(M, s, end, roundings), limit)
    return rounds > 1 and slower(anderson, picard, other)


@compiled
def handed(M, s, end, ended, state, latest, roundings):
    """The step at the point from which another method continues, or inf if it is not known.

    For a contraction, that is g of the last good point, whose step was `latest`; otherwise x, if x is a good point.
    """
    good = ended == GOES_ON and state[TRIED] == 0
    return latest if good or contraction(M, s, end, roundings) < 1 else math.inf


@compiled
def recall(F, first, M, x, history, states, w, n, end, stride):
    """Begin the histories of Anderson with f and g of the points before x, where they are known; F may be empty."""
    if F.size == 0:
        return
    last_f, last_g, apart = history + LAST_F * stride, history + LAST_G * stride, HISTORY * stride
    gather(F, first * n, 1, n, M, last_f, apart, n, w, end, w)
    for c in range(w):
        states[c, KNOWN] = 0 if math.isnan(M[last_f + c * apart]) else 1
        copy(M, last_g + c * apart, x + c * stride, end)


@compiled
def propose(M, places, f, history, state, shape, F2, Lt, systems, stride, eps, c):
    """Write a trial point to x: Newton's where Lt is not None, and then f holds A x + z; otherwise Anderson's.

    Returns False where there is none. history: where those of all columns begin; c: the place of the column in it.
    """
    (x, g, _, _, _), (_, _, _, end), (system, (gram, H, gamma)) = places, shape, systems
    if Lt is not None:
        return newton(M, places, f, shape, F2, Lt, system)
    h, points = history + HISTORY * c * stride, state[KNOWN]
    state[KNOWN] += 1
    return anderson(M, x, g, h, points, end, stride, DAMPING * eps, (gram[c], H, gamma))


@entry
def guarded(first, last, F1, F2, Lt, columns, sizes, levels, roundings, answer):
    """Trial points that are kept only if they bring the step down, as `safeguarded` in the NumPy twin defines.

    They are Newton's where Lt holds the columns of the first factor, and Anderson's where it is None.
    columns: Z, S, X0, and F = g − x at an earlier point x with g(x) = X0, NaN where there is none; F may be empty.
    sizes: as for `picard`, with leash and respite instead of slow_steps. levels: tol, the ratio of the steps, and the
    cost of another method, inf if there is none. Returns how many columns were left to that.
    """
    n, r, kind, max_iter, leash, respite = sizes
    (tol, decrease, other), roundings, w, inf = levels, Rounding(*roundings), last - first, math.inf
    end, small, room, rules = filled(n, ROWS), filled(r, ROWS), filled(w, GROUP), (decrease, leash, respite)
    stride, eps, tiny, more = end + ROWS, 2 * roundings.unit, roundings.tiny, ROWS + room_of_codes(end, kind)
    block, adjoint, kept = room * stride, columns[1][0].size > 0, w if Lt is None else 0
    M = np.empty(5 * block + (HISTORY * kept + 1 + SCRATCH) * stride + (room + 3) * small + more, F1.dtype)
    x, count, iterations, rounds, left = boundary(M), w, answer[2], 0, 0
    g, z, base, history = x + block, x + 2 * block, x + 4 * block, x + 5 * block  # s is between z and base.
    scratch = history + HISTORY * kept * stride
    t, more, nowhere = scratch + stride, scratch + stride + (room + 1) * small, np.int64(-1)  # as in `explained`
    shape = n, r, located(F1, M, more + SCRATCH * stride + 2 * small, end, kind), end
    # The history of a column stays in its slot; x, g, z, s and base move to the front when other columns are done.
    index, slot, states = np.empty(w, np.int64), np.empty(w, np.int64), np.zeros((w, 5), np.int64)
    stale, z_norm, asked = np.zeros(w, np.int64), np.empty(w), np.empty(w)
    lowest, mark, steps = np.full(w, inf), np.full(w, inf), (np.full(w, inf), np.full(w, inf), np.full(w, inf))
    k, width = (n, end) if r == 0 else (r, small)
    room_J, room_F = ((k + 1) * width, filled(r + 1, GROUP) * (stride + small) + small) if Lt is not None else (0, 0)
    system = np.empty(room_J, F1.dtype), np.zeros(end, F1.dtype), np.zeros(room_F, F1.dtype), answer[4]
    systems = system, (np.empty((kept, DEPTH, DEPTH)), np.empty((DEPTH, DEPTH)), np.empty(DEPTH))
    skip = load(columns, first, M, x, w, room, n, stride, z_norm) and math.isfinite(roundings.norm)
    for c in range(w):
        index[c], slot[c], states[c, PATIENCE], asked[c] = first + c, c, 1, asked_step(tol, z_norm[c])
    recall(columns[3], first, M, x, history, states, w, n, end, stride)
    fill(M, t, t + small, 0.0)
    while count > 0 and vec.fresh(answer[4]) == 0:
        apply(F1, F2, M, (x, g, z, t), stride, small, count, n, r, skip)
        skip, rounds = False, rounds + 1
        for a in range(count - 1, -1, -1):
            c, j, at = slot[a], index[a], a * stride
            s, state = z + block + at if adjoint else -1, states[slot[a]]
            iterations[j] += 0 if math.isnan(z_norm[a]) else 1
            copy(M, scratch, g + at, 0 if Lt is None else end)  # Newton's method needs P, which `finish` replaces by G.
            step, top = finish(M, g + at, x + at, s, n, end, shape[2])
            places, measured = (x + at, g + at, z + at, s, more), (step, top, z_norm[a])
            lowest[c], stale[c] = min(step, lowest[c]), 0 if step < lowest[c] else stale[c] + 1
            noise = ROUNDED * eps * largest_term(z_norm[a], top, roundings.norm)
            limits = max(asked[c], noise), rounds, iterations[j], max_iter
            ended = outcome(step, z_norm[a], noise, stale[c], state[TRIAL] > 0, iterations[j], asked[c], max_iter, tiny)
            if ended == DOUBTFUL:
                ended = resolve(F1, F2, M, places, shape, measured, stale[c], nowhere, asked[c], roundings, limits[2:])
            answer[3][FIRST, j] = step if rounds == 1 else answer[3][FIRST, j]
            refused = ended == GOES_ON and refuse(M, step, steps, c, state, base + at, places[1], end, rules)
            if leaves(M, s, end, ended, (steps[0], mark), c, limits, other, roundings):
                measured = handed(M, s, end, ended, state, steps[1][c], roundings), top, z_norm[a]
                ended, left = SLOW, left + 1
                copy(M, g + at, base + at, end)
            if ended != GOES_ON:
                conclude(M, places, n, end, ended, measured, roundings, j, answer)
                count -= 1  # The last column takes the place of this one.
                index[a], slot[a], z_norm[a] = index[count], slot[count], z_norm[count]
                for buffer in range(x, history, block):
                    copy(M, buffer + at, buffer + count * stride, end)
                continue
            ready = not refused and propose(M, places, scratch, history, state, shape, F2, Lt, systems, stride, eps, c)
            # The last application must not be that of a trial point, which may be a bad one.
            state[TRIAL] = ready and state[WAIT] == 0 and iterations[j] < max_iter - 1
            if state[TRIAL] == 0:
                state[TRIED] = 0
                copy(M, x + at, base + at, end)
    return left
