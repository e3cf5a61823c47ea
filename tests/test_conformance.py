"""The kit itself: its truth, its bounds, its verdicts, its three runners, and its power over planted bugs."""

import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import jsonschema
import naive
import numpy as np
import pytest

import idl_ref
from idl_ref import __main__ as cli
from idl_ref import activations
from idl_ref.conformance import adapters, bounds, check_backend, exact, parametrize, remote, runner, vectors
from idl_ref.conformance.adapters import Plain
from idl_ref.conformance.bugs import diagnosis
from idl_ref.conformance.bugs_gradients import BUGS
from idl_ref.conformance.cases import FLAGS
from idl_ref.conformance.problem import Capabilities, laid_out, make
from idl_ref.factors import apply

CASES = vectors.load()
BY_ID = {case.id: case for case in CASES}
ROOT = Path(__file__).parents[1]
C_SOURCE = ROOT / "examples" / "c_backend" / "backend.c"


# --- truth ------------------------------------------------------------------------------------------------------------


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
        exact._rounded({"X": np.array([[exact.Decimal("0.5")]], object)}, exact.Decimal("1e-20"))


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


# --- bounds and verdicts ----------------------------------------------------------------------------------------------


SLOW = [Plain(), adapters.IdlRef("numpy", "picard"), adapters.IdlRef("numba", "anderson")]


@pytest.mark.parametrize(
    "backend",
    [adapters.IdlRef("numpy"), adapters.IdlRef("numba"), *(pytest.param(b, marks=pytest.mark.slow) for b in SLOW)],
    ids=lambda b: b.name,
)
def test_right_backends_pass_and_nothing_is_skipped(backend):
    report = check_backend(backend)
    assert report.failed == []
    assert report.skipped == []
    assert report.ok
    assert len(report.passed) > 500


def test_the_bound_is_not_generous():
    """An error of a few bounds fails, and right backends use a good part of it."""
    report = check_backend(Plain(), groups=["contraction"])
    assert max(r.ratio for r in report.passed if r.ratio) > 0.2
    case = BY_ID["contraction-perron-0.99-float64"]
    scale = case.truths[0]["X"] / bounds.bounds(case, case.truths[0])["X"]
    assert scale.min() > 1e6


@pytest.mark.slow
@pytest.mark.parametrize("name", BUGS)
def test_planted_bugs_are_found(name):
    small_first = sorted(CASES, key=lambda case: sum(np.size(M) for M in case.problem.arrays.values()))
    chosen = runner.select(small_first, None)  # most bugs show in a small equation: a third of the time
    bug = BUGS[name]()
    assert any(run().outcome == "failed" for _, run in runner.checks(bug, chosen))


NAMED = ["contraction-*-0.5-float64", "stopping-*-tanh", "rank-2-*", "shape-bias*", "f-inf-beyond-float64"]


@pytest.mark.parametrize("name", ["AdjointNotTransposed", "BiasTwice", "StaleIterate", "SlopesStale", "FactorsSwapped",
    "DDropped", "StraightThrough", "AdjointFiveSteps", "GradientsAveraged"])  # fmt: skip
def test_failures_are_named(name):
    report = check_backend(BUGS[name](), groups=NAMED)
    cause, explained = report.causes[0]
    assert diagnosis(name) in cause
    assert explained


@pytest.mark.slow
def test_an_unknown_error_gets_no_name():
    class Odd(Plain):
        def readout(self, p, X):
            return super().readout(p, X) * p.dtype.type(1.7)

    report = check_backend(Odd(), groups=["ranks"])
    assert report.failed
    assert [cause for cause, _ in report.causes] == ["not explained by a planted bug"]


class Silent(Plain):
    """No status: what does not converge comes as numbers."""

    def forward(self, p):
        out = super().forward(p)
        return {"X": np.nan_to_num(out["X"]), "Y": np.nan_to_num(out["Y"])}


def test_silent_failures_are_found_and_named():
    report = check_backend(Silent(), groups=["ill-posed"])
    assert len(report.failed) >= 4
    assert report.causes[0][0] == "error matches: failures to converge are silent"


def test_said_failures_pass():
    class Says(Silent):
        def forward(self, p):
            import warnings

            warnings.warn("did not converge", stacklevel=1)
            return super().forward(p)

    class Raises(Plain):
        def forward(self, p):
            out = super().forward(p)
            if not out["converged"].all():
                raise RuntimeError("did not converge")
            return out

    for backend in (Says(), Raises()):
        assert not [r for r in check_backend(backend, groups=["ill-posed"]).failed if r.id.endswith("forward")]


# --- vacuity, expectations, declarations ------------------------------------------------------------------------------


class Nothing(Plain):
    capabilities: ClassVar = {"dtypes": ["float64"], "activations": ["relu"], "vjp": False}

    def forward(self, p):
        raise NotImplementedError("later")


def test_not_implemented_is_a_failure_and_not_a_skip():
    report = check_backend(Nothing(), groups=["ranks"])
    assert len(report.failed) == 5
    assert "raised NotImplementedError: later" in report.failed[0].message


def test_a_run_that_asserts_nothing_is_not_ok():
    class Elsewhere(Nothing):
        capabilities: ClassVar = {"activations": ["gelu"]}

    report = check_backend(Elsewhere(), groups=["ranks"])
    assert not report.failed
    assert not report.ok
    assert "nothing was asserted" in report.problems[0]


@pytest.mark.slow
def test_expected_failures():
    expected = {"rank-*": "no low rank yet"}
    report = check_backend(BUGS["FactorsSwapped"](), ["ranks"], expected)
    assert report.ok
    assert {r.outcome for r in report.results} == {"passed", "expected failure"}
    report = check_backend(Plain(), ["ranks"], {"rank-2-float64:forward": "thought so", "nowhere": "stale"})
    assert not report.ok
    assert report.failed[0].message == "passes, and was expected to fail"
    assert any("matches nothing" in text for text in report.problems)


def test_unknown_groups_are_refused():
    with pytest.raises(ValueError, match=r"groups must be among contraction.*got 'contractoin'"):
        check_backend(Plain(), groups=["contractoin"])


def test_capabilities():
    assert Capabilities.declared({}) == Capabilities.declared(None) == Capabilities.declared(set()) == Capabilities()
    words = Capabilities.declared({"float64", "relu", "vjp", "forward"})
    assert (words.dtypes, words.activations, words.vjp, words.low_rank) == (("float64",), ("relu",), True, False)
    assert Capabilities.declared({"dense", "forward"}) == replace(Capabilities(), low_rank=False, vjp=False)
    assert Capabilities.declared({"dtypes": [np.dtype("float32")], "batch": 3}).unknown == ("batch",)
    assert "batch" in str(check_backend(_with({"batch": 3}), groups=["kinks"]))
    with pytest.raises(ValueError, match="capability phi0 must be"):
        Capabilities.declared({"phi0": 0.3})
    with pytest.raises(TypeError, match="mapping or a collection"):
        Capabilities.declared(3)


def _with(declared):
    backend = Plain()
    backend.capabilities = declared
    return backend


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


@parametrize(adapters.IdlRef("numpy"), groups=["kinks", "rank-*"])
def test_parametrised(check):
    check()


@parametrize(adapters.IdlRef("numpy"), groups="kinks")
def test_parametrised_by_one_group(check):
    check()


def test_parametrised_failures_are_raised():
    @parametrize(BUGS["DDropped"](), groups=["rank-2-float64"])
    def test(check):
        check()

    (mark,) = test.pytestmark
    with pytest.raises(pytest.fail.Exception, match="error matches: D U left out of Y"):
        mark.args[1][0].values[0]()


# --- reports and the command line -------------------------------------------------------------------------------------


def test_reports_say_the_same(tmp_path, capsys):
    files = [tmp_path / f"r{suffix}" for suffix in (".json", ".xml", ".md", ".html")]
    arguments = ["conformance", "run", "--backend", "idl_ref.conformance.bugs:DDropped", "--groups", "ranks", "kinks"]
    assert cli.main([*arguments, *(word for file in files for word in ("--report", str(file)))]) == 1
    assert "error matches: D U left out of Y" in capsys.readouterr().out
    content = json.loads(files[0].read_text())
    failed = {r["id"] for r in content["results"] if r["outcome"] == "failed"}
    suite = ET.fromstring(files[1].read_text())
    assert {t.get("name") for t in suite if t.find("failure") is not None} == failed
    assert content["ok"] is False
    for file in files[2:]:
        assert all(id in file.read_text() for id in failed)
    assert "<script" not in files[3].read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "nowhere"], "--backend must be MODULE:OBJECT"),
        (["--backend", "nowhere_at_all:x"], "No module named 'nowhere_at_all'"),
        (["--backend", "idl_ref:nothing"], "idl_ref has no nothing"),
        (["--backend", "idl_ref:fit"], "fit has no name, forward"),
        (["--command", "/nowhere/at/all"], "No such file or directory"),
        (["--backend", "idl_ref.conformance.adapters:numpy", "--report", "x.pdf"], "--report must end in .json"),
        (["--backend", "idl_ref.conformance.adapters:numpy", "--groups", "nope"], "groups must be among"),
    ],
)
def test_bad_commands_are_refused_in_a_sentence(arguments, message, capsys):
    assert cli.main(["conformance", "run", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_list_and_generate(tmp_path, capsys):
    assert cli.main(["conformance", "list", "--groups", "ball"]) == 0
    assert "hunts well-posedness taken for ‖A‖∞ < 1 alone" in capsys.readouterr().out


@pytest.mark.slow
def test_bugs_command(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(runner, "BUGS", {"DDropped": BUGS["DDropped"]})
    assert cli.main(["conformance", "bugs", "--report", str(tmp_path / "bugs.md")]) == 0
    assert "1 of 1 planted bugs found" in capsys.readouterr().out
    assert "D U left out of Y" in (tmp_path / "bugs.md").read_text()
    monkeypatch.setattr(runner, "BUGS", {"Plain": Plain})
    monkeypatch.setattr(runner, "diagnosis", lambda name: name)
    assert cli.main(["conformance", "bugs"]) == 1


# --- other processes, other languages ---------------------------------------------------------------------------------

SERVER = """
import json, sys, time
from pathlib import Path
import numpy as np
from idl_ref.conformance.adapters import IdlRef
from idl_ref.conformance.problem import Capabilities, make
backend = IdlRef("numpy")
mode = sys.argv[1]
for line in sys.stdin:
    request = json.loads(line)
    if request["op"] == "hello":
        print(json.dumps({"name": "server", "capabilities": {"dtypes": ["float64", "float32"]}}), flush=True)
        continue
    if request["op"] == "bye":
        break
    folder, out = Path(request["dir"]), Path(request["out"])
    facts = json.loads((folder / "problem.json").read_text())
    get = lambda f: np.fromfile(folder / f["path"], facts["dtype"]).reshape(f["shape"])
    arrays = {name: get(f) for name, f in facts["arrays"].items()}
    if mode == "crash" and facts["m"] == 0: sys.exit(7)
    if mode == "hang" and facts["m"] == 0: time.sleep(60)
    if mode == "nonsense" and facts["m"] == 0:
        print("what?", flush=True)
        continue
    if mode == "refuse" and facts["m"] == 0:
        print(json.dumps({"error": "no empty batches"}), flush=True)
        continue
    settings = {k: facts[k] for k in ("activation", "dtype", "tol", "max_iter", "f", "kappa", "straight_through")}
    G_Y = arrays.pop("G_Y")
    problem = make(arrays, settings)
    answer = backend.forward(problem) if request["op"] == "forward" else backend.vjp(problem, G_Y)
    prefix = "" if request["op"] == "forward" else "grad_"
    for name, M in answer.items():
        if name in ("Y", "X") or prefix:
            M = M[:, :-1] if mode == "short" and facts["m"] == 37 else M
            np.ascontiguousarray(M).tofile(out / f"{prefix}{name}.bin")
    extra = {k: answer[k].tolist() for k in ("converged", "iterations") if k in answer}
    print(json.dumps({"ok": True, **extra}), flush=True)
"""


def server(tmp_path, mode):
    (tmp_path / "server.py").write_text(SERVER)
    return f"{sys.executable} {tmp_path / 'server.py'} {mode}"


def test_a_process_is_a_backend(tmp_path, capsys):
    assert (
        cli.main(["conformance", "run", "--command", server(tmp_path, "well"), "--groups", "shapes", "ill-posed"]) == 0
    )
    assert "server: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("crash", "the process ended with status 7"),
        pytest.param("hang", "no answer within 3 s", marks=pytest.mark.slow),
        ("nonsense", "an answer must be a JSON object on one line; got 'what?'"),
        ("refuse", "no empty batches"),
        ("short", "Y.bin must have 592 bytes"),
    ],
)
def test_a_crash_is_a_result_and_not_the_end(tmp_path, mode, message):
    backend = remote.Command(server(tmp_path, mode), timeout=3 if mode == "hang" else 60)
    report = check_backend(backend, groups=["shape-m-0-float64", "shape-m-37-float64", "shape-m-1-float64"])
    backend.close()
    assert message in report.failed[0].message
    assert len(report.failed) == 2 if mode != "short" else report.failed
    assert any(r.case == "shape-m-1-float64" for r in report.passed)


@pytest.fixture(scope="module")
def c_backend(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    program = tmp_path_factory.mktemp("c") / "backend"
    flags = ["-std=c99", "-O1", "-g", "-fsanitize=address,undefined", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    subprocess.run([compiler, *flags, str(C_SOURCE), "-lm", "-o", str(program)], check=True)
    return program


@pytest.mark.slow
def test_the_backend_in_c(c_backend, capsys):
    assert len(C_SOURCE.read_text().splitlines()) < 150
    assert cli.main(["conformance", "run", "--command", str(c_backend)]) == 0
    assert " 0 failed" in capsys.readouterr().out


@pytest.mark.slow
def test_files_out_and_back(tmp_path, capsys):
    """Export; solve by reading nothing but the files; check. Then one answer spoilt, one missing."""
    cases, results = tmp_path / "cases", tmp_path / "results"
    assert cli.main(["conformance", "export", str(cases)]) == 0
    backend = adapters.IdlRef("numpy")
    schema = json.loads((cases / "problem.schema.json").read_text())

    for id in (cases / "index.txt").read_text().split():
        facts = json.loads((cases / id / "problem.json").read_text())
        jsonschema.validate(facts, schema)
        arrays = {
            name: np.fromfile(cases / id / f["path"], facts["dtype"]).reshape(f["shape"])
            for name, f in facts["arrays"].items()
        }
        G_Y = arrays.pop("G_Y")
        problem = make(arrays, {k: facts[k] for k in BY_ID[id].problem.settings})
        (results / id).mkdir(parents=True)
        forward = backend.forward(problem)
        for name in ("Y", "X"):
            np.ascontiguousarray(forward[name]).tofile(results / id / f"{name}.bin")
        forward["converged"].astype(np.uint8).tofile(results / id / "converged.bin")
        for name, M in backend.vjp(problem, G_Y).items():
            np.ascontiguousarray(M).tofile(results / id / f"grad_{name}.bin")
    (results / "capabilities.json").write_text(json.dumps({"f": ["inf", "rows", "triu"], "straight_through": True}))
    arguments = ["conformance", "check", str(cases), str(results)]
    assert cli.main(arguments) == 0
    assert "0 skipped" in capsys.readouterr().out
    spoilt = results / "rank-2-float64" / "Y.bin"
    spoilt.write_bytes(spoilt.read_bytes()[:-8] + b"\0" * 8)
    shutil.rmtree(results / "rank-1-float64")
    assert cli.main(arguments) == 1
    out = capsys.readouterr().out
    assert "no answer was written" in out
    assert "rank-2-float64:forward: the error of Y" in out
    (cases / "vectors.sha256").write_text("other")
    assert cli.main(arguments) == 2


def test_relations_fail_on_what_depends_on_the_batch():
    class Coupled(Plain):
        def readout(self, p, X):
            return super().readout(p, X) + p.dtype.type(1e-3) * X.max()

    failed = {r.id.rpartition(":")[2] for r in check_backend(Coupled(), groups=["relations"]).failed}
    assert "split" in failed


def test_adjoint_identity_fails_on_a_wrong_gradient():
    failed = check_backend(BUGS["GradientOfATransposed"](), groups=["relation-adjoint"]).failed
    assert failed
    assert "⟨G_Y, dY⟩" in failed[0].message


def test_either_side_of_the_ball_is_accepted_on_it():
    """A backend that scales wherever ‖A‖∞ ≥ κ has the other one-sided derivative on the ball, and is as right."""

    class Closed(Plain):
        def raw(self, p, gradients):
            (A,), (G,) = p.factors, gradients
            norms = np.abs(A).sum(axis=1)
            s = np.sign(A) * (norms == norms.max())[:, None]
            return {"A": G - (G * A).sum() / norms.max() * s}

    (result,) = [r for r in check_backend(Closed(), groups=["f-inf-on"]).results if r.id.endswith("vjp")]
    assert (result.outcome, result.message) == ("passed", "acceptable answer 3 of 3")


def test_strictness_is_about_the_last_application():
    case = BY_ID["stopping-last-application-relu"]
    loose = bounds.bounds(replace(case, strict=False), case.truths[0])["X"]
    assert (loose > 4 * bounds.bounds(case, case.truths[0])["X"]).all()


@pytest.mark.cuda
@pytest.mark.skipif(
    not os.environ.get("IDL_REF_CUDA"), reason="the CUDA twin runs here in the simulator, or from its PTX"
)
def test_the_cuda_twin_passes():
    """All of it in the simulator; from PTX, which takes seconds each, some of every kind."""
    whole = os.environ["IDL_REF_CUDA"] == "sim"
    few = "contraction-random-0.9-float32 rank-2-float64 kink-ties not-finite-nan-float32"
    few = os.environ.get("IDL_REF_CASES", few).split()  # groups, or patterns of ids
    report = check_backend(adapters.IdlRef("cuda"), None if whole else few)
    assert report.failed == []
    assert report.skipped == []
    assert len(report.passed) > (500 if whole else 7)
