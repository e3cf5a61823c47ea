"""This module has compiled functions that change parameters, which are flat arrays here."""

from __future__ import annotations

import numpy as np

from idl_ref.backends.numba.compiling import entry


@entry
def is_finite(G):
    """Whether all entries of a flat array are finite."""
    others = 0
    for i in range(G.size):
        others += 0 if abs(G[i]) < np.inf else 1
    return others == 0


@entry
def descend(w, g, v, rate, momentum, decay, nesterov):
    """One step of SGD for flat arrays, in one pass: g ← g + λ w, v ← μ v + g, w ← w − η v, or w ← w − η (g + μ v)."""
    for i in range(w.size):
        gradient = g[i] + decay * w[i]
        v[i] = momentum * v[i] + gradient
        w[i] -= rate * (gradient + momentum * v[i] if nesterov else v[i])
