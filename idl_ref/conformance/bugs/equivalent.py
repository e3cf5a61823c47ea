"""The mutants that no case can tell from the plain backend, and why."""

EQUIVALENT: dict[str, str] = {}
