"""The kit's truth: frozen cases, exact answers against other methods, and derived bounds."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import naive
import numpy as np
import pytest

import idl_ref
from idl_ref import activations
from idl_ref.conformance import check_backend
from idl_ref.conformance.adapters import Plain
from idl_ref.conformance.judge import runner
from idl_ref.conformance.truth import bounds, exact, vectors
from idl_ref.conformance.truth.flags import FLAGS
from idl_ref.conformance.truth.problem import laid_out
from idl_ref.factors import apply

CASES = vectors.load()
BY_ID = {case.id: case for case in CASES}


@pytest.mark.slow
def test_vectors_are_what_the_script_computes_bit_for_bit():
    text, data = vectors.pack(vectors.generated())
    assert (vectors.CHECKOUT / "vectors.bin").read_bytes() == data
    assert (vectors.CHECKOUT / "vectors.json").read_bytes() == text


def test_vectors_are_small_and_outside_the_package():
    files = [vectors.CHECKOUT / "vectors.json", vectors.CHECKOUT / "vectors.bin"]
    assert sum(file.stat().st_size for file in files) <= 2_000_000
    assert not any(file.is_relative_to(Path(idl_ref.__file__).parent) for file in files)


def test_changed_vectors_are_refused(tmp_path):
    for name in ("vectors.json", "vectors.bin"):
        (tmp_path / name).write_bytes((vectors.CHECKOUT / name).read_bytes())
    data = bytearray((tmp_path / "vectors.bin").read_bytes())
    data[1000] ^= 1
    (tmp_path / "vectors.bin").write_bytes(data)
    with pytest.raises(ValueError, match=r"vectors.bin does not go with"):
        vectors.load(tmp_path)
    (tmp_path / "vectors.json").write_bytes(b"{}")
    with pytest.raises(ValueError, match="must be the published cases"):
        vectors.load(tmp_path)


RELU = [c for c in CASES if c.problem.activation == "relu" and c.truths and c.problem.f == "none"
        and c.facts["norm"] < 1 and not c.bad and c.problem.A is not None]  # fmt: skip


@pytest.mark.parametrize("case", RELU[::5], ids=lambda case: case.id)
def test_rational_truth_is_that_of_another_method(case):
    """Murty's rule and Gauss–Jordan, written independently."""
    p, truth = case.problem, case.truths[0]
    for j in range(p.U.shape[1]):
        z = [sum(Fraction(float(b)) * Fraction(float(u)) for b, u in zip(row, p.U[:, j], strict=True)) for row in p.B]
        x = [Fraction(0)] * len(z)
        for _ in range(2 * len(z) + 2):
            wrong = [i for i in range(len(z)) if x[i] != max(Fraction(0), _row(p.A, x, i) + z[i])]
            if not wrong:
                break
            x = _murty(p.A, z)
        assert [float(v) for v in x] == truth["X"][:, j].tolist()


def _row(A, x, i):
    return sum(Fraction(float(a)) * v for a, v in zip(A[i], x, strict=True))


def _murty(A, z):
    n, positive = len(z), set()
    while True:
        rows = sorted(positive)
        M = [[int(i == j) - Fraction(float(A[i, j])) for j in rows] for i in rows]
        solved = dict(zip(rows, naive.rational_solve(M, [z[i] for i in rows]), strict=True))
        x = [solved.get(i, Fraction(0)) for i in range(n)]
        wrong = [i for i in range(n) if (x[i] < 0 if i in positive else _row(A, x, i) + z[i] > 0)]
        if not wrong:
            return x
        positive ^= {wrong[0]}


SMOOTH = [
    c for c in CASES if c.problem.activation in exact.SMOOTH and c.problem.A is not None and c.problem.f == "none"
]


@pytest.mark.parametrize("case", SMOOTH, ids=lambda case: case.id)
def test_decimal_truth_agrees_with_longdouble(case):
    p, truth = case.problem, case.truths[0]
    Z = p.B.astype(np.longdouble) @ p.U.astype(np.longdouble)
    X, error = naive.forward_truth(p.A, Z, p.activation)
    assert (np.abs(X - truth["X"]).max(axis=0) <= error + 2e-16 * np.abs(truth["X"]).max(axis=0)).all()


@pytest.mark.parametrize("id", ["f-inf-beyond-float64", "f-rows-far-low-rank-float64", "activation-tanh-dense-float64"])
def test_true_gradients_are_those_of_the_complex_step(id):
    case = BY_ID[id]
    p, truth = case.problem, case.truths[0]

    def value(arrays):
        f = naive.CONSTRAINTS[p.f]
        A = f(arrays["A"], p.kappa) if "A" in arrays else f(arrays["L"], p.kappa) @ f(arrays["R"].T, p.kappa)
        Z = arrays["B"] @ arrays["U"]
        X = np.zeros_like(Z)
        for _ in range(2000):
            X = naive.VECTOR[p.activation](A @ X + Z)
        return (case.G_Y * (arrays["C"] @ X + arrays["D"] @ arrays["U"])).sum()

    for name, M in p.arrays.items():
        for entry in list(np.ndindex(*M.shape))[::3]:
            moved = M.astype(complex)
            moved[entry] += 1e-30j
            assert value({**p.arrays, name: moved}).imag / 1e-30 == pytest.approx(
                truth[name][entry], rel=1e-11, abs=1e-11
            )


def test_a_wrong_truth_would_be_noticed():
    """The proof of a decimal answer refuses digits that are not proved."""
    with pytest.raises(ArithmeticError, match="only proved"):
        exact.rounded({"X": np.array([[exact.Decimal("0.5")]], object)}, exact.Decimal("1e-20"))


def test_every_case_is_described():
    for case in CASES:
        assert case.comment
        assert case.flags
        assert all(flag in FLAGS for flag in case.flags)
        assert {"norm", "perron", "spectral_radius", "kink_margin", "condition", "provenance"} <= case.facts.keys()
    assert {flag for case in CASES for flag in case.flags} == FLAGS.keys()
    assert len(BY_ID) == len(CASES)
    assert set(runner.RELATED) <= BY_ID.keys()


@pytest.mark.parametrize("case", [c for c in CASES if c.facts["kink_margin"] and c.good.any()], ids=lambda c: c.id)
def test_no_rounding_decides_a_slope(case):
    """The preactivations of a right answer are on the true side of every kink."""
    if case.group == "kinks":
        return  # exact in either dtype, and meant to be near
    eq, good = bounds.equation(case.problem), case.good
    truth, phi = case.truths[0]["X"][:, good], activations.get(case.problem.activation)
    P = apply(eq.factors, truth) + eq.Z[:, good]
    E = eq.size @ bounds.bounds(case, case.truths[0])["X"][:, good]
    assert all((np.abs(P - kink) > E).all() for kink in phi.kinks)


def test_the_bound_is_not_generous():
    """An error of a few bounds fails, and right backends use a good part of it."""
    report = check_backend(Plain(), groups=["contraction"])
    assert max(r.ratio for r in report.passed if r.ratio) > 0.2
    case = BY_ID["contraction-perron-0.99-float64"]
    scale = case.truths[0]["X"] / bounds.bounds(case, case.truths[0])["X"]
    assert scale.min() > 1e6


def test_one_large_row_excuses_no_other():
    """The allowance of a row, and the bound of its error, are the same beside a row of 10 000 and beside one of 1."""
    problem = BY_ID["rows-relu-decoupled-float32"].problem
    X = BY_ID["rows-relu-decoupled-float32"].truths[0]["X"]
    U = np.where([[True], [False]], np.float32(1), problem.U)
    beside = [
        bounds.residual_bound(p, bounds.equation(p), X, False)[1] for p in (problem, problem.with_arrays({"U": U}))
    ]
    np.testing.assert_array_equal(*beside)
    assert (beside[0] < 1e-3 * bounds.residual_bound(problem, bounds.equation(problem), X, False)[0]).all()


def test_a_saturated_row_has_next_to_no_rounding():
    case = BY_ID["rows-tanh-pair-float32"]
    _, allowed = bounds.certificate(case.problem, case.truths[0]["X"])
    assert (allowed < 3e-5).all()  # the rounding of z itself, which is 10⁷ here, is 1


def test_a_cycle_is_granted_no_more_than_what_rounding_explains():
    """x = z − 0.99 x: the certificate grants a cycle of 50 units in the last place, and the error bound is M r."""
    case = BY_ID["cycle-one"]
    X, ulp = case.truths[0]["X"], np.spacing(case.truths[0]["X"].astype(np.float32))
    for off, passes in ((50, True), (5000, False)):
        residual, allowed = bounds.certificate(case.problem, X + off * ulp)
        assert (residual <= allowed).all() == passes
    explained = 8 * np.finfo(np.float32).eps * (2 * X + bounds.equation(case.problem).Z)
    assert (bounds.bounds(case, case.truths[0])["X"] < 100 * 4 * explained).all()


def test_layouts_are_what_they_say():
    M = np.arange(6.0).reshape(2, 3)
    for layout in ("C", "fortran", "strided", "reversed", "readonly"):
        view = laid_out(M, layout)
        np.testing.assert_array_equal(view, M)
        assert not np.shares_memory(view, M)
    assert laid_out(M, "fortran").flags.f_contiguous
    assert not laid_out(M, "strided").flags.contiguous
    assert laid_out(M, "reversed").strides[0] < 0
    assert not laid_out(M, "readonly").flags.writeable


def test_strictness_is_about_the_last_application():
    case = BY_ID["stopping-last-application-relu"]
    loose = bounds.bounds(replace(case, strict=False), case.truths[0])["X"]
    assert (loose > 4 * bounds.bounds(case, case.truths[0])["X"]).all()
