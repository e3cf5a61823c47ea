import copy
import math
import pickle

import naive
import numpy as np
import pytest
from strategies import ACTIVATIONS, DTYPES

from idl_ref import activations

POINTS = np.concatenate(
    [np.linspace(-6, 6, 241), [-800.0, -90.0, -30.0, -1e-3, -1e-12, 1e-12, 1e-3, 30.0, 90.0, 800.0]]
)


def away_from_kinks(name, P=POINTS):
    kinks = activations.get(name).kinks
    return P[np.all([abs(P - k) > 1e-9 for k in kinks], axis=0)] if kinks else P


def test_the_table_is_the_one_the_tests_know():
    assert set(activations.TABLE) == set(naive.SCALAR) == set(ACTIVATIONS)
    assert sorted(row.code for row in activations.TABLE.values()) == list(range(len(ACTIVATIONS)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_phi_is_the_scalar_definition_to_8_ulps(name, dtype):
    """The constant ULPS of the certificate is valid only if this holds."""
    P = POINTS.astype(dtype)
    X = activations.get(name).phi(P)
    truth = np.array([naive.SCALAR[name][0](float(p)) for p in P])
    assert X.dtype == dtype
    assert np.all(abs(X - truth) <= 4 * np.finfo(dtype).eps * abs(truth) + np.finfo(dtype).tiny)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slope_is_the_scalar_definition(name, dtype):
    P = away_from_kinks(name).astype(dtype)
    S = activations.get(name).slope(P)
    truth = np.array([naive.SCALAR[name][1](float(p)) if abs(p) < 700 else float(S[i]) for i, p in enumerate(P)])
    assert S.dtype == dtype
    np.testing.assert_allclose(S, truth, rtol=8 * np.finfo(dtype).eps, atol=2 * np.finfo(dtype).eps)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slope_is_the_complex_step_of_phi(name):
    row, P = activations.get(name), away_from_kinks(name)
    P = P[P != 0]  # At 0, the real part does not select a smooth piece.
    np.testing.assert_allclose(row.slope(P), naive.complex_step(row.phi, P), rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(row.slope(P), naive.complex_step(naive.VECTOR[name], P), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slope_at_a_kink_is_the_smaller_one_sided_slope(name):
    row = activations.get(name)
    for k in row.kinks:
        sides = row.slope(np.array([k - 1e-9, k + 1e-9]))
        assert row.slope(np.array([k]))[0] == sides.min() < sides.max()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slope_is_continuous_off_the_kinks(name):
    row, P = activations.get(name), np.linspace(-5, 5, 20_001)
    jumps = P[:-1][abs(np.diff(row.slope(P))) > 0.005]
    assert {round(p + 2.5e-4) for p in jumps} == set(row.kinks)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_lipschitz_constant_is_the_smallest(name):
    row = activations.get(name)
    rng = np.random.default_rng(0)
    P, Q = rng.standard_normal((2, 100_000)) * 3
    quotient = abs(row.phi(P) - row.phi(Q)) / abs(P - Q)
    near = abs(row.phi(P + 1e-5) - row.phi(P)) / 1e-5
    assert quotient.max() <= row.lipschitz * (1 + 1e-8) <= 1 + 1e-8
    assert near.max() >= 0.999 * row.lipschitz
    slopes = row.slope(P)
    assert slopes.min() >= 0
    assert slopes.max() <= row.lipschitz


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_stays_nan_and_infinity_is_the_limit(name, dtype):
    row = activations.get(name)
    assert np.isnan(row.phi(np.array([np.nan, -np.nan], dtype))).all()
    if name != "softsign":  # softsign(inf) is inf/inf.
        low, high = row.phi(np.array([-np.inf, np.inf], dtype))
        assert low == row.phi(np.array([-3e38], dtype))[0] or low == -np.inf
        assert high in (1, np.inf)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_phi_does_not_write_on_its_argument(name):
    P = POINTS.copy()
    P.flags.writeable = False
    activations.get(name).phi(P)
    activations.get(name).slope(P)


@pytest.mark.parametrize("name", ["gelu", "GELU", "silu", "swish", "mish"])
def test_expansive_activations_are_refused_with_the_reason(name):
    with pytest.raises(
        ValueError, match=r"must be non-expansive; got '.*', whose slope reaches 1\.\d+.*use \"softplus\""
    ):
        activations.get(name)


@pytest.mark.parametrize("name", ["Relu", "", None, 3, {"relu"}])
def test_other_names_are_refused_with_the_list(name):
    with pytest.raises(ValueError, match=r"activation must be one of 'identity', 'relu', .*; got"):
        activations.get(name)


def test_rows_survive_copies_and_pickle():
    row = activations.get("tanh")
    assert copy.deepcopy(row) is row
    assert pickle.loads(pickle.dumps(row)) is row


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_slope_of_tanh_keeps_its_digits_where_it_is_small(dtype):
    """1 − tanh² loses them all: in float32 it is 6 % off at 8, and 0 from 10 on."""
    P = np.linspace(-30, 30, 601).astype(dtype)
    exact = np.array([1 / math.cosh(float(p)) ** 2 for p in P])
    error = np.abs(activations.get("tanh").slope(P) / exact - 1).max()
    assert error <= 32 * np.finfo(dtype).eps
