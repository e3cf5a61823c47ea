"""The course: its lessons in their order, their scripts as notebooks, and their exercises without the solutions.

Run, from the root of the project: python docs/course.py
It writes the skeletons, docs/teaching/exercises/LESSON.py, anew from docs/teaching/solutions/.
"""

import ast
import copy
import json
import zipfile
from pathlib import Path

TEACHING = Path(__file__).parent / "teaching"
LESSONS = (
    "equilibrium",
    "wellposed",
    "solvers",
    "certificates",
    "adjoint",
    "gradient_checks",
    "training",
    "robustness",
    "composition",
    "deployment",
)


def notebook(script):
    """The notebook of a script: text for each block of comments below # %%, code for the rest."""
    from sphinx_gallery import gen_gallery
    from sphinx_gallery.notebook import jupyter_notebook
    from sphinx_gallery.py_source_parser import split_code_and_text_blocks

    _, blocks = split_code_and_text_blocks(str(script))
    return jupyter_notebook(blocks, copy.deepcopy(gen_gallery.DEFAULT_GALLERY_CONF), str(script.parent))


def write_downloads(folder):
    """Write the notebook of each lesson, and all that grades the exercises as one archive."""
    folder.mkdir(exist_ok=True)
    for lesson in LESSONS:
        text = json.dumps(notebook(TEACHING / "scripts" / f"{lesson}.py"), indent=1, ensure_ascii=False)
        (folder / f"{lesson}.ipynb").write_text(text + "\n", encoding="utf-8")
    exercises = TEACHING / "exercises"
    with zipfile.ZipFile(folder / "exercises.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(exercises.rglob("*.py")):
            archive.write(path, path.relative_to(TEACHING))


def skeleton(lesson):
    """The solutions of a lesson without their bodies: a student writes them."""
    text = (TEACHING / "solutions" / f"{lesson}.py").read_text(encoding="utf-8")
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    title = text.splitlines()[0].removeprefix('"""Solutions of l').split(", for teachers.")
    model = title[1].removesuffix('"""')
    parts = [
        f'"""L{title[0]}: three exercises.{model}\n\n'
        "Write each function in the place of its last line, with NumPy. Then the grader says what is wrong:\n"
        f'python grade.py {lesson}.py\n"""\n\nimport numpy as np  # noqa: F401 (for your code)'
    ]
    for node in functions:
        arguments = ", ".join(each.arg for each in node.args.args)
        parts.append(
            f'def {node.name}({arguments}):\n    """{ast.get_docstring(node)}"""\n    raise NotImplementedError'
        )
    return "\n\n\n".join(parts) + "\n"


if __name__ == "__main__":
    for name in LESSONS:
        (TEACHING / "exercises" / f"{name}.py").write_text(skeleton(name), encoding="utf-8")
