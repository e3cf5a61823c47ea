"""Reference implementation of Implicit Deep Learning: X = φ(A X + B U), Ŷ = C X + D U.

Importing this package imports NumPy and nothing heavier; what stands below is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from idl_ref.backends import available_backends, warmup

if TYPE_CHECKING:
    from idl_ref import datasets
    from idl_ref.equilibrium import solve_adjoint, solve_equilibrium
    from idl_ref.functions import ImplicitFunction, ImplicitFunctionInf, ImplicitFunctionRows, ImplicitFunctionTriu
    from idl_ref.gradcheck import check_gradients
    from idl_ref.io import FileFormatError
    from idl_ref.model import ImplicitModel, load
    from idl_ref.optim import SGD
    from idl_ref.predictor import Prediction, Predictor
    from idl_ref.solution import ConvergenceWarning, NotConvergedError, Solution, SolveOptions, Status
    from idl_ref.train import History, fit


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
    "Prediction",
    "Predictor",
    "Solution",
    "SolveOptions",
    "Status",
    "available_backends",
    "check_gradients",
    "datasets",
    "fit",
    "load",
    "solve_adjoint",
    "solve_equilibrium",
    "warmup",
]

_HOMES = {
    "equilibrium": ("solve_adjoint", "solve_equilibrium"),
    "functions": ("ImplicitFunction", "ImplicitFunctionInf", "ImplicitFunctionRows", "ImplicitFunctionTriu"),
    "gradcheck": ("check_gradients",),
    "io": ("FileFormatError",),
    "model": ("ImplicitModel", "load"),
    "optim": ("SGD",),
    "predictor": ("Prediction", "Predictor"),
    "solution": ("ConvergenceWarning", "NotConvergedError", "Solution", "SolveOptions", "Status"),
    "train": ("History", "fit"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import what is asked for, once: PEP 562."""
    if name in _HOME:
        value = getattr(import_module(f"idl_ref.{_HOME[name]}"), name)
    elif name in ("conformance", "datasets"):
        value = import_module(f"idl_ref.{name}")
    else:
        raise AttributeError(f"module 'idl_ref' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
