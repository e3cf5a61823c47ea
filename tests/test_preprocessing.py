"""Standardise is the first layer of a model: it keeps the digits of its inputs, and every method applies it."""

import copy
import dataclasses
import pickle
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

import idl_ref
from idl_ref import ImplicitFunction, ImplicitModel
from idl_ref.preprocessing import CHUNK, Standardise

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 4, 3), dtype=np.uint8)
TABLE = np.random.default_rng(1).normal([1e6, 0.0, -3.0], [1.0, 1e-3, 50.0], (30, 3))
TWINS = [name for name in ("numpy", "numba") if idl_ref.available_backends()[name] == "available"]

# --- the constants ----------------------------------------------------------------------------------------------------


def test_standardised_samples_have_mean_0_and_deviation_1():
    U = Standardise.fit(IMAGES)(IMAGES, np.float64)
    assert U.shape == (20, 12)
    assert abs(U.mean()) < 1e-14
    assert abs(U.std() - 1) < 1e-14


def test_a_table_has_one_mean_and_one_scale_per_feature():
    preprocessing = Standardise.fit(TABLE)
    assert preprocessing.mean.shape == preprocessing.scale.shape == (3,)
    U = preprocessing(TABLE, np.float64)
    np.testing.assert_allclose(U.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(U.std(axis=0), 1, rtol=1e-9)


def test_images_have_one_mean_and_one_scale():
    preprocessing = Standardise.fit(IMAGES)
    assert preprocessing.mean.shape == preprocessing.scale.shape == ()
    assert preprocessing.mean.dtype == preprocessing.scale.dtype == np.float64
    assert preprocessing.mean == pytest.approx(IMAGES.mean(dtype=float))
    assert preprocessing.scale == pytest.approx(IMAGES.std(dtype=float))


def test_the_default_can_be_overruled():
    assert Standardise.fit(TABLE, per_feature=False).mean.shape == ()
    assert Standardise.fit(IMAGES, per_feature=True).mean.shape == (12,)
    with pytest.raises(TypeError, match="per_feature must be True or False"):
        Standardise.fit(TABLE, per_feature=0)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i1", "u2", "i8", np.longdouble])
def test_numpy_scalars_of_any_dtype_become_float64(kind):
    mean, scale = np.asarray([3, 2], kind)
    for preprocessing in (Standardise(mean, scale), Standardise(3, 2), Standardise(np.array(mean), scale)):
        assert preprocessing == Standardise(3.0, 2.0)
        assert preprocessing.mean.dtype == preprocessing.scale.dtype == np.float64
        assert repr(preprocessing) == "Standardise(mean=3.0, scale=2.0)"


def test_one_number_and_an_array_become_two_arrays():
    preprocessing = Standardise([1, 2, 3], 2.0)
    np.testing.assert_array_equal(preprocessing.scale, [2, 2, 2])
    assert repr(preprocessing) == "Standardise of 3 features"
    with pytest.raises(ValueError, match=r"one number per feature each; got \(3,\) and \(2,\)"):
        Standardise([1, 2, 3], [1, 2])


@pytest.mark.parametrize(
    "samples", [np.full((5, 3), 7), np.full((5, 3), 0.1), np.full((7, 2, 3), 1e300), np.zeros((3, 2)), [[1], [1]]]
)
def test_constant_samples_have_scale_1(samples):
    for per_feature in (True, False):
        preprocessing = Standardise.fit(samples, per_feature)
        assert (preprocessing.scale == 1).all()
        assert not preprocessing(samples, np.float64).any()


def test_a_constant_feature_has_scale_1():
    preprocessing = Standardise.fit(np.array([[0.1, 1.0, 0.0], [0.1, 3.0, 1e-320], [0.1, 2.0, 0.0]]))
    assert preprocessing.scale[0] == preprocessing.scale[2] == 1
    assert preprocessing.mean[0] == 0.1
    assert preprocessing.scale[1] == pytest.approx(np.std([1, 3, 2]))


def test_statistics_of_extreme_samples_do_not_overflow():
    for size in (1e-200, 1e200):
        preprocessing = Standardise.fit(np.array([[1.0, 2.0], [3.0, 8.0]]) * size)
        np.testing.assert_allclose(preprocessing.scale, np.array([1, 3]) * size, rtol=1e-12)
    times = 1.7e9 + np.arange(600.0).reshape(-1, 1)
    assert Standardise.fit(times).scale == pytest.approx(np.arange(600).std(), rel=1e-12)


@pytest.mark.parametrize("scale", [0, -1.0, np.nan, np.inf, 1e-320, "1", None, True, np.float32(0), 10**400, 1j,
                                   [[1.0]], [1.0, 0.0], [1.0, np.nan], [[1], [1, 2]], ["a"]])  # fmt: skip
def test_scale_is_positive_and_finite(scale):
    with pytest.raises((ValueError, TypeError), match="scale must be a finite number ≥"):
        Standardise(0.0, scale)


@pytest.mark.parametrize("mean", [np.nan, np.inf, -np.inf, "1", None, True, [0.0, np.inf], np.zeros((1, 2))])
def test_mean_is_finite(mean):
    with pytest.raises((ValueError, TypeError), match="mean must be a finite number"):
        Standardise(mean, 1.0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_data_that_is_not_finite_has_no_statistics(value):
    for per_feature in (True, False):
        with pytest.raises(ValueError, match="samples must be finite to be standardised; got NaN or inf in sample 1"):
            Standardise.fit(np.array([[1.0, 2.0], [1.0, value]]), per_feature)


def test_what_is_not_real_is_refused():
    with pytest.raises(TypeError, match="samples must hold real numbers"):
        Standardise.fit(np.array([["a"]]))
    with pytest.raises(TypeError, match="samples must hold real numbers"):
        Standardise(0.0, 1.0)(np.array([[1j]]))
    with pytest.raises(ValueError, match="got a single number"):
        Standardise(0.0, 1.0)(3.0)
    with pytest.raises(ValueError, match="samples must have 2 features, as mean and scale do; got 3"):
        Standardise([0.0, 0.0], 1.0)(TABLE)


def test_frozen():
    preprocessing = Standardise([0.0, 1.0], 1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        preprocessing.mean = 2.0
    for array in (preprocessing.mean, preprocessing.scale):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_equality_and_copies():
    one = Standardise([0.0, 1.0], 2.0)
    for same in (Standardise([0, 1], [2, 2]), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert same == one
        assert hash(same) == hash(one)
        assert not same.mean.flags.writeable
    assert one != Standardise([0.0, 1.0], 3.0)
    assert one != Standardise(0.0, 2.0)
    assert one != 3


# --- the formula ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_formula_and_dtype(dtype):
    U = Standardise(3.0, 0.5)(IMAGES, dtype)
    assert U.dtype == dtype
    np.testing.assert_array_equal(U, (IMAGES.reshape(20, 12).astype(float) - 3) / 0.5)
    U = Standardise.fit(TABLE)(TABLE, dtype)
    np.testing.assert_array_equal(U, ((TABLE - TABLE.mean(axis=0)) / Standardise.fit(TABLE).scale).astype(dtype))


def test_float32_is_the_default():
    assert Standardise(0.0, 1.0)(IMAGES).dtype == np.float32


def test_samples_are_subtracted_in_float64_before_they_are_rounded():
    """600 consecutive times keep 600 distinct values in float32, which alone would make one value of them."""
    for offset in (1e5, 1.7e9, 1 << 52):
        times = (offset + np.arange(600.0)).reshape(-1, 1)
        for samples in (times, times.astype(np.int64)):
            assert len(np.unique(Standardise.fit(times)(samples))) == 600


@pytest.mark.parametrize("samples", [IMAGES, IMAGES.astype(np.float32), IMAGES.astype(float).reshape(20, -1)])
def test_samples_are_not_modified(samples):
    kept = samples.copy()
    samples.flags.writeable = False
    assert not np.shares_memory(Standardise(1.0, 2.0)(samples, np.result_type(samples, "f4")), samples)
    np.testing.assert_array_equal(samples, kept)


def test_lists_and_single_features():
    np.testing.assert_array_equal(Standardise(1.0, 2.0)([[1, 3]]), [[0, 1]])
    assert Standardise(1.0, 2.0)([1, 3]).shape == (2, 1)


@pytest.mark.parametrize("shape", [(0, 4), (0, 2, 2), (0, 0), (3, 0)])
def test_no_samples(shape):
    preprocessing = Standardise.fit(np.zeros(shape))
    assert preprocessing == Standardise(0.0, 1.0)
    assert preprocessing(np.zeros(shape)).shape == (shape[0], int(np.prod(shape[1:])))


def test_many_samples_are_converted_in_parts():
    samples = np.arange(3 * CHUNK // 2, dtype=np.float32).reshape(-1, 3)
    np.testing.assert_array_equal(Standardise(1.0, 2.0)(samples, np.float64), (samples - 1.0) / 2.0)
    assert Standardise.fit(samples).scale == pytest.approx(samples.std(axis=0, dtype=float))


@pytest.mark.parametrize("offset", [0, 2**53, 1_700_000_000_000_000_000, -(2**62), 2**63 - 10**9])
@pytest.mark.parametrize("spread", [10, 2**33, 2**45])
def test_whole_numbers_that_float64_cannot_hold_are_subtracted_exactly(offset, spread):
    """Nanosecond timestamps have 61 bits. The difference is rounded once, and so is the quotient."""
    draws = np.random.default_rng(spread).integers(-spread, spread + 1, 40).tolist()
    whole = [max(-(2**63), min(2**63 - 1, offset + draw)) for draw in draws]
    dtypes = (np.int64, np.uint64) if min(whole) >= 0 else (np.int64,)
    for dtype in dtypes:
        rows = np.array(whole, dtype)[:, None]
        fitted = Standardise.fit(rows)
        for mean, scale in (
            (float(whole[0]), 1.0),
            (float(np.mean(whole)) + 0.25, 3.0),
            (fitted.mean[0], fitted.scale[0]),
            (-0.7 * whole[1], 1.0),
        ):
            u = Standardise(mean, scale)(rows, np.float64)[:, 0]
            for number, got in zip(whole, u.tolist(), strict=True):
                exact = (number - Fraction(float(mean))) / Fraction(float(scale))
                roundings = 1 if scale == 1 else 2
                assert abs(Fraction(got) - exact) <= Fraction((roundings + 1e-6) * 2.0**-53) * abs(exact)


def test_bounds_hold_for_nanosecond_timestamps():
    t = (1_700_000_000_000_000_000 + np.random.default_rng(0).integers(0, 100_000, 50))[:, None]
    for dtype in ("float32", "float64"):
        model = ImplicitModel(1, 1, 1, seed=0, dtype=dtype)
        for name, W in model.parameters.items():
            W[...] = name == "D"
        model.preprocessing = fitted = Standardise.fit(t)
        found = model.freeze().certified(t)
        mean, scale = Fraction(float(fitted.mean[0])), Fraction(float(fitted.scale[0]))
        for number, y, bound in zip(t[:, 0].tolist(), found.Y[:, 0].tolist(), found.error_bound.tolist(), strict=True):
            assert abs(Fraction(y) - (number - mean) / scale) <= bound < 1e-5


def test_inverse():
    preprocessing = Standardise.fit(TABLE)
    np.testing.assert_allclose(preprocessing.inverse(preprocessing(TABLE, np.float64)), TABLE, rtol=1e-12)


# --- the first layer of a model ---------------------------------------------------------------------------------------


def with_and_without(preprocessing, p=3, **settings):
    """Return two models with the same weights, of which only the first has the preprocessing."""
    model = ImplicitModel(p, 2, 8, bias=True, seed=0, **settings)
    model.preprocessing = preprocessing
    return model, ImplicitModel.from_parameters(model.settings, model.parameters)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("twin", TWINS)
def test_every_method_takes_raw_inputs(dtype, twin, tmp_path):
    preprocessing = Standardise.fit(TABLE)
    model, plain = with_and_without(preprocessing, dtype=dtype, backend=twin)
    U, labels = preprocessing(TABLE, dtype), np.arange(30) % 2
    np.testing.assert_array_equal(model(TABLE), plain(U))
    np.testing.assert_array_equal(model.equilibrium(TABLE).X, plain.equilibrium(U).X)
    np.testing.assert_array_equal(model.forward_pass(TABLE).U[:-1].T, U)
    np.testing.assert_array_equal(model.freeze()(TABLE), plain.freeze()(U))
    np.testing.assert_array_equal(model.freeze()(TABLE[:1]), plain.freeze()(U[:1]))
    np.testing.assert_array_equal(model.freeze().certified(TABLE).Y, plain.freeze().certified(U).Y)
    assert idl_ref.train.evaluate(model, TABLE, labels) == idl_ref.train.evaluate(plain, U, labels)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), pickle.loads(pickle.dumps(model.freeze()))):
        assert copied.preprocessing == preprocessing
        np.testing.assert_array_equal(
            copied(TABLE), plain(U) if isinstance(copied, ImplicitModel) else plain.freeze()(U)
        )
    for suffix in ("npz", "safetensors"):
        if suffix == "safetensors":
            pytest.importorskip("safetensors")
        model.save(tmp_path / f"model.{suffix}")
        loaded = idl_ref.load(tmp_path / f"model.{suffix}", backend=twin)
        assert loaded.preprocessing == preprocessing
        np.testing.assert_array_equal(loaded(TABLE), plain(U))
        np.testing.assert_array_equal(loaded.freeze()(TABLE), plain.freeze()(U))


@pytest.mark.parametrize("preprocessing", [Standardise.fit(TABLE), Standardise(-2.0, 50.0)])
def test_gradients_of_inputs_are_those_of_raw_inputs(preprocessing):
    model, plain = with_and_without(preprocessing, dtype="float64", tol=1e-14, grad_tol=1e-14)
    U, labels = preprocessing(TABLE, "float64"), np.arange(30) % 2
    (loss, gradients), (expected, inner) = model.loss_and_gradients(TABLE, labels), plain.loss_and_gradients(U, labels)
    assert loss == expected
    np.testing.assert_allclose(gradients.pop("U"), inner.pop("U") / preprocessing.scale)
    for name, G in gradients.items():
        np.testing.assert_array_equal(G, inner[name])
    Y, pullback = model.vjp(TABLE)
    model.preprocessing = None  # The pullback belongs to the model at the time of the call.
    G = pullback(np.ones_like(Y))["U"]
    h = 1e-6 * preprocessing.scale * np.eye(3)[1]
    model.preprocessing = preprocessing
    difference = (model(TABLE + h) - model(TABLE - h)).sum(axis=1) / (2 * h[1])
    np.testing.assert_allclose(G[:, 1], difference, rtol=1e-5, atol=1e-6 * np.abs(G).max())


def test_gradients_are_checked_for_raw_inputs(monkeypatch):
    model, _ = with_and_without(Standardise.fit(TABLE))
    report = idl_ref.check_gradients(model, TABLE[:4], [0, 1, 1, 0])
    assert report.passed
    assert max(row.configured_error for row in report.rows) < 1e-3
    monkeypatch.setattr(Standardise, "pullback", lambda self, G: G)
    report = idl_ref.check_gradients(model, TABLE[:4], [0, 1, 1, 0])
    assert [row.name for row in report.rows if row.verdict != "ok"] == ["U"]


def test_training_takes_raw_inputs():
    preprocessing, labels = Standardise.fit(TABLE), np.arange(30) % 2
    model, plain = with_and_without(preprocessing)
    plain.parameters = copy.deepcopy(plain.parameters)
    arguments = {"epochs": 2, "progress": False}
    raw = idl_ref.fit(model, TABLE, labels, validation=(TABLE, labels), **arguments)
    U = preprocessing(TABLE)
    inner = idl_ref.fit(plain, U, labels, validation=(U, labels), **arguments)
    assert raw.validation_loss == inner.validation_loss
    for name, W in model.parameters.items():
        np.testing.assert_array_equal(W, plain.parameters[name])


def test_images_need_not_be_flattened():
    model, plain = with_and_without(Standardise.fit(IMAGES), p=12)
    np.testing.assert_array_equal(model(IMAGES), model(IMAGES.reshape(20, 12)))
    np.testing.assert_array_equal(model.freeze()(IMAGES[:1]), model.freeze()(IMAGES[:1].reshape(1, 12)))
    assert model.loss_and_gradients(IMAGES, np.zeros(20, int))[1]["U"].shape == (20, 12)
    for wrong in (IMAGES[:, :3], IMAGES.reshape(12, 20), np.zeros(12), np.zeros(24)):
        for call in (model, model.freeze()):
            with pytest.raises(ValueError, match=r"U must have shape \(m, p\) with p = 12; got"):
                call(wrong)
    with pytest.raises(ValueError, match="flatten each sample"):
        plain(IMAGES)
    assert model(np.empty((0, 4, 3))).shape == (0, 2)


def test_a_bad_sample_stains_its_own_row():
    model, _ = with_and_without(Standardise.fit(TABLE), on_failure="ignore")
    U = TABLE.copy()
    U[1, 1], U[2, 2], U[3, 0] = np.nan, np.inf, 1e308
    Y = model(U)
    assert np.isnan(Y).all(axis=1).tolist() == [False, True, True, True] + [False] * 26
    np.testing.assert_allclose(Y[4:], model(TABLE)[4:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize(
    "preprocessing", [Standardise(1000000.3, 1.0), Standardise([1000000.3, 0.1, 3e-5], [1.0, 7, 1e-3])]
)
def test_the_rounding_of_the_preprocessing_belongs_to_the_bound(twin, preprocessing):
    """The exact outputs are computed in rational numbers, for a model without hidden states that needs no iteration."""
    model, _ = with_and_without(preprocessing, backend=twin)
    model.settings = dataclasses.replace(model.settings, f=ImplicitFunction, activation="identity")
    rng = np.random.default_rng(0)
    for name, scale in (("A", 0.0), ("B", 1.0), ("C", 1.0), ("D", 100.0)):
        model.parameters[name][...] = scale * rng.standard_normal(model.parameters[name].shape)
    raw = preprocessing.inverse(rng.standard_normal((40, 3))).astype(np.float32)
    P = {name: [[Fraction(float(w)) for w in row] for row in W] for name, W in model.parameters.items()}
    pairs = list(zip(*(np.broadcast_to(c, 3).tolist() for c in (preprocessing.mean, preprocessing.scale)), strict=True))
    single = [model.freeze().certified(u[None]) for u in raw]
    together = model.freeze().certified(raw)
    solution = model.equilibrium(raw)
    for j, u in enumerate(raw.tolist()):
        exact = [(Fraction(v) - Fraction(m)) / Fraction(s) for v, (m, s) in zip(u, pairs, strict=True)] + [Fraction(1)]
        x = [sum(b * v for b, v in zip(row, exact, strict=True)) for row in P["B"]]
        y = [sum(c * v for c, v in zip(C + D, x + exact, strict=True)) for C, D in zip(P["C"], P["D"], strict=True)]
        for prediction, row in ((single[j], 0), (together, j)):
            error = max(abs(Fraction(float(a)) - b) for a, b in zip(prediction.Y[row], y, strict=True))
            assert error <= prediction.error_bound[row] < 0.1
        error = max(abs(Fraction(float(a)) - b) for a, b in zip(solution.X[:, j], x, strict=True))
        assert error <= solution.error_bound[j]


def test_the_constants_of_the_bound_count_the_preprocessing():
    """The rounding of u adds one unit of a float32 model, and four of a float64 model, to the units of the sums."""
    for dtype, units in (("float32", 1), ("float64", 4)):
        model, plain = with_and_without(Standardise.fit(TABLE), dtype=dtype)
        bounds = [each.freeze()._bound for each in (model, plain)]
        unit = np.finfo(dtype).eps / 2
        assert bounds[0].gamma_z - bounds[1].gamma_z >= 0.999 * units * unit
        assert bounds[0].gamma_y - bounds[1].gamma_y >= 0.999 * units * unit
        assert bounds[0].underflow > bounds[1].underflow


def test_the_bound_of_hidden_states_counts_the_rounding_of_their_inputs():
    """B u cancels, so that its rounding is far larger than the rounding of everything that follows."""
    model = ImplicitModel(3, 2, 4, ImplicitFunction, activation="identity", seed=0)
    model.parameters["A"][...] = 0
    model.parameters["B"][...] = [[1e4, -1e4, 1.0]] * 4
    rng, errors = np.random.default_rng(0), []
    U = np.repeat(rng.random((50, 1)), 3, axis=1).astype(np.float32)
    U[:, 1] += 1e-7
    solution = model.equilibrium(U)
    for u, x, bound in zip(U, solution.X[0], solution.error_bound, strict=True):
        exact = sum(Fraction(float(b)) * Fraction(float(v)) for b, v in zip(model.parameters["B"][0], u, strict=True))
        errors.append(abs(Fraction(float(x)) - exact))
        assert errors[-1] <= bound
    # The bound of the equation alone, whose Z is taken as exact, is too small.
    assert max(errors) > model.forward_pass(U).solution.error_bound.max()


def test_what_does_not_fit_the_model_is_refused():
    model, _ = with_and_without(None)
    scaler = SimpleNamespace(transform=lambda U: U)
    with pytest.raises(TypeError, match=r"got an object of class SimpleNamespace: use Standardise\(scaler.mean_"):
        model.preprocessing = scaler
    with pytest.raises(TypeError, match=r"got an object of class function: use Standardise.fit\(x_train\)"):
        model.preprocessing = lambda U: U
    with pytest.raises(ValueError, match=r"must have 3 means and scales.*got 4: fit it to samples with 3 features"):
        model.preprocessing = Standardise(np.zeros(4), 1.0)
    assert model.preprocessing is None
    for mean, scale in ((1e300, 1.0), (0.0, 1e-300), (0.0, 1e300), ([0.0, 0.0, -1e39], 1.0)):
        with pytest.raises(
            ValueError, match=r"must be normal numbers of the model's dtype float32.*use dtype='float64'"
        ):
            model.preprocessing = Standardise(mean, scale)
        double, _ = with_and_without(Standardise(mean, scale), dtype="float64")
        assert double.preprocessing is not None


def test_arrays_on_a_device_are_refused():
    model, _ = with_and_without(Standardise(0.0, 1.0))
    with pytest.raises(TypeError, match="U must be an array on the host for a model with preprocessing"):
        model(SimpleNamespace(__cuda_array_interface__={"shape": (2, 3), "typestr": "<f4", "data": (1, False)}))
