"""Drawn cases: exact, reproducible, passed by right backends; those that fail are shrunk, and written as files."""

import json
from dataclasses import replace

import numpy as np
import pytest

from idl_ref.__main__ import main
from idl_ref.conformance import adapters, check_backend
from idl_ref.conformance.bugs import BUGS
from idl_ref.conformance.judge.smallest import smallest
from idl_ref.conformance.truth import copies, exact, shrinking
from idl_ref.conformance.truth.draws import _apart, drawn, one, unambiguous
from idl_ref.conformance.truth.problem import Deferred

DRAWN = list(drawn(60, seed=1))


def test_a_seed_gives_the_same_cases_whatever_their_number():
    again = list(drawn(3, seed=1))
    assert [case.id for case in again] == ["draw-1-0", "draw-1-1", "draw-1-2"]
    for a, b in zip(again, DRAWN, strict=False):
        assert shrinking.text(a) == shrinking.text(b)
        for name, M in a.truths[0].items():
            np.testing.assert_array_equal(M, b.truths[0][name])
    assert shrinking.text(one("draw-2-0")) != shrinking.text(one("draw-1-0"))


def test_draws_have_something_of_everything():
    problems = [case.problem for case in DRAWN]
    assert {p.dtype.name for p in problems} == {"float32", "float64"}
    assert len({p.activation for p in problems}) >= 8
    assert len({case.layout for case in DRAWN}) >= 4
    for has in (
        lambda p: p.L is not None, lambda p: p.D is None, lambda p: p.X0 is not None, lambda p: p.sizes[0] > 16,
        lambda p: p.f == "inf", lambda p: p.f == "rows", lambda p: p.tol == 0, lambda p: (p.U[-1:] == 1).all(),
    ):  # fmt: skip
        assert any(map(has, problems))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_twins_pass_draws(backend):
    report = check_backend(adapters.IdlRef(backend), draws=60, seed=1)
    assert report.ok, report
    assert len(report.passed) == 120


@pytest.mark.slow
def test_draws_find_bugs_that_the_frozen_cases_find():
    for name in ("AdjointNotTransposed", "StraightThrough"):
        assert check_backend(BUGS[name](), draws=60, seed=1).failed, name


def test_new_cases_are_checked_alone_or_with_the_groups_that_are_named():
    only = check_backend(adapters.Plain(), draws=2, more=[replace(DRAWN[3], id="mine")])
    assert {r.case for r in only.results} == {"draw-0-0", "draw-0-1", "mine"}
    both = check_backend(adapters.Plain(), groups=["rank-1-float64", "draw-0-1"], draws=2)
    assert {r.case for r in both.results} == {"rank-1-float64", "draw-0-1"}


# --- shrinking --------------------------------------------------------------------------------------------------------


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("name", "check", "largest"),
    [("DDropped", "forward", (1, 1, 1, 1)), ("GradientOfLWithL", "vjp", (1, 1, 1, 1)),
     ("AdjointNotTransposed", "vjp", (2, 1, 1, 1))],
)  # fmt: skip
def test_a_failing_draw_is_shrunk_to_the_smallest(name, check, largest):
    bug = BUGS[name]()
    id = next(r.case for r in check_backend(bug, draws=40, seed=3).failed if r.id.endswith(check))
    small = smallest(bug, one(id), check)
    assert small.problem.sizes == largest
    assert small.problem.activation == "identity"
    assert small.layout == "C"
    whole = exact.answer(small.problem, small.G_Y)
    assert all(np.array_equal(M, small.truths[0][name]) for name, M in whole.arrays.items())
    assert [r.id for r in check_backend(bug, more=[small]).failed if r.id.endswith(check)]
    assert check_backend(adapters.Plain(), more=[small]).ok


def test_the_time_for_shrinking_has_an_end():
    case = DRAWN[0]
    assert shrinking.shrunk(case, lambda smaller: True, seconds=0) is case


def test_a_case_without_a_proved_answer_is_not_taken():
    case = one("draw-1-1")
    beyond = {**case.problem.arrays, "A": 3 * np.eye(2), "G_Y": case.G_Y}
    assert shrinking._changed(case, {name: M for name, M in beyond.items() if name not in "LR"}, {}) is None


def test_a_case_whose_slopes_rounding_decides_is_not_taken():
    case = next(case for case in DRAWN if case.problem.activation == "relu" and case.problem.f == "none")
    arrays = {**case.problem.arrays, "G_Y": case.G_Y}
    assert shrinking._changed(case, arrays, {}) is not None
    assert shrinking._changed(case, arrays | {"U": 0 * arrays["U"]}, {}) is None  # X = 0, where relu has its kink


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", DRAWN[:12], ids=lambda case: case.id)
def test_a_case_is_the_same_after_a_file(case, tmp_path):
    (tmp_path / "case.json").write_text(shrinking.text(case), encoding="utf-8")
    back = shrinking.read(tmp_path / "case.json")
    assert shrinking.text(back) == shrinking.text(case)
    for name, M in case.truths[0].items():
        np.testing.assert_array_equal(back.truths[0][name], M)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"schema": "other"}, "its schema is 'other'"), ({"arrays": {}}, "got 'A'|got 'L'|got 'B'"),
     ({"layout": "spiral"}, "spiral"), ({"settings": 3}, "must hold a case")],
)  # fmt: skip
def test_other_files_are_refused(change, message, tmp_path):
    content = json.loads(shrinking.text(DRAWN[0])) | change
    (tmp_path / "case.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        shrinking.read(tmp_path / "case.json")


@pytest.mark.slow
def test_the_command_writes_what_it_can_be_given_again(tmp_path, capsys):
    run = ["conformance", "run", "--backend", "idl_ref.conformance.bugs.gradients:GradientOfLWithL"]
    assert main([*run, "--draws", "12", "--seed", "3", "--smallest", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    files = sorted(tmp_path.glob("draw-3-*.json"))
    assert 1 <= len(files) <= 3
    assert f"--cases {files[0]}" in out
    assert "--draws 12 --seed 3 --groups draw-3-" in out
    assert main([*run, "--cases", *map(str, files), "--smallest", str(tmp_path)]) == 1
    right = ["conformance", "run", "--backend", "idl_ref.conformance.adapters:Plain", "--cases", *map(str, files)]
    assert main(right) == 0


# --- what is not drawn ------------------------------------------------------------------------------------------------


def test_draws_on_which_rounding_decides_are_thrown_away():
    case = one("draw-1-0")
    problem = replace(case.problem, activation="relu")
    near = replace(case, problem=problem.with_arrays({"U": 0 * problem.U}))
    zero = {name: 0 * M for name, M in case.truths[0].items()}
    assert not unambiguous(replace(near, truths=(zero,)))
    for f, row, apart in (("inf", [0.25, 0.25], False), ("inf", [0.5, 0.4], True), ("rows", [0.5, 1e-5], False),
                          ("rows", [0.75, 0.05], True), ("rows", [0.75, 0.25 + 1e-5], False)):  # fmt: skip
        weights = np.array([row, [0.1, 0.1]])
        assert _apart(weights, replace(problem, f=f, kappa=0.5)) == apart, (f, row)


def test_scales_commute_only_where_they_are_said_to():
    assert not set(copies.HOMOGENEOUS) & set(copies.ODD)
    assert all(type(case) is Deferred for case in DRAWN)


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        ("id", "../evil", "got the id '../evil', which is no name"),
        ("id", "/tmp/evil", "which is no name"),
        ("id", ["a"], "which is no name"),
        ("id", "a\x1b[31m", "which is no name"),
        ("flags", "stale", "flags that are no list of words"),
        ("shapes", [1], "has no attribute 'items'"),
        ("tol", "x", "tol must be a number ≥ 0"),
        ("tol", float("nan"), "tol must be a number ≥ 0"),
        ("max_iter", -5, "max_iter must be a whole number, at least 1"),
        ("kappa", "x", "kappa must be a number ≥ 0"),
        ("dtype", "int8", "dtype must be one of"),
        ("f", "nope", "f must be one of"),
        ("straight_through", "yes", "straight_through must be True or False"),
    ],
)
def test_a_malformed_case_is_refused_with_its_file(tmp_path, where, value, words):
    """It must not write elsewhere, and must not look like a fault of the backend."""
    content = json.loads(shrinking.text(one("draw-1-0")))
    (content if where in content else content["settings"])[where] = value
    (tmp_path / "case.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=r"case\.json must hold a case that") as caught:
        shrinking.read(tmp_path / "case.json")
    assert words in str(caught.value)


def test_deep_json_is_no_case(tmp_path):
    (tmp_path / "case.json").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(ValueError, match=r"case\.json must hold a case that"):
        shrinking.read(tmp_path / "case.json")
