"""Planted bugs: each is the plain backend with one method changed.

The kit must find every one of them. The docstring of a class is the diagnosis that reports print. `mutants` holds the
changes of the plain backend that are made by machine.
"""

from idl_ref.conformance.bugs import (
    adjoint,
    batches,
    counts,
    entries,
    equation,
    functions,
    gradients,
    iteration,
    memory,
    precision,
    sizes,
    slopes,
    state,
    stopping,
    values,
)
from idl_ref.conformance.bugs.plain import Plain

KINDS = {
    "equation": equation, "iteration": iteration, "stopping": stopping, "counts and statuses": counts,
    "adjoint": adjoint, "gradients": gradients, "sparse products": entries, "raw weights": functions,
    "φ": values, "φ′": slopes, "precision": precision, "sizes": sizes, "batches": batches,
    "memory": memory, "state": state,
}  # fmt: skip
BUGS: dict[str, type[Plain]] = {name: bug for kind in KINDS.values() for name, bug in kind.BUGS.items()}
STATEFUL = frozenset(state.BUGS) | {"InputsModified", "CotangentModified"}  # one call changes what another one gives


def diagnosis(name: str) -> str:
    """What reports print for a planted bug."""
    return BUGS[name].__doc__ or name
