"""Reference implementation of Implicit Deep Learning: X = φ(A X + B U), Ŷ = C X + D U.

Importing this package imports NumPy and nothing heavier.
"""

from importlib import import_module

from idl_ref import datasets
from idl_ref.adjoint import solve_adjoint
from idl_ref.backends import backends, warmup
from idl_ref.equilibrium import solve_equilibrium
from idl_ref.functions import ImplicitFunction, ImplicitFunctionInf, ImplicitFunctionRows, ImplicitFunctionTriu
from idl_ref.gradcheck import check_gradients
from idl_ref.io import FileFormatError
from idl_ref.model import ImplicitModel, load
from idl_ref.optim import SGD
from idl_ref.solution import Solution, SolveOptions
from idl_ref.status import ConvergenceWarning, NotConvergedError, Status
from idl_ref.train import History, fit


def __getattr__(name: str) -> object:
    """The conformance kit as an attribute, imported when it is asked for."""
    if name == "conformance":
        return import_module("idl_ref.conformance")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__version__ = "0.1.0"

__all__ = [
    "SGD",
    "ConvergenceWarning",
    "FileFormatError",
    "History",
    "ImplicitFunction",
    "ImplicitFunctionInf",
    "ImplicitFunctionRows",
    "ImplicitFunctionTriu",
    "ImplicitModel",
    "NotConvergedError",
    "Solution",
    "SolveOptions",
    "Status",
    "backends",
    "check_gradients",
    "datasets",
    "fit",
    "load",
    "solve_adjoint",
    "solve_equilibrium",
    "warmup",
]
