"""The pages that people search for: their programs and commands print what stands below them."""

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NUMBER = r"-?\d[\d.,]*(?:e[+-]?\d+)?"


def page(name):
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def same(printed, text, rel):
    """Assert that two texts have the same words and, if `rel` is given, numbers that differ by a fraction of `rel`."""
    printed, text = ([line.rstrip() for line in each.strip().splitlines()] for each in (printed, text))
    assert [re.sub(NUMBER, "#", line) for line in printed] == [re.sub(NUMBER, "#", line) for line in text]
    if rel is not None:
        found, expected = (re.findall(r"-?\d+\.\d+", "\n".join(lines)) for lines in (printed, text))
        assert [float(number) for number in found] == pytest.approx([float(number) for number in expected], rel=rel)


def blocks(text, language):
    """The programs of a page in their order, each with the output that stands below it, or nothing."""
    return re.findall(rf"```(?:{{code-block}} )?{language}\n(.*?)```\n*(?:```text\n(.*?)```)?", text, flags=re.S)


@pytest.mark.slow
def test_the_programs_for_users_of_scikit_learn_print_what_the_page_says():
    pytest.importorskip("sklearn")
    names, shown = {}, 0
    for program, text in blocks(page("from_scikit_learn"), "python"):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(program, "from_scikit_learn.md", "exec"), names)
        if text:
            same(out.getvalue(), text, 0.015)  # two of the 143 test samples
            shown += 1
    assert shown == 1


def test_the_table_of_parameters_has_all_of_both_estimators():
    sklearn = pytest.importorskip("sklearn.neural_network")
    from idl_ref import ImplicitClassifier

    rows = re.findall(r"^\| (.*?) \| (.*?) \|", page("from_scikit_learn"), flags=re.M)
    theirs, ours = (" ".join(row[k] for row in rows) for k in range(2))
    same_name = {"tol", "n_iter_no_change", "early_stopping", "validation_fraction", "warm_start", "random_state"}
    for name in ImplicitClassifier().get_params().keys() - same_name - {"verbose", "backend"}:
        assert f"`{name}" in ours, name
    for name, value in sklearn.MLPClassifier().get_params().items():
        if shown := re.search(rf"`{name}=([^`]*)`", theirs):
            assert shown[1].strip('"') in (str(value), "logistic"), name
    for name, value in ImplicitClassifier().get_params().items():
        if shown := re.search(rf"`{name}=([^`]*)`", ours):
            assert shown[1].strip('"') in (str(value), "sigmoid"), name
    assert same_name <= sklearn.MLPClassifier().get_params().keys() & ImplicitClassifier().get_params().keys()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="the commands of the page are for a shell")
def test_the_commands_for_your_data_print_what_the_page_says(tmp_path):
    text = page("your_data")
    (first, _), (last, answers) = blocks(text, "python")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "PYTHONWARNINGS": "error"}
    options = {"cwd": tmp_path, "env": environment, "encoding": "utf-8", "capture_output": True, "timeout": 300}
    subprocess.run([sys.executable, "-c", first], check=True, **options)
    function = f'idl-ref() {{ "{sys.executable}" -m idl_ref "$@"; }}\n'
    commands = blocks(text, "sh")
    outputs = []
    assert len(commands) == 6
    for command, expected in commands:
        done = subprocess.run(["bash", "-c", function + command], check=False, **options)
        errors = [line for line in done.stderr.splitlines() if line.startswith("idl-ref: error")]
        outputs.append(done.stdout)
        same("\n".join(errors + done.stdout.splitlines()), expected, None)
    done = subprocess.run([sys.executable, "-c", last], check=True, **options)
    assert done.stdout == answers
    printed = " ".join(outputs)
    assert float(re.search(r"test R²: (\S+);", printed)[1]) > 0.8
    assert float(re.search(r"test accuracy: (\S+) %", printed)[1]) > 90


@pytest.mark.parametrize("part", range(4))
def test_the_programs_for_users_of_pytorch_and_jax_run(part, monkeypatch):
    """Each block of the page that needs a framework runs alone, and checks what it says by its own assertions."""
    programs = re.findall(r"```(?:{code-block} )?python\n(.*?)```", page("from_pytorch_and_jax"), flags=re.S)
    assert len(programs) == 4
    for name in ("torch", "jax"):
        if re.search(rf"^import {name}$", programs[part], flags=re.M):
            pytest.importorskip(name)
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "backends"))
    assert re.search("^assert ", programs[part], flags=re.M)
    exec(compile(programs[part], "from_pytorch_and_jax.md", "exec"), {})


def test_the_iterations_on_the_page_of_limits_are_those_of_its_program():
    ((program, text),) = blocks(page("limits"), "python")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(program, {})
    rows, expected = ([float(word) for word in each.split()] for each in (out.getvalue(), text))
    assert rows == pytest.approx(expected, rel=0.05)
