"""The checks of lesson 8."""

from itertools import product

import numpy as np

from checks.common import Wrong, near, solve, states, weights


def _truth(A, B, C, D):
    return np.abs(C) @ solve(np.eye(len(A)) - np.abs(A), np.abs(B)) + np.abs(D)


def sensitivity(f):
    A, B, C = np.array([[0.0, 0.5], [-0.5, 0.0]]), np.array([[1.0], [2.0]]), np.array([[1.0, 1.0]])
    near(f(A, B, C, np.zeros((1, 1))), [[6.0]], "for the example of the board the bound is 6")
    near(f(A, B, -C, np.full((1, 1), -1.0)), [[7.0]], "D passes a change of u on, whatever its sign is")
    for seed in range(5):
        W = weights(seed, 4, 3, 2)
        near(f(*W), _truth(*W), "|C| (I − |A|)⁻¹ |B| + |D| is asked for")


def radius(f):
    for seed in range(6):
        A, B, C, D = weights(seed, 4, 3, 3)
        u = np.array([1.0, -0.5, 0.25])
        y = C @ states(A, B @ u) + D @ u
        top = int(y.argmax())
        rivals = [k for k in range(3) if k != top]
        truth = min((y[top] - y[k]) / _truth(A, B, C[[top]] - C[[k]], D[[top]] - D[[k]]).sum() for k in rivals)
        answer = f(A, B, C, D, y)
        if np.ndim(answer) == 0 and answer > 1e-12:
            for corner in product([-1.0, 1.0], repeat=3):
                v = u + 0.999 * answer * np.array(corner)
                if (C @ states(A, B @ v) + D @ v).argmax() != top:
                    raise Wrong(f"an input within {answer:.3g} of u has another class: the radius is too large")
        near(
            answer,
            truth,
            "bound the differences y_top − y_k, over all inputs at once, and take the rival that is nearest",
        )


def attack(f):
    u, gradient = np.array([0.05, 0.5, 0.95, 0.5]), np.array([-2.0, 1.5, 0.125, 0.0])
    answer = np.asarray(f(gradient, u, 0.1), float)
    if answer.shape != u.shape:
        raise Wrong(f"u′ has the shape {answer.shape}, but {u.shape} is asked for")
    if (np.abs(answer - u) > 0.1 + 1e-12).any():
        raise Wrong("an entry of u′ is further from u than ε")
    if (answer < 0).any() or (answer > 1).any():
        raise Wrong("an entry of u′ is no pixel: it lies outside of the interval from 0 to 1")
    corners = product(*zip(np.maximum(u - 0.1, 0), np.minimum(u + 0.1, 1), strict=True))
    best = max(float(gradient @ np.array(corner)) for corner in corners)  # a linear function is largest in a corner
    near(gradient @ answer, best, "⟨gradient, u′⟩ can be larger: every entry should go as far as it may")
