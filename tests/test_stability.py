"""The names that docs/stability.md calls stable exist and are documented, and no other name is in an `__all__`."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import idl_ref
from idl_ref.commands.program import parser

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "stability.md").read_text(encoding="utf-8")
MODULES = {
    module.name: importlib.import_module(module.name)
    for module in pkgutil.walk_packages(idl_ref.__path__, "idl_ref.")
    if not re.search(r"__main__|backends\.(numba|cuda)|export\.onnx_", module.name)
}
PUBLIC = {"idl_ref": idl_ref} | {name: module for name, module in MODULES.items() if hasattr(module, "__all__")}
ROWS = re.findall(r"^\| `(idl_ref\.\S+)` \| (.*) \|$", PAGE, re.M)
LISTED = {name: re.findall(r"`(\w+)`", names) for name, names in ROWS}
AT_THE_TOP = re.findall(r"`(\w+)`", re.search(r"^The modules (.*?) have an `__all__`", PAGE, re.M | re.S)[1])
DIRECTIVE = re.compile(r"^\.\. auto(function|class|exception)::\s+(\S+)", re.M)
DOCUMENTED = {
    name: page.name
    for page in sorted((DOCS / "api").glob("*.md"))
    for _, name in DIRECTIVE.findall(page.read_text(encoding="utf-8"))
}
NAMES = [f"{module}.{name}" for module, value in PUBLIC.items() for name in value.__all__]


def value(name):
    """Return the object that a dotted name stands for."""
    module, _, last = name.rpartition(".")
    return getattr(PUBLIC[module], last)


def test_the_modules_of_the_page_are_those_with_all():
    assert {f"idl_ref.{name}" for name in AT_THE_TOP} | LISTED.keys() | {"idl_ref"} == PUBLIC.keys()


@pytest.mark.parametrize("name", PUBLIC)
def test_all_stands_on_the_page(name):
    names = PUBLIC[name].__all__
    assert len(set(names)) == len(names)
    if name in LISTED:
        assert LISTED[name] == list(names)
    elif name != "idl_ref":
        assert set(names) <= set(idl_ref.__all__)


@pytest.mark.parametrize("name", [name for name in LISTED if name.count(".") == 1])
def test_a_module_with_names_of_its_own_is_in_the_face(name):
    assert name.removeprefix("idl_ref.") in idl_ref.__all__
    assert getattr(idl_ref, name.removeprefix("idl_ref.")) is PUBLIC[name]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there_and_has_a_docstring_of_its_own(name):
    thing = value(name)
    assert inspect.ismodule(thing) or callable(thing)
    assert len(inspect.cleandoc(thing.__doc__ or "")) > 20
    if inspect.isclass(thing):
        assert thing.__doc__ != thing.__base__.__doc__


@pytest.mark.parametrize("name", DOCUMENTED)
def test_what_the_api_documents_is_in_the_all_of_its_module(name):
    module, _, last = name.rpartition(".")
    assert last in PUBLIC[module].__all__, f"{DOCUMENTED[name]} documents {name}"


@pytest.mark.parametrize("name", [name for name in NAMES if not inspect.ismodule(value(name))])
def test_every_name_is_documented_in_the_api(name):
    assert any(value(name) is value(other) for other in DOCUMENTED), name


def test_the_commands_are_those_of_the_page():
    (commands,) = [action.choices for action in parser()._actions if isinstance(action.choices, dict)]
    sentence = re.search(r"Stable are the commands (.*?) of `idl-ref`", PAGE, re.S)[1]
    assert re.findall(r"`(\w+)`", sentence) == list(commands)


@pytest.mark.parametrize("schema", re.findall(r'"schema": "([^"]+)"', PAGE))
def test_the_schemas_are_those_of_the_page(schema):
    from idl_ref.conformance.judge import report
    from idl_ref.conformance.truth import vectors

    assert schema in (report.SCHEMA, vectors.SCHEMA)


def test_the_version_of_model_files_is_that_of_the_page():
    from idl_ref.io import VERSION

    assert re.findall(r'"version": (\d+)', PAGE) == [str(VERSION)]
