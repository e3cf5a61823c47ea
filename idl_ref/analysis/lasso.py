"""This module solves least squares problems with penalties, whose rows must lie in an ℓ1 ball.

For features X (k, m) and targets Z (n, m), the problem of W (n, k) separates into one for each row w:

    minimise  ½‖w X − z‖² + Σⱼ λⱼ |wⱼ|   subject to   Σⱼ |wⱼ| ≤ κ, where j goes over the first columns only.

Only H = X Xᵀ and F = Z Xᵀ enter, so that the number of samples m does not matter once they are computed. Every answer
lies in the ball, and has a duality gap, which bounds how far its objective is above the smallest one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from idl_ref.wellposed import project_rows

BALANCED = 10  # ρ is adapted after so many iterations …
RELAXATION = 1.6  # The over-relaxation of ADMM, which may be anywhere between 1 and 2.
FIRST_CHECK = 50  # … and the answer is polished and judged for the first time after so many, later ever more rarely.
FLOOR = 1e-6  # A gap is judged relative to the objective, or to this part of ½‖z‖²: an exact fit has the objective 0.
OUTSIDE = 0.3  # The size to which columns outside the ball are scaled, relative to the largest column in the ball.
TINY = float(np.finfo(float).tiny)


class Problem(NamedTuple):
    """A problem by its Gram matrices.

    Attributes
    ----------
    H : (k, k) array
        X Xᵀ.
    F : (n, k) array
        Z Xᵀ.
    squares : (n,) array
        ‖z‖² of every row.
    kappa : float
        The radius κ of the ball.
    penalties : (k,) array
        The λⱼ ≥ 0, which are positive outside the ball.
    constrained : int
        The number of columns in the ball, which are the first ones.
    noise : float
        How large a gap of all rows the rounding of Z explains.
    """

    H: np.ndarray
    F: np.ndarray
    squares: np.ndarray
    kappa: float
    penalties: np.ndarray
    constrained: int
    noise: float = 0.0

    def project(self, W: np.ndarray) -> np.ndarray:
        """Return W with the rows of its constrained columns projected on the ball."""
        inside = project_rows(np.ascontiguousarray(W[:, : self.constrained]), self.kappa)
        return np.hstack([inside, W[:, self.constrained :]])

    def scaled(self) -> tuple[Problem, np.ndarray]:
        """Return the problem of W diag(d), in which the columns outside the ball have one size, and d (k,)."""
        k, size = self.constrained, np.sqrt(self.H.diagonal())
        d = np.ones(len(size))
        d[k:] = size[k:] / (OUTSIDE * (size[:k].max(initial=0) or 1))
        d[d == 0] = 1
        return self._replace(H=self.H / d / d[:, None], F=self.F / d, penalties=self.penalties / d), d


class Answer(NamedTuple):
    """A W (n, k) in the ball; its objective, and a bound of objective − smallest objective, of every row (n,)."""

    W: np.ndarray
    objective: np.ndarray
    gap: np.ndarray

    @classmethod
    def of(cls, problem: Problem, W: np.ndarray) -> Answer:
        """Return the answer W with its duality gaps.

        The dual objective of a row is ⟨θ, z⟩ − ½‖θ‖² − κ maxⱼ max(0, |Xθ|ⱼ − λⱼ) over the columns in the ball, if
        |Xθ|ⱼ ≤ λⱼ in the others. It is at most the smallest objective. We take θ = s r, with the residual
        r = z − w X and the largest s ≤ 1 that the others allow. The gradient g = w H − F fulfils X r = −g. The gap is
        therefore ½‖r‖²(1 − s)² + Σ λⱼ|wⱼ| + s⟨g, w⟩ + κ maxⱼ max(0, s|gⱼ| − λⱼ): no large numbers cancel.
        """
        g, k, size = W @ problem.H - problem.F, problem.constrained, problem.penalties
        square = np.maximum(problem.squares + (W * (g - problem.F)).sum(axis=1), 0)  # ‖r‖²
        penalty = np.abs(W) @ size
        s = 1 / (np.abs(g[:, k:]) / size[k:]).max(axis=1, initial=1)
        beyond = np.maximum(s[:, None] * np.abs(g[:, :k]) - size[:k], 0).max(axis=1, initial=0)
        gap = 0.5 * square * (1 - s) ** 2 + penalty + s * (g * W).sum(axis=1) + problem.kappa * beyond
        return cls(W, 0.5 * square + penalty, np.maximum(gap, 0))

    def or_better(self, other: Answer) -> Answer:
        """Return, row by row, the answer with the smaller gap."""
        worse = other.gap < self.gap
        return Answer(np.where(worse[:, None], other.W, self.W), *(
            np.where(worse, two, one) for one, two in zip(self[1:], other[1:], strict=True)
        ))  # fmt: skip

    def relative_gap(self, problem: Problem) -> float:
        """Return the gap of all rows beyond the noise, relative to their objective, or to a part of ½‖Z‖² if larger."""
        gap = max(self.gap.sum() - problem.noise, 0.0)
        return float(gap / max(self.objective.sum(), FLOOR * 0.5 * problem.squares.sum(), TINY))


def shrink(W: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Return sign(W) max(|W| − t, 0), the proximal map of t|·|."""
    return np.sign(W) * np.maximum(np.abs(W) - threshold, 0)


def solve(problem: Problem, tol: float, max_iter: int) -> Answer:
    """Return an answer whose gap is at most tol, relative to its objective, or the best after `max_iter` iterations.

    The alternating direction method of multipliers finds it. One eigendecomposition H = Q diag(e) Qᵀ serves all rows,
    each of which has a ρ of its own. With the scaled multipliers Y::

        V = (F + ρ(W − Y)) (H + ρI)⁻¹       W ← project(shrink(V + Y, λ/ρ), κ)       Y ← Y + V − W

    In the columns of the ball, the second step is the exact proximal map of λ‖·‖₁ within the ball: both of its maps
    subtract a number from every |wⱼ|, and leave 0 where nothing remains. W therefore lies in the ball after every step.
    """
    original = problem
    problem, d = problem.scaled()
    values, Q = np.linalg.eigh(problem.H)
    values = np.maximum(values, 0)
    largest = max(float(values.max(initial=0)), TINY)
    rho = np.full((len(problem.F), 1), np.sqrt(largest * max(float(values.min(initial=largest)), 1e-6 * largest)))
    W = Y = np.zeros_like(problem.F)
    best, check = Answer.of(original, W), min(FIRST_CHECK, max_iter)
    if best.relative_gap(original) <= tol:  # 0 is the answer, for example if all features are 0.
        return best
    for iteration in range(1, max_iter + 1):
        V = ((problem.F + rho * (W - Y)) @ Q / (values + rho)) @ Q.T
        over = RELAXATION * V + (1 - RELAXATION) * W
        before, W = W, problem.project(shrink(over + Y, problem.penalties / rho))
        Y = Y + over - W
        if iteration == check:
            for found in (W / d, polished(original, W / d)):
                best = best.or_better(Answer.of(original, found))
            if best.relative_gap(original) <= tol:
                break
            check = min(check + check // 2, max_iter)
        if iteration % BALANCED == 0:
            new = np.clip(rho * _balance(V - W, rho * (W - before), W, problem.F), 1e-9 * largest, 1e9 * largest)
            rho, Y = new, Y * (rho / new)
    return best


def _balance(primal: np.ndarray, dual: np.ndarray, W: np.ndarray, F: np.ndarray) -> np.ndarray:
    """Return the factor of each row's ρ by which its two residuals, relative to W and F, become more alike.   (n, 1)"""
    first, second, w, f = (np.linalg.norm(M, axis=1, keepdims=True) for M in (primal, dual, W, F))
    first, second = first * f, second * w  # in the same units, without a division by 0
    return np.where(first > 5 * second, 2.0, np.where(second > 5 * first, 0.5, 1.0))


def polished(problem: Problem, W: np.ndarray) -> np.ndarray:
    """Return the exact minimiser for the zeros and signs of W, projected on the ball.

    It is the answer if W has the zeros and signs of the answer. Otherwise it may be worse than W.
    """
    return problem.project(np.stack([_polished_row(problem, i, w) for i, w in enumerate(W)]) if W.size else W)


def _polished_row(problem: Problem, i: int, w: np.ndarray) -> np.ndarray:
    """Solve H_SS w = F_S − λ_S σ − ν σ on the support S of a row with the signs σ; ν keeps it on the sphere, or is 0.

    Columns may depend on each other, for example where a neuron is never switched off. Then the smallest w is taken.
    """
    S, k = np.flatnonzero(w), problem.constrained
    signs, n = np.sign(w[S]), len(S)
    on_sphere = int(np.abs(w[:k]).sum() >= problem.kappa * (1 - 1e-9))
    K, right = np.zeros((n + on_sphere, n + on_sphere)), np.full(n + on_sphere, problem.kappa)
    K[:n, :n] = problem.H[np.ix_(S, S)]
    right[:n] = problem.F[i, S] - problem.penalties[S] * signs
    in_ball = k > S
    K[n:, :n] = signs * in_ball
    K[:n, n:] = K[n:, :n].T
    scale = np.ones(n + on_sphere)
    scale[:n] = 1 / np.sqrt(np.maximum(K.diagonal()[:n], TINY))
    row = np.zeros_like(w)
    row[S] = (scale * np.linalg.lstsq(K * scale * scale[:, None], scale * right, rcond=1e-13)[0])[:n]
    return row
