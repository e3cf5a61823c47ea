"""The kit's command line: reports, and backends that are processes or folders of answers."""

import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from functools import partial
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from idl_ref import __main__ as cli
from idl_ref.conformance import adapters, check_backend, remote
from idl_ref.conformance.adapters import Plain
from idl_ref.conformance.bugs import BUGS
from idl_ref.conformance.judge import detection
from idl_ref.conformance.truth import vectors
from idl_ref.conformance.truth.backend import WITH_STORAGE
from idl_ref.conformance.truth.problem import make

BY_ID = {case.id: case for case in vectors.load()}
ROOT = Path(__file__).parents[1]
C_SOURCE = ROOT / "examples" / "c_backend" / "backend.c"


def test_reports_say_the_same(tmp_path, capsys):
    files = [tmp_path / f"r{suffix}" for suffix in (".json", ".xml", ".md", ".html")]
    broken = "idl_ref.conformance.bugs.equation:DDropped"
    arguments = ["conformance", "run", "--backend", broken, "--groups", "ranks", "kinks"]
    assert cli.main([*arguments, *(word for file in files for word in ("--report", str(file)))]) == 1
    assert "D U left out of Y" in capsys.readouterr().out
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
    assert "meant to find ‖A‖∞ < 1 taken for a necessary condition of well-posedness" in capsys.readouterr().out


def test_bugs_command(monkeypatch, tmp_path, capsys):
    bugs = {"DDropped": detection.Broken("equation", "D U left out of Y", BUGS["DDropped"])}
    monkeypatch.setattr(detection, "broken", lambda: bugs)
    monkeypatch.setattr(detection, "Hunt", partial(detection.Hunt, [BY_ID["rank-1-float64"], BY_ID["kink-ties"]]))
    assert cli.main(["conformance", "bugs", "--all", "--report", str(tmp_path / "bugs.md")]) == 0
    assert "1 of 1 bugs found" in capsys.readouterr().out
    text = (tmp_path / "bugs.md").read_text()
    assert "| D U left out of Y | `rank-1-float64:forward` |" in text
    assert "| `rank-1-float64` | 1 | 1 |" in text
    assert "| `kink-ties` | 0 | 0 |" in text
    bugs["DDropped"] = detection.Broken("none", "nothing", Plain)
    assert cli.main(["conformance", "bugs"]) == 1
    assert "NOT FOUND" in capsys.readouterr().out


# --- other processes, other languages ---------------------------------------------------------------------------------

SERVER = """
import json, sys, time
from pathlib import Path
import numpy as np
from idl_ref.conformance.adapters import IdlRef
from idl_ref.conformance.truth.problem import make
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
        cli.main(
            [
                "conformance",
                "run",
                "--command",
                server(tmp_path, "well"),
                "--groups",
                "shapes",
                "ill-posed",
                "protocol-changed",
                "protocol-threads",
            ]
        )
        == 0
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
    assert len(C_SOURCE.read_text().splitlines()) < 160
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
        dtype = facts["dtype"].replace("bfloat16", "float32")  # files hold what float32 can, as its numbers
        arrays = {
            name: np.fromfile(cases / id / f["path"], dtype).reshape(f["shape"]) for name, f in facts["arrays"].items()
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
    (results / "capabilities.json").write_text(json.dumps(WITH_STORAGE))
    arguments = ["conformance", "check", str(cases), str(results)]
    assert cli.main(arguments) == 0
    assert "skipped   5 checks: iterations is not declared" in capsys.readouterr().out
    spoilt = results / "rank-2-float64" / "Y.bin"
    spoilt.write_bytes(spoilt.read_bytes()[:-8] + b"\0" * 8)
    shutil.rmtree(results / "rank-1-float64")
    assert cli.main(arguments) == 1
    out = capsys.readouterr().out
    assert "no answer was written" in out
    assert "rank-2-float64:forward" in out
    assert "the error of Y" in out
    (cases / "vectors.sha256").write_text("other")
    assert cli.main(arguments) == 2
