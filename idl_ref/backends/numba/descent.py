"""This module has the compiled ends of a training step: the losses with their gradients, and the descent.

All arrays are flat. Y, T and G_Y have one column after the other, each the outputs of one sample.
"""

from __future__ import annotations

import math

import numpy as np

from idl_ref.backends.numba.compiling import compiled, entry, vec
from idl_ref.backends.numba.functions import exp
from idl_ref.solution import Status

LAST_SUCCESS = int(Status.PRECISION_LIMIT)


@entry
def cross_entropy(first, last, Y, labels, weights, G_Y, values):
    """Write G_Y = w (softmax(Y) − onehot(t))/m, and the values ℓⱼ = wⱼ (log Σᵢ exp Y_ij − Y_tⱼj), without cancellation.

    An empty array of weights w stands for ones.
    """
    m, q = len(labels), len(Y) // max(len(labels), 1)
    for j in range(first, last):
        c = 0
        for i in range(q):  # As in NumPy, the first NaN counts as the largest entry.
            if not (Y[j * q + i] <= Y[j * q + c] or math.isnan(Y[j * q + c])):
                c = i
        values[j] = c  # until the loss takes its place
        for i in range(j * q, j * q + q):
            G_Y[i] = Y[i] - Y[j * q + c]
    lanes = vec.lanes(G_Y)
    for i in range(first * q, last * q, lanes):
        some = min(lanes, last * q - i)
        vec.store_some(G_Y, i, exp(vec.load_some(G_Y, i, some)), some)
    for j in range(first, last):
        c, t, others = int(values[j]), labels[j], 0.0
        for i in range(q):
            others += 0.0 if i == c else G_Y[j * q + i]
        weight = np.float64(weights[j]) if weights.size > 0 else 1.0
        values[j] = weight * (np.log1p(others) - (Y[j * q + t] - Y[j * q + c]))
        G_Y[j * q + c] = 1
        rest = 0.0
        for i in range(q):
            share = G_Y[j * q + i] / (1 + others)
            rest += 0.0 if i == t else share
            G_Y[j * q + i] = weight * share / m
        G_Y[j * q + t] = -weight * rest / m
    return 0


@entry
def mse(first, last, Y, T, weights, G_Y, values):
    """Write G_Y = 2 w (Y − T)/(q m), and ℓⱼ = wⱼ Σᵢ (Y − T)²_ij/q to `values`. An empty w stands for ones."""
    q, count = len(Y) // max(len(values), 1), len(Y)
    for j in range(first, last):
        weight = np.float64(weights[j]) if weights.size > 0 else 1.0
        squares = 0.0
        for i in range(j * q, j * q + q):
            error = np.float64(Y[i]) - T[i]
            squares += error * error
            G_Y[i] = 2 * weight * error / count
        values[j] = weight * squares / q
    return 0


@entry
def mean(values):
    """The mean of the losses of the samples, which are added in their order; 0 for no samples."""
    total = 0.0
    for j in range(len(values)):
        total += values[j]
    return total / max(len(values), 1)


@entry
def figures(Y, labels, values, there, back):
    """The loss, how many samples are classified right and how many failed, and the iterations: their sum and largest.

    The loss is rounded to the dtype of Y, in which it may be inf. labels: empty if the loss does not classify. there,
    back: the answers of both solves; see `kernels`
    """
    (_, status, iterations), (_, status_V, iterations_V), m = there[:3], back[:3], len(values)
    q, right, failed, total, most, total_V, most_V = len(Y) // max(m, 1), 0, 0, 0, 0, 0, 0
    for j in range(m):
        failed += 0 if max(status[j], status_V[j]) <= LAST_SUCCESS else 1
        total, most = total + iterations[j], max(most, iterations[j])
        total_V, most_V = total_V + iterations_V[j], max(most_V, iterations_V[j])
        if len(labels) > 0:
            finite, c = status[j] <= LAST_SUCCESS, 0
            for i in range(q):
                finite = finite and abs(Y[j * q + i]) < np.inf
                c = i if Y[j * q + i] > Y[j * q + c] else c
            right += 1 if finite and c == labels[j] else 0
    return Y.dtype.type(mean(values)), right, failed, total, most, total_V, most_V


@compiled
def first_faulty(gradients):
    """The number of the first gradient that is not finite, or −1."""
    for p in range(len(gradients)):
        G, others = gradients[p], 0
        for i in range(G.size):
            others += 0 if abs(G[i]) < np.inf else 1
        if others > 0:
            return p
    return -1


@compiled
def shrinkage(gradients, clip):
    """What all gradients are multiplied by: min(1, clip/‖g‖); 1 where clip is inf."""
    squares = 0.0
    if clip < np.inf:
        for p in range(len(gradients)):
            for i in range(gradients[p].size):
                squares += np.float64(gradients[p][i]) ** 2
    return min(1.0, clip / math.sqrt(squares)) if squares > 0 else 1.0


@entry
def sgd(parameters, gradients, velocities, rule, clip, nesterov):
    """Take one step of SGD: g ← g + λ w, v ← μ v + g, w ← w − η v, or w ← w − η (g + μ v) with Nesterov's momentum.

    Returns the number of the first gradient that is not finite, in which case nothing is changed; otherwise −1.
    rule: η, μ and λ in the dtype of the parameters
    """
    (rate, momentum, decay), faulty = rule, first_faulty(gradients)
    if faulty >= 0:
        return faulty
    shrink = parameters[0].dtype.type(shrinkage(gradients, clip))
    for p in range(len(parameters)):
        w, g, v = parameters[p], gradients[p], velocities[p]
        for i in range(w.size):
            gradient = shrink * g[i] + decay * w[i] if decay != 0 else shrink * g[i]
            v[i] = momentum * v[i] + gradient
            w[i] -= rate * (gradient + momentum * v[i] if nesterov else v[i])
    return faulty


@entry
def adam(parameters, gradients, means, squares, levels, betas, clip):
    """Take one step of Adam: m ← β₁ m + (1 − β₁) g, s ← β₂ s + (1 − β₂) g², w ← w − η m/(ρ √s + ε) − δ w.

    Returns the number of the first gradient that is not finite, in which case nothing is changed; otherwise −1.
    levels: η, ρ, ε and δ of this step. betas: β₁, 1 − β₁, β₂ and 1 − β₂. All have the dtype of the parameters.
    """
    (rate, root, eps, decay), (keep, take, keep_squares, take_squares) = levels, betas
    faulty = first_faulty(gradients)
    if faulty >= 0:
        return faulty
    shrink = parameters[0].dtype.type(shrinkage(gradients, clip))
    for p in range(len(parameters)):
        w, g, m, s = parameters[p], gradients[p], means[p], squares[p]
        for i in range(w.size):
            gradient = shrink * g[i]
            m[i] = keep * m[i] + take * gradient
            s[i] = keep_squares * s[i] + take_squares * (gradient * gradient)
            w[i] -= rate * m[i] / (root * np.sqrt(s[i]) + eps) + decay * w[i]
    return faulty
