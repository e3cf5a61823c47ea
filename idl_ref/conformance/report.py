"""What came out: one result per check, and the report in which they stand, for people and for machines."""

from __future__ import annotations

import html
import json
import math
import platform
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

PASSED, FAILED, SKIPPED, EXPECTED = "passed", "failed", "skipped", "expected failure"
SCHEMA = "idl-ref-conformance-report-1"


@dataclass(frozen=True)
class Result:
    """One check of one case.

    Attributes
    ----------
    id : str
        "case:check", the check being forward, vjp, or the name of a relation.
    outcome : str
        "passed", "failed", "skipped" or "expected failure".
    ratio : float or None
        The largest error in units of the bound; a check passes with at most 1. None where nothing was compared.
    message : str
        Why it failed or was skipped; else what else was noticed.
    flags : tuple of str
        What the case hunts.
    causes : tuple of str
        Planted bugs that give the same wrong numbers, in words.
    """

    id: str
    group: str
    outcome: str
    ratio: float | None = None
    message: str = ""
    flags: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    evidence: Any = field(default=None, repr=False, compare=False)  # until the causes are looked for

    @property
    def case(self) -> str:
        return self.id.rpartition(":")[0]


@dataclass(frozen=True)
class Report:
    """Every result of one run.

    Attributes
    ----------
    backend : str
    results : tuple of Result
    problems : tuple of str
        What is wrong with the run itself: an expected failure that passed or matched nothing, nothing asserted.
    vectors : str
        The hash of the cases.
    """

    backend: str
    results: tuple[Result, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    vectors: str = ""
    environment: dict[str, str] = field(default_factory=lambda: {"python": platform.python_version(),
                                                                 "numpy": np.__version__})  # fmt: skip

    @property
    def passed(self) -> list[Result]:
        return self._with(PASSED)

    @property
    def failed(self) -> list[Result]:
        return self._with(FAILED)

    @property
    def skipped(self) -> list[Result]:
        return self._with(SKIPPED)

    @property
    def expected(self) -> list[Result]:
        return self._with(EXPECTED)

    @property
    def ok(self) -> bool:
        """Nothing failed, nothing expected to fail passed, and something was asserted."""
        return not self.failed and not self.problems

    def _with(self, outcome: str) -> list[Result]:
        return [r for r in self.results if r.outcome == outcome]

    @property
    def causes(self) -> list[tuple[str, list[Result]]]:
        """The failures, grouped by what explains most of them; each failure stands once."""
        return causes(self.failed)

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
        counts = [f"{len(self.passed)} passed", f"{len(self.failed)} failed", f"{len(self.skipped)} skipped"]
        counts += [f"{len(self.expected)} failed as expected"] * bool(self.expected)
        worst = max((r.ratio for r in self.passed if r.ratio is not None), default=0.0)
        return f"{self.backend}: {', '.join(counts)}; largest error among the passed: {worst:.2g} of its bound"

    def to_markdown(self) -> str:
        """The summary, a table of groups, and the failures by cause."""
        lines = [f"# Conformance of {self.backend}", "", self.summary + ".", ""]
        lines += ["| group | passed | failed | skipped | worst ratio |", "|---|---|---|---|---|"]
        lines += ["| " + " | ".join(row) + " |" for row in self._table()]
        for cause, results in self.causes:
            lines += ["", f"## {cause}", "", "| check | error / bound | what |", "|---|---|---|"]
            lines += [f"| {r.id} | {_ratio(r.ratio)} | {r.message.replace('|', '∣')} |" for r in results]
        lines += [f"\n{text}" for text in (*self.problems, *self.notes)]
        return "\n".join(lines) + "\n"

    def to_html(self) -> str:
        """One page without scripts or outside files."""
        text = html.escape
        rows = "".join("<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in self._table())
        body = [f"<h1>Conformance of {text(self.backend)}</h1><p>{text(self.summary)}.</p>"]
        heads = "".join(f"<th>{h}</th>" for h in ("group", "passed", "failed", "skipped", "worst ratio"))
        body.append(f"<table><tr>{heads}</tr>{rows}</table>")
        for cause, results in self.causes:
            items = "".join(
                f"<tr><td>{text(r.id)}</td><td>{_ratio(r.ratio)}</td><td>{text(r.message)}</td></tr>" for r in results
            )
            head = "<tr><th>check</th><th>error / bound</th><th>what</th></tr>"
            body.append(f"<h2>{text(cause)}</h2><table>{head}{items}</table>")
        body += [f"<p>{text(line)}</p>" for line in (*self.problems, *self.notes)]
        return f'<!doctype html><html lang="en"><meta charset="utf-8">{STYLE}<body>{"".join(body)}</body></html>\n'

    def _table(self) -> list[list[str]]:
        groups = dict.fromkeys(r.group for r in self.results)
        rows = []
        for group in groups:
            of = [r for r in self.results if r.group == group]
            count = Counter(r.outcome for r in of)
            ratios = [r.ratio for r in of if r.ratio is not None and r.outcome == PASSED]
            failures = count[FAILED] + count[EXPECTED]
            rows.append(
                [group, *map(str, (count[PASSED], failures, count[SKIPPED])), _ratio(max(ratios, default=None))]
            )
        return rows

    # --- for machines -------------------------------------------------------------------------------------------------

    def to_json(self) -> str:
        """Everything, after the schema named in it; what is infinite is null."""
        results = [_plain(r) for r in self.results]
        head = {"schema": SCHEMA, "backend": self.backend, "ok": self.ok, "vectors": self.vectors}
        rest = {"environment": self.environment, "problems": self.problems, "notes": self.notes, "results": results}
        return json.dumps(head | rest, indent=1, ensure_ascii=False) + "\n"

    def to_junit(self) -> str:
        """One test case per check, for a server that reads JUnit's XML."""
        count = {"tests": len(self.results), "failures": len(self.failed), "skipped": len(self.skipped)}
        attributes = {name: str(value) for name, value in count.items()}
        suite = ET.Element("testsuite", {"name": f"conformance of {self.backend}", **attributes})
        for r in self.results:
            test = ET.SubElement(suite, "testcase", classname=r.group, name=r.id)
            if r.outcome == FAILED:
                ET.SubElement(test, "failure", message=_printable("; ".join((r.message, *r.causes))))
            elif r.outcome != PASSED:
                ET.SubElement(test, "skipped", message=_printable(r.message))
        for text in self.problems:
            test = ET.SubElement(suite, "testcase", classname="run", name=_printable(text))
            ET.SubElement(test, "failure", message=_printable(text))
        return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


STYLE = """<style>
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}
table{border-collapse:collapse}td,th{padding:.2rem .8rem;border-bottom:1px solid #8886;text-align:left;
overflow-wrap:anywhere}</style>"""


def causes(failed: Iterable[Result]) -> list[tuple[str, list[Result]]]:
    """The bug that explains most failures, with them; then the one that explains most of the rest; and so on."""
    left, groups = list(failed), []
    while left:
        votes = Counter(cause for r in left for cause in r.causes)
        if not votes:
            groups.append(("no planted bug gives these numbers", left))
            break
        most = max(votes.values())
        tied = [cause for cause, n in votes.items() if n == most]
        explained = [r for r in left if tied[0] in r.causes]
        same = [cause for cause in tied if all(cause in r.causes for r in explained)]
        groups.append((f"error matches: {' or '.join(same)}", explained))
        left = [r for r in left if r not in explained]
    return groups


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2g}"


def _plain(result: Result) -> dict[str, Any]:
    return {name: value for name, value in vars(result).items() if name != "evidence"} | {
        "ratio": _finite(result.ratio)
    }


def _finite(ratio: float | None) -> float | None:
    return ratio if ratio is not None and math.isfinite(ratio) else None


def _printable(text: str) -> str:
    """Without the control characters that XML refuses."""
    return "".join(c if c.isprintable() else " " for c in text)
