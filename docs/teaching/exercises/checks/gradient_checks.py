"""The checks of lesson 6."""

import numpy as np

from checks.common import Wrong, near


def central(f):
    cube = lambda x: float(np.sum(x**3))  # noqa: E731
    for x, E, h in [(1.0, 1.0, 0.1), (2.0, 0.5, 0.25), (-1.0, 3.0, 0.125)]:
        truth = 3 * x**2 * E + h**2 * E**3  # exactly what the central difference of x³ is
        near(f(cube, np.array([x]), np.array([E]), h), truth, f"for x³ at {x:g}, in the direction {E:g} with h = {h}")
    calls = []
    f(lambda x: calls.append(x) or 0.0, np.zeros(2), np.ones(2), 0.5)
    if len(calls) != 2:
        raise Wrong(f"a central difference calls f two times, and this one {len(calls)} times")


def complex_step(f):
    for function, x, E, truth in [
        (lambda x: np.sum(x**3), [1.0, 2.0], [1.0, -1.0], 3 - 12.0),
        (lambda x: np.exp(x[0]) * x[1], [0.0, 3.0], [2.0, 1.0], 7.0),
        (lambda x: np.sum(np.tanh(1e3 * x)), [0.0, 0.0], [1.0, 1.0], 2000.0),
    ]:
        why = "it is not right to all digits: take the imaginary part at a step as small as 1e-30, and divide by it"
        near(f(function, np.array(x), np.array(E)), truth, why, 1e-14)


def wrong_gradients(f):
    rng = np.random.default_rng(3)
    W = {"A": rng.standard_normal((3, 3)), "B": rng.standard_normal((3, 2)), "C": rng.standard_normal((1, 3))}
    loss = lambda w: float((w["C"] @ np.tanh(w["A"] @ np.tanh(w["B"] @ np.ones(2))))[0])  # noqa: E731
    h = np.tanh(W["B"] @ np.ones(2))
    g = np.tanh(W["A"] @ h)
    back = W["C"][0] * (1 - g**2)
    right = {"A": np.outer(back, h), "B": np.outer((W["A"].T @ back) * (1 - h**2), np.ones(2)), "C": g[None]}
    shifted = right["B"].copy()
    shifted[2, 1] = 0.0
    for changed, what in [
        ({}, "all gradients are right"),
        ({"A": right["A"].T.copy()}, "∂A is transposed, and its norm is right"),
        ({"A": -right["A"], "C": 1.01 * right["C"]}, "∂A has the wrong sign and ∂C is one per cent too large"),
        ({"B": shifted}, "one entry of ∂B is 0 and should not be"),
    ]:
        answer = f(loss, dict(W), {**right, **changed})
        if list(answer) != sorted(changed):
            raise Wrong(f"{what}, and it returns {list(answer)}")
