"""Planted bugs: each is the plain backend with one method changed.

The kit must find every one of them. The docstring of a class is the diagnosis that reports print. `mutants` holds the
changes of the plain backend that are made by machine.
"""

from idl_ref.conformance.bugs import (
    adjoint,
    counts,
    equation,
    functions,
    gradients,
    iteration,
    precision,
    sizes,
    state,
    stopping,
    values,
)
from idl_ref.conformance.bugs.plain import Plain

KINDS = {
    "equation": equation, "iteration": iteration, "stopping": stopping, "counts and statuses": counts,
    "adjoint": adjoint, "gradients": gradients, "raw weights": functions, "φ and φ′": values, "precision": precision,
    "sizes": sizes, "state and memory": state,
}  # fmt: skip
BUGS: dict[str, type[Plain]] = {name: bug for kind in KINDS.values() for name, bug in kind.BUGS.items()}
STATEFUL = frozenset(state.BUGS)  # their numbers depend on earlier calls, or on how the arrays lie in memory


def diagnosis(name: str) -> str:
    """What reports print for a planted bug."""
    return BUGS[name].__doc__ or name
