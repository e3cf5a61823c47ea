"""The notebooks of the course run with NumPy alone and print what the pages show; the archive for students is whole."""

import importlib
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
LESSONS = [path.stem for path in sorted((DOCS / "teaching" / "scripts").glob("*.py"))]
BLOCK = "import sys; sys.modules.update(dict.fromkeys(['numba', 'scipy', 'matplotlib', 'sklearn', 'pandas', 'tqdm']))"
pytestmark = [pytest.mark.notebook, pytest.mark.slow]


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    """What the build of the site writes for readers of the course."""
    for name in ("nbclient", "nbformat", "ipykernel", "sphinx_gallery"):
        pytest.importorskip(name, reason="needs the extra docs")
    sys.path.insert(0, str(DOCS))
    folder = tmp_path_factory.mktemp("course") / "downloads"
    importlib.import_module("course").write_downloads(folder)
    sys.path.remove(str(DOCS))
    sys.modules.pop("course")
    return folder


def executed(path, folder, monkeypatch):
    """The notebook after a run in a kernel in which no package but NumPy can be imported by it."""
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    book = nbformat.read(path, as_version=4)
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    book.cells.insert(0, nbformat.v4.new_code_cell(BLOCK))
    NotebookClient(book, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    return book


@pytest.mark.filterwarnings(
    "ignore"
)  # of zmq, asyncio and nbformat, which belong to the kernel and not to the notebook
@pytest.mark.parametrize("lesson", LESSONS)
def test_a_notebook_prints_what_its_page_shows(downloads, tmp_path, monkeypatch, lesson):
    book = executed(downloads / f"{lesson}.ipynb", tmp_path, monkeypatch)
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    assert {output["name"] for output in outputs} == {"stdout"}  # no warning, no value that is left over
    printed = "".join(output["text"] for output in outputs)
    page = (DOCS / "teaching" / f"{lesson}.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^It prints:\n\n```text\n(.*?)```", page, flags=re.S | re.M)
    assert re.sub(r"\d", "0", printed).split() == re.sub(r"\d", "0", shown).split()  # test_course compares the digits
    words = [cell for cell in book.cells if cell.cell_type == "markdown"]
    assert len(words) >= 4
    assert words[0].source.strip().startswith("# Lesson ")


def test_a_notebook_with_an_error_is_seen(downloads, tmp_path, monkeypatch):
    from nbclient.exceptions import CellExecutionError

    book = json.loads((downloads / "equilibrium.ipynb").read_text(encoding="utf-8"))
    book["cells"].append({**book["cells"][1], "source": ["import matplotlib"]})
    path = tmp_path / "broken.ipynb"
    path.write_text(json.dumps(book), encoding="utf-8")
    with pytest.raises(CellExecutionError, match="matplotlib"):
        executed(path, tmp_path, monkeypatch)


def test_students_unpack_and_grade(downloads, tmp_path):
    with zipfile.ZipFile(downloads / "exercises.zip") as archive:
        archive.extractall(tmp_path)
    grader = tmp_path / "exercises" / "grade.py"
    command = [sys.executable, "-I", "-X", "utf8", str(grader)]
    for lesson, code in (("exercises", 1), ("solutions", 0)):
        files = [str(DOCS / "teaching" / lesson / f"{name}.py") for name in LESSONS]
        result = subprocess.run([*command, *files], cwd=tmp_path, capture_output=True, encoding="utf-8")
        assert result.returncode == code, result.stdout + result.stderr
        assert result.stdout.count(": right\n") == (0 if code else 30)
    assert not list(tmp_path.rglob("*solution*"))
