import hashlib
from pathlib import Path

import numpy as np
import pytest

import idl_ref
from idl_ref import datasets


def test_digits():
    x_train, y_train, x_test, y_test = datasets.digits()
    assert x_train.shape == (1437, 64)
    assert x_test.shape == (360, 64)
    assert y_train.shape == (1437,)
    assert y_test.shape == (360,)
    assert x_train.dtype == x_test.dtype == np.float32
    assert y_train.dtype == y_test.dtype == np.int64
    for x in (x_train, x_test):
        assert x.min() == 0
        assert x.max() == 1
        np.testing.assert_array_equal(x * 16, np.round(x * 16))
    for y in (y_train, y_test):
        shares = np.bincount(y, minlength=10) / len(y)
        assert len(shares) == 10
        assert shares.min() > 0.07
        assert shares.max() < 0.14


def test_digits_are_fresh_each_time():
    x, *_ = datasets.digits()
    x[...] = 0
    assert datasets.digits()[0].any()


def test_no_image_is_in_both_parts():
    x_train, _, x_test, _ = datasets.digits()
    assert not {row.tobytes() for row in x_train} & {row.tobytes() for row in x_test}


def test_digits_are_the_same_for_ever():
    """The bits of the data must not change, because all published accuracies were measured with them."""
    bits = hashlib.sha256(b"".join(array.tobytes() for array in datasets.digits())).hexdigest()
    assert bits == "c256dbd49c599f29034ea8dcdfd2eb1341831ef45f81b891609f5a304b57ea48"


def test_the_file_holds_plain_arrays_in_the_order_of_use():
    path = Path(idl_ref.__file__).parent / "data" / "digits.npz"
    with np.load(path, allow_pickle=False) as archive:
        assert set(archive) == {"x_train", "y_train", "x_test", "y_test"}
        assert {array.dtype for array in archive.values()} == {np.dtype("uint8")}
        np.testing.assert_array_equal(archive["x_train"] / 16, datasets.digits()[0])
        np.testing.assert_array_equal(archive["y_test"], datasets.digits()[3])
    assert path.stat().st_size < 50_000


@pytest.mark.parametrize("generator", [datasets.two_moons, datasets.spirals])
def test_generators(generator):
    x, y = generator(101, seed=3)
    again, _ = generator(101, seed=3)
    other, _ = generator(101, seed=4)
    np.testing.assert_array_equal(x, again)
    assert not np.array_equal(x, other)
    assert x.shape == (101, 2)
    assert x.dtype == np.float32
    assert y.dtype == np.int64
    assert np.bincount(y).tolist() == [51, 50]
    assert np.abs(x).max() < 3
    assert generator(0)[0].shape == (0, 2)


def test_moons_without_noise_are_half_circles():
    x, y = datasets.two_moons(200, noise=0)
    centre = np.where(y[:, None] == 0, [0, 0], [1, 0.5])
    np.testing.assert_allclose(np.hypot(*(x - centre).T), 1, rtol=1e-5)
    assert (x[y == 0, 1] >= -1e-6).all()
    assert (x[y == 1, 1] <= 0.5 + 1e-6).all()


def test_spirals_without_noise_wind_one_and_a_half_times():
    x, y = datasets.spirals(300, arms=3, noise=0)
    assert set(y) == {0, 1, 2}
    radius = np.hypot(*x.T)
    assert radius.max() <= 1 + 1e-6
    turn = np.arctan2(*x.T[::-1]) - 3 * np.pi * radius - 2 * np.pi * y / 3
    np.testing.assert_allclose(np.cos(turn), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: datasets.two_moons(-1), "m must be a whole number, at least 0"),
        (lambda: datasets.two_moons(2.5), "m must be a whole number"),
        (lambda: datasets.two_moons(5, noise=-1), "noise must be a number ≥ 0"),
        (lambda: datasets.spirals(5, arms=1), "arms must be a whole number, at least 2"),
        (lambda: datasets.spirals(5, seed=-1), "seed must be a whole number, at least 0"),
    ],
)
def test_validation(call, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call()
