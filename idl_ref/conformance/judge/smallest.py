"""The smallest case that a backend fails, found from one that it fails."""

from __future__ import annotations

from idl_ref.conformance.judge import verdicts
from idl_ref.conformance.judge.report import FAILED
from idl_ref.conformance.judge.runner import safely
from idl_ref.conformance.truth.backend import Backend, Capabilities
from idl_ref.conformance.truth.problem import Case
from idl_ref.conformance.truth.shrinking import shrunk


def smallest(backend: Backend, case: Case, check: str, seconds: float = 60.0) -> Case:
    """Shrink a case whose `check`, "forward" or "vjp", a backend fails, as long as it fails that check.

    Examples
    --------
    >>> from idl_ref.conformance.bugs import BUGS
    >>> from idl_ref.conformance.truth.draws import one
    >>> smallest(BUGS["DDropped"](), one("draw-0-0"), "forward").problem.sizes
    (1, 1, 1, 1)
    """
    declared = Capabilities.declared(getattr(backend, "capabilities", None))
    judge = verdicts.forward if check == "forward" else verdicts.vjp

    def fails(smaller: Case) -> bool:
        return safely(f"{smaller.id}:{check}", lambda: judge(backend, smaller, declared), smaller).outcome == FAILED

    return shrunk(case, fails, seconds)
