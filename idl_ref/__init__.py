"""`idl_ref` is a reference implementation of Implicit Deep Learning: X = φ(A X + B U), Ŷ = C X + D U.

Importing this package imports nothing else. Every name and every module of `__all__` is imported when it is first used,
so that `idl_ref.plots` works after `import idl_ref` alone, and none of them imports more than NumPy unless it must.
"""

from idl_ref._version import __version__ as __version__

TYPE_CHECKING = False  # Type checkers take it for true. The module typing takes longer to import than all of this.

if TYPE_CHECKING:
    from typing import Any

    from idl_ref import (
        activations,
        analysis,
        backends,
        certificate,
        conformance,
        datasets,
        estimators,
        export,
        factors,
        functions,
        gradcheck,
        losses,
        parallel,
        plots,
        preprocessing,
        report,
        settings,
        sparse,
        tables,
        train,
        weights,
        wellposed,
    )
    from idl_ref.activations import Activation
    from idl_ref.backends import available_backends, warmup
    from idl_ref.equilibrium import certify, solve_adjoint, solve_equilibrium
    from idl_ref.estimators import ImplicitClassifier, ImplicitRegressor
    from idl_ref.functions import (
        ImplicitFunction,
        ImplicitFunctionInf,
        ImplicitFunctionMonotone,
        ImplicitFunctionPerron,
        ImplicitFunctionRows,
        ImplicitFunctionTriu,
    )
    from idl_ref.gradcheck import check_gradients
    from idl_ref.io import FileFormatError
    from idl_ref.model import ImplicitModel, load
    from idl_ref.optim import SGD, Adam, Optimizer
    from idl_ref.predictor import Prediction, Predictor
    from idl_ref.solution import ConvergenceWarning, NotConvergedError, Solution, SolveOptions, Status
    from idl_ref.train import History, fit

__all__ = [
    "SGD",
    "Activation",
    "Adam",
    "ConvergenceWarning",
    "FileFormatError",
    "History",
    "ImplicitClassifier",
    "ImplicitFunction",
    "ImplicitFunctionInf",
    "ImplicitFunctionMonotone",
    "ImplicitFunctionPerron",
    "ImplicitFunctionRows",
    "ImplicitFunctionTriu",
    "ImplicitModel",
    "ImplicitRegressor",
    "NotConvergedError",
    "Optimizer",
    "Prediction",
    "Predictor",
    "Solution",
    "SolveOptions",
    "Status",
    "activations",
    "analysis",
    "available_backends",
    "backends",
    "certificate",
    "certify",
    "check_gradients",
    "conformance",
    "datasets",
    "estimators",
    "export",
    "factors",
    "fit",
    "functions",
    "gradcheck",
    "load",
    "losses",
    "parallel",
    "plots",
    "preprocessing",
    "report",
    "settings",
    "solve_adjoint",
    "solve_equilibrium",
    "sparse",
    "tables",
    "train",
    "warmup",
    "weights",
    "wellposed",
]


def _import_name(name: str) -> None:
    """Bind `name`, if it is a public class or function, as a global of this package."""
    global SGD, Activation, Adam, ConvergenceWarning, FileFormatError, History, ImplicitClassifier, ImplicitFunction
    global ImplicitFunctionInf, ImplicitFunctionPerron, ImplicitFunctionRows, ImplicitFunctionTriu, ImplicitModel
    global ImplicitFunctionMonotone, ImplicitRegressor
    global NotConvergedError, Optimizer, Prediction, Predictor, Solution, SolveOptions, Status, certify
    global check_gradients, fit, load, available_backends, solve_adjoint, solve_equilibrium, warmup
    if name == "Activation":
        from idl_ref.activations import Activation
    elif name in ("available_backends", "warmup"):
        from idl_ref.backends import available_backends, warmup
    elif name in ("certify", "solve_adjoint", "solve_equilibrium"):
        from idl_ref.equilibrium import certify, solve_adjoint, solve_equilibrium
    elif name in ("ImplicitClassifier", "ImplicitRegressor"):
        from idl_ref.estimators import ImplicitClassifier, ImplicitRegressor
    elif name.startswith("ImplicitFunction"):
        from idl_ref.functions import (
            ImplicitFunction,
            ImplicitFunctionInf,
            ImplicitFunctionMonotone,
            ImplicitFunctionPerron,
            ImplicitFunctionRows,
            ImplicitFunctionTriu,
        )
    elif name == "check_gradients":
        from idl_ref.gradcheck import check_gradients
    elif name == "FileFormatError":
        from idl_ref.io import FileFormatError
    elif name in ("ImplicitModel", "load"):
        from idl_ref.model import ImplicitModel, load
    elif name in ("SGD", "Adam", "Optimizer"):
        from idl_ref.optim import SGD, Adam, Optimizer
    elif name in ("Prediction", "Predictor"):
        from idl_ref.predictor import Prediction, Predictor
    elif name in ("ConvergenceWarning", "NotConvergedError", "Solution", "SolveOptions", "Status"):
        from idl_ref.solution import ConvergenceWarning, NotConvergedError, Solution, SolveOptions, Status
    elif name in ("History", "fit"):
        from idl_ref.train import History, fit


def _import_module(name: str) -> None:
    """Import `name`, if it is a public module of this package.

    The statements have the form `import idl_ref.x`, because `from idl_ref import x` would call `__getattr__` again.
    """
    if name == "activations":
        import idl_ref.activations
    elif name == "analysis":
        import idl_ref.analysis
    elif name == "backends":
        import idl_ref.backends
    elif name == "certificate":
        import idl_ref.certificate
    elif name == "conformance":
        import idl_ref.conformance
    elif name == "datasets":
        import idl_ref.datasets
    elif name == "estimators":
        import idl_ref.estimators
    elif name == "export":
        import idl_ref.export
    elif name == "factors":
        import idl_ref.factors
    elif name == "functions":
        import idl_ref.functions
    elif name == "gradcheck":
        import idl_ref.gradcheck
    elif name == "losses":
        import idl_ref.losses
    elif name == "parallel":
        import idl_ref.parallel
    elif name == "plots":
        import idl_ref.plots
    elif name == "preprocessing":
        import idl_ref.preprocessing
    elif name == "report":
        import idl_ref.report
    elif name == "settings":
        import idl_ref.settings
    elif name == "sparse":
        import idl_ref.sparse
    elif name == "tables":
        import idl_ref.tables
    elif name == "train":
        import idl_ref.train
    elif name == "weights":
        import idl_ref.weights
    elif name == "wellposed":
        import idl_ref.wellposed  # noqa: F401


if not TYPE_CHECKING:  # A type checker that sees a module's __getattr__ accepts any attribute name of the module.

    def __getattr__(name: str) -> "Any":
        """Import a public name when it is first used (PEP 562)."""
        _import_name(name)
        _import_module(name)
        if name in globals():
            return globals()[name]
        raise AttributeError(f"module 'idl_ref' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
