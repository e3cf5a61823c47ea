"""The kit's truth: frozen cases, exact answers against other methods, and derived bounds."""

from dataclasses import replace
from fractions import Fraction
from functools import reduce
from pathlib import Path

import naive
import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

import idl_ref
from idl_ref import activations
from idl_ref.conformance import check_backend
from idl_ref.conformance.adapters import Plain
from idl_ref.conformance.judge import runner
from idl_ref.conformance.truth import bounds, copies, exact, majorants, rational, vectors
from idl_ref.conformance.truth.cases import case as made
from idl_ref.conformance.truth.cases import describe, generator
from idl_ref.conformance.truth.flags import FLAGS
from idl_ref.conformance.truth.groups import sizes
from idl_ref.conformance.truth.problem import Case, laid_out
from idl_ref.factors import apply

CASES = vectors.load()
FROZEN = [case for case in CASES if case.group != "sizes"]
LARGE = [case for case in CASES if case.group == "sizes"]
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


RELU = [c for c in FROZEN if c.problem.activation == "relu" and c.truths and c.problem.f == "none"
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


BLOCKS = [c for c in FROZEN if c.group == "blocks"]


@pytest.mark.parametrize("case", BLOCKS, ids=lambda case: case.id)
def test_the_truth_about_blocks_is_that_of_block_by_block_solutions(case):
    """The strongly connected components of SciPy, each iterated to its end after those that feed it."""
    p, truth, phi = case.problem, case.truths[0], activations.get(case.problem.activation)
    A, Z = p.A.astype(float), p.B.astype(float) @ p.U.astype(float)
    count, of = connected_components(A != 0, connection="strong")
    fed_by = np.array([[(A[of == k][:, of == other] != 0).any() for other in range(count)] for k in range(count)])
    X, left = np.zeros_like(Z), set(range(count))
    while left:
        k = next(k for k in left if not any(fed_by[k, other] for other in left - {k}))
        for _ in range(400):
            X[of == k] = phi.phi(A[of == k] @ X + Z[of == k])
        left.remove(k)
    assert count > 1
    assert (np.bincount(of) > 1).sum() > 1
    assert case.facts["norm"] > 5
    S = phi.slope(A @ X + Z)
    G = p.C.T.astype(float) @ case.G_Y
    V = np.stack([np.linalg.solve(np.eye(len(A)) - s[:, None] * A.T, s * g) for s, g in zip(S.T, G.T, strict=True)], 1)
    for name, M in {"X": X, "V": V, "A": V @ X.T, "B": V @ p.U.T.astype(float)}.items():
        np.testing.assert_allclose(M, truth[name], rtol=1e-9, atol=1e-13 * np.abs(truth[name]).max())


SMOOTH = [
    c
    for c in FROZEN
    if c.problem.activation in exact.SMOOTH and c.problem.A is not None and c.problem.f == "none" and not c.bad
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
    for case in (*FROZEN, *LARGE[::40]):
        assert {"norm", "perron", "spectral_radius", "kink_margin", "condition", "provenance"} <= case.facts.keys()
    assert {flag for case in CASES for flag in case.flags} == FLAGS.keys()
    assert len(BY_ID) == len(CASES)
    assert set(runner.RELATED) <= BY_ID.keys()


EXACT = ("kinks", "counts")  # groups whose preactivations are exact in either dtype, and may lie on a kink or near it


@pytest.mark.parametrize(
    "case",
    [c for c in FROZEN if c.facts["kink_margin"] and c.good.any() and c.group not in EXACT],
    ids=lambda c: c.id,
)
def test_no_rounding_decides_a_slope(case):
    _assert_clear(case)


@pytest.mark.slow
def test_no_rounding_decides_a_slope_of_a_large_case():
    for case in LARGE:
        _assert_clear(case)


def _assert_clear(case):
    """The preactivations of a right answer are on the true side of every kink."""
    eq, good = bounds.equation(case.problem), case.good
    truth, phi = case.truths[0]["X"][:, good], activations.get(case.problem.activation)
    P = apply(eq.factors, truth) + eq.Z[:, good]
    E = eq.size @ bounds.bounds(case, case.truths[0])["X"][:, good]
    assert all((np.abs(P - kink) > E).all() for kink in phi.kinks)


@pytest.mark.slow
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


# --- large cases ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [{"n": 20, "coupling": "circulant"}, {"n": 19, "coupling": "copies", "phi": "leaky_relu", "dtype": "float32"},
     {"n": 21, "phi": "hardtanh"}, {"n": 18, "rank": 7}, {"n": 16, "p": 16, "q": 16, "m": 16, "phi": "identity"},
     {"n": 14, "phi": "tanh", "coupling": "circulant"}, {"n": 14, "rank": 3, "phi": "softplus", "dtype": "float32"},
     pytest.param({"n": 33, "coupling": "circulant"}, marks=pytest.mark.slow)],
    ids=str,
)  # fmt: skip
def test_the_truth_of_a_large_case_is_that_of_the_whole_equation(how):
    """Solved as it stands, by elimination in n units, without a thought of copies: the same bits."""
    case = sizes.large("middle", "a middle size", sizes.Size(**how))
    whole, facts = exact.answer(case.problem, case.G_Y), describe(case.problem)
    for name, M in whole.arrays.items():
        np.testing.assert_array_equal(case.truths[0][name], M, err_msg=name)
    assert {name: case.facts[name] for name in facts} == pytest.approx(facts, rel=1e-5)
    assert (
        whole.kink_margin >= (case.facts["kink_margin"] or 0) > 0 or not activations.get(case.problem.activation).kinks
    )


def test_copies_that_change_the_equation_are_refused():
    rng = generator("refused")
    small = made("refused", "", "", sizes.small(rng, 3, 2, None, "circulant"), activation="tanh").problem
    how = sizes.chosen(rng, 20, 5, "circulant", "tanh")
    copies.verified(small, how)
    for name, value, message in (
        ("coupling", 1.5 * how.coupling, "not coupled"),
        ("weight", how.weight * np.where(how.unit == 0, 2, 1), "not coupled"),
        ("scale", 2 * how.scale, "does not commute"),
        ("size", 1.5 * how.size, "does not commute"),
    ):
        with pytest.raises(ArithmeticError, match=message):
            copies.truth(small, np.ones((2, 5)), how._replace(**{name: value}))
    with pytest.raises(ArithmeticError, match="does not contract"):
        copies.truth(small.with_arrays({"A": 3 * small.A}), np.ones((2, 5)), how)
    with pytest.raises(ArithmeticError, match="too many digits for float32"):
        copies.enlarged(replace(small, dtype=np.dtype(np.float32)), np.ones((2, 5)), how)


def test_large_cases_are_computed_when_they_are_first_needed():
    fresh = list(sizes.sizes())
    assert [c.id for c in fresh] == [c.id for c in LARGE]
    assert not any("_computed" in vars(c) for c in fresh)
    first = replace(fresh[0], layout="fortran")
    assert type(first) is Case
    np.testing.assert_array_equal(first.problem.A, BY_ID[first.id].problem.A)
    wanted = {"n": {31, 32, 33, 63, 64, 65, 255, 257, 2048}, "m": {63, 64, 65, 1025, 4097}}
    for size, values in wanted.items():
        assert {f"size-{size}-{value}-float32" for value in values} <= BY_ID.keys()


@pytest.mark.parametrize("scaled", [False, True])
def test_the_bound_of_many_units_is_that_of_the_inverse(scaled):
    rng = np.random.default_rng(0)
    M, r = rng.random((40, 40)), rng.random((40, 3))
    M *= 0.9 / M.sum(axis=1).max()
    S = (rng.random((40, 3)) > 0.3) * rng.random((40, 3)) if scaled else np.ones((40, 3))
    tight = np.stack([majorants.resolvent(S[:, j : j + 1] * M) @ r[:, j] for j in range(3)], axis=1)
    above = majorants.above(M, r, S if scaled else None)
    assert (above >= tight * (1 - 1e-12)).all()
    assert (above <= 1.02 * tight).all()


# --- what makes cases find what they are meant to find ----------------------------------------------------------------


def test_weights_have_digits_that_no_shorter_format_holds():
    shorter = {"float64": np.float32, "float32": np.float16}
    for name in "BCD":
        with np.errstate(over="ignore"):
            long = [
                not np.array_equal(M, M.astype(shorter[case.problem.dtype.name]))
                for case in FROZEN
                if case.group != "storage" and (M := getattr(case.problem, name)) is not None and M.any()
            ]
        assert np.mean(long) > 0.75
    sizes_of = np.abs(np.concatenate([BY_ID["scales-relu-float32"].problem.arrays[name].ravel() for name in "BCD"]))
    assert sizes_of.min() < 1e-7
    assert sizes_of.max() > 100


@pytest.mark.parametrize("case", [c for c in FROZEN if "iterations" in c.facts], ids=lambda c: c.id)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_known_iterations_are_those_of_the_plain_iteration(case, dtype):
    p, Z = case.problem, (case.problem.B @ case.problem.U).astype(dtype)
    X = np.zeros_like(Z) if p.X0 is None else p.X0.astype(dtype)
    stop, phi = p.tol * np.minimum(1, np.abs(Z).max(axis=0)), activations.get(p.activation).phi
    counts = np.full(Z.shape[1], p.max_iter)
    for k in reversed(range(1, p.max_iter + 1)):
        X, last = phi(p.A.astype(dtype) @ X + Z), X
        counts = np.where((np.abs(X - last).max(axis=0) <= stop) & (counts == p.max_iter), p.max_iter - k + 1, counts)
    assert counts.tolist() == case.facts["iterations"]


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


# --- the Perron root in rational numbers ------------------------------------------------------------------------------


def fractions(rows):
    return np.array([[Fraction(a) for a in row] for row in rows], object)


def test_a_rational_perron_root_has_its_vectors():
    M = fractions([[1, 2, 0], [Fraction(1, 2), 1, 4], [0, 0, Fraction(1, 2)]])
    root, u, v = rational.perron(M)
    assert root == 2
    assert (M @ v == root * v).all()
    assert (u @ M == root * u).all()
    assert u @ v == 1
    assert v[2] == 0 != u[2]  # The last row does not belong to the block with the root.


@pytest.mark.parametrize(
    ("rows", "message"),
    [([[1, 1], [1, 2]], "no multiple of"), ([[2, 0], [0, 2]], "no simple"), ([[2, 1], [0, 2]], "no simple")],
    ids=["irrational", "two blocks", "defective"],
)
def test_other_perron_roots_are_refused(rows, message):
    with pytest.raises(ArithmeticError, match=message):
        rational.perron(fractions(rows))


@pytest.mark.parametrize(
    "case", [c for c in FROZEN if c.group == "roots" and not c.problem.straight_through], ids=lambda case: case.id
)
def test_the_gradient_of_raw_weights_is_the_difference_of_outputs(case):
    problem, truth = case.problem, case.truths[0]
    wide = {name: M.astype(np.float64) for name, M in problem.arrays.items()}

    def loss(arrays):
        raw = (arrays["A"],) if "A" in arrays else (arrays["L"], arrays["R"].T)
        A, size = reduce(np.matmul, raw), np.abs(np.linalg.eigvals(reduce(np.matmul, map(np.abs, raw)))).max()
        A, X = A * min(1, problem.kappa ** len(raw) / size), np.zeros((len(A), 1))
        for _ in range(2000):
            X = np.maximum(A @ X + arrays["B"] @ arrays["U"], 0)
        return (case.G_Y * (arrays["C"] @ X + arrays["D"] @ arrays["U"])).sum()

    for name in wide.keys() & {"A", "L", "R"}:
        step = np.random.default_rng(0).standard_normal(wide[name].shape) * (wide[name] != 0)
        h = 1e-6 * np.abs(wide[name]).max()
        ends = [loss(wide | {name: wide[name] + sign * h * step}) for sign in (1, -1)]
        slope = (truth[name] * step).sum()
        assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(slope, rel=1e-5, abs=1e-7 * np.abs(truth[name]).max())
