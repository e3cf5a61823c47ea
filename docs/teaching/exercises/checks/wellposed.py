"""The checks of lesson 2."""

import numpy as np

from checks.common import Wrong, exact, near, parts, weights


def perron_bounds(f):
    for seed in range(5):
        A = weights(seed, 4, 1, 1)[0] * 4
        z = np.arange(1.0, 5.0)
        entries, w = exact(A), [row[0] for row in exact(z)]
        ratios = [sum(abs(a) * b for a, b in zip(row, w, strict=True)) / w[i] for i, row in enumerate(entries)]
        answer = parts(f(A, z), 2)
        near(answer, [float(min(ratios)), float(max(ratios))], "the least and the largest of (|A| z)ᵢ/zᵢ are asked for")


def rescaling(f):
    examples = [np.array([[0.0, 4.0], [1 / 16, 0.0]]), np.array([[0.5, -30.0], [0.0, 0.75]])]
    examples.append(np.array([[0.0, 100.0, 100.0], [0.0, 0.5, -100.0], [1e-5, 0.0, 0.0]]))
    for A in examples:
        d = np.asarray(f(A), float)
        if d.shape != (len(A),) or not (d > 0).all():
            raise Wrong(f"d should hold {len(A)} positive numbers, but it is {d}")
        A, d = exact(A), [row[0] for row in exact(d)]
        norm = max(sum(abs(a) * d[j] for j, a in enumerate(row)) / d[i] for i, row in enumerate(A))
        if norm >= 1:
            raise Wrong(f"D⁻¹ A D has an absolute row sum of {float(norm):.4g}, which is not below 1")


def project(f):
    rng = np.random.default_rng(0)
    rows = [np.array([1.5, 0.5]), np.array([0.25, -0.25]), np.array([-3.0, 1.0, 0.0]), *rng.standard_normal((5, 6)) * 2]
    for a in rows:
        low, high = 0.0, np.abs(a).max()
        for _ in range(100):  # the threshold t by bisection: Σ max(|aᵢ| − t, 0) = 1
            t = (low + high) / 2
            low, high = (t, high) if np.maximum(np.abs(a) - t, 0).sum() > 1 else (low, t)
        truth = a if np.abs(a).sum() <= 1 else np.sign(a) * np.maximum(np.abs(a) - high, 0)
        answer = np.asarray(f(a, 1.0), float)
        if answer.shape == a.shape and np.abs(answer).sum() > 1 + 1e-9:
            raise Wrong(f"the point lies outside of the ball: Σ |pᵢ| = {np.abs(answer).sum():.4g} > κ = 1")
        near(answer, truth, f"the point lies in the ball, but the one nearest to {np.round(a, 3)} is another one")
