"""Every public name is documented in numpydoc's form, with its actual parameters and an example.

The examples run as doctests; this file checks only that each name has one.
"""

import importlib
import inspect
import re
from dataclasses import is_dataclass
from enum import Enum

import pytest

import idl_ref
from idl_ref.analysis import robust

MODULES = (
    "activations",
    "analysis.compose",
    "analysis.compress",
    "analysis.deviations",
    "analysis.convert",
    "analysis.loops",
    "analysis.networks",
    "analysis.rescaling",
    "analysis.recurrent",
    "analysis.trajectory",
    "balls",
    "certificate",
    "datasets",
    "factors",
    "gradcheck",
    "losses",
    "parallel.lazy",
    "parallel.prediction",
    "parallel.results",
    "parallel.sweeps",
    "plots",
    "weights",
    "wellposed",
)
SECTIONS = ("Parameters", "Attributes", "Returns", "Raises", "Warns", "Notes", "Examples")
OWN_USE = {"balls.magnitude"}  # Only this package calls these functions.


def own(module):
    """Yield the public functions and classes that a module defines itself, by name."""
    for name, value in vars(module).items():
        if not name.startswith("_") and callable(value) and getattr(value, "__module__", "") == module.__name__:
            yield f"{module.__name__}.{name}", value


PUBLIC = {f"idl_ref.{name}": getattr(idl_ref, name) for name in idl_ref.__all__}
PUBLIC = {name: value for name, value in PUBLIC.items() if not inspect.ismodule(value)}
INSIDE = dict(pair for name in MODULES for pair in own(importlib.import_module(f"idl_ref.{name}")))
INSIDE |= {f"analysis.robust.{name}": getattr(robust, name) for name in robust.__all__}  # Other modules define them.
METHODS = {
    f"{name}.{method}": getattr(cls, method)
    for name, cls in PUBLIC.items()
    if inspect.isclass(cls)
    for method, value in vars(cls).items()
    if not method.startswith("_") and callable(getattr(value, "__func__", value))
}
WITH_EXAMPLES = (
    *(
        "activations.get",
        "analysis.",
        "datasets.",
        "losses.mse",
        "losses.cross_entropy",
        "plots.",
        "balls.",
        "wellposed.",
    ),
)


def sections(docstring):
    """Return the body of each numpydoc section by its name, and the text before the first section by the name ""."""
    lines, found, name = inspect.cleandoc(docstring).splitlines(), {"": []}, ""
    for i, line in enumerate(lines):
        if set(line) == {"-"} and line and lines[i - 1] in SECTIONS:
            found[name].pop()
            name = lines[i - 1]
            assert len(line) == len(name), f"the line under {name} is as long as the word"
            found[name] = []
        else:
            found[name].append(line)
    return {name: "\n".join(body) for name, body in found.items()}


def documented(body):
    """Return the names in a Parameters section, in order, without stars."""
    heads = re.findall(r"^(\S.*?)(?: : .*)?$", body, flags=re.M)
    return [name.strip().lstrip("*") for head in heads for name in head.split(",")]


def parameters(function):
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def handed_out(thing):
    """Tell whether users get an object from a function and do not construct it, like a record or an error."""
    if not inspect.isclass(thing):
        return False
    record = {"Attributes"} <= sections(thing.__doc__).keys() and "Parameters" not in sections(thing.__doc__)
    return record or issubclass(thing, (Exception, tuple))


def names(table):
    return pytest.mark.parametrize(("name", "thing"), table.items(), ids=list(table))


@names(PUBLIC | INSIDE | METHODS)
def test_there_is_a_docstring_that_begins_with_a_sentence(name, thing):
    first = (inspect.getdoc(thing) or "").splitlines()  # An overriding method may inherit the docstring.
    assert first, f"{name} has no docstring"
    assert 10 <= len(first[0]) <= 118
    # A dataclass without a docstring gets its signature as docstring.
    assert not first[0].startswith(f"{name.rpartition('.')[2]}(")


@names(PUBLIC | INSIDE | METHODS)
def test_parameters_are_those_of_the_signature(name, thing):
    found = sections(inspect.getdoc(thing))
    if "Parameters" in found:
        assert documented(found["Parameters"]) == parameters(thing)


@names(PUBLIC)
def test_public_names_document_what_they_take(name, thing):
    found = sections(thing.__doc__)
    if handed_out(thing):
        if is_dataclass(thing):  # The parameters of a dataclass are its fields.
            assert documented(found["Attributes"]) == parameters(thing)
    elif parameters(thing) and not (inspect.isclass(thing) and issubclass(thing, Enum)):
        assert "Parameters" in found


@names(
    {
        name: thing
        for name, thing in (PUBLIC | INSIDE).items()
        if not handed_out(thing)
        and (name in PUBLIC or name.removeprefix("idl_ref.").startswith(WITH_EXAMPLES))
        and name.removeprefix("idl_ref.") not in OWN_USE
    }
)
def test_public_names_have_an_example(name, thing):
    assert ">>> " in sections(thing.__doc__).get("Examples", "")


def test_a_wrong_parameter_is_noticed():
    def f(a, b):
        """Add two numbers.

        Parameters
        ----------
        b, a : int
        **c
        """

    assert documented(sections(f.__doc__)["Parameters"]) == ["b", "a", "c"]
    assert parameters(f) == ["a", "b"]
