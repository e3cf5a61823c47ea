"""A script that uses the public names passes `mypy --strict`, and no public name has the type Any.

.ci/run also checks the script against the installed wheel, with mypy and with pyright.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typed_user

import idl_ref

pytest.importorskip("mypy", reason="mypy comes with the extra dev")
ROOT = Path(idl_ref.__file__).parents[1]
TYPES = {
    "model.kappa": "float",
    "model.rank": "int | None",
    "model.bias": "bool",
    "model.activation": "str",
    "model.dtype": "numpy.dtype[Any]",
    "model.f": "type[idl_ref.functions.ImplicitFunction]",
    "model.settings.mitr": "int",
    "model.preprocessing": "idl_ref.preprocessing.Standardise | None",
    "model.freeze()": "idl_ref.predictor.Predictor",
    "model.freeze().settings": "idl_ref.settings.Settings",
    "model.equilibrium(x)": "idl_ref.solution.Solution",
    "model.equilibrium(x).converged": "bool",
    "idl_ref.load('model.npz')": "idl_ref.model.ImplicitModel",
    "idl_ref.fit(model, x, x).loss": "list[float]",
    "idl_ref.check_gradients(model, x, x).rows[0].verdict": "str",
    "idl_ref.available_backends()": "dict[str, str]",
    "idl_ref.wellposed.perron_root(x).upper": "float",
    "idl_ref.export.export(model, 'c', '.').plan.iterations": "int",
    "idl_ref.conformance.check_backend(idl_ref.conformance.adapters.IdlRef()).ok": "bool",
    "idl_ref.analysis.cascade(model, model)": "idl_ref.model.ImplicitModel",
    "idl_ref.__version__": "str",
}
WRONG = {
    "model.kappa = 0.5": "Incompatible types in assignment",
    "model.kapa": 'has no attribute "kapa"',
    "idl_ref.nonsense": 'has no attribute "nonsense"',
    "idl_ref.plots.nonsense": 'has no attribute "nonsense"',
    "idl_ref.fit(model, x)": 'Missing positional argument "targets"',
    "from idl_ref import *\nImplicitMode": 'Name "ImplicitMode" is not defined',
}
HEAD = "import numpy as np\nimport idl_ref\nmodel, x = idl_ref.ImplicitModel(2, 2, 4), np.ones((3, 2))\n"


@pytest.fixture(scope="module")
def mypy(tmp_path_factory):
    """Run `mypy --strict` on a program, and return its exit status and its output. All calls share one cache."""
    folder = tmp_path_factory.mktemp("mypy")

    def check(program):
        (folder / "program.py").write_text(program, encoding="utf-8")
        options = ["--strict", "--config-file=", "--follow-imports=silent", f"--cache-dir={folder}/cache"]
        command = [sys.executable, "-m", "mypy", *options, "program.py"]
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "MYPYPATH": str(ROOT)}, capture_output=True, text=True
        )
        assert not done.stderr
        return done.returncode, done.stdout

    return check


def test_the_package_says_that_it_is_typed():
    assert (Path(idl_ref.__file__).parent / "py.typed").is_file()


def test_the_script_runs(capsys):
    typed_user.main()
    assert "available" in capsys.readouterr().out


@pytest.mark.slow
def test_the_script_is_strictly_typed(mypy):
    status, text = mypy(Path(typed_user.__file__).read_text(encoding="utf-8"))
    assert status == 0, text


@pytest.mark.slow
def test_types_are_known(mypy):
    _, text = mypy(HEAD + "".join(f"reveal_type({expression})\n" for expression in TYPES))
    assert re.findall(r'Revealed type is "(.*)"', text.replace("builtins.", "")) == list(TYPES.values())
    assert "error" not in text


@pytest.mark.slow
def test_mistakes_are_found(mypy):
    for line, message in WRONG.items():
        status, text = mypy(f"{HEAD}{line}\n")
        assert status == 1
        assert message in text, text
