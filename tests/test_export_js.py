"""The exported module of JavaScript gives the answers of the library, up to the error bounds, in Node.js."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hard_exports import exact
from hard_exports import make as hard
from hard_exports import samples as hard_samples
from js_export_backend import NODE, JsExport, outputs, predictions
from test_export import BOUNDED, CASES, check, lower, make, name_of, samples

from idl_ref import ImplicitFunction, ImplicitModel
from idl_ref.__main__ import main
from idl_ref.conformance import check_backend
from idl_ref.export import export, plan
from idl_ref.preprocessing import Standardise

pytestmark = pytest.mark.skipif(NODE is None, reason="Node.js is not installed")
MIX = ["relu"] * 5 + ["sigmoid"] * 4 + ["softplus"] * 4
MIXED = [{"activation": MIX, "bias": True}, {"activation": MIX, "is_low_rank": True, "rank": 3, "dtype": "float64"}]


@pytest.mark.parametrize("case", CASES + MIXED, ids=name_of)
def test_answers(tmp_path, case):
    model = make(case)
    written = export(model, "js", tmp_path)
    assert [path.name for path in written.files] == ["model.mjs"]
    text = written.files[0].read_text(encoding="utf-8")
    code = [line for line in text.splitlines() if "= read(" not in line]
    assert len(code) <= 120
    assert max(map(len, code)) <= 120
    assert not re.search(r"^\s*import\b|require\(", text, re.M)
    U = samples(model)
    found = predictions(written.files[0], U)
    check(model, U, outputs(found, model.output_dim))
    assert {one["status"] for one in found} <= {"CONVERGED", "PRECISION_LIMIT"}
    assert max(one["iterations"] for one in found) <= written.plan.iterations


@pytest.mark.parametrize("case", CASES + MIXED, ids=name_of)
def test_as_many_iterations_suffice_as_in_c(case):
    assert plan.make(make(case), "js").iterations == plan.make(make(case), "c").iterations


def test_a_lower_triangle_is_one_sweep(tmp_path):
    model = lower(make({"f": ImplicitFunction}))
    (path,) = export(model, "js", tmp_path).files
    found = predictions(path, samples(model), trajectory=True)
    check(model, samples(model), outputs(found, model.output_dim))
    assert {(one["iterations"], len(one["trajectory"])) for one in found} == {(1, 1)}


def states(model, U):
    """The exact hidden states (m, n) in extended precision: the outputs of the same model with C = I and no D."""
    settings = {"input_dim": model.input_dim, "output_dim": model.hidden_dim, "hidden_dim": model.hidden_dim}
    settings |= {"f": ImplicitFunction, "no_D": True, "activation": model.activation, "dtype": "float64"}
    whole = ImplicitModel(**settings, bias=model.bias, backend="numpy")
    effective = model.effective()
    whole.parameters["A"][...] = effective["A"] if "A" in effective else effective["L"] @ effective["R"].T
    whole.parameters["B"][...], whole.parameters["C"][...] = effective["B"], np.eye(model.hidden_dim)
    whole.preprocessing = model.preprocessing
    return exact(whole, U)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("seed", range(0, 90, 6))
def test_hard_models_answer_inside_their_range_and_every_step_is_certified(tmp_path, seed):
    model, bounds = hard(seed)
    written = export(model, "js", tmp_path, bounds)
    U = hard_samples(written.plan, 40, seed)
    found = predictions(written.files[0], U, trajectory=True)
    Y, (truth, known) = outputs(found, model.output_dim), exact(model, U)
    assert np.isfinite(Y).all()
    assert (np.abs(Y - truth)[known] <= written.plan.error_bound).all()
    X, known = states(model, U)
    for one, x in zip(np.array(found)[known], X[known], strict=True):
        for step in one["trajectory"]:
            assert np.abs(np.array(step["state"]) - x).max() <= step["error"]
        assert one["error"] == one["trajectory"][-1]["error"]
        assert len(one["trajectory"]) == one["iterations"]


def test_an_iteration_that_cycles_in_the_last_digits_is_an_answer(tmp_path):
    model = ImplicitModel(1, 1, 1, ImplicitFunction, activation="tanh", no_D=True, seed=0, tol=0.0)
    for name, value in (("A", -0.99), ("B", 1.0), ("C", 1.0)):
        model.parameters[name][...] = value
    written = export(model, "js", tmp_path, (-1000, 1000))
    U = np.random.default_rng(1).uniform(-1, 1, (300, 1)).astype(np.float32)
    found = predictions(written.files[0], U)
    assert {one["status"] for one in found} == {"PRECISION_LIMIT"}
    assert np.abs(outputs(found, 1) - exact(model, U)[0]).max() <= written.plan.error_bound


def test_a_certificate_is_near_the_error_where_all_rows_are_equal(tmp_path):
    """With A ≥ 0, equal row sums κ and relu, the error is κ/(1 − κ) times the step: nothing smaller would be true."""
    model = make({"kappa": 0.9, "dtype": "float64", "no_D": True})
    for name, value in (("A", 1.0), ("B", 0.1), ("C", 0.1)):
        model.parameters[name][...] = value
    (path,) = export(model, "js", tmp_path).files
    (one,) = predictions(path, np.ones((1, 5)), trajectory=True)
    for step in one["trajectory"][:50]:
        error = np.abs(np.array(step["state"]) - 0.5 / 0.1).max()
        assert error <= step["error"] <= 1.01 * error


def test_a_trajectory_is_picards_iteration(tmp_path):
    model = make({"bias": True, "dtype": "float64", "tol": 1e-9, "activation": "tanh"})
    (path,) = export(model, "js", tmp_path).files
    U, W = samples(model, 3), model.effective()
    for u, one in zip(U, predictions(path, U, trajectory=True), strict=True):
        x, z, fed = np.zeros(model.hidden_dim), W["B"] @ [*u, 1], W["D"] @ [*u, 1]
        for step in one["trajectory"]:
            before, x = x, np.tanh(W["A"] @ x + z)
            np.testing.assert_allclose(step["state"], x, rtol=1e-12, atol=1e-14)
            np.testing.assert_allclose(step["step"], np.abs(x - before).max(), rtol=1e-6, atol=1e-14)
            np.testing.assert_allclose(step["outputs"], W["C"] @ x + fed, rtol=1e-12, atol=1e-13)
        assert one["outputs"] == one["trajectory"][-1]["outputs"]


@pytest.mark.parametrize("labels", [["zero", "<b>", 'é "\\n"'], [7, 8, 9]], ids=["words", "numbers"])
def test_labels_and_probabilities(tmp_path, labels):
    model = make({})
    (path,) = export(model, "js", tmp_path).files
    (one,) = predictions(path, np.ones((1, 5)))
    assert one["label"] is one["probabilities"] is None
    model.classes = labels
    (path,) = export(model, "js", tmp_path).files
    U = samples(model)
    Y = model(U).astype(float)
    P = np.exp(Y) / np.exp(Y).sum(axis=1, keepdims=True)
    found = predictions(path, U)
    assert [one["label"] for one in found] == [labels[k] for k in Y.argmax(axis=1)]
    np.testing.assert_allclose([one["probabilities"] for one in found], P, atol=1e-5)


@pytest.mark.parametrize("case", BOUNDED, ids=name_of)
def test_hostile_inputs_get_an_error_that_names_them(tmp_path, case):
    model = make(case)
    (path,) = export(model, "js", tmp_path).files
    for value, word in ((np.nan, "NaN"), (np.inf, "Infinity"), (-np.inf, "-Infinity")):
        U = samples(model)
        U[2, 3] = value
        found = predictions(path, U)
        assert found[2] == {"error": f"input 3 must be a finite number; got {word}", "kind": "TypeError"}
        check(model, np.delete(U, 2, 0), outputs(np.delete(found, 2), model.output_dim))
    for given, got in (
        ("[1, 2, 3, 4]", "5 numbers; got 4"),
        ("new Float32Array(6)", "5 numbers; got 6"),
        ("undefined", "5 numbers; got undefined"),
        ("null", "5 numbers; got an object"),
        ("'12345'", "5 numbers; got 12345, a string"),
        ("{ length: 5 }", "5 numbers; got an object"),
        ("[1, 2, 3, 4, '5']", "input 4 must be a finite number; got 5, a string"),
        ("[1, 2, , 4, 5]", "input 2 must be a finite number; got undefined"),
        ("new BigInt64Array(5)", "input 0 must be a finite number; got 0, a bigint"),
        ("[{}, 2, 3, 4, 5]", "input 0 must be a finite number; got an object"),
    ):
        program = f"import {{ predict }} from {json.dumps(path.as_uri())}; predict({given});"
        done = subprocess.run([NODE, "--input-type=module", "-e", program], capture_output=True, text=True, timeout=600)
        assert done.returncode == 1
        assert re.search(rf"TypeError: .*{re.escape(got)}\n", done.stderr), (given, done.stderr)


@pytest.mark.parametrize(
    ("case", "parameter", "value", "u"),
    [
        ({}, "C", 1e30, 1e10),  # The outputs overflow.
        ({"activation": "hardtanh", "no_D": True}, "B", 1e5, 1e35),  # B u overflows, which hardtanh would hide.
        ({}, "B", 1e5, 1e39),  # The input itself overflows in float32.
        ({"f": ImplicitFunction, "no_D": True, "hidden_dim": 2}, "C", 0.0, 3e38),  # The state overflows, C x does not.
    ],
)
def test_overflow_is_nonfinite(tmp_path, case, parameter, value, u):
    model = make(case)
    if parameter == "C" and value == 0.0:
        model.parameters["A"][...] = [[0.9, 0], [0, 0.9]]
        model.parameters["B"][...] = 0.9 / 5
    model.parameters[parameter][...] = value
    (path,) = export(model, "js", tmp_path).files
    (one,) = predictions(path, np.full((1, 5), u))
    assert one["status"] == "NONFINITE"
    assert one["outputs"] == [None] * 3
    assert one["error"] is None  # JSON has no infinity.


def test_outside_the_range_nothing_is_certified_and_the_iterations_stay_bounded(tmp_path):
    model = make({"kappa": 0.97, "tol": 1e-5, "no_D": True, "dtype": "float64"})
    for name in "ABC":
        model.parameters[name][...] = 0.1
    written = export(model, "js", tmp_path, (-2.0, 2.0))
    inside, outside = predictions(written.files[0], [[2.0] * 5, [2e4] * 5])
    assert (inside["status"], outside["status"]) == ("CONVERGED", "MAX_ITER")
    assert 0.75 * written.plan.iterations <= inside["iterations"] <= outside["iterations"] == written.plan.iterations
    assert inside["error"] < 1e-3
    model.preprocessing = Standardise(np.zeros(5), np.full(5, 2.0))
    (path,) = export(model, "js", tmp_path, (np.zeros(5), np.arange(1, 6))).files
    given = np.array([[1, 2, 3, 4, 5], [1, 2, 3, 4, 5.0001], [0, 0, 0, -1e-9, 0]])
    found = predictions(path, given, trajectory=True)
    assert [one["status"] for one in found] == ["CONVERGED"] * 3
    assert [one["error"] is None for one in found] == [False, True, True]
    assert [one["trajectory"][0]["error"] is None for one in found] == [False, True, True]
    assert outside["error"] is None


def test_the_command(tmp_path, capsys):
    model = make({"preprocessing": Standardise(3.0, 2.5)})
    model.save(tmp_path / "model.npz")
    command = ["export", str(tmp_path / "model.npz"), "--to", "js", "-o", str(tmp_path / "out"), "--range", "0", "16"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "for inputs in [0, 16]: at most" in text
    assert "model.mjs" in text
    with pytest.raises(ValueError, match=r'name is for to="c"'):
        export(model, "js", tmp_path, name="mine")


def test_the_code_on_the_page_runs(tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "deployment.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```js\n(.*?)^```", page, re.M | re.S)
    export(ImplicitModel(64, 10, 100, seed=0), "js", tmp_path / "served", bounds=(-1, 1))
    (tmp_path / "page.mjs").write_text(code, encoding="utf-8")
    done = subprocess.run([NODE, "page.mjs"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=600)
    assert "CONVERGED" in done.stdout


@pytest.mark.long
def test_every_case_of_the_kit():
    report = check_backend(JsExport())
    assert report.ok, [f"{result.id}: {result.message}" for result in report.failed]
    assert len(report.passed) >= 200


@pytest.mark.slow
def test_the_kit_passes_some_cases_and_would_notice():
    class Off(JsExport):
        def forward(self, problem):
            given = super().forward(problem)
            return {**given, "Y": given["Y"] + np.float32(1e-2)}

    report = check_backend(JsExport(), groups=["kinks", "ranks"])
    assert report.ok, [f"{result.id}: {result.message}" for result in report.failed]
    assert len(check_backend(Off(), groups=["kinks", "ranks"]).failed) > 2
