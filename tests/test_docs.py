"""Every code block of the pages runs unchanged, every example runs and asserts its claims, every link has a target."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SMALL = {"train_digits": ["3"], "hard_equilibrium": ["128"]}
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "MPLBACKEND": "agg"}
WARNINGS = "error,ignore:FigureCanvasAgg is non-interactive"  # plt.show() warns without a display.


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)


def named(page):
    return str(page.relative_to(ROOT))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=named)
def test_code_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks(page, "python"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            exec(compile(block, page.name, "exec"), names)


@pytest.mark.slow
def test_the_newcomers_commands_run(tmp_path):
    """All commands of "Start here" except the installation run one after the other in one folder."""
    commands = [block.strip() for block in blocks(DOCS / "start.md", "sh")]
    assert commands[0].startswith("pip install")
    program = shutil.which("idl-ref", path=str(Path(sys.executable).parent))
    assert program, "the console script stands beside the interpreter"
    outputs = []
    for command in commands[1:]:
        words = command.split()
        assert words[0] == "idl-ref"
        result = subprocess.run([program, *words[1:]], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, check=True)
        outputs.append(result.stdout.decode())
    assert any("well-posedness: ok; gradients: ok" in output for output in outputs)
    assert any(" passed, 0 failed" in output for output in outputs)
    assert (tmp_path / "served" / "predict.py").exists()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), target


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_short_and_assert_what_they_show(example):
    text = example.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 80
    assert re.search(r"^ *assert ", text, flags=re.M)


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(path, marks=pytest.mark.slow if path.stem == "verify_torchidl" else pytest.mark.long)
        for path in EXAMPLES
    ],
    ids=lambda path: path.stem,
)
def test_examples_run(example, tmp_path):
    """The gallery of the site runs all but one of them too, so that `.ci/run` has seen them without this test."""
    command = [sys.executable, str(example), *SMALL.get(example.stem, [])]
    environment = {**ENVIRONMENT, "PYTHONWARNINGS": WARNINGS}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=600)


def test_the_citation_names_this_version():
    fields = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.*)$", fields, flags=re.M)[1] == importlib.import_module("idl_ref").__version__


# --- the map from equations to functions and tests --------------------------------------------------------------------

MAP = (DOCS / "map.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", re.findall(r"\{py:\w+\}`~?([\w.]+)`", MAP))
def test_functions_on_the_map_exist(name):
    module, _, function = name.rpartition(".")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize(("test", "path"), re.findall(r"\[(test_\w+)\]\(([^)]+)\)", MAP))
def test_tests_on_the_map_exist(test, path):
    tree = ast.parse((DOCS / path).read_text(encoding="utf-8"))
    assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


# --- the site: built in CI, checked by docs/check_site.py -------------------------------------------------------------


def test_the_gallery_knows_every_example(docs_modules):
    lessons = docs_modules("lessons")
    assert sorted(lessons.ORDER + lessons.LEFT_OUT) == [example.stem for example in EXAMPLES]


@pytest.mark.parametrize("formula", ["|A|^2 z", r"\|A\|^2 z", r"\lvert A\rvert^2 z", r"\lVert A\rVert^2 z"])
def test_bars_stand_close_to_what_they_enclose(docs_modules, formula):
    pytest.importorskip("latex2mathml", reason="needs the extra docs")
    bars = re.findall(r"<mo([^>]*)>[|‖]</mo>", docs_modules("mathml").mathml(formula, "inline"))
    assert bars == [' stretchy="false" lspace="0" rspace="0"'] * 2


WHOLE = '<link rel="stylesheet" href="a.css"><h1 id="top">One</h1><a href="#top">up</a><a href="b.html#two">two</a>'


@pytest.mark.parametrize(
    ("page", "found"),
    [
        (WHOLE, ""),
        ('<a href="c.html">', "broken link c.html"),
        ('<a href="b.html#three">', "no anchor for b.html#three"),
        ('<img src="figure.png">', "broken link figure.png"),
        ('<img srcset="a.css, twice.png 2x">', "broken link twice.png"),
        ('<script src="https://cdn.example/x.js"></script>', "loads https://cdn.example/x.js from the network"),
        ('<script src="//cdn.example/x.js"></script>', "loads //cdn.example/x.js from the network"),
        ("<p>the norm $\\|A\\|$ of A</p>", "not rendered"),
        ("<p>see {py:func}`f`</p>", "not rendered"),
        ('<div class="system-message">', "not rendered"),
        ("<code>$x$ {ref}</code>", ""),
        ("<pre>/home/me/x.py:7: UserWarning: mind the gap</pre>", "warns: UserWarning: mind the gap"),
    ],
)
def test_what_is_wrong_with_a_site_is_found(docs_modules, tmp_path, page, found):
    (tmp_path / "a.html").write_text(page, encoding="utf-8")
    (tmp_path / "b.html").write_text('<p id="two">', encoding="utf-8")
    (tmp_path / "a.css").write_text("p { color: red }", encoding="utf-8")
    problems = list(docs_modules("check_site").problems(tmp_path, ["two"]))
    assert [found in problem for problem in problems] == [True] * bool(found)


def test_a_public_name_without_documentation_is_found(docs_modules, tmp_path):
    (tmp_path / "a.html").write_text('<p id="idl_ref.fit">', encoding="utf-8")
    check = docs_modules("check_site")
    assert "no page documents idl_ref.load" in list(check.problems(tmp_path, check.public_names()))
    assert "no page documents idl_ref.fit" not in list(check.problems(tmp_path, check.public_names()))


def test_a_style_sheet_that_asks_the_network_is_found(docs_modules, tmp_path):
    (tmp_path / "a.html").write_text("", encoding="utf-8")
    (tmp_path / "a.css").write_text("@import 'https://fonts.example/a.css';", encoding="utf-8")
    assert list(docs_modules("check_site").problems(tmp_path)) == [
        "a.css: loads https://fonts.example/a.css from the network"
    ]


def test_a_page_that_shows_what_a_command_does_not_print_is_found(docs_modules):
    lacking = docs_modules("newcomer").lacking
    printed = "model (64, relu)\nloss 0.25 after 3 epochs\nwrote model.npz\n"
    assert lacking("model (…)\nloss 0.3 after 3 epochs\n…\n", printed) == []
    assert lacking("loss 1e-3 after 20 epochs\nwrote model.npz\n", printed) == []
    assert lacking("loss 0.3 after 3 steps\n", printed) == ["loss # after # steps"]
    assert lacking("wrote model.npz\nloss 0.3 after 3 epochs\n", printed) == ["loss # after # epochs"]  # another order
