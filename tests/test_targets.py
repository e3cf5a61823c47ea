"""Targets of any magnitude are trained as numbers near 1, and the model answers in their units by itself."""

import numpy as np
import pytest

import idl_ref
from idl_ref import SGD, fit, targets
from idl_ref.preprocessing import Standardise

RNG = np.random.default_rng(0)


def regression(q=2, **settings):
    return idl_ref.ImplicitModel(3, q, 8, bias=True, seed=0, **settings)


@pytest.mark.parametrize("magnitude", [1e-30, 1e-3, 1.0, 77.0, 1e30, 1e140])
def test_the_scale_is_a_power_of_two_near_the_standard_deviation(magnitude):
    T = magnitude * RNG.standard_normal((500, 2))
    scale = targets.scale(T)
    assert scale.shape == (2,)
    assert (np.frexp(scale)[0] == 0.5).all()
    assert (np.abs(np.log2(scale / T.std(axis=0))) <= 0.5 + 1e-9).all()


def test_constant_targets_have_the_scale_1():
    assert targets.scale(np.full((9, 1), 1e9)).tolist() == [1.0]
    assert targets.scale(np.array([[5.0, 0.0]])).tolist() == [1.0, 1.0]


def test_an_offset_does_not_change_the_scale():
    T = RNG.standard_normal((100, 1))
    assert targets.scale(T + 1.7e9) == targets.scale(T)
    assert targets.scale(T + 1.7e9, np.full(100, 3.0)) == targets.scale(T)


@pytest.mark.parametrize("offset", [0.0, 1.7e9])
def test_a_whole_weight_counts_a_sample_so_many_times(offset):
    T = RNG.standard_normal((50, 3)) * [1, 10, 100] + offset
    weights = RNG.integers(1, 5, 50)
    repeated = np.repeat(T, weights, axis=0)
    weighted, plain = Standardise.fit(T, True, weights), Standardise.fit(repeated, True)
    np.testing.assert_allclose(weighted.mean, plain.mean, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(weighted.scale, plain.scale, rtol=1e-14 if not offset else 1e-7)
    assert (targets.scale(T, weights) == targets.scale(repeated)).all()
    np.testing.assert_allclose(targets.mean(T, weights), plain.mean, rtol=1e-14, atol=1e-14)


def test_targets_that_float32_cannot_tell_apart_are_noticed():
    x = np.random.default_rng(0).standard_normal((20, 2))
    model = idl_ref.ImplicitModel(2, 1, 4, seed=0)
    with pytest.warns(UserWarning, match="targets differ too little beside their mean for float32") as caught:
        fit(model, x, x[:, :1] + 1.7e9, loss="mse", optimizer=SGD(1e-30), epochs=1, progress=False)
    assert caught[0].filename == __file__
    with pytest.raises(
        ValueError, match=r"targets must fit into float32; got .*e\+200: use a model with dtype='float64'"
    ):
        fit(model, x, x[:, :1] * 1e200, loss="mse", epochs=1, progress=False)
    for offset, T in ((0.0, x[:, :1]), (1000.0, x[:, :1]), (1.7e9, np.zeros((20, 1)))):  # The last ones are constant.
        fit(model, x, T + offset, loss="mse", optimizer=SGD(1e-30), epochs=1, progress=False)


def test_equal_weights_of_any_magnitude_change_nothing():
    T = RNG.standard_normal((70_000, 2))  # more than one chunk
    plain = Standardise.fit(T, True)
    for weight in (1e-200, 1.0, 1e200):
        weighted = Standardise.fit(T, True, np.full(len(T), weight))
        np.testing.assert_allclose(weighted.mean, plain.mean, atol=1e-15)
        np.testing.assert_allclose(weighted.scale, plain.scale, rtol=1e-13)


def test_one_mean_and_scale_for_all_features_may_be_weighted_too():
    x = RNG.standard_normal((20, 3))
    weights = RNG.integers(1, 4, 20)
    weighted, plain = Standardise.fit(x, False, weights), Standardise.fit(np.repeat(x, weights, axis=0), False)
    assert weighted.mean.ndim == 0
    np.testing.assert_allclose([weighted.mean, weighted.scale], [plain.mean, plain.scale], rtol=1e-13)


@pytest.mark.parametrize(
    "wrong", [[1.0, 2.0], [1.0, 0.0, 1.0], [1.0, -1.0, 1.0], [1.0, np.nan, 1.0], [1.0, np.inf, 1.0]]
)
def test_wrong_weights_are_refused(wrong):
    with pytest.raises(ValueError, match="weights must"):
        Standardise.fit(np.ones((3, 2)), True, wrong)


@pytest.mark.parametrize(
    ("T", "message"),
    [(np.ones(3), "matrix"), (np.array([[np.nan]]), "finite"), (np.ones((0, 2)), "at least one sample")],
)
def test_wrong_targets_are_refused(T, message):
    with pytest.raises(ValueError, match=message):
        targets.scale(T)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scaling_changes_no_digit(dtype):
    model = regression(dtype=dtype)
    before = {name: W.copy() for name, W in model.parameters.items()}
    with targets.scaled(model, np.array([2.0**-20, 2.0**30])):
        assert not (model.parameters["C"] == before["C"]).all()
    assert all((before[name] == W).all() for name, W in model.parameters.items())


def test_inside_the_outputs_are_scaled():
    model, U = regression(dtype="float64"), RNG.standard_normal((5, 3))
    mean, scale = np.array([100.0, -3.0]), np.array([64.0, 0.5])
    Y = model(U)
    with targets.scaled(model, scale, mean):
        np.testing.assert_allclose(model(U), (Y - mean) / scale, rtol=1e-12)
    np.testing.assert_allclose(model(U), Y, rtol=1e-12)


def test_the_units_come_back_after_an_exception():
    model = regression()
    before = model.parameters["C"].copy()

    def train():
        with targets.scaled(model, np.array([4.0, 8.0])):
            raise FloatingPointError("the loss is nan")

    with pytest.raises(FloatingPointError, match="the loss"):
        train()
    assert (model.parameters["C"] == before).all()


def test_a_model_without_bias_may_be_scaled_but_not_started():
    model = idl_ref.ImplicitModel(3, 1, 4, no_D=True, seed=0)
    with targets.scaled(model, np.array([2.0])):
        pass
    with pytest.raises(ValueError, match=r"needs a bias of its outputs; got bias=False and\s+no_D=True"):
        targets.start(model, np.ones((4, 1)))


@pytest.mark.parametrize(
    "scale", [[3.0, 1.0], [0.0, 1.0], [-2.0, 1.0], [np.nan, 1.0], [2.0**200, 1.0], [2.0**-140, 1.0]]
)
def test_scales_that_would_change_digits_are_refused(scale):
    with pytest.raises(ValueError, match="scale must be powers of two"), targets.scaled(regression(), scale):
        pass


def test_a_started_model_answers_near_the_mean_with_the_magnitude_of_the_targets():
    T = np.array([1e6, -1e-3]) + RNG.standard_normal((400, 2)) * [1e4, 1e-5]
    model = regression()
    targets.start(model, T)
    Y = model(RNG.standard_normal((400, 3)))
    distance = (Y - T.mean(axis=0)) / T.std(axis=0)
    assert (np.abs(distance) < 20).all()
    assert (distance.std(axis=0) > 0.05).all()


def test_targets_of_any_magnitude_are_learnt_alike():
    U = RNG.standard_normal((200, 3))
    T = np.stack([U[:, 0] + np.tanh(U[:, 1]), U[:, 2]], axis=1)
    shares = []
    for magnitude, offset in ((1.0, 0.0), (1e-6, 0.0), (1e5, 1e6)):
        raw = magnitude * T + offset
        model = regression(dtype="float64")
        scale, mean = targets.scale(raw), targets.mean(raw)
        targets.start(model, raw)
        with targets.scaled(model, scale, mean):
            idl_ref.fit(
                model, U, (raw - mean) / scale, loss="mse", optimizer=idl_ref.SGD(0.05), epochs=20, progress=False
            )
        shares.append(((model(U) - raw) ** 2).mean() / raw.var(axis=0).mean())
    assert max(shares) < 0.05
