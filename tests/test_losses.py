import naive
import numpy as np
import pytest
from hypothesis import given
from strategies import DTYPES, batches, seeds, sizes

from idl_ref import losses


def case(loss, q, m, seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    Y = (3 * rng.standard_normal((q, m))).astype(dtype)
    targets = rng.integers(0, q, m) if loss == "cross_entropy" else rng.standard_normal((q, m)).astype(dtype)
    return Y, targets


def reference(loss, Y, targets):
    return naive.LOSSES[loss](Y.T, targets.T)


@pytest.mark.parametrize("loss", losses.LOSSES)
@given(q=sizes, m=batches, seed=seeds)
def test_value_is_the_naive_one(loss, q, m, seed):
    Y, targets = case(loss, q, m, seed)
    value, _ = losses.get(loss)(Y, targets)
    np.testing.assert_allclose(value, reference(loss, Y, targets), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("loss", losses.LOSSES)
@given(q=sizes, m=batches, seed=seeds)
def test_gradient_is_the_complex_step(loss, q, m, seed):
    Y, targets = case(loss, q, m, seed)
    _, G_Y = losses.get(loss)(Y, targets)
    for entry in np.ndindex(*Y.shape):
        moved = Y.astype(complex)
        moved[entry] += 1e-30j
        slope = reference(loss, moved, targets).imag / 1e-30
        own = losses.get(loss)(moved, targets)[0].imag / 1e-30
        np.testing.assert_allclose([own, G_Y[entry]], slope, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
def test_cross_entropy_takes_logits_of_any_size(dtype):
    Y = np.array([[1e4, -1e4, 1e4], [-1e4, 1e4, 1e4], [0, 0, 1e4]], dtype)
    value, G_Y = losses.cross_entropy(Y, np.array([0, 0, 2]))
    np.testing.assert_allclose(value, (0 + 2e4 + np.log(3)) / 3, rtol=1e-6)
    np.testing.assert_allclose(G_Y * 3, [[0, -1, 1 / 3], [0, 1, 1 / 3], [0, 0, -2 / 3]], atol=1e-7)
    assert G_Y.dtype == dtype  # Before NumPy 2, dividing by an integer can give float64.


@pytest.mark.parametrize("gap", [1.0, 40.0, 80.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_confident_sample_keeps_its_digits(dtype, gap):
    """The softmax of the label is 1 − 2 exp(−gap) + …, which rounds to 1 for a gap of 40."""
    Y = np.array([[0.0, 0.0], [gap, gap], [0.0, 0.0]], dtype)
    value, G_Y = losses.cross_entropy(Y, np.array([1, 0]))
    rest = 2 * np.exp(-gap)
    other = rest / 2
    right = np.array([[other, -1 - other], [-rest, 1], [other, other]]) / (1 + rest)
    np.testing.assert_allclose(2 * G_Y, right, rtol=8 * np.finfo(dtype).eps)
    np.testing.assert_allclose(2 * value, 2 * np.log1p(rest) + gap, rtol=8 * np.finfo(dtype).eps)
    alone, _ = losses.cross_entropy(Y[:, :1], np.array([1]))
    np.testing.assert_allclose(alone, np.log1p(rest), rtol=8 * np.finfo(dtype).eps)
    slope = losses.cross_entropy(Y + 1e-30j * np.eye(3, 2), np.array([1, 0]))[0].imag / 1e-30
    np.testing.assert_allclose(slope, (right[0, 0] + right[1, 1]) / 2, rtol=1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", losses.LOSSES)
def test_no_samples_cost_nothing(loss, dtype):
    Y, targets = case(loss, 3, 0, 0, dtype)
    value, G_Y = losses.get(loss)(Y, targets)
    assert value == 0
    assert G_Y.shape == (3, 0)
    assert G_Y.dtype == dtype


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_loss_is_a_mean_and_leaves_its_arguments_alone(loss):
    Y, targets = case(loss, 4, 5, 1)
    Y.flags.writeable = targets.flags.writeable = False
    value, G_Y = losses.get(loss)(Y, targets)
    twice, G_twice = losses.get(loss)(np.hstack([Y, Y]), np.concatenate([targets, targets], axis=-1))
    np.testing.assert_allclose(twice, value, rtol=1e-14)
    np.testing.assert_allclose(G_twice, np.hstack([G_Y, G_Y]) / 2, rtol=1e-14)


def test_nan_is_not_hidden():
    Y = np.array([[np.nan, 1.0], [0.0, 2.0]])
    with np.errstate(invalid="ignore"):
        assert np.isnan(losses.cross_entropy(Y, np.array([0, 1]))[0])
        assert np.isnan(losses.mse(Y, np.zeros((2, 2)))[0])


def test_targets_are_checked():
    check = losses.check_targets
    np.testing.assert_array_equal(check("cross_entropy", [0, 2], 2, 3, np.float32), [0, 2])
    assert check("cross_entropy", [], 0, 3, np.float32).shape == (0,)
    T = check("mse", [[1, 2], [3, 4], [5, 6]], 3, 2, np.float32)
    assert T.shape == (2, 3)
    assert T.dtype == np.float32
    with pytest.raises(TypeError, match="targets must be whole-number class labels; got dtype float64"):
        check("cross_entropy", [0.0, 1.0], 2, 3, np.float32)
    with pytest.raises(ValueError, match=r"targets must have shape \(2,\), one label per sample; got \(3,\)"):
        check("cross_entropy", [0, 1, 2], 2, 3, np.float32)
    for wrong in ([0, 3], [-1, 0]):
        with pytest.raises(ValueError, match=r"targets must be labels in 0 … 2"):
            check("cross_entropy", wrong, 2, 3, np.float32)
    with pytest.raises(ValueError, match=r"targets must have shape \(3, 2\), one row per sample; got \(2, 2\)"):
        check("mse", np.zeros((2, 2)), 3, 2, np.float32)
    with pytest.raises(ValueError, match="loss must be one of 'mse', 'cross_entropy'; got 'hinge'"):
        check("hinge", [0], 1, 1, np.float32)
    with pytest.raises(ValueError, match="loss must be one of"):
        losses.get("hinge")
