"""Planted bugs: each is the plain backend with one method changed.

The kit must find every one of them, and explains the wrong numbers of another backend by the bugs that give the same
numbers. The docstring of a class is the diagnosis that reports print.
"""

from idl_ref.conformance.bugs import adjoint, equation, functions, gradients, iteration
from idl_ref.conformance.bugs.plain import Plain

BUGS: dict[str, type[Plain]] = equation.BUGS | iteration.BUGS | adjoint.BUGS | gradients.BUGS | functions.BUGS
STATEFUL = {"WeightsRemembered", "Noise", "InputsModified"}  # their numbers depend on earlier calls


def diagnosis(name: str) -> str:
    """What reports print for a planted bug."""
    return BUGS[name].__doc__ or name
