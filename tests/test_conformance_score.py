"""Scores, two reports compared, and badges."""

import json
import time
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from idl_ref import __main__ as cli
from idl_ref.conformance import check_backend, load_cases
from idl_ref.conformance.adapters import IdlRef, Plain
from idl_ref.conformance.score import badge, speed, words
from idl_ref.conformance.score.accuracy import Noted
from idl_ref.conformance.score.scored import scored


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(speed, "SIZES", {"small": (6, 3, 2, 1), "large": (12, 3, 2, 5)})
    monkeypatch.setattr(speed, "ENOUGH", 0.01)


def run(path, backend, *more):
    status = cli.main(["conformance", "run", "--backend", f"{__name__}:{backend}", "--report", str(path), *more])
    return status, json.loads(path.read_text("utf-8")) if path.suffix == ".json" else path.read_text("utf-8")


class Coarse(Plain):
    """Right within half of the bound or so, slow, and with more iterations than it needs."""

    def stop(self, p, z, noise):
        return 0.5 * super().stop(p, z, noise)


class Wrong(Plain):
    def readout(self, p, X):
        return super().readout(p, X) + (1e-3 if p.A is None else 0)


class Terse(Plain):
    """Reports no iterations, and has no gradients."""

    capabilities = {"vjp": False, "dtypes": ["float32"], "activations": ["tanh", "relu"]}  # noqa: RUF012

    def forward(self, p):
        out = super().forward(p)
        return {name: out[name] for name in "XY"}


def score_of(backend, groups):
    noted = Noted(backend, load_cases())
    return scored(noted, check_backend(noted, groups))


def test_noting_changes_no_verdict():
    plain, noted = (check_backend(b, ["kinks", "ranks"]) for b in (Plain(), Noted(Plain(), load_cases())))
    assert [(r.id, r.outcome, r.ratio) for r in plain.results] == [(r.id, r.outcome, r.ratio) for r in noted.results]


def test_accuracy_is_that_of_the_report():
    """The largest error of any quantity is the largest ratio of the checks, wherever no residual is larger."""
    noted = Noted(IdlRef("numpy"), load_cases())
    report = check_backend(noted, ["rank-2-float64"])
    accuracy = scored(noted, report)["accuracy"]
    assert list(accuracy) == ["X", "Y", "B", "C", "D", "L", "R", "U"]
    assert max(of["worst"] for of in accuracy.values()) <= max(r.ratio for r in report.passed)
    (vjp,) = [r for r in report.passed if r.id == "rank-2-float64:vjp"]
    assert max(accuracy[name]["worst"] for name in "BCDLRU") == vjp.ratio
    assert all(0 <= of["median"] <= of["worst"] < 1 and of["checks"] == 1 for of in accuracy.values())


@pytest.mark.slow
def test_iterations_are_beside_the_fewest():
    found = score_of(IdlRef("numpy", "newton"), ["contraction-perron-0.99-*"])["iterations"]
    assert found["median"] == 1
    found = score_of(IdlRef("numpy", "picard"), ["contraction-perron-0.99-*"])["iterations"]
    assert found["median"] > 20
    assert found["worst"]["method"] in ("newton", "anderson")
    assert found["worst"]["ratio"] == found["worst"]["iterations"] / found["worst"]["fewest"]


def test_what_is_missing_is_said():
    score = score_of(Terse(), ["activations"])
    assert score["iterations"] is None
    assert words.counted(None) == "not reported"
    assert list(score["speed"]) == ["small forward", "large forward"]
    assert speed.problem("small", check_declared(Terse))[0].dtype == np.float32


def check_declared(backend):
    from idl_ref.conformance import Capabilities

    return Capabilities.declared(backend.capabilities)


def test_wrong_answers_have_no_time():
    class Off(Plain):
        def readout(self, p, X):
            return super().readout(p, X) + 1

    class Broken(Plain):
        def vjp(self, p, G_Y):
            raise ArithmeticError("no")

    assert speed.speed(Off(), check_declared(Plain))["small forward"] == {
        "reason": "Y differs from that of the NumPy twin"
    }
    assert speed.speed(Broken(), check_declared(Plain))["small vjp"] == {"reason": "raised ArithmeticError: no"}
    assert speed.memory(Broken(), check_declared(Plain)) == {"reason": "raised ArithmeticError: no"}


def test_the_time_of_a_call_is_the_shortest(monkeypatch):
    monkeypatch.setattr(speed, "ENOUGH", 60.0)
    pauses = iter([0.05, 0.002, 0.03, *[0.01] * speed.REPEATS])
    (shortest,) = speed._quickest(lambda: time.sleep(next(pauses)))
    assert 0.002 <= shortest < 0.009


def test_memory_counts_what_is_allocated():
    class Hungry(Plain):
        def forward(self, p):
            np.zeros(1_000_000)
            return super().forward(p)

    lean, hungry = (speed.memory(b, check_declared(Plain))["bytes"] for b in (Plain(), Hungry()))
    assert 7_000_000 < hungry - lean < 9_000_000


@pytest.mark.slow
def test_the_command_scores_and_compares(tmp_path, capsys):
    some = ("--groups", "kinks", "ranks", "contraction-random-0.9-*")
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    assert run(before, "Plain", "--score", *some)[0] == 0
    status, report = run(after, "Wrong", "--score", *some)
    assert status == 1
    assert set(report["score"]) == {"accuracy", "iterations", "speed", "memory", "words"}
    printed = capsys.readouterr().out
    assert "score     time per problem: small forward" in printed
    assert cli.main(["conformance", "compare", str(before), str(after)]) == 1
    printed = capsys.readouterr().out
    assert " fail now" in printed
    assert "rank-2-float64:forward" in printed
    assert "error of X" in printed
    assert len(printed.splitlines()) < 50
    assert cli.main(["conformance", "compare", str(after), str(before)]) == 0
    assert " pass now" in capsys.readouterr().out


def test_compare_wants_reports(tmp_path, capsys):
    other = tmp_path / "other.json"
    other.write_text("[]")
    assert cli.main(["conformance", "compare", str(other), str(other)]) == 2
    assert "must be a report of schema" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "colour", "text"), [("Plain", "passed", "21 of 21"), ("Wrong", "failed", " of ")])
def test_a_badge_is_a_picture_of_the_result(tmp_path, backend, colour, text):
    _, picture = run(tmp_path / "badge.svg", backend, "--groups", "kinks" if backend == "Plain" else "ranks")
    root = ET.fromstring(picture)
    assert root.tag.endswith("svg")
    assert badge.COLOURS[colour] in picture
    assert text in picture or backend == "Plain"
    assert "idl_ref conformance" in "".join(root.itertext())
