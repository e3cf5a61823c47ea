"""The twins of one function, `fixed_point`, by name; a twin is imported when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from idl_ref import checks
from idl_ref.solution import Solution

FixedPoint = Callable[..., Solution]

AVAILABLE = "available"
PREFERENCE = ("numba", "numpy")  # what "auto" takes, best first; cuda is asked for by name
NAMES = ("numpy", "numba", "cuda")
CHOICES = ("auto", *NAMES)


def backends() -> dict[str, str]:
    """Every backend by name: "available", or the reason why it is not.

    Examples
    --------
    >>> backends()["numpy"]
    'available'
    """
    return {name: _reason(name) for name in NAMES}


def _reason(name: str) -> str:
    if name == "numpy":
        return AVAILABLE
    return f"this version of idl_ref has no {name} twin yet"


def resolve(name: str) -> str:
    """The backend that `name` stands for; a clear refusal if it cannot be used here."""
    checks.choice("backend", name, CHOICES)
    reasons = backends()
    if name == "auto":
        return next(twin for twin in PREFERENCE if reasons[twin] == AVAILABLE)
    if reasons[name] != AVAILABLE:
        usable = ", ".join(twin for twin, reason in reasons.items() if reason == AVAILABLE)
        raise ValueError(f"backend {name!r} is not available: {reasons[name]}. Available: {usable}.")
    return name


def fixed_point(name: str) -> FixedPoint:
    """The function `fixed_point` of a backend."""
    return import_module(f"idl_ref.backends.{resolve(name)}_").fixed_point
