import naive
import numpy as np
import pytest
from hypothesis import given
from strategies import DTYPES, ranks, seeds, sizes

from idl_ref import (
    ImplicitFunction,
    ImplicitFunctionInf,
    ImplicitFunctionMonotone,
    ImplicitFunctionPerron,
    ImplicitFunctionRows,
    ImplicitFunctionTriu,
    ImplicitModel,
    SolveOptions,
    activations,
    check_gradients,
    losses,
    solve_adjoint,
    solve_equilibrium,
)
from idl_ref import factors as fac
from idl_ref.functions import FUNCTIONS

NAMES = ("inf", "rows", "triu", "none")  # The tests of "perron" and "monotone" are in files of their own.


def test_the_seeds_classes_by_name():
    assert {
        "inf": ImplicitFunctionInf,
        "rows": ImplicitFunctionRows,
        "perron": ImplicitFunctionPerron,
        "monotone": ImplicitFunctionMonotone,
        "triu": ImplicitFunctionTriu,
        "none": ImplicitFunction,
    } == FUNCTIONS
    assert {f.name: f.constrains for f in FUNCTIONS.values()} == {
        "inf": True,
        "rows": True,
        "perron": True,
        "monotone": False,
        "triu": False,
        "none": False,
    }
    assert [name for name in NAMES if not FUNCTIONS[name].low_rank] == ["triu"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
@given(n=sizes, r=ranks, seed=seeds)
def test_effective_factors_are_the_naive_ones(name, dtype, n, r, seed):
    rng = np.random.default_rng(seed)
    A, L, R = (rng.standard_normal(shape).astype(dtype) for shape in ((n, n), (n, r), (n, r)))
    f, rtol = FUNCTIONS[name](kappa=0.9), 20 * np.finfo(dtype).eps
    for factors in ((A,), (L, R.T)) if f.low_rank else ((A,),):
        copies = [F.copy() for F in factors]
        effective = f.effective(factors)
        for F, E, copy in zip(factors, effective, copies, strict=True):
            assert E.dtype == dtype
            expected = naive.CONSTRAINTS[name](F.astype(float), 0.9)
            np.testing.assert_allclose(E, expected, rtol=rtol, atol=rtol)
            np.testing.assert_array_equal(F, copy)
        for E, again in zip(effective, f.effective(effective), strict=True):
            np.testing.assert_array_equal(again, E)
        if f.constrains:
            assert fac.norm_inf(effective) <= 0.9 ** len(factors) * (1 + 1e-12)


@pytest.mark.parametrize("name", NAMES)
@given(n=sizes, r=ranks, seed=seeds)
def test_pullback_is_the_complex_step(name, n, r, seed):
    rng = np.random.default_rng(seed)
    f = FUNCTIONS[name](kappa=0.9)
    for factors in (tuple(rng.standard_normal((1, n, n))), (rng.standard_normal((n, r)), rng.standard_normal((r, n)))):
        if len(factors) == 2 and not f.low_rank:
            continue
        G = tuple(rng.standard_normal(F.shape) for F in factors)
        for F, G_F, pulled in zip(factors, G, f.pullback(factors, G), strict=True):
            expected = np.zeros(F.shape)
            for entry in np.ndindex(*F.shape):
                moved = F.astype(complex)
                moved[entry] += 1e-30j
                expected[entry] = (G_F * np.imag(naive.CONSTRAINTS[name](moved, 0.9))).sum() / 1e-30
            np.testing.assert_allclose(pulled, expected, rtol=1e-12, atol=1e-12)


def test_straight_through_hands_the_gradient_on():
    A, G = 3 * np.ones((2, 2)), np.arange(4.0).reshape(2, 2)
    for f in (ImplicitFunctionInf, ImplicitFunctionRows):
        assert f(0.9, straight_through=True).pullback((A,), (G,))[0] is G
        assert not np.array_equal(f(0.9).pullback((A,), (G,))[0], G)
    for f in (ImplicitFunction, ImplicitFunctionTriu):
        with pytest.raises(ValueError, match=f"straight_through needs an f that maps A into a ball; got {f.__name__}"):
            f(0.9, straight_through=True)


@pytest.mark.parametrize(
    ("kappa", "kind"), [(-0.1, ValueError), (float("nan"), ValueError), ("big", TypeError), (None, TypeError)]
)
def test_kappa_is_checked(kappa, kind):
    with pytest.raises(kind, match="kappa must be a number ≥ 0; got"):
        ImplicitFunctionInf(kappa)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("f", [ImplicitFunctionInf, ImplicitFunctionRows, ImplicitFunctionPerron])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("rank", [None, 2])
def test_what_is_always_zero_has_no_gradient(f, backend, rank):
    """With κ = 0, f gives 0 for every A, also for A = 0, with which a model begins."""
    U, targets = np.random.default_rng(0).standard_normal((5, 2)), np.arange(5) % 3
    more = {"kappa": 0, "dtype": "float64", "is_low_rank": rank is not None, "rank": rank}
    for raw in (0.0, 0.5):
        model = ImplicitModel(2, 3, 4, f=f, seed=0, backend=backend, **more)
        names = "A" if rank is None else "LR"
        for name in names:
            model.parameters[name] += raw
        _, gradients = model.loss_and_gradients(U, targets)
        assert all(not gradients[name].any() for name in names)
        assert check_gradients(model, U, targets).passed


def test_only_rows_are_written_back():
    A = np.array([[3.0, -1.0], [0.25, 0.25]])
    (P,) = ImplicitFunctionRows(0.5).project((A,))
    np.testing.assert_allclose(P, [[0.5, 0], [0.25, 0.25]], rtol=1e-14)
    assert all(FUNCTIONS[name](0.5).project((A,)) is None for name in ("inf", "triu", "none"))


@pytest.mark.parametrize("name", NAMES)
def test_active_set_changes_only_across_a_kink(name):
    f = FUNCTIONS[name](1.0)

    def same(A, B):
        return all(np.array_equal(a, b) for a, b in zip(f.active_set((A,)), f.active_set((B,)), strict=True))

    A = np.array([[3.0, -0.5], [0.3, 0.4]])
    assert same(A, A * 1.001)
    crossed = [A / 4, A[::-1], A * [[1, -1], [1, 1]], A * [[1, 6.5], [1, 1]]]
    if name == "inf":  # The moves lead into the ball, to another largest row, and to another sign.
        assert [same(A, B) for B in crossed] == [False, False, False, True]
    elif name == "rows":  # The moves lead into the ball, to another row outside, and to another support.
        assert [same(A, B) for B in crossed] == [False, False, True, False]
    else:
        assert all(same(A, B) for B in crossed)


def flow(parameters, U, targets, *, f, kappa, activation, loss, bias):
    """Compute loss and gradients step by step with the functions of this package, with samples as columns."""
    low_rank, row, options = "L" in parameters, activations.get(activation), SolveOptions(tol=1e-15, max_iter=5000)
    P, function = parameters, FUNCTIONS[f](kappa)
    raw = (P["L"], P["R"].T) if low_rank else (P["A"],)
    effective = function.effective(raw)
    A = (effective[0], effective[1].T) if low_rank else effective[0]
    columns = np.hstack([U, np.ones((len(U), 1))]).T if bias else U.T
    Z = P["B"] @ columns
    X = solve_equilibrium(A, Z, activation=activation, options=options).X
    D = P.get("D", np.zeros((len(P["C"]), len(columns))))
    Y = P["C"] @ X + D @ columns
    value, G_Y = losses.get(loss)(Y, losses.check_targets(loss, targets, len(U), len(Y), Y.dtype))
    S = row.slope(fac.apply(effective, X) + Z)
    V = solve_adjoint(A, S, P["C"].T @ G_Y, options=options).X
    pulled = function.pullback(raw, fac.gradients(effective, X, V))
    gradients = {"L": pulled[0], "R": pulled[1].T} if low_rank else {"A": pulled[0]}
    gradients |= {"B": V @ columns.T, "C": G_Y @ X.T, "D": G_Y @ columns.T}
    gradients["U"] = (P["B"].T @ V + D.T @ G_Y)[: U.shape[1]].T
    return value, {name: gradients[name] for name in (*parameters, "U")}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("low_rank", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_flow_is_the_unrolled_model_and_its_complex_step(name, low_rank, loss):
    if low_rank and not FUNCTIONS[name].low_rank:
        pytest.skip("no low rank for triu")
    n, p, q, m, kappa = 5, 3, 2, 4, 0.8
    for seed, activation in enumerate(("relu", "tanh", "elu", "softplus")):
        rng = np.random.default_rng(seed)
        bias, has_D = seed % 2 == 0, seed != 1
        shapes = {"L": (n, 2), "R": (n, 2)} if low_rank else {"A": (n, n)}
        shapes |= {"B": (n, p + bias), "C": (q, n)} | ({"D": (q, p + bias)} if has_D else {})
        parameters = {key: rng.standard_normal(shape) for key, shape in shapes.items()}
        if name == "none":
            parameters |= {key: 0.15 * parameters[key] for key in "ALR" if key in parameters}
        U = rng.standard_normal((m, p))
        targets = rng.integers(0, q, m) if loss == "cross_entropy" else rng.standard_normal((m, q))
        same = {"f": name, "kappa": kappa, "activation": activation, "loss": loss, "bias": bias}
        value, gradients = flow(parameters, U, targets, **same)
        assert value == pytest.approx(naive.loss(parameters, U, targets, **same, steps=300), rel=1e-12)
        expected = naive.gradients(parameters, U, targets, **same, steps=150)
        for key in expected:
            np.testing.assert_allclose(
                gradients[key], expected[key], rtol=1e-11, atol=1e-11, err_msg=f"{activation} {key}"
            )
