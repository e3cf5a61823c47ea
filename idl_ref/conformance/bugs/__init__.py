"""Planted bugs: the plain backend with one method changed. The kit must find each, and names what it finds by them.

The docstring of a class is the diagnosis in words.
"""

from idl_ref.conformance.bugs import adjoint, equation, functions, gradients, iteration
from idl_ref.conformance.bugs.plain import Plain

BUGS: dict[str, type[Plain]] = equation.BUGS | iteration.BUGS | adjoint.BUGS | gradients.BUGS | functions.BUGS
STATEFUL = {"WeightsRemembered", "Noise", "InputsModified"}  # their wrong numbers depend on the calls before


def diagnosis(name: str) -> str:
    """The bug in words."""
    return BUGS[name].__doc__ or name
