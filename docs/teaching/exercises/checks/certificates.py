"""The checks of lesson 4."""

import numpy as np

from checks.common import Wrong, near, solve, states, weights


def error_bound(f):
    A, Z = np.array([[0.5]]), np.array([[1.0, 1.0, -1.0]])
    near(f(A, Z, np.array([[1.5, 4.0, 0.0]])), [0.5, 2.0, 0.0], "for x = x/2 + 1 at x̂ = 3/2 the residual is 1/4")
    for seed in range(5):
        A, B, _, _ = weights(seed, 4, 3, 1)
        X = np.round(states(A, B), 1)
        bound = np.asarray(f(A, B, X), float)
        if bound.shape == (3,) and (bound < np.abs(X - states(A, B)).max(axis=0)).any():
            raise Wrong("a bound is smaller than the true error of its column")
        near(bound, np.abs(np.maximum(A @ X + B, 0) - X).max(axis=0) / (1 - np.abs(A).sum(axis=1).max()),
             "the bound ‖g(x̂) − x̂‖∞/(1 − κ) is asked for, column by column")  # fmt: skip
    near(f(np.array([[1.0]]), np.array([[1.0]]), np.array([[5.0]])), [np.inf], "κ = 1 proves nothing: the bound is inf")
    near(
        f(np.array([[-2.0]]), np.array([[1.0]]), np.array([[5.0]])), [np.inf], "κ = 2 proves nothing: the bound is inf"
    )


def entrywise(f):
    A, z, x = np.array([[0.0, 0.5], [-0.5, 0.0]]), np.array([1.0, 2.0]), np.array([1.5, 1.5])
    near(f(A, z, x), [1 / 2, 1 / 2], "at x̂ = (3/2, 3/2) the residual is (1/4, −1/4), and (I − |A|)⁻¹ |r| = (1/2, 1/2)")
    for seed in range(5):
        A, B, _, _ = weights(seed, 4, 1, 1)
        x = np.round(states(A, B[:, 0]) * 8) / 8
        r = np.abs(np.maximum(A @ x + B[:, 0], 0) - x)
        near(f(A, B[:, 0], x), solve(np.eye(4) - np.abs(A), r), "(I − |A|)⁻¹ |r| is asked for, with absolute values")
    wide = np.array([[0.0, 5.0], [0.01, 0.0]])
    near(f(wide, z, x[:2]), solve(np.eye(2) - np.abs(wide), np.abs(np.maximum(wide @ x[:2] + z, 0) - x[:2])),
         "‖A‖∞ = 5 does not matter: the Perron root is √0.05, and the bound is finite")  # fmt: skip
    for A in (np.array([[0.0, 2.0], [2.0, 0.0]]), np.array([[0.0, -3.0], [1.0, 0.0]])):
        near(
            f(A, z, np.zeros(2)), [np.inf, np.inf], "the Perron root is above 1, which proves nothing: inf is asked for"
        )


def proved_class(f):
    C, x = np.array([[1.0, 1.0], [1.0, 0.5], [0.0, 0.25]]), np.array([1.0, 1.0])
    for outputs, e, truth, why in [
        (C, [0.0, 0.0], 0, "with no error at all, the class with the largest output is proved"),
        (C[::-1].copy(), [0.0, 0.0], 2, "the class is the index of the largest output"),
        (C[:2], [5.0, 0.9], 0, "the two outputs share x₁: bound the difference (C₁ − C₂) x, not each output by itself"),
        (C, [0.0, 1.0], -1, "a lead that may become 0 proves nothing"),
        (C, [5.0, 5.0], -1, "with errors this large, another class may lead"),
    ]:
        near(f(outputs, x, np.array(e)), truth, why)
