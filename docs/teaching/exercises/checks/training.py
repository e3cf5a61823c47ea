"""The checks of lesson 7."""

from fractions import Fraction

import numpy as np

from checks.common import Wrong, near, parts


def cross_entropy(f):
    loss, G_Y = parts(f(np.array([[np.log(3)], [0.0]]), np.array([1])), 2)
    near(loss, np.log(4), "for Y = (ln 3, 0) and the second class the loss is ln 4")
    near(G_Y, [[0.75], [-0.75]], "for Y = (ln 3, 0) and the second class the gradient is (3/4, −3/4)")
    loss, G_Y = parts(f(np.array([[1000.0, 0.0], [0.0, 1000.0]]), np.array([0, 0])), 2)
    near(loss, 500, "outputs of 1000 are no reason for exp to overflow: subtract the largest one, and take the mean")
    near(G_Y, [[0.0, -0.5], [0.0, 0.5]], "the gradient is divided by the number of columns, like the loss")


def pullback(f):
    A, ones = np.array([[1.5, 0.5], [0.0, 0.5]]), np.ones((2, 2))
    near(f(A, 1.0, ones), [[-1 / 8, -1 / 8], [1 / 2, 1 / 2]], "for the example of the board, with κ = 1 and G = 1")
    near(f(A, 3.0, ones), ones, "inside of the ball nothing is scaled, and the gradient passes as it is")
    rng = np.random.default_rng(0)
    A, G = rng.standard_normal((4, 4)), rng.standard_normal((4, 4))
    truth = np.empty_like(A)
    for i in np.ndindex(A.shape):
        h = np.zeros((4, 4))
        h[i] = 1e-6
        scaled = [0.9 * W / np.abs(W).sum(axis=1).max() for W in (A + h, A - h)]
        truth[i] = np.sum(G * (scaled[0] - scaled[1])) / 2e-6
    near(f(A, 0.9, G), truth, "differences of κ A/‖A‖∞ say something else: the norm moves with A", 1e-6)


def descend(f):
    for rate, momentum, steps in [(0.5, 0.0, 1), (0.25, 0.5, 2), (0.125, 0.875, 7), (0.5, 0.5, 0)]:
        w, v = Fraction(1), Fraction(0)
        for _ in range(steps):  # ℓ = w²/2, so ∂ℓ = w
            v = Fraction(momentum) * v + w
            w = w - Fraction(rate) * v
        near(f(lambda w: w, np.array([1.0]), rate, momentum, steps), [float(w)],
             f"for ℓ = w²/2 from w = 1 with η = {rate}, μ = {momentum}, after {steps} steps")  # fmt: skip
    start = np.array([1.0, 2.0])
    if np.shape(f(lambda w: 0 * w, start, 0.1, 0.9, 3)) != (2,):
        raise Wrong("w should have the shape that it began with")
