"""The power of the kit: which case finds which planted bug."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from idl_ref.conformance import runner, vectors
from idl_ref.conformance.bugs import diagnosis
from idl_ref.conformance.bugs_gradients import BUGS
from idl_ref.conformance.capabilities import Capabilities
from idl_ref.conformance.report import FAILED, Result


class Found(NamedTuple):
    """A bug, and the checks that fail because of it: the first one, or all of them."""

    name: str
    failures: tuple[Result, ...]

    @property
    def killed(self) -> bool:
        return bool(self.failures)


def hunt(everything: bool = False) -> Iterator[Found]:
    """Each planted bug through the kit, until the first check that fails, or through all of it."""
    chosen = runner.select(vectors.load(), None)
    for name, bug in BUGS.items():
        backend = bug()
        failures: list[Result] = []
        for _, run in runner.checks(backend, chosen, Capabilities.declared(backend.capabilities)):
            if (result := run()).outcome == FAILED:
                failures.append(result)
                if not everything:
                    break
        yield Found(name, tuple(failures))


def table(found: list[Found]) -> str:
    """Markdown: every bug in words, the first check that finds it, how many do, and in which groups."""
    lines = ["| planted bug | first found by | checks | in the groups |", "|---|---|---|---|"]
    for row in found:
        groups = ", ".join(dict.fromkeys(r.group for r in row.failures))
        first = f"`{row.failures[0].id}`" if row.killed else "**nothing**"
        lines.append(f"| {diagnosis(row.name)} | {first} | {len(row.failures)} | {groups} |")
    return "\n".join(lines) + "\n"
