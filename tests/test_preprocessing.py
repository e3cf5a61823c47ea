import dataclasses

import numpy as np
import pytest

from idl_ref.preprocessing import Standardise

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 4, 3), dtype=np.uint8)


def test_standardised_samples_have_mean_0_and_deviation_1():
    U = Standardise.fit(IMAGES)(IMAGES, np.float64)
    assert U.shape == (20, 12)
    assert abs(U.mean()) < 1e-14
    assert abs(U.std() - 1) < 1e-14


def test_one_mean_and_one_scale_for_all_features():
    preprocessing = Standardise.fit(IMAGES)
    assert preprocessing == Standardise(float(IMAGES.mean(dtype=float)), float(IMAGES.std(dtype=float)))
    assert preprocessing.settings() == {"mean": preprocessing.mean, "scale": preprocessing.scale}
    assert Standardise(**preprocessing.settings()) == preprocessing


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_formula_and_dtype(dtype):
    U = Standardise(3.0, 0.5)(IMAGES, dtype)
    assert U.dtype == dtype
    np.testing.assert_allclose(U, (IMAGES.reshape(20, 12).astype(float) - 3) / 0.5, rtol=1e-6)


def test_float32_is_the_default():
    assert Standardise(0.0, 1.0)(IMAGES).dtype == np.float32


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


def test_constant_samples_have_scale_1():
    preprocessing = Standardise.fit(np.full((5, 3), 7))
    assert preprocessing == Standardise(7.0, 1.0)
    assert not preprocessing(np.full((5, 3), 7)).any()


@pytest.mark.parametrize("scale", [0, -1.0, np.nan, np.inf, 1e-320, "1", None, True])
def test_scale_is_positive_and_finite(scale):
    with pytest.raises((ValueError, TypeError), match="scale must be a number"):
        Standardise(0.0, scale)


@pytest.mark.parametrize("mean", [np.nan, np.inf, -np.inf, "1", None, True])
def test_mean_is_finite(mean):
    with pytest.raises((ValueError, TypeError), match="mean must be a finite number"):
        Standardise(mean, 1.0)


def test_data_that_is_not_finite_has_no_statistics():
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match="must be"):
        Standardise.fit(np.array([[1.0, np.nan]]))


def test_what_is_not_real_is_refused():
    with pytest.raises(TypeError, match="x_train must hold real numbers"):
        Standardise.fit(np.array([["a"]]))
    with pytest.raises(TypeError, match="samples must hold real numbers"):
        Standardise(0.0, 1.0)(np.array([[1j]]))


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Standardise(0.0, 1.0).mean = 2.0
