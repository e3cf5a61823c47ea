"""The kit under pytest: one test per check."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from idl_ref.conformance import diagnose, runner, vectors
from idl_ref.conformance.capabilities import Capabilities
from idl_ref.conformance.problem import Backend
from idl_ref.conformance.report import FAILED, SKIPPED, Result


def parametrize(
    backend: Backend, groups: Iterable[str] | None = None, expected_failures: Mapping[str, str] = {}
) -> Callable[[Any], Any]:
    """A decorator that makes one test per check of a function of `check`.

    Parameters
    ----------
    backend, groups, expected_failures
        As for `check_backend`; what is expected to fail and passes is a failure.

    Returns
    -------
    decorator
        pytest.mark.parametrize; the argument `check` is to be called.

    Examples
    --------
    >>> from idl_ref.conformance import adapters, parametrize
    >>> @parametrize(adapters.IdlRef("numpy"), groups=["kinks"])
    ... def test_kinks(check):
    ...     check()
    """
    import pytest

    declared = Capabilities.declared(getattr(backend, "capabilities", None))
    chosen = runner.select(vectors.load(), groups)
    rows = []
    for ident, run in runner.checks(backend, chosen, declared):
        reasons = [why for pattern, why in expected_failures.items() if fnmatchcase(ident, pattern)]
        marks = [pytest.mark.xfail(reason=reasons[0], strict=True)] if reasons else []
        rows.append(pytest.param(_Check(run), id=ident, marks=marks))
    return pytest.mark.parametrize("check", rows)


class _Check:
    """One check, to be called by its test."""

    def __init__(self, run: Callable[[], Result]) -> None:
        self.run = run

    def __call__(self) -> None:
        import pytest

        result = diagnose.named(self.run())
        if result.outcome == SKIPPED:
            pytest.skip(result.message)
        if result.outcome == FAILED:
            causes = [f"error matches: {cause}" for cause in result.causes]
            pytest.fail("; ".join([result.message, *causes]), pytrace=False)
