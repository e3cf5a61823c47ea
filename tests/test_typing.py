"""A script that uses the public names passes `mypy --strict`, and no public name has the type Any.

.ci/run also checks the script against the installed wheel, with mypy and with pyright.
"""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import typed_user

import idl_ref
from idl_ref import activations, choices, losses

pytest.importorskip("mypy", reason="mypy comes with the extra dev")
ROOT = Path(idl_ref.__file__).parents[1]
NAMES = f"Literal[{', '.join(map(repr, get_args(choices.ActivationName)))}]"
TYPES = {
    "model.kappa": "float",
    "model.rank": "int | None",
    "model.bias": "bool",
    "model.activation": f"{NAMES} | idl_ref.activations.Activation",
    "model.method": "Literal['auto', 'picard', 'anderson', 'newton', 'substitution', 'blocks']",
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
    "idl_ref.wellposed.monotone(x).factor": "float",
    "idl_ref.wellposed.unique_relu(x).holds": "bool",
    "idl_ref.export.export(model, 'c', '.').plan.iterations": "int",
    "idl_ref.conformance.check_backend(idl_ref.conformance.adapters.IdlRef()).ok": "bool",
    "idl_ref.analysis.cascade(model, model)": "idl_ref.model.ImplicitModel",
    "model @ model": "idl_ref.model.ImplicitModel",
    "model + model": "idl_ref.model.ImplicitModel",
    "idl_ref.analysis.rescale(model @ model)": "idl_ref.model.ImplicitModel",
    "idl_ref.analysis.from_sklearn(model)": "idl_ref.model.ImplicitModel",
    "idl_ref.parallel.certified(model.freeze(), x).converged": "bool",
    "idl_ref.parallel.sweep(typed, {'seed': [0]}, (x, x)).best('norm')": "dict[str, Any]",
    "idl_ref.__version__": "str",
}
WRONG = {
    "idl_ref.ImplicitModel(2, 2, 4, activation='rellu')": 'Argument "activation" to "ImplicitModel"',
    "idl_ref.ImplicitModel(2, 2, 4, dtype='flaot32')": 'Argument "dtype" to "ImplicitModel"',
    "idl_ref.ImplicitModel(2, 2, 4, dtype=np.int64)": 'Argument "dtype" to "ImplicitModel"',
    "idl_ref.ImplicitModel(2, 2, 4, method='newtn')": 'Argument "method" to "ImplicitModel"',
    "idl_ref.ImplicitModel(2, 2, 4, backend='numbs')": 'Argument "backend" to "ImplicitModel"',
    "idl_ref.ImplicitModel(2, 2, 4, on_failure='wran')": 'Argument "on_failure" to "ImplicitModel"',
    "idl_ref.settings.Settings(2, 2, 4, backend='numbs')": 'Argument "backend" to "Settings"',
    "idl_ref.SolveOptions(method='picart')": 'Argument "method" to "SolveOptions"',
    "idl_ref.SolveOptions(on_failure='rise')": 'Argument "on_failure" to "SolveOptions"',
    "idl_ref.solve_equilibrium(x, x, activation='tahn')": 'Argument "activation" to "solve_equilibrium"',
    "idl_ref.solve_adjoint(x, x, x, backend='cdua')": 'Argument "backend" to "solve_adjoint"',
    "idl_ref.fit(model, x, x, loss='mes')": 'Argument "loss" to "fit"',
    "idl_ref.check_gradients(model, x, x, loss='mes')": 'Argument "loss" to "check_gradients"',
    "idl_ref.SGD(schedule='cosin')": 'Argument "schedule" to "SGD"',
    "idl_ref.warmup(backend='nunba')": 'Argument "backend" to "warmup"',
    "idl_ref.export.export(model, 'onyx', '.')": 'Argument 2 to "export"',
    "idl_ref.Activation('mine', np.tanh, 3, 1.0)": 'Argument 3 to "Activation"',
    "idl_ref.ImplicitModel(2, 2, 4, max_iter=3)": 'Unexpected keyword argument "max_iter"',
    "model.kappa = 0.5": "Incompatible types in assignment",
    "model.kapa": 'has no attribute "kapa"',
    "idl_ref.nonsense": 'has no attribute "nonsense"',
    "idl_ref.plots.nonsense": 'has no attribute "nonsense"',
    "idl_ref.fit(model, x)": 'Missing positional argument "targets"',
    "from idl_ref import *\nImplicitMode": 'Name "ImplicitMode" is not defined',
}
HEAD = (
    "import numpy as np\nimport idl_ref\nmodel, x = idl_ref.ImplicitModel(2, 2, 4), np.ones((3, 2))\n"
    "def typed(seed: int) -> idl_ref.ImplicitModel: return idl_ref.ImplicitModel(2, 2, 4, seed=seed)\n"
)


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
    text = text.replace("builtins.", "").replace("'] | Literal['", "', '")  # mypy writes a Literal in two ways.
    assert re.findall(r'Revealed type is "(.*)"', text) == list(TYPES.values())
    assert "error" not in text


@pytest.mark.slow
def test_mistakes_are_found(mypy):
    """A star import must be the last line, because it changes the meaning of other lines."""
    lines = [line for line in WRONG if "\n" not in line]
    for program in ("\n".join(lines), *(line for line in WRONG if "\n" in line)):
        status, text = mypy(f"{HEAD}{program}\n")
        assert status == 1
        found = {int(number): rest for number, rest in re.findall(r"^program\.py:(\d+): error: (.*)", text, re.M)}
        for number, line in enumerate(program.splitlines(), HEAD.count("\n") + 1):
            if line in WRONG:
                assert WRONG[line] in found.get(number, ""), f"{line}\n{text}"
            elif program in WRONG and number in found:
                assert WRONG[program] in found[number]
    assert any(WRONG[program] in text for program in WRONG if "\n" in program)


@pytest.mark.slow
def test_pyright_finds_the_misspelled_words(tmp_path):
    pyright = shutil.which("pyright", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if pyright is None:
        pytest.skip("pyright is not installed")
    lines = [line for line in WRONG if line.startswith("idl_ref.") and "(" in line]
    (tmp_path / "program.py").write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(ROOT)]}), encoding="utf-8")
    command = [pyright, "--pythonpath", sys.executable, "--outputjson", "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    found = {entry["range"]["start"]["line"] for entry in json.loads(done.stdout)["generalDiagnostics"]}
    assert found == set(range(HEAD.count("\n"), HEAD.count("\n") + len(lines)))


def test_the_types_hold_the_words_of_the_tables():
    assert set(get_args(choices.ActivationName)) == set(activations.TABLE)
    assert set(get_args(choices.Loss)) == set(losses.LOSSES)
    assert set(get_args(choices.TwinName)) == set(idl_ref.available_backends())
    assert get_args(choices.Backend) == ("auto", *get_args(choices.TwinName))


@pytest.mark.parametrize("cls", [idl_ref.ImplicitModel, idl_ref.settings.Settings, idl_ref.SolveOptions, idl_ref.SGD])
def test_every_word_of_a_type_is_taken(cls):
    words = {
        "activation": choices.ActivationName,
        "method": choices.Method,
        "on_failure": choices.OnFailure,
        "backend": choices.Backend,
        "schedule": choices.Schedule,
    }
    sizes = () if cls in (idl_ref.SolveOptions, idl_ref.SGD) else (2, 2, 4)
    for name in words.keys() & inspect.signature(cls).parameters.keys():
        for word in get_args(words[name]):
            kappa = {"kappa": 0.5} if sizes else {}
            assert getattr(cls(*sizes, **{name: word}, **kappa), name) == word
        with pytest.raises(ValueError, match=f"{name} must be one of .*; got 'nonsense'"):
            cls(*sizes, **{name: "nonsense"})


@pytest.mark.parametrize("dtype", ["float32", "float64", np.float32, np.float64, float, np.dtype("float32")])
def test_every_kind_of_dtype_is_taken(dtype):
    assert idl_ref.ImplicitModel(2, 2, 4, dtype=dtype).dtype == np.dtype(dtype)
