import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import idl_ref

ENGINES = ("dask", "distributed", "mpi4py", "loky")
HEAVY = ("numba", "scipy", "matplotlib", "tqdm", "safetensors", "torch", "sklearn", "pandas", *ENGINES)
OF_SCIKIT_LEARN = {"ImplicitClassifier", "ImplicitRegressor", "estimators"}  # These import it where it is there.
ROOT = Path(__file__).parents[1]


def python(code):
    environment = {**os.environ, "PYTHONPATH": str(Path(idl_ref.__file__).parents[1])}
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=600).stdout


def test_import_loads_numpy_and_nothing_heavier():
    code = f"import sys, idl_ref; print([name for name in {HEAVY} if name in sys.modules])"
    assert python(code).strip() == "[]"


@pytest.mark.slow
def test_every_name_comes_after_a_bare_import():
    code = (
        "import sys\n"
        "def fresh():\n"
        "    for module in [module for module in sys.modules if module.partition('.')[0] == 'idl_ref']:\n"
        "        del sys.modules[module]\n"
        "    import idl_ref\n"
        "    return idl_ref\n"
        "def come(names):\n"
        "    for name in names:\n"
        "        face = fresh()\n"
        "        assert name in dir(face)\n"
        "        assert getattr(face, name) is vars(face)[name], name\n"
        "        fresh()\n"
        "        exec(f'from idl_ref import {name}')\n"
        f"of_scikit_learn = {OF_SCIKIT_LEARN}\n"
        "come(sorted(set(fresh().__all__) - of_scikit_learn))\n"
        f"print([name for name in {HEAVY} if name in sys.modules])\n"
        "come(sorted(of_scikit_learn))\n"
    )
    assert python(code).strip() == "[]"


def test_names_are_imported_when_they_are_asked_for():
    eager = {"available_backends", "backends", "warmup"}
    code = "import idl_ref; print(*(name for name in idl_ref.__all__ if name in vars(idl_ref)))"
    assert set(python(code).split()) <= eager


def test_a_name_that_is_not_there_is_an_ordinary_attribute_error():
    with pytest.raises(AttributeError, match="module 'idl_ref' has no attribute 'nonsense'"):
        _ = idl_ref.nonsense
    with pytest.raises(ImportError, match="cannot import name 'nonsense'"):
        exec("from idl_ref import nonsense")


def test_inference_and_gradients_load_nothing_more():
    code = (
        "import sys, numpy, idl_ref\n"
        "model = idl_ref.ImplicitModel(4, 2, 5, backend='numpy')\n"
        "model.loss_and_gradients(numpy.ones((3, 4)), [0, 1, 0])\n"
        "idl_ref.fit(model, numpy.ones((3, 4)), [0, 1, 0], epochs=1, progress=False)\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    assert python(code).strip() == "[]"


@pytest.mark.parametrize("name", idl_ref.__all__)
def test_every_public_name_has_a_docstring(name):
    value = getattr(idl_ref, name)
    assert len(inspect.getdoc(value) or "") > 20
    if inspect.isclass(value):
        assert value.__doc__ != value.__base__.__doc__
        for method, member in vars(value).items():
            if not method.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
                documented = [getattr(base, method).__doc__ for base in value.__mro__ if hasattr(base, method)]
                assert any(documented), f"{name}.{method}"


def test_all_is_sorted_and_unique():
    assert len(set(idl_ref.__all__)) == len(idl_ref.__all__)
    assert all(hasattr(idl_ref, name) for name in idl_ref.__all__)


def test_the_public_face():
    promised = {
        *("ImplicitModel", "load", "solve_equilibrium", "solve_adjoint", "SolveOptions", "Solution", "Status", "SGD"),
        *(
            "ImplicitClassifier",
            "ImplicitRegressor",
            "fit",
            "History",
            "certify",
            "check_gradients",
            "datasets",
            "available_backends",
        ),
        *("ConvergenceWarning", "NotConvergedError"),
        *("ImplicitFunction", "ImplicitFunctionInf", "ImplicitFunctionTriu", "ImplicitFunctionRows"),
    }
    assert promised <= set(idl_ref.__all__)


def test_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", idl_ref.__version__)
