"""The checks of lesson 9."""

import numpy as np

from checks.common import Wrong, near, states, weights

INPUTS = np.array([[1.0, -1.0, 0.5, 0.0], [0.25, 2.0, -1.0, 1.0]])


def _model(answer, shapes):
    if not isinstance(answer, tuple | list) or len(answer) != 4:
        raise Wrong("it should return a model, the four matrices A, B, C, D")
    model = tuple(np.asarray(W, float) for W in answer)
    for name, W, shape in zip("ABCD", model, shapes, strict=True):
        if W.shape != shape:
            raise Wrong(f"{name} has the shape {W.shape}, but {shape} is asked for")
    return model


def _output(model, U, steps=500):
    A, B, C, D = model
    return C @ states(A, B @ U, steps) + D @ U


def cascade(f):
    for seed in range(4):
        first, second = weights(seed, 3, 2, 2), weights(seed + 10, 4, 2, 3)
        model = _model(f(second, first), [(7, 7), (7, 2), (3, 7), (3, 2)])
        if np.any(model[0][4:, :4]):
            raise Wrong("the state of the second model stands on top, and the first model does not read it")
        near(_output(model, INPUTS), _output(second, _output(first, INPUTS)),
             "the outputs are not those of second(first(u)): does D of both models have its place?", 1e-8)  # fmt: skip


def feedback(f):
    for seed in range(4):
        A, B, C, D = weights(seed, 3, 2, 2, norm=0.25)
        K = np.array([[0.0, 0.0625], [-0.03125, 0.0]])
        model = _model(f((A, B, C, D), K), [(3, 3), (3, 2), (2, 3), (2, 2)])
        Y = np.zeros((2, 4))
        for _ in range(80):  # go around the loop until the output stays
            Y = _output((A, B, C, D), INPUTS + K @ Y, steps=50)
        near(_output(model, INPUTS), Y, "the outputs are not those of the loop: y passes through D as well", 1e-8)


def in_units(f):
    for seed in range(4):
        model, d = weights(seed, 3, 2, 2, norm=0.5), np.array([1.0, 2.0, 0.5])
        A, B, C, _ = new = _model(f(model, d), [(3, 3), (3, 2), (2, 3), (2, 2)])
        X = states(model[0], model[1] @ INPUTS)
        near(
            np.maximum(A @ (X / d[:, None]) + B @ INPUTS, 0),
            X / d[:, None],
            "x/d is not its equilibrium: A′ᵢⱼ = Aᵢⱼ dⱼ/dᵢ",
        )
        near(C @ (X / d[:, None]) + new[3] @ INPUTS, _output(model, INPUTS), "the outputs changed: C has to take d in")
