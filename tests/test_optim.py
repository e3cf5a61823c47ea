import math

import numpy as np
import pytest

from idl_ref import SGD


def run(optimizer, gradients, w0=(1.0, -2.0), steps=None):
    """Return the weights after each step, for given gradients."""
    w = {"B": np.array(w0)}
    optimizer.start(steps if steps is not None else len(gradients))
    path = []
    for g in gradients:
        optimizer.step(w, {"B": np.array(g)})
        path.append(w["B"].copy())
    return np.array(path)


GRADIENTS = np.random.default_rng(0).standard_normal((6, 2))


def by_hand(rate, momentum=0.0, nesterov=False, decay=0.0):
    w, v, path = np.array([1.0, -2.0]), np.zeros(2), []
    for t, g in enumerate(GRADIENTS):
        g = g + decay * w
        v = momentum * v + g
        w = w - (rate(t) if callable(rate) else rate) * (g + momentum * v if nesterov else v)
        path.append(w)
    return np.array(path)


def test_plain():
    np.testing.assert_allclose(run(SGD(0.1, momentum=0), GRADIENTS), [1, -2] - 0.1 * np.cumsum(GRADIENTS, axis=0))


def test_two_steps_of_momentum_by_hand():
    path = run(SGD(0.1, momentum=0.5), [[1.0, 0.0], [1.0, 2.0]])
    np.testing.assert_allclose(path, [[0.9, -2.0], [0.9 - 0.1 * 1.5, -2.0 - 0.1 * 2.0]], rtol=1e-15)


def test_two_steps_of_nesterov_by_hand():
    path = run(SGD(0.1, momentum=0.5, nesterov=True), [[1.0, 0.0], [1.0, 2.0]])
    np.testing.assert_allclose(path, [[1 - 0.15, -2.0], [1 - 0.15 - 0.1 * 1.75, -2.0 - 0.1 * 3.0]], rtol=1e-15)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_momentum_nesterov_and_decay(momentum, nesterov, decay):
    if nesterov and not momentum:
        return
    path = run(SGD(0.2, momentum, nesterov, decay), GRADIENTS)
    np.testing.assert_allclose(path, by_hand(0.2, momentum, nesterov, decay), rtol=1e-13)


def test_cosine():
    optimizer = SGD(0.2, momentum=0.9, schedule="cosine")
    path = run(optimizer, GRADIENTS)
    np.testing.assert_allclose(path, by_hand(lambda t: 0.1 * (1 + math.cos(math.pi * t / 6)), 0.9), rtol=1e-13)
    assert optimizer.rate() == pytest.approx(0, abs=1e-16)
    optimizer.step({"B": np.zeros(2)}, {"B": np.ones(2)})
    assert optimizer.rate() == pytest.approx(0, abs=1e-16)  # After the last step, the rate stays at 0.
    optimizer.start(2)
    assert optimizer.rate() == 0.2
    optimizer.start(0)
    assert optimizer.rate() == 0.2


def test_cosine_must_know_its_length():
    with pytest.raises(ValueError, match=r"call start\(total_steps\) first"):
        SGD(schedule="cosine").step({"B": np.zeros(1)}, {"B": np.zeros(1)})


def test_start_forgets():
    optimizer = SGD(0.2)
    np.testing.assert_array_equal(run(optimizer, GRADIENTS), run(optimizer, GRADIENTS))


def test_weights_are_updated_in_place_and_gradients_are_not():
    w, g = {"B": np.ones(2), "C": np.ones(3)}, {"B": np.ones(2), "C": np.ones(3), "U": np.ones(4)}
    arrays = dict(w)
    optimizer = SGD(0.5, weight_decay=0.1, nesterov=True)
    optimizer.step(w, g)
    optimizer.step(w, g)
    assert all(w[name] is arrays[name] for name in w)
    assert all((value == 1).all() for value in g.values())
    assert set(w) == {"B", "C"}


def test_float32_stays_float32():
    w = {"B": np.ones(2, np.float32)}
    optimizer = SGD(0.1, weight_decay=0.1, schedule="cosine")
    optimizer.start(3)
    optimizer.step(w, {"B": np.ones(2, np.float32)})
    assert w["B"].dtype == np.float32


def test_defaults():
    assert repr(SGD()) == 'SGD(learning_rate=0.05, momentum=0.9, nesterov=False, weight_decay=0, schedule="constant")'


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"learning_rate": -0.1}, "learning_rate must be a number ≥ 0; got -0.1"),
        ({"learning_rate": np.nan}, "learning_rate must be a number ≥ 0"),
        ({"learning_rate": np.inf}, "learning_rate must be a number ≥ 0"),
        ({"learning_rate": "fast"}, "learning_rate must be a number ≥ 0; got 'fast'"),
        ({"momentum": 1.0}, "momentum must be a number ≥ 0 and < 1"),
        ({"momentum": -0.1}, "momentum must be a number ≥ 0 and < 1"),
        ({"weight_decay": -1}, "weight_decay must be a number ≥ 0"),
        ({"nesterov": 1}, "nesterov must be True or False"),
        ({"nesterov": True, "momentum": 0}, "nesterov needs momentum > 0"),
        ({"schedule": "linear"}, "schedule must be one of 'constant', 'cosine'; got 'linear'"),
    ],
)
def test_validation(arguments, words):
    with pytest.raises((ValueError, TypeError), match=words):
        SGD(**arguments)


@pytest.mark.parametrize("steps", [-1, 1.5, True])
def test_start_wants_a_whole_number(steps):
    with pytest.raises((ValueError, TypeError), match="total_steps must be a whole number"):
        SGD().start(steps)
