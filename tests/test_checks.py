import numpy as np
import pytest

from idl_ref import checks


@pytest.mark.parametrize("value", [[1, 2], (1.5, 2), np.float32([1, 2]), np.array([True, False]), np.uint8([1, 2])])
def test_real_arrays_pass(value):
    assert checks.real_array("U", value, np.float64).dtype == np.float64
    assert checks.real_array("U", value).dtype == np.asarray(value).dtype


def test_a_right_array_is_not_copied():
    U = np.ones((2, 3), np.float32, order="F")
    assert checks.real_array("U", U, np.float32) is U
    assert checks.real_array("U", U) is U


@pytest.mark.parametrize("value", [[1j], ["a"], [None], np.array([{}]), np.ones(2, complex), np.longdouble([1])])
def test_other_dtypes_are_refused(value):
    if np.asarray(value).dtype == np.float64:
        pytest.skip("longdouble is float64 here")
    with pytest.raises(TypeError, match=r"U must hold real numbers of at most 64 bits; got dtype .*: convert it first"):
        checks.real_array("U", value, np.float32)


def test_ragged_lists_are_refused():
    with pytest.raises(ValueError, match="U must be a rectangular array of numbers; got"):
        checks.real_array("U", [[1, 2], [3]])


def test_numbers_beyond_float32_become_inf_in_silence():
    np.testing.assert_array_equal(checks.real_array("U", [1e300, -1e300], np.float32), [np.inf, -np.inf])


def test_float_dtype_is_where_arrays_meet():
    half, single, double, whole = (np.ones(1, t) for t in (np.float16, np.float32, np.float64, np.int8))
    assert checks.float_dtype(half, single) == np.float32
    for wide in (double, whole):
        assert checks.float_dtype(single, wide) == np.float64


@pytest.mark.parametrize("value", ["float32", np.float32, np.dtype("float64"), float])
def test_model_dtype(value):
    assert checks.model_dtype(value) == np.dtype(value)


@pytest.mark.parametrize("value", ["float16", int, complex, "nonsense", np.longdouble])
def test_model_dtype_is_refused(value):
    if value is np.longdouble and np.dtype(value) == np.float64:
        pytest.skip("longdouble is float64 here")
    with pytest.raises(ValueError, match='dtype must be "float32" or "float64"; got'):
        checks.model_dtype(value)


@pytest.mark.parametrize(
    ("U", "message"),
    [
        (np.zeros((10, 5)), r"U must have shape \(m, p\) with p = 4; got \(10, 5\): samples are rows\."),
        (np.zeros(4), r"got \(4,\): one sample is U\.reshape\(1, -1\)\."),
        (np.zeros(5), r"got \(5,\): samples are rows\."),
        (np.zeros((10, 2, 2)), r"got \(10, 2, 2\): flatten each sample, U\.reshape\(len\(U\), -1\)\."),
        (np.zeros((10, 3, 2)), r"got \(10, 3, 2\): samples are rows\."),
        (np.zeros((4, 10)), r"got \(4, 10\): samples are rows, so U\.T may be what was meant\."),
        (1.0, r"got \(\): samples are rows\."),
    ],
)
def test_samples_are_refused_with_the_way_out(U, message):
    with pytest.raises(ValueError, match=message):
        checks.samples("U", U, "p", 4, np.float32)


def test_samples_are_cast():
    U = checks.samples("U", [[1, 2, 3, 4]], "p", 4, np.float32)
    assert U.dtype == np.float32
    assert U.shape == (1, 4)
    assert checks.samples("U", np.zeros((0, 4)), "p", 4, np.float32).shape == (0, 4)


@pytest.mark.parametrize("value", [1, 5, np.int8(3)])
def test_integer(value):
    assert checks.integer("rank", value, 1, 5) == value
    assert type(checks.integer("rank", value, 1, 5)) is int


@pytest.mark.parametrize(
    ("value", "kind"),
    [(0, ValueError), (6, ValueError), (2.0, TypeError), (True, TypeError), ("2", TypeError), (None, TypeError)],
)
def test_integer_is_refused(value, kind):
    with pytest.raises(kind, match=r"rank must be a whole number, at least 1 and at most 5; got .*\. Because\."):
        checks.integer("rank", value, 1, 5, why="Because.")


@pytest.mark.parametrize("value", [0, 0.5, np.float32(0.25), np.int64(0)])
def test_number(value):
    assert checks.number("kappa", value, 0, 1) == value
    assert type(checks.number("kappa", value, 0, 1)) is float


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (-1e-9, ValueError),
        (1, ValueError),
        (float("nan"), ValueError),
        (np.inf, ValueError),
        (True, TypeError),
        ("0", TypeError),
        (0j, TypeError),
    ],
)
def test_number_is_refused(value, kind):
    with pytest.raises(kind, match=r"kappa must be a number ≥ 0 and < 1; got .*\. Because\."):
        checks.number("kappa", value, 0, 1, why="Because.")


def test_flag():
    assert checks.flag("bias", np.True_) is True
    assert checks.flag("bias", False) is False
    for value in (0, 1, None, "yes"):
        with pytest.raises(TypeError, match="bias must be True or False; got"):
            checks.flag("bias", value)


def test_choice():
    assert checks.choice("loss", "mse", {"mse": 1}) == "mse"
    for value in ("MSE", 3, None, ["mse"]):
        with pytest.raises(ValueError, match="loss must be one of 'mse', 'other'; got"):
            checks.choice("loss", value, ["mse", "other"])


def test_shape_and_matrix():
    checks.shape("A", np.zeros((2, 3)), (2, 3), "anything")
    checks.matrix("A", np.zeros((2, 3)), "(n, m)")
    with pytest.raises(ValueError, match=r"A must have shape \(2, 2\), square; got \(2, 3\)\."):
        checks.shape("A", np.zeros((2, 3)), (2, 2), "square")
    with pytest.raises(ValueError, match=r"A must be a matrix of shape \(n, m\); got 0 dimensions, \(\)\."):
        checks.matrix("A", np.zeros(()), "(n, m)")


def test_labels():
    for value in ([0, 1, 2], np.array([2, 0, 1], np.uint8)):
        np.testing.assert_array_equal(checks.labels("targets", value, 3, 3), value)
    with pytest.raises(TypeError, match="targets must be whole-number class labels; got dtype bool"):
        checks.labels("targets", [True, False], 2, 3)
    with pytest.raises(ValueError, match=r"got \(2, 1\)"):
        checks.labels("targets", [[0], [1]], 2, 3)
    with pytest.raises(ValueError, match=r"targets must be labels in 0 … 2, .* 3 outputs; got -1 … 3: renumber"):
        checks.labels("targets", [-1, 3], 2, 3)
