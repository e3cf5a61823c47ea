"""The kit's runner loses no result and hangs on nothing, whatever a backend does, and reports it in safe text."""

import asyncio
import json
import os
import subprocess
import sys
import time
import warnings
import xml.etree.ElementTree as ET
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_ref import __main__ as cli
from idl_ref.conformance import adapters, check_backend, process, remote
from idl_ref.conformance.adapters import Plain
from idl_ref.conformance.bugs import BUGS
from idl_ref.conformance.judge import runner, verdicts
from idl_ref.conformance.judge.report import FAILED, PASSED, SKIPPED, Report, Result
from idl_ref.conformance.truth import vectors
from idl_ref.conformance.truth.problem import Deferred

ONE = "rank-1-float64"
ROOT = Path(__file__).parents[1]
POSIX = pytest.mark.skipif(os.name != "posix", reason="groups of processes, pipes and devices are those of POSIX")


class Changed(Plain):
    """A right backend whose answer is changed before it is returned."""

    def __init__(self, change, what="forward"):
        self.change, self.what = change, what

    def _given(self, what, answer):
        return self.change(dict(answer)) if what == self.what else answer

    def forward(self, p):
        return self._given("forward", super().forward(p))

    def vjp(self, p, G_Y):
        return self._given("vjp", super().vjp(p, G_Y))


def first(change, what="forward"):
    """The result of the check that gets a changed answer; the other one must have been judged all the same."""
    report = check_backend(Changed(change, what), [ONE])
    results = {r.id.rpartition(":")[2]: r for r in report.results}
    assert results["vjp" if what == "forward" else "forward"].outcome == PASSED
    return results[what]


def put(**fields):
    return lambda answer: answer | fields


def raising(reason):
    def change(answer):
        raise reason

    return change


class Bound:
    """Like a tensor that belongs to a graph."""

    def __array__(self, *arguments, **options):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")


class Exits:
    def __array__(self, *arguments, **options):
        raise SystemExit(9)

    def __str__(self):
        raise SystemExit(9)


class Mute(Exception):  # noqa: N818
    def __str__(self):
        raise ValueError("no text")


# --- what a Python object returns or raises ---------------------------------------------------------------------------

ANSWERS = {
    "a status of the wrong length": (put(converged=np.ones(5, bool)), "converged must be (4,) booleans; got (5,) bool"),
    "a status in words": (put(converged="yes"), "converged must be (4,) booleans; got () <U3"),
    "NaN as a status": (put(converged=[1, 1, 1, np.nan]), "converged must be (4,) booleans; got (4,) float64"),
    "two as a status": (put(converged=2), "converged must be (4,) booleans"),
    "an object as a status": (put(converged=Exits()), "converged must be an array for NumPy"),
    "a count in words": (put(iterations="many"), "iterations must be (4,) whole numbers"),
    "a negative count": (put(iterations=-1), "iterations must be (4,) whole numbers"),
    "half a step": (put(iterations=1.5), "iterations must be (4,) whole numbers"),
    "a count without end": (put(iterations=10**400), "iterations must be (4,) whole numbers"),
    "a ragged list": (put(Y=[[1.0], [1.0, 2.0]]), "Y must be an array for NumPy; got list"),
    "a tensor of a graph": (put(X=Bound()), "Use tensor.detach().numpy() instead"),
    "an array that exits": (put(X=Exits()), "X must be an array for NumPy; got Exits"),
    "complex numbers": (put(Y=np.ones((2, 4), complex)), "Y must be (2, 4) float64; got (2, 4) complex128"),
    "a masked array": (put(Y=np.ma.masked_all((2, 4))), "Y must be an array of numbers; got a masked one"),
    "a list": (lambda answer: [1], "forward must return a dictionary of arrays; got list"),
    "nothing": (lambda answer: None, "forward must return a dictionary of arrays; got NoneType"),
    "exit": (raising(SystemExit(0)), "raised SystemExit: 0"),
    "the exit of a generator": (raising(GeneratorExit()), "raised GeneratorExit"),
    "a task that was cancelled": (raising(asyncio.CancelledError()), "raised CancelledError"),
    "an exception without a text": (raising(Mute()), "raised Mute: (Mute without a text)"),
    "a text without end": (raising(ValueError("x" * 10**7)), "raised ValueError: xxx"),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_malformed_answer_fails_its_check_alone(kind):
    change, message = ANSWERS[kind]
    result = first(change)
    assert result.outcome == FAILED
    assert message in result.message
    assert len(result.message) < 900


def test_a_malformed_gradient_fails_its_check_alone():
    assert "L must be an array for NumPy; got list" in first(put(L=[[1], [2, 3]]), "vjp").message


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=6,
)


@settings(max_examples=30)
@given(st.dictionaries(st.sampled_from(["X", "Y", "converged", "iterations"]), VALUES, min_size=1))
def test_drawn_answers_are_judged(fields):
    result = first(put(**fields))
    assert result.outcome in (PASSED, FAILED)


def test_a_crash_is_no_report_of_failure():
    """Where a failure must be reported, an exception does so; an exit, a malformed answer and a death do not."""
    for change, outcome in ((raising(ValueError("no")), PASSED), (raising(SystemExit(1)), FAILED), (put(Y=3), FAILED)):
        (result,) = check_backend(Changed(change), ["ill-posed-one-column:forward"]).results
        assert result.outcome == outcome


def test_settings_that_a_backend_changes_do_not_last():
    def change(answer):
        np.seterr(all="raise")
        warnings.simplefilter("error")
        return answer

    assert check_backend(Changed(change), [ONE, "not-finite-nan-float32"]).ok
    assert np.geterr()["over"] == "warn"


def test_an_error_of_the_kit_itself_fails_the_check(monkeypatch):
    monkeypatch.setattr(verdicts, "_against_truth", lambda *_: 1 / 0)
    report = check_backend(Plain(), [ONE])
    assert len(report.failed) == 2
    assert "could not judge the answer: ZeroDivisionError" in report.failed[0].message


def test_an_error_of_the_search_for_causes_loses_no_result(monkeypatch):
    monkeypatch.setattr(runner, "diagnosed", lambda *_: 1 / 0)
    report = check_backend(BUGS["DDropped"](), [ONE])
    assert (len(report.failed), len(report.passed)) == (1, 1)
    assert "the search of causes failed: ZeroDivisionError" in report.notes[0]
    assert json.loads(report.to_json())["ok"] is False


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


class Interrupted(Plain):
    """The user presses Ctrl-C during the second call."""

    calls = 0

    def forward(self, p):
        self.calls += 1
        if self.calls == 2:
            raise KeyboardInterrupt
        return super().forward(p)


def test_an_interrupted_run_reports_what_was_done():
    report = check_backend(Interrupted(), ["ranks"], {"nowhere": "not reached"})
    assert (len(report.passed), report.ok, report.verdict) == (2, False, "interrupted")
    assert report.problems == ()
    assert "Conformance of plain: INTERRUPTED" in str(report)
    assert json.loads(report.to_json())["interrupted"] is True
    assert "the run was interrupted" in report.to_junit()


def test_an_interrupted_command_writes_its_report(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(adapters, "interrupted", Interrupted(), raising=False)
    file = tmp_path / "r.json"
    command = ["conformance", "run", "--backend", "idl_ref.conformance.adapters:interrupted", "--groups", "ranks"]
    assert cli.main([*command, "--report", str(file)]) == 130
    assert len(json.loads(file.read_text(encoding="utf-8"))["results"]) == 2


# --- programs ---------------------------------------------------------------------------------------------------------

HOSTILE = """
import json, os, subprocess, sys, time
mode = sys.argv[1]
def say(**fields):
    print(json.dumps(fields), flush=True)
def write(request):
    folder = request["out"]
    facts = json.load(open(os.path.join(request["dir"], "problem.json")))
    for name, rows in (("X", facts["n"]), ("Y", facts["q"])):
        with open(os.path.join(folder, name + ".bin"), "wb") as stream:
            stream.write(bytes(8 * rows * facts["m"]))
    return os.path.join(folder, "Y.bin")
for line in sys.stdin:
    request = json.loads(line)
    id = request["id"]
    if request["op"] == "bye":
        break
    if request["op"] == "hello":
        if mode == "banner": print("loading", flush=True)
        say(id=id, name="\\x1b[31m\\u202e<script>", capabilities={"vjp": False, "\\x1b[0m<img>": 1})
        continue
    if mode == "grandchild": subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", os.getcwd()])
    if mode in ("hang", "grandchild"): time.sleep(600)
    if mode == "endless":
        while True: os.write(1, b"x" * 65536)
    if mode == "lines":
        while True: os.write(1, b'{"ok": true}\\n' * 4096)
    if mode == "latin": os.write(1, b'{"ok": true, "error": "\\xff"}\\n')
    if mode == "deep": os.write(1, b"[" * 100000 + b"\\n")
    if mode == "dies":
        print("\\x1b[31mno memory\\u202e left", file=sys.stderr, flush=True)
        os.abort()
    if mode == "surrogate": say(id=id, error="lone \\ud800 \\x1b[2J")
    if mode == "maybe": say(id=id, ok="true")
    path = write(request)
    if mode == "log": print("INFO: solving", flush=True)
    if mode == "fifo": os.unlink(path), os.mkfifo(path)
    if mode == "device": os.unlink(path), os.symlink("/dev/zero", path)
    if mode == "folder": os.unlink(path), os.mkdir(path)
    if mode == "loop": os.unlink(path), os.symlink("Y.bin", path)
    if mode == "huge": os.truncate(path, 1 << 40)
    say(id=id - (mode == "other"), ok=True)
    if mode == "double": say(id=id, ok=True)
"""
PROGRAMS = {
    "hang": "no answer within 0.5 s",
    "grandchild": "no answer within 0.5 s",
    "endless": f"wrote more than {process.LINE_LIMIT} bytes without the end of a line",
    "lines": 'an answer must repeat "id": 2 of its request',
    "latin": "an answer must be in UTF-8",
    "deep": "an answer must be a JSON object on one line; got '[[[",
    "dies": "its standard error ends with: \\x1b[31mno memory\\u202e left",
    "surrogate": "lone \\ud800 \\x1b[2J",
    "maybe": 'an answer must have "ok": true or "error"',
    "log": "an answer must be a JSON object on one line; got 'INFO: solving': write logs to standard error",
    "fifo": "Y.bin must be a file; got a pipe",
    "device": "Y.bin must be a file; got a device",
    "folder": "Y.bin must be a file; got a folder",
    "loop": "Too many levels of symbolic links",
    "huge": "Y.bin must have 64 bytes, (2, 4) float64; got 1099511627776",
    "other": 'an answer must repeat "id": 2 of its request',
}
SLEEPY = ("hang", "grandchild")


def program(tmp_path, mode, timeout=30.0, wrapper="{}"):
    (tmp_path / "hostile.py").write_text(HOSTILE, encoding="utf-8")
    command = wrapper.format(f"{sys.executable} -S -E {tmp_path / 'hostile.py'} {mode}")
    return closing(remote.Command(command, timeout))


@POSIX
@pytest.mark.parametrize("mode", PROGRAMS)
def test_a_hostile_program_fails_its_check_alone(tmp_path, mode):
    with program(tmp_path, mode, 0.5 if mode in SLEEPY else 30.0) as backend:
        report = check_backend(backend, [f"{ONE}:forward", "rank-2-float64:forward"])
        assert len(report.failed) == 2
        assert PROGRAMS[mode] in report.failed[0].message
        assert not any(c in str(report) for c in "\x1b\u202e\ud800")


def test_a_double_answer_is_not_taken_for_the_next(tmp_path):
    with program(tmp_path, "double") as backend:
        backend.forward(vectors.load()[0].problem)
        time.sleep(0.3)  # so that the second answer has come
        with pytest.raises(remote.BackendError, match="without a request"):
            backend.forward(vectors.load()[0].problem)


def test_a_banner_before_the_first_answer_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(remote.BackendError, match="got 'loading': write logs to standard error"):
        program(tmp_path, "banner")


@POSIX
def test_a_timeout_kills_what_the_program_has_started(tmp_path, monkeypatch):
    """A wrapper script that waits for its child, and a grandchild: none of them is left, and none is waited for."""
    monkeypatch.chdir(tmp_path)
    with program(tmp_path, "grandchild", 0.5, wrapper="/bin/sh -c '{}; echo done'") as backend:
        began = time.monotonic()
        assert len(_with(str(tmp_path))) > 0
        with pytest.raises(remote.BackendError, match="no answer"):
            backend.forward(vectors.load()[0].problem)
        assert backend.program is None
    assert time.monotonic() - began < 30  # not the 600 s of the program
    deadline = time.monotonic() + 10
    while (alive := _with(str(tmp_path))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive == []


def _with(word):
    """The command lines of other processes that hold a word."""
    shown = subprocess.run(["ps", "axww", "-o", "pid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    processes = [line.split(maxsplit=2) for line in shown.splitlines() if word in line]
    return [args for pid, state, args in processes if int(pid) != os.getpid() and not state.startswith("Z")]


@pytest.mark.slow
def test_a_program_that_is_always_late_is_soon_asked_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "HOPELESS", 4)
    with program(tmp_path, "hang", 0.5) as backend:
        messages = [r.message for r in check_backend(backend, ["ranks"]).failed]
    assert messages[0] == "no answer within 0.5 s"
    assert messages[3] == "no answer within 0.05 s"
    assert messages[-1] == "not asked any more: 4 answers in a row did not come in time"


@settings(max_examples=15)
@given(st.binary(max_size=60) | st.lists(st.sampled_from([b'{"ok":true}\n', b'{"ok":true,"id":2}\n', b"{}\n", b"\n"])))
def test_drawn_output_is_a_result(output):
    output = b"".join(output) if isinstance(output, list) else output
    code = f"import os; os.write(1, b'{{}}\\n' + {output!r})"
    try:
        backend = remote.Command(f'{sys.executable} -S -E -c "{code.encode().hex()}"'.replace(
            f'"{code.encode().hex()}"', f"\"exec(bytes.fromhex('{code.encode().hex()}'))\""), 20)  # fmt: skip
    except remote.BackendError:
        return
    with closing(backend):
        (result,) = check_backend(backend, [f"{ONE}:forward"]).results
    assert result.outcome == FAILED


# --- reports ----------------------------------------------------------------------------------------------------------

CODE_POINTS = st.text(st.characters(categories=None), max_size=40) | st.sampled_from(
    ["\x1b]0;title\x07", "\u202e\u2066", "\ud800", "<script>alert(1)</script>", "](javascript:x) `|` @all #1", "\x00"]
)


@given(CODE_POINTS, CODE_POINTS, CODE_POINTS)
def test_no_text_is_a_control_sequence_or_markup(name, message, cause):
    failed = Result("case:forward", "group", FAILED, 2.0, message, (name,), (cause,), comment=name)
    results = failed, Result("case:vjp", "group", SKIPPED, message=message), Result("b:vjp", name, PASSED, 0.5)
    report = Report(name, results, (message,), (cause,), declared=name, command=message)
    forms = {form: getattr(report, f"to_{form}")() for form in ("json", "junit", "markdown", "html")}
    for text in (str(report), *forms.values()):
        assert all(line.isprintable() for line in text.split("\n"))
        text.encode("utf-8")
    assert json.loads(forms["json"])["results"][0]["causes"]
    suite = ET.fromstring(forms["junit"])
    counts = {"tests": "testcase", "failures": "testcase/failure", "skipped": "testcase/skipped"}
    assert {k: int(suite.get(k)) for k in counts} == {k: len(suite.findall(path)) for k, path in counts.items()}
    for text in (forms["markdown"], forms["html"]):
        assert "<script" not in text


def test_a_report_says_what_to_do_next():
    bug = BUGS["DDropped"]()
    bug.capabilities = {"dtypes": ["float64"], "vjp": False}
    report = check_backend(bug, ["ranks", "shapes"])
    report = replace(report, command="idl-ref conformance run --backend mine:bug")
    text = str(report)
    lines = text.splitlines()
    assert len(lines) <= 24
    for part in (
        "FAILED",
        "dtypes float64; no vjp",
        f"cases {vectors.SHA256[:12]}",
        f"NumPy {np.__version__}",
        "D U left out of Y",
        "again     idl-ref conformance run --backend mine:bug --groups ",
        "checks: vjp is declared off",
    ):
        assert part in text
    case = {case.id: case for case in vectors.load()}[report.failed[0].case]
    assert case.comment in text
    again = next(line for line in lines if "again " in line).rpartition(" ")[2]
    assert [r.id for r in check_backend(bug, [again]).results] == [report.failed[0].id]


def test_a_report_that_cannot_be_written_takes_no_other_with_it(tmp_path, capsys, monkeypatch):
    (tmp_path / "a.md").mkdir()
    good = tmp_path / "b.json"
    command = ["conformance", "run", "--backend", "idl_ref.conformance.adapters:numpy", "--groups", ONE]
    assert cli.main([*command, "--report", str(tmp_path / "a.md"), "--report", str(good)]) == 2
    assert json.loads(good.read_text(encoding="utf-8"))["ok"] is True


# --- what is chosen ---------------------------------------------------------------------------------------------------


def test_every_id_of_a_report_is_a_group():
    everything = [ident for ident, _ in runner.checks(Plain(), runner.chosen(None))]
    for ident in everything[::29]:
        assert [i for i, _ in runner.checks(Plain(), runner.chosen([ident]))] == [ident]
    pattern = [ident for ident, _ in runner.checks(Plain(), runner.chosen(["rank-2-*:vjp"]))]
    assert pattern == ["rank-2-float64:vjp", "rank-2-float32:vjp"]


def test_the_quick_cases_are_few_and_have_something_of_everything():
    cases = [case for case in vectors.load() if not isinstance(case, Deferred)]  # computing the large ones takes long
    few = [case for case in runner.quick(vectors.load()) if not isinstance(case, Deferred)]
    assert len(few) < 0.75 * len(cases)
    for what in (lambda c: c.group, lambda c: c.problem.activation, lambda c: c.layout, lambda c: c.problem.f):
        assert {what(c) for c in few} == {what(c) for c in cases}
    assert {flag for c in few for flag in c.flags} == {flag for c in cases for flag in c.flags}


@pytest.mark.long
def test_the_quick_cases_find_most_bugs():
    chosen, bugs = runner.chosen(None, fast=True), list(BUGS.values())[::20]
    found = [any(run().outcome == FAILED for _, run in runner.checks(bug(), chosen)) for bug in bugs]
    assert sum(found) >= 0.9 * len(found)


# --- under pytest -----------------------------------------------------------------------------------------------------


def under_pytest(tmp_path, *arguments):
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "idl_ref.pytest_plugin", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUTF8": "1"}
    return subprocess.run(
        [*command, *arguments], cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", timeout=600
    )


@pytest.mark.slow
def test_the_plugin_runs_each_check_as_a_test(tmp_path):
    text = "from idl_ref.conformance.bugs import BUGS\nbad = BUGS['DDropped']()\n"
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    done = under_pytest(tmp_path, "--idl-backend", "mine:bad", "--idl-groups", "rank-2-float??")
    assert done.returncode == 1
    assert "2 failed" in done.stdout
    assert "2 passed" in done.stdout
    assert "D U left out of Y" in done.stdout
    assert "again: pytest --idl-backend mine:bad --idl-groups 'rank-2-float64:forward'" in done.stdout
    assert "Traceback" not in done.stdout
    done = under_pytest(tmp_path, "--idl-backend", "mine:nothing")
    assert done.returncode == 4
    assert "--backend: mine has no nothing" in done.stderr


def test_the_plugin_costs_nothing_where_no_backend_is_named(tmp_path):
    text = "import sys\ndef test():\n    assert not {'numpy', 'idl_ref.conformance'} & set(sys.modules)\n"
    (tmp_path / "test_it.py").write_text(text, encoding="utf-8")
    done = under_pytest(tmp_path, "-p", "no:hypothesispytest")
    assert done.returncode == 0, done.stdout
