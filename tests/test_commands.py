"""The commands of the pages have their output below them, and print it; docs/newcomer.py runs those of whole pages."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "MPLBACKEND": "agg"}
# What an installation prints helps nobody, and a cluster is not at hand: a sentence says what one sees.
TOLD = ("pip install", "#SBATCH", "mpiexec", "dask scheduler")


def blocks(page):
    """Return (language, text) of every block of a page."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^```([^\n]*)\n(.*?)^```$", text, flags=re.S | re.M)
    return [(kind.removeprefix("{code-block} "), body) for kind, body in found]


@pytest.fixture
def commands(docs_modules):
    """Return a function that gives the commands of a page, each with its output."""
    return lambda page: list(docs_modules("newcomer").commands(blocks(page)))


def run(command, folder):
    """Return what a command prints that the shell finds beside this interpreter."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**ENVIRONMENT, "PATH": path}
    options = {"cwd": folder, "env": environment, "encoding": "utf-8", "capture_output": True, "timeout": 300}
    return subprocess.run(["bash", "-c", command], check=False, **options).stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_shows_what_it_prints(page, commands):
    for command, shown in commands(page):
        assert shown or any(word in command for word in TOLD), command


def test_an_output_belongs_to_the_command_before_it(docs_modules):
    page = [("sh", "a"), ("python", "x"), ("text", "one"), ("sh", "b"), ("sh", "c"), ("text", "two"), ("text", "three")]
    assert list(docs_modules("newcomer").commands(page)) == [("a", "one"), ("b", ""), ("c", "two")]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="the commands of the page are for a shell")
def test_the_commands_of_the_readme_print_what_it_says(tmp_path, commands, docs_modules):
    datasets, newcomer = pytest.importorskip("sklearn.datasets"), docs_modules("newcomer")
    iris = datasets.load_iris()
    rows = [[*map(float, x), iris.target_names[y]] for x, y in zip(iris.data, iris.target, strict=True)]
    for name, chosen in (("plants", [row for k, row in enumerate(rows) if k % 5]), ("new", rows[::5])):
        with open(tmp_path / f"{name}.csv", "w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([[*iris.feature_names, "species"], *chosen])
    program = next(text for kind, text in blocks(ROOT / "docs" / "conformance.md") if kind == "python")
    newcomer.save_package(program, tmp_path)
    with open(tmp_path / "my_package" / "backends.py", "a", encoding="utf-8") as stream:
        stream.write("\n\nmine = Mine()\n")
    found = [(command, shown) for command, shown in commands(ROOT / "README.md") if shown]
    assert len(found) == 3
    for command, shown in found:
        printed = run(re.sub(r"^pip install \S+ && ", "", command), tmp_path)
        assert newcomer.lacking(shown, printed) == [], printed


@pytest.mark.skipif(os.name != "posix", reason="the commands of the page are for a shell")
def test_the_model_of_a_step_prints_what_the_page_says(tmp_path, commands):
    ((command, shown),) = [found for found in commands(ROOT / "docs" / "scale.md") if found[1]]
    pytest.importorskip("matplotlib")
    assert run(command.replace("docs/", f"{ROOT}/docs/"), tmp_path) == shown
    assert (tmp_path / "scale.png").exists()
