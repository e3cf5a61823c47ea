"""Run every block of built pages as a newcomer would copy it, one after the other, in a fresh environment.

Usage, from the root of the project: python docs/newcomer.py docs/_build/html

Everybody begins with "Start here". From there, a teacher goes to the 200 lines and to the course, somebody with another
backend to the conformance kit, and somebody with a trained model to its deployment.
"""

import os
import re
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple


class Station(NamedTuple):
    """A page on the way of a newcomer, the folder of the project in which its commands are typed, and what it has."""

    page: str
    folder: str | None  # None: an empty folder of the newcomer's own
    commands: int  # at least so many blocks of commands
    programs: int  # and of Python


LESSONS = (
    *("equilibrium", "wellposed", "solvers", "certificates", "adjoint"),
    *("gradient_checks", "training", "robustness", "composition", "deployment"),
)
WAY = (
    Station("start.html", None, 5, 4),
    Station("teaching/two_hundred_lines.html", ".", 2, 0),
    Station("teaching/index.html", "docs/teaching", 1, 0),
    *(Station(f"teaching/{lesson}.html", ".", 2, 0) for lesson in LESSONS),
    Station("conformance.html", None, 4, 2),
    Station("deployment.html", None, 0, 3),
)
# The graders end with status 1 as long as an exercise is not solved, which is so for the files of a newcomer, as
# the kit does for the backend with two bugs that its page shows.
FAILING = ("grade.py", "my_package")


class Blocks(HTMLParser):
    """(language, text) of every highlighted block of a page, as a reader would copy it."""

    def __init__(self, text):
        super().__init__()
        self.found, self.language, self.depth = [], "", 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        kind = next((c for c in (dict(attributes).get("class") or "").split() if c.startswith("highlight-")), "")
        if tag == "div" and kind:
            self.language = kind.removeprefix("highlight-")
            self.found.append([self.language, ""])
        self.depth += tag == "pre"

    def handle_endtag(self, tag):
        self.depth -= tag == "pre"

    def handle_data(self, data):
        if self.depth:
            self.found[-1][1] += data


def lacking(shown, printed):
    """Return the lines of a page that a command has not printed, in this order; numbers may differ.

    Three dots on the page stand for anything.
    """

    def masked(text):
        return [re.sub(r"[-+]?\d[\d.,]*(?:e[-+]?\d+)?", "#", " ".join(line.split())) for line in text.splitlines()]

    left, missing = iter(masked(printed)), []
    for line in masked(shown):
        pattern = ".*".join(re.escape(part) for part in line.split("…"))
        if not any(re.fullmatch(pattern, each) for each in left):
            missing.append(line)
    return missing


def commands(blocks):
    """Yield the commands of a page, each with the output that stands between it and the next one, or with nothing."""
    for k, (language, text) in enumerate(blocks):
        if language == "sh":
            rest = blocks[k + 1 :]
            end = next((j for j, (kind, _) in enumerate(rest) if kind == "sh"), len(rest))
            yield text, next((shown for kind, shown in rest[:end] if kind == "text"), "")


def save_package(program, folder):
    """Save the backend with which a program begins as my_package/backends.py, as the page of the kit says."""
    (folder / "my_package").mkdir()
    backend, _, _ = program.partition("\nreport = ")
    (folder / "my_package" / "backends.py").write_text(backend, encoding="utf-8")


def walk(site, station, root):
    """Run the blocks of a page in order: an installation in the project, the rest in its folder, then its Python."""
    blocks = Blocks((site / station.page).read_text(encoding="utf-8")).found
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "MPLBACKEND": "agg"}
    with tempfile.TemporaryDirectory() as own:
        folder = own if station.folder is None else root / station.folder
        if station.page == "conformance.html":
            save_package(next(text for language, text in blocks if language == "python"), Path(own))
        for text, shown in commands(blocks):
            print(f"$ {text.strip()}", flush=True)
            place = root if text.startswith("pip install") else folder
            done = subprocess.run(["bash", "-ec", text], cwd=place, env=environment, stdout=subprocess.PIPE, text=True)
            print(done.stdout, flush=True)
            fails = any(each in text for each in FAILING)
            assert done.returncode == 0 or (done.returncode == 1 and fails), done.returncode
            missing = lacking(shown, done.stdout)
            assert not missing, f"{station.page}, {text.strip()}: the page shows what was not printed: {missing}"
        program = "".join(text for language, text in blocks if language == "python")
        if station.programs:  # The 200 lines are a file of the project, shown with the numbers of its lines.
            print("$ python", flush=True)
            subprocess.run([sys.executable, "-c", program], cwd=own, env=environment, check=True)
    languages = [language for language, _ in blocks]
    assert languages.count("sh") >= station.commands, f"{station.page} lost its commands"
    assert languages.count("python") >= station.programs, f"{station.page} lost its Python"


if __name__ == "__main__":
    for each in WAY:
        print(f"-- {each.page}", flush=True)
        walk(Path(sys.argv[1]).resolve(), each, Path.cwd())
