"""This module has the compiled ends of a training step: the losses with their gradients, and the descent.

All arrays are flat. Y, T and G_Y have one column after the other, each the outputs of one sample.
"""

from __future__ import annotations

import math

import numpy as np

from idl_ref.backends.numba.compiling import entry


@entry
def cross_entropy(Y, labels, G_Y):
    """Write G_Y = (softmax(Y) − onehot(t))/m, and return ℓ = Σⱼ (log Σᵢ exp Y_ij − Y_tⱼj)/m, without cancellation."""
    m = len(labels)
    q = len(Y) // max(m, 1)
    value = 0.0
    for j in range(m):
        c, t = 0, labels[j]
        for i in range(q):  # As in NumPy, the first NaN counts as the largest entry.
            if not (Y[j * q + i] <= Y[j * q + c] or math.isnan(Y[j * q + c])):
                c = i
        largest, others = Y[j * q + c], 0.0
        for i in range(q):
            G_Y[j * q + i] = np.exp(Y[j * q + i] - largest)
            others += 0.0 if i == c else G_Y[j * q + i]
        value += np.log1p(others) - (Y[j * q + t] - largest)
        G_Y[j * q + c] = 1
        rest = 0.0
        for i in range(q):
            share = G_Y[j * q + i] / (1 + others)
            rest += 0.0 if i == t else share
            G_Y[j * q + i] = share / m
        G_Y[j * q + t] = -rest / m
    return value / max(m, 1)


@entry
def mse(Y, T, G_Y):
    """Write G_Y = 2 (Y − T)/(q m), and return ℓ = Σ (Y − T)²/(q m)."""
    count = max(len(Y), 1)
    value = 0.0
    for i in range(len(Y)):
        error = np.float64(Y[i]) - T[i]
        value += error * error
        G_Y[i] = 2 * error / count
    return value / count


@entry
def descend(parameters, gradients, velocities, rule, nesterov):
    """Take one step of SGD: g ← g + λ w, v ← μ v + g, w ← w − η v, or w ← w − η (g + μ v) with Nesterov's momentum.

    Returns the number of the first gradient that is not finite, in which case nothing is changed; otherwise −1.
    rule: η, μ and λ in the dtype of the parameters
    """
    rate, momentum, decay = rule
    for p in range(len(parameters)):
        G, others = gradients[p], 0
        for i in range(G.size):
            others += 0 if abs(G[i]) < np.inf else 1
        if others > 0:
            return p
    for p in range(len(parameters)):
        w, g, v = parameters[p], gradients[p], velocities[p]
        for i in range(w.size):
            gradient = g[i] + decay * w[i] if decay != 0 else g[i]
            v[i] = momentum * v[i] + gradient
            w[i] -= rate * (gradient + momentum * v[i] if nesterov else v[i])
    return -1
