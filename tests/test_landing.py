"""The landing page: its figure, its five lines, the numbers of its doors, its table, each against its source."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from idl_ref import conformance
from idl_ref.conformance.bugs import BUGS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
INDEX = (DOCS / "index.md").read_text(encoding="utf-8")
BENCHMARKS = (DOCS / "benchmarks.md").read_text(encoding="utf-8")


def test_five_lines_print_what_stands_below_them():
    code, output = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", INDEX, re.S).groups()
    assert len(code.splitlines()) == 5
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == output


def test_numbers_of_the_doors_are_counted():
    lesson = (DOCS / "teaching" / "idl_in_200_lines.py").read_text(encoding="utf-8").splitlines()
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    dependencies = re.search(r"^dependencies = \[(.*)\]", project, re.M).group(1).split(",")
    lines, cases, dependency = (int(number) for number in re.findall(r'class="number">(\d+)<', INDEX))
    assert len(lesson) <= lines < len(lesson) + 10
    assert cases == len(conformance.load_cases())
    assert dependency == len(dependencies) == 1
    assert f"<b>{len(BUGS)}</b> planted bugs" in INDEX


@pytest.mark.parametrize(
    ("task", "row", "column"),
    [
        ("| torchidl | one sample by a model |", "one sample, n=100, p=64: model(u)", 0),
        ("| torchidl | a solve with A ≥ 0", "solve, n=512, m=256, A ≥ 0, row sums 0.99", 0),
        ("| torchidl | forward and all gradients", "forward + all gradients", 0),
        ("| JAX, jitted | a solve of low rank", "solve low rank, n=4096", 1),
        ("| JAX, jitted | forward and all gradients", "forward + all gradients", 1),
        ("| JAX, jitted | one epoch", "one epoch of SGD", 1),
    ],
)
def test_the_table_has_the_numbers_of_the_benchmarks(task, row, column):
    ratios = re.findall(
        r"([\d.]+)× ?(?:\(|J|\|)", next(line for line in BENCHMARKS.splitlines() if line.startswith(f"| {row}"))
    )
    shown = next(line for line in INDEX.splitlines() if line.startswith(task)).split("|")[3]
    assert float(re.match(r"\s*([\d.]+)", shown).group(1)) == float(ratios[column])


def test_the_table_has_the_number_of_the_estimators():
    table = (DOCS / "estimators_table.md").read_text(encoding="utf-8")
    ratio, met = (re.search(pattern, table).group(1) for pattern in (r"a ratio of ([\d.]+\d)", r"on (\d) of 7 data"))
    line = next(line for line in INDEX.splitlines() if line.startswith("| scikit-learn"))
    assert float(line.split("|")[3]) == pytest.approx(1 / float(ratio), abs=0.05)
    assert (met, "as accurate on all" in line) == ("7", True)


def test_the_figure_shows_an_iteration_of_the_library(docs_modules):
    """Each certificate is at least the error, both shrink, and the stored picture is of this iteration.

    Last digits of its numbers depend on the machine.
    """
    landing = docs_modules("landing")
    found, bounds, errors = landing.states()
    assert (np.array(bounds[1:]) >= errors[1:]).all()
    assert (np.diff(bounds[1:]) < 0).all()
    assert np.isclose(bounds[-1], float(re.findall(r"at most ([\d.e+-]+) away", INDEX_FIGURE)[-1]), rtol=0.1)
    on_phones = (DOCS / "_static" / "landing_phone.svg").read_text(encoding="utf-8")
    for figure in (INDEX_FIGURE, on_phones):
        assert len(re.findall("<circle", figure)) == len(found) - 1
    assert "prefers-reduced-motion" in INDEX_FIGURE


INDEX_FIGURE = (DOCS / "_static" / "landing.svg").read_text(encoding="utf-8")


def test_pictures_have_words():
    """Every picture of every page has an alternative text."""
    for page in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        if "_build" in page.parts or "gallery" in page.parts:
            continue
        text = page.read_text(encoding="utf-8")
        for words, path in re.findall(r"!\[(.*?)\]\((.*?)\)", text):
            assert len(words) > 10, (page, path)
            assert Path(page.parent, path).exists() or path.startswith("http"), (page, path)


@pytest.mark.browser
def test_the_figure_of_the_landing_page_moves_and_rests_where_readers_ask_for_it(visit):
    for motion, moves in (("no-preference", True), ("reduce", False)):
        page = visit(reduced_motion=motion).open("_static/landing.svg", from_disk=True)
        running = page.evaluate("document.getAnimations().filter(a => a.playState === 'running').length")
        assert (running > 0) == moves


@pytest.mark.browser
def test_a_lesson_of_the_gallery_shows_its_figure_first(visit):
    page = visit().open("gallery/spectrum.html")
    figure, script = page.locator(".figure img"), page.locator("details.script").first
    assert figure.bounding_box()["y"] < script.bounding_box()["y"]
    assert not script.locator("pre").is_visible()
    script.locator("summary").click()
    assert script.locator("pre").is_visible()
