"""The result of one check, and the report of all results in formats for people and for machines."""

from __future__ import annotations

import json
import math
import platform
import shlex
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from idl_ref._version import __version__
from idl_ref.conformance.judge import pages
from idl_ref.conformance.judge.text import short

PASSED, FAILED, SKIPPED, EXPECTED = "passed", "failed", "skipped", "expected failure"
COUNTS = "the iterations are not counted"  # what stops too early counts wrong as well, so that this comes last,
RELATION = "a different answer for"  # and what gives wrong numbers breaks relations as well
COUNTED = f"{COUNTS} as declared"
LIE = "the status is wrong: "
EXCESSIVE = "more iterations are reported than max_iter allows"
# What a status says, which has the second cause where columns with an X0 have it and a protocol has shown that cause:
UNFINISHED = "columns are reported as not converged although max_iter suffices for them"
UNSTARTED = "X0 is not used, or not read with its strides"
UNEXPLAINED = "not explained"  # causes that begin so say only what is known
SEPARATE = "already in a separate call"  # how the message of a protocol begins that found nothing new
SCHEMA = "idl-ref-conformance-report-1"


NAMES = {"python": "Python", "numpy": "NumPy", "platform": ""}  # of versions, as people write them
LONG = 800  # characters of a message or remark


def _clean(owner: Any, *names: str) -> None:
    """Make texts of a frozen object safe to print and to write: backends, which may be foreign programs, name them."""
    for name in names:
        value = getattr(owner, name)
        clean = short(value, LONG) if isinstance(value, str) else tuple(short(text, LONG) for text in value)
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
        What may be wrong with the backend: sentences, the most likely one first.
    comment : str
        What is special about the case.
    """

    id: str
    group: str
    outcome: str
    ratio: float | None = None
    message: str = ""
    flags: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    comment: str = ""
    evidence: Any = field(default=None, repr=False, compare=False)  # for the search of causes, then None

    def __post_init__(self) -> None:
        _clean(self, "id", "group", "message", "flags", "causes", "comment")

    @property
    def case(self) -> str:
        """The id of the case."""
        return self.id.rpartition(":")[0]

    @property
    def check(self) -> str:
        """ "forward", "vjp", or the name of a relation."""
        return self.id.rpartition(":")[2]


def _late(cause: str) -> bool:
    """Whether a cause is what others lead to, so that it comes after them."""
    return COUNTS in cause or cause.startswith(RELATION)


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
        The versions of idl_ref, Python and NumPy, and the platform.
    declared : str
        What the backend declares that differs from the default.
    command : str
        The command line of the run without its groups; empty if there was none.
    interrupted : bool
        Whether the run ended before all checks were done. Such a report is not ok.
    score : dict or None
        What `run --score` measured; "words" is a list of lines that say it.
    """

    backend: str
    results: tuple[Result, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    vectors: str = ""
    environment: dict[str, str] = field(default_factory=lambda: _environment())
    declared: str = ""
    command: str = ""
    interrupted: bool = False
    score: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        _clean(self, "backend", "problems", "notes", "declared", "command")

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
        """Whether no check failed, every expected failure failed, some check was not skipped, and all were done."""
        return not (self.failed or self.problems or self.interrupted)

    @property
    def verdict(self) -> str:
        """One word: "passed", "failed" or "interrupted"."""
        return "passed" if self.ok else "interrupted" if self.interrupted else "failed"

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
            cause = max(votes, key=lambda c: (not _late(c), votes[c] / (10 if c.startswith(UNEXPLAINED) else 1)))
            explained = [r for r in left if cause in r.causes]
            groups.append((cause if cause.startswith(UNEXPLAINED) else f"error matches: {cause}", explained))
            left = [r for r in left if r not in explained]
        groups += [
            ("failures without numbers to compare", [r for r in left if r.ratio is None]),
            (UNEXPLAINED, [r for r in left if r.ratio is not None]),
        ]
        return [(cause, results) for cause, results in groups if results]

    # --- for people ---------------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        return pages.text(self._page())

    @property
    def summary(self) -> str:
        """One line: how many checks passed, failed and were skipped, and the largest error among the passed."""
        counts = [f"{len(self.passed)} passed", f"{len(self.failed)} failed", f"{len(self.skipped)} skipped"]
        counts += [f"{len(self.expected)} failed as expected"] * bool(self.expected)
        worst = max((r.ratio for r in self.passed if r.ratio is not None), default=0.0)
        return f"{self.backend}: {', '.join(counts)}; largest error among the passed: {worst:.2g} of its bound"

    def to_markdown(self) -> str:
        """The causes with all failures, and a table of groups."""
        return pages.markdown(self._page())

    def to_html(self) -> str:
        """One page with the causes, all failures and the groups, without scripts or external files."""
        return pages.page_html(self._page())

    def rerun(self, result: Result) -> str:
        """The line that runs one check again: a command, or a call where there was none."""
        if not self.command:
            return f"check_backend(backend, groups=[{result.id!r}])"
        return f"{self.command} --groups {shlex.quote(result.id)}"

    def _page(self) -> pages.Page:
        versions = [f"{NAMES.get(name, name)} {version}".strip() for name, version in self.environment.items()]
        head = [("result", self.summary.partition(": ")[2]), ("declared", self.declared or "nothing but the default")]
        head += [("versions", ", ".join([*versions, f"cases {self.vectors[:12]}"]))]
        head += [("problem", text) for text in self.problems]
        head += [("score", text) for text in (self.score or {}).get("words", ())]
        sections = [self._section(cause, results) for cause, results in self.causes]
        reasons = Counter(r.message for r in self.skipped).most_common()
        foot = [("skipped", "; ".join(f"{n} checks: {reason}" for reason, n in reasons))] * bool(reasons)
        foot += [("note", text) for text in self.notes]
        columns = ("group", "passed", "failed", "skipped", "largest error / bound")
        return pages.Page(f"Conformance of {self.backend}", self.verdict, head, sections, foot, columns, self._groups())

    def _section(self, cause: str, results: list[Result]) -> pages.Section:
        first = results[0]
        facts = [("check", first.id), ("found", first.message), ("case", first.comment), ("again", self.rerun(first))]
        rows: list[pages.Row] = [(r.id, _ratio(r.ratio), r.message) for r in results]
        count = f"{len(results)} check{'s' * (len(results) > 1)}"
        return pages.Section(f"{cause} ({count})", [fact for fact in facts if fact[1]], rows)

    def _groups(self) -> list[pages.Row]:
        """The counts of each group, and the largest ratio of an error to its bound among the passed."""
        rows: list[pages.Row] = []
        for group in dict.fromkeys(r.group for r in self.results):
            of = [r for r in self.results if r.group == group]
            count = Counter(r.outcome for r in of)
            counts = count[PASSED], count[FAILED] + count[EXPECTED], count[SKIPPED]
            worst = max((r.ratio for r in of if r.ratio is not None and r.outcome == PASSED), default=None)
            rows.append((group, *map(str, counts), _ratio(worst)))
        return rows

    # --- for machines -------------------------------------------------------------------------------------------------

    def to_json(self) -> str:
        """Everything in JSON, with the name of the schema; infinite ratios become null."""
        results = [{**vars(r), "ratio": r.ratio if math.isfinite(r.ratio or 0) else None} for r in self.results]
        for result in results:
            del result["evidence"]
        head = {"schema": SCHEMA, "backend": self.backend, "ok": self.ok, "vectors": self.vectors}
        head |= {"declared": self.declared, "command": self.command, "interrupted": self.interrupted}
        head |= {"score": self.score} if self.score else {}
        rest = {"environment": self.environment, "problems": self.problems, "notes": self.notes, "results": results}
        return json.dumps(head | rest, indent=1, ensure_ascii=False) + "\n"

    def to_junit(self) -> str:
        """One test case per check, and one per problem of the run, in the XML of JUnit."""
        suite = ET.Element("testsuite", {"name": f"conformance of {self.backend}"})
        for r in self.results:
            test = ET.SubElement(suite, "testcase", classname=r.group, name=r.id)
            if r.outcome == FAILED:
                again = ET.SubElement(test, "failure", message="; ".join((r.message, *r.causes)))
                again.text = "\n".join(filter(None, (r.comment, self.rerun(r))))
            elif r.outcome != PASSED:
                ET.SubElement(test, "skipped", message=r.message)
        for text in (*self.problems, *["the run was interrupted"] * self.interrupted):
            test = ET.SubElement(suite, "testcase", classname="run", name=text)
            ET.SubElement(test, "failure", message=text)
        suite.set("tests", str(len(suite)))
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            suite.set(name, str(len(suite.findall(f"testcase/{tag}"))))
        return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _environment() -> dict[str, str]:
    versions = {"idl_ref": __version__, "python": platform.python_version(), "numpy": np.__version__}
    return versions | {"platform": f"{platform.system()} {platform.machine()}"}


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2g}"
