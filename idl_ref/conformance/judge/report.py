"""The result of one check, and the report of all results in formats for people and for machines."""

from __future__ import annotations

import html
import json
import math
import platform
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from idl_ref.checks import printable

PASSED, FAILED, SKIPPED, EXPECTED = "passed", "failed", "skipped", "expected failure"
UNEXPLAINED = "not explained"  # causes that begin so say only what is known
SCHEMA = "idl-ref-conformance-report-1"


def _clean(owner: Any, *names: str) -> None:
    """Make texts of a frozen object safe to print and to write: backends, which may be foreign programs, name them."""
    for name in names:
        value = getattr(owner, name)
        clean = printable(value) if isinstance(value, str) else tuple(map(printable, value))
        object.__setattr__(owner, name, clean)


@dataclass(frozen=True)
class Result:
    """The result of one check of one case.

    Attributes
    ----------
    id : str
        "case:check", the check being forward, vjp, or the name of a relation.
    outcome : str
        "passed", "failed", "skipped" or "expected failure".
    ratio : float or None
        The largest ratio of an error to its bound; a check passes if it is at most 1. None if nothing was compared.
    message : str
        Why the check failed or was skipped; for a check that passed, a remark.
    flags : tuple of str
        The bugs that the case is meant to find.
    causes : tuple of str
        The diagnoses of the planted bugs that give the same wrong numbers.
    """

    id: str
    group: str
    outcome: str
    ratio: float | None = None
    message: str = ""
    flags: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    evidence: Any = field(default=None, repr=False, compare=False)  # for the search of causes, then None

    def __post_init__(self) -> None:
        _clean(self, "id", "group", "message")

    @property
    def case(self) -> str:
        """The id of the case."""
        return self.id.rpartition(":")[0]

    @property
    def check(self) -> str:
        """ "forward", "vjp", or the name of a relation."""
        return self.id.rpartition(":")[2]


@dataclass(frozen=True)
class Report:
    """All results of one run.

    Attributes
    ----------
    backend : str
    results : tuple of Result
    problems : tuple of str
        What is wrong with the run as a whole: an expected failure that passed or matched no check, or no check that
        was not skipped.
    notes : tuple of str
        Remarks that do not make the run fail.
    vectors : str
        The sha256 of the cases.
    environment : dict
        The versions of Python and NumPy.
    """

    backend: str
    results: tuple[Result, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    vectors: str = ""
    environment: dict[str, str] = field(default_factory=lambda: {"python": platform.python_version(),
                                                                 "numpy": np.__version__})  # fmt: skip

    def __post_init__(self) -> None:
        _clean(self, "backend", "problems", "notes")

    @property
    def passed(self) -> list[Result]:
        """The results of checks that passed."""
        return self._with(PASSED)

    @property
    def failed(self) -> list[Result]:
        """The results of checks that failed unexpectedly."""
        return self._with(FAILED)

    @property
    def skipped(self) -> list[Result]:
        """The results of checks that were skipped, because the backend does not declare what they need."""
        return self._with(SKIPPED)

    @property
    def expected(self) -> list[Result]:
        """The results of checks that failed as expected."""
        return self._with(EXPECTED)

    @property
    def ok(self) -> bool:
        """Whether no check failed, every expected failure failed, and at least one check was not skipped."""
        return not self.failed and not self.problems

    def _with(self, outcome: str) -> list[Result]:
        return [r for r in self.results if r.outcome == outcome]

    @property
    def causes(self) -> list[tuple[str, list[Result]]]:
        """The failures, grouped by cause.

        The first group has the cause that explains most failures, the next the one that explains most of the rest, and
        so on. Two groups follow: failures without numbers, and failures with numbers that nothing explains.
        """
        left, groups = self.failed, []
        while votes := Counter(cause for r in left for cause in r.causes[:1]):
            cause = max(votes, key=lambda c: (not c.startswith(UNEXPLAINED), votes[c]))
            explained = [r for r in left if cause in r.causes]
            groups.append((cause, explained))
            left = [r for r in left if r not in explained]
        groups += [
            ("failures without numbers to compare", [r for r in left if r.ratio is None]),
            (UNEXPLAINED, [r for r in left if r.ratio is not None]),
        ]
        return [(cause, results) for cause, results in groups if results]

    # --- for people ---------------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        lines = [self.summary]
        for cause, results in self.causes:
            lines += ["", f"{cause}   ({len(results)})"]
            lines += [f"  {r.id}: {r.message}" for r in results[:5]]
            lines += [f"  … and {len(results) - 5} more"] * (len(results) > 5)
        lines += [f"\n{text}" for text in (*self.problems, *self.notes)]
        return "\n".join(lines)

    @property
    def summary(self) -> str:
        """One line: how many checks passed, failed and were skipped, and the largest error among the passed."""
        counts = [f"{len(self.passed)} passed", f"{len(self.failed)} failed", f"{len(self.skipped)} skipped"]
        counts += [f"{len(self.expected)} failed as expected"] * bool(self.expected)
        worst = max((r.ratio for r in self.passed if r.ratio is not None), default=0.0)
        return f"{self.backend}: {', '.join(counts)}; largest error among the passed: {worst:.2g} of its bound"

    def to_markdown(self) -> str:
        """The summary, a table of groups, and the failures by cause."""
        lines = [f"# Conformance of {self.backend}", "", self.summary + "."]
        for title, head, rows in self._tables():
            lines += [f"\n## {title}"] * bool(title)
            lines += ["", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
            lines += [f"| {' | '.join(cell.replace('|', '∣') for cell in row)} |" for row in rows]
        lines += [f"\n{text}" for text in (*self.problems, *self.notes)]
        return "\n".join(lines) + "\n"

    def to_html(self) -> str:
        """One page with the summary, the groups and the failures, without scripts or external files."""

        def line(tag: str, row: tuple[str, ...]) -> str:
            return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in row)}</tr>"

        text = html.escape
        body = f"<h1>Conformance of {text(self.backend)}</h1><p>{text(self.summary)}.</p>"
        for title, head, rows in self._tables():
            body += f"<h2>{text(title)}</h2>" * bool(title)
            body += f"<table>{line('th', head)}{''.join(line('td', row) for row in rows)}</table>"
        body += "".join(f"<p>{text(line)}</p>" for line in (*self.problems, *self.notes))
        return f'<!doctype html><html lang="en"><meta charset="utf-8">{STYLE}<body>{body}</body></html>\n'

    def _tables(self) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
        """Title, head and rows of each table: first the groups of cases, then the failures by cause."""
        groups: list[tuple[str, ...]] = []
        for group in dict.fromkeys(r.group for r in self.results):
            of = [r for r in self.results if r.group == group]
            count = Counter(r.outcome for r in of)
            counts = count[PASSED], count[FAILED] + count[EXPECTED], count[SKIPPED]
            worst = max((r.ratio for r in of if r.ratio is not None and r.outcome == PASSED), default=None)
            groups.append((group, *map(str, counts), _ratio(worst)))
        check = ("check", "error / bound", "what")
        return [("", ("group", "passed", "failed", "skipped", "worst ratio"), groups)] + [
            (cause, check, [(r.id, _ratio(r.ratio), r.message) for r in results]) for cause, results in self.causes
        ]

    # --- for machines -------------------------------------------------------------------------------------------------

    def to_json(self) -> str:
        """Everything in JSON, with the name of the schema; infinite ratios become null."""
        results = [{**vars(r), "ratio": r.ratio if math.isfinite(r.ratio or 0) else None} for r in self.results]
        for result in results:
            del result["evidence"]
        head = {"schema": SCHEMA, "backend": self.backend, "ok": self.ok, "vectors": self.vectors}
        rest = {"environment": self.environment, "problems": self.problems, "notes": self.notes, "results": results}
        return json.dumps(head | rest, indent=1, ensure_ascii=False) + "\n"

    def to_junit(self) -> str:
        """One test case per check, in the XML of JUnit."""
        count = {"tests": self.results, "failures": self.failed, "skipped": self.skipped}
        counts = {name: str(len(results)) for name, results in count.items()}
        suite = ET.Element("testsuite", {"name": f"conformance of {self.backend}", **counts})
        for r in self.results:
            test = ET.SubElement(suite, "testcase", classname=r.group, name=r.id)
            if r.outcome == FAILED:
                ET.SubElement(test, "failure", message="; ".join((r.message, *r.causes)))
            elif r.outcome != PASSED:
                ET.SubElement(test, "skipped", message=r.message)
        for text in self.problems:
            test = ET.SubElement(suite, "testcase", classname="run", name=text)
            ET.SubElement(test, "failure", message=text)
        return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


STYLE = """<style>
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}
table{border-collapse:collapse}td,th{padding:.2rem .8rem;border-bottom:1px solid #8886;text-align:left;
overflow-wrap:anywhere}</style>"""


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2g}"
