"""Run every block of the built page "Start here" as a newcomer would copy it, one after the other.

Usage: python docs/newcomer.py docs/_build/html/start.html, in a fresh environment, from the root of the project.
"""

import os
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path


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


def walk(page, root):
    """Run the blocks in order: the installation in the project, the rest in an empty folder, Python's at the end."""
    blocks = Blocks(page.read_text(encoding="utf-8")).found
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "MPLBACKEND": "agg"}
    with tempfile.TemporaryDirectory() as folder:
        for number, (language, text) in enumerate(blocks):
            if language != "sh":
                continue
            print(f"$ {text.strip()}", flush=True)
            subprocess.run(["bash", "-ec", text], cwd=root if number == 0 else folder, env=environment, check=True)
        program = "".join(text for language, text in blocks if language == "python")
        print("$ python", flush=True)
        subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, check=True)
    languages = [language for language, _ in blocks]
    assert languages.count("sh") >= 5, "the page lost its commands"
    assert languages.count("python") >= 4, "the page lost its Python"


if __name__ == "__main__":
    walk(Path(sys.argv[1]), Path.cwd())
