"""Which checks detect which planted bugs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from idl_ref.conformance.bugs import BUGS, diagnosis
from idl_ref.conformance.judge.report import FAILED, Result
from idl_ref.conformance.judge.runner import checks, select
from idl_ref.conformance.truth import vectors


def detected(everything: bool = False) -> Iterator[tuple[str, list[Result]]]:
    """Each planted bug by name, with the checks that it fails: the first one, or with `everything` all of them."""
    chosen = select(vectors.load(), None)
    for name, bug in BUGS.items():
        failed = (result for _, run in checks(bug(), chosen) if (result := run()).outcome == FAILED)
        yield name, list(failed if everything else islice(failed, 1))


def table(found: Mapping[str, list[Result]]) -> str:
    """A table in Markdown: every bug, the first check that finds it, how many checks find it, and in which groups."""
    lines = ["| planted bug | first found by | checks | in the groups |", "|---|---|---|---|"]
    for name, failures in found.items():
        groups = ", ".join(dict.fromkeys(r.group for r in failures))
        first = f"`{failures[0].id}`" if failures else "**nothing**"
        lines.append(f"| {diagnosis(name)} | {first} | {len(failures)} | {groups} |")
    return "\n".join(lines) + "\n"
