"""This module has the block matrices of composed models, as arrays, without any iteration.

A system is X = φ(A X + B Ũ), Ŷ = C X + D Ũ with Ũ = (U, 1): the last column of B and of D holds the bias. Systems are
closed under the operations of this module, if they have the same φ. All arrays are float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np

from idl_ref.weights import Weights


class System(NamedTuple):
    """The effective matrices of a model; the last column of B and of D is that of the constant feature 1.

    Attributes
    ----------
    A : (n, n) array
    B : (n, p + 1) array
    C : (q, n) array
    D : (q, p + 1) array
    """

    A: np.ndarray
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray


def of(weights: Weights) -> System:
    """Return the system of effective weights: A is multiplied out, and a missing D or bias becomes zeros."""
    A = reduce(np.matmul, [F.astype(np.float64) for F in weights.dense().factors])
    D = np.zeros((len(weights.C), weights.B.shape[1])) if weights.D is None else weights.D
    column = ((0, 0), (0, 0 if weights.bias else 1))
    B, D = (np.pad(W.astype(np.float64), column) for W in (weights.B, D))
    return System(A, B, weights.C.astype(np.float64), D)


def diagonal(*blocks: np.ndarray) -> np.ndarray:
    """Return the block diagonal matrix of the given blocks, which need not be square."""
    rows, columns = (np.cumsum([0, *(block.shape[axis] for block in blocks)]) for axis in (0, 1))
    result = np.zeros((rows[-1], columns[-1]))
    for i, block in enumerate(blocks):
        result[rows[i] : rows[i + 1], columns[i] : columns[i + 1]] = block
    return result


def cascade(second: System, first: System) -> System:
    """Return Ŷ = second(first(U)), with X = (X₂, X₁).

    `first` also hands the constant feature over: (Ŷ₁, 1) = C₁ X₁ + D₁ Ũ, where C₁ has a last row of zeros, and the last
    row of D₁ picks the 1 out of Ũ.
    """
    n1, p = first.B.shape
    C1 = np.vstack([first.C, np.zeros((1, n1))])
    D1 = np.vstack([first.D, np.eye(1, p, p - 1)])
    A = np.block([[second.A, second.B @ C1], [np.zeros((n1, len(second.A))), first.A]])
    return System(A, np.vstack([second.B @ D1, first.B]), np.hstack([second.C, second.D @ C1]), second.D @ D1)


def total(systems: Sequence[System]) -> System:
    """Return Ŷ = Ŷ₁ + Ŷ₂ + …, where all systems take the same U, with X = (X₁, X₂, …)."""
    A, B, C, D = zip(*systems, strict=True)
    return System(diagonal(*A), np.vstack(B), np.hstack(C), reduce(np.add, D))


def stack(systems: Sequence[System]) -> System:
    """Return Ŷ = (Ŷ₁, Ŷ₂, …), where all systems take the same U, with X = (X₁, X₂, …)."""
    A, B, C, D = zip(*systems, strict=True)
    return System(diagonal(*A), np.vstack(B), diagonal(*C), np.vstack(D))


def parallel(systems: Sequence[System]) -> System:
    """Return Ŷ = (Ŷ₁, Ŷ₂, …) for U = (U₁, U₂, …), with X = (X₁, X₂, …). All of them share the constant feature."""
    A, B, C, D = zip(*systems, strict=True)
    B, D = [np.hstack([diagonal(*(W[:, :-1] for W in F)), np.vstack([W[:, -1:] for W in F])]) for F in (B, D)]
    return System(diagonal(*A), B, diagonal(*C), D)


def loop(forward: System, back: System) -> np.ndarray:
    """Return I − D₁D₂, the matrix of the direct path around the loop of `feedback`.   -> (q, q)"""
    return np.eye(len(forward.D)) - forward.D[:, :-1] @ back.D[:, :-1]


def feedback(forward: System, back: System) -> System:
    """Return Ŷ = forward(U + V) with V = back(Ŷ), with X = (X₁, X₂), where I − D₁D₂ must be regular.

    V is an output of the back system, so that Ŷ occurs on both sides of its equation, which is linear::

        (I − D₁D₂) Ŷ = C₁X₁ + D₁C₂X₂ + D₁U + (D₁d₂ + d₁)       with d the last columns of D

    As functions of (X, Ũ), Ŷ = [C_y  D_y] (X, Ũ) and U + V = [C_v  D_v] (X, Ũ) are then put into the two equilibrium
    equations.
    """
    (A1, B1, C1, D1), (A2, B2, C2, D2) = forward, back
    n1, n, p = len(A1), len(A1) + len(A2), D1.shape[1] - 1
    d2 = np.hstack([np.zeros((p, n + p)), D2[:, -1:]])
    V0 = np.hstack([np.zeros((p, n1)), C2, np.eye(p, p + 1)]) + d2  # U + V without the part of V that depends on Ŷ
    one = np.eye(1, n + p + 1, n + p)
    Y = np.hstack([C1, np.zeros((len(C1), n + p + 1 - n1))]) + D1[:, :-1] @ V0 + D1[:, -1:] * one
    Y = np.linalg.solve(loop(forward, back), Y)
    V = V0 + D2[:, :-1] @ Y
    X1 = np.hstack([A1, np.zeros((n1, n + p + 1 - n1))]) + B1[:, :-1] @ V + B1[:, -1:] * one
    X2 = np.hstack([np.zeros((n - n1, n1)), A2, np.zeros((n - n1, p + 1))]) + B2[:, :-1] @ Y + B2[:, -1:] * one
    X = np.vstack([X1, X2])
    return System(X[:, :n], X[:, n:], Y[:, :n], Y[:, n:])


def feedforward(layers: Sequence[tuple[np.ndarray, np.ndarray]]) -> System:
    """Return X_l = φ(W_l X_{l−1} + b_l), Ŷ = W_k X_{k−1} + b_k with X₀ = U, with X = (X_{k−1}, …, X₁).

    A has the blocks W_{k−1}, …, W₂ above its diagonal. A net without hidden layers gets one unit, which is 0.
    """
    *hidden, (W, b) = layers
    ends = np.cumsum([len(V) for V, _ in hidden])
    n, p, q = int(ends[-1]) if hidden else 1, layers[0][0].shape[1], len(W)
    rows = [slice(n - end, n - end + len(V)) for end, (V, _) in zip(ends, hidden, strict=True)]
    system = System(np.zeros((n, n)), np.zeros((n, p + 1)), np.zeros((q, n)), np.zeros((q, p + 1)))
    for i, (V, v) in enumerate(hidden):
        (system.A[:, rows[i - 1]] if i else system.B[:, :-1])[rows[i]] = V
        system.B[rows[i], -1] = v
    (system.C[:, rows[-1]] if hidden else system.D[:, :-1])[:] = W
    system.D[:, -1] = b
    return system


def skipped(system: System) -> System:
    """Return Ŷ = U + system(U), which has the same states; p = q."""
    return system._replace(D=system.D + np.eye(*system.D.shape))


def unrolled(system: System, steps: int) -> System:
    """Return Ŷ = C X_k + D Ũ after k `steps` X_j = φ(A X_{j−1} + B Ũ) from X₀ = 0, with X = (X_k, …, X₁)."""
    A, B, C, D = system
    n = len(A)
    return System(
        np.kron(np.eye(steps, k=1), A), np.tile(B, (steps, 1)), np.pad(C, ((0, 0), (0, n * (steps - 1)))), D.copy()
    )
