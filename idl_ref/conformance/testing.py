"""The checks of a backend as tests of pytest, for the plugin in `idl_ref.pytest_plugin`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from idl_ref.conformance.by_name import imported
from idl_ref.conformance.judge import runner
from idl_ref.conformance.judge.diagnosis import diagnosed
from idl_ref.conformance.judge.report import FAILED, SKIPPED, Result
from idl_ref.conformance.judge.text import short
from idl_ref.conformance.truth.problem import Case


class Checks:
    """What adds one test per check to those that pytest has collected."""

    def __init__(self, config: pytest.Config) -> None:
        self.name: str = config.getoption("--idl-backend")
        try:
            self.backend = imported(self.name)
            self.chosen = runner.chosen(config.getoption("--idl-groups"), config.getoption("--idl-fast"))
        except (ValueError, TypeError, ImportError) as reason:
            raise pytest.UsageError(short(reason, 500)) from None

    @pytest.hookimpl(tryfirst=True)  # -k and -m choose among these tests, too
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Add the checks after all other tests."""
        items.extend(Backend.from_parent(session, name="conformance", nodeid="conformance", checks=self).collect())

    def pytest_report_header(self) -> str:
        """Name the backend at the top."""
        return f"idl_ref conformance: {short(self.backend.name, 100)}, from {short(self.name)}"


class Backend(pytest.Collector):
    """The tests of one backend."""

    def __init__(self, *, checks: Checks, **rest: Any) -> None:
        super().__init__(**rest)
        self.checks = checks

    def collect(self) -> Iterator[Check]:
        """One test per check."""
        of = self.checks
        about = runner.about(of.chosen)
        for ident, run in runner.checks(of.backend, of.chosen):
            yield Check.from_parent(self, name=ident, run=run, case=about.get(ident.rpartition(":")[0]), of=of)


class FailedCheck(Exception):  # noqa: N818
    """A check has failed; the result says why."""


class Check(pytest.Item):
    """One check as a test."""

    def __init__(self, *, run: runner.Run, case: Case | None, of: Checks, **rest: Any) -> None:
        super().__init__(**rest)
        self.run, self.case, self.of = run, case, of

    def runtest(self) -> None:
        """Run the check."""
        result = runner.safely(self.name, self.run, self.case)
        if result.outcome == SKIPPED:
            pytest.skip(result.message)
        if result.outcome == FAILED:
            raise FailedCheck(*diagnosed([result]))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Why the check failed, in place of a traceback."""
        if not isinstance(excinfo.value, FailedCheck):
            return super().repr_failure(excinfo)
        result: Result = excinfo.value.args[0]
        causes = [f"cause: {cause}" for cause in result.causes]
        again = f"again: pytest --idl-backend {self.of.name} --idl-groups '{result.id}'"
        return "\n".join(filter(None, [result.message, *causes, f"the case: {result.comment}", again]))

    def reportinfo(self) -> tuple[str, None, str]:
        """Where the test stands: in no file."""
        return self.of.name, None, f"conformance {self.name}"
