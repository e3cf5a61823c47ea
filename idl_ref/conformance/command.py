"""The command line of the kit: the commands run, compare, export, check, list, bugs and generate."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import threading
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from idl_ref import npz
from idl_ref.checks import printable
from idl_ref.conformance import remote
from idl_ref.conformance.by_name import imported
from idl_ref.conformance.judge import detection, runner
from idl_ref.conformance.judge.report import Report, Result
from idl_ref.conformance.judge.smallest import smallest
from idl_ref.conformance.score import badge, compare
from idl_ref.conformance.score.accuracy import Noted
from idl_ref.conformance.score.scored import scored
from idl_ref.conformance.truth import draws, files, shrinking, vectors
from idl_ref.conformance.truth.flags import FLAGS
from idl_ref.conformance.truth.problem import Case
from idl_ref.files import replacing

FORMATS = {".json": Report.to_json, ".xml": Report.to_junit, ".md": Report.to_markdown, ".html": Report.to_html,
           ".svg": badge.svg}  # fmt: skip

TIMEOUT = 10.0  # seconds

BUGS_HEAD = """# Which case finds which bug

Written by `idl-ref conformance bugs{} --report FILE.md`;
see [how a bug gets its name](conformance.md#how-a-bug-gets-its-name).
"""


def add(commands: Any, formatter: Any) -> None:
    """Add the command `conformance`, with commands of its own, to the subparsers `commands`."""
    parser = commands.add_parser(
        "conformance",
        help="check another backend against exact answers",
        description="Check any backend of implicit models against exact answers, and name what is wrong with it.",
    )
    inner = parser.add_subparsers(
        title="commands", required=True, metavar="{run,compare,export,check,list,bugs,generate}"
    )

    def command(name: str, action: Any, help: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = inner.add_parser(name, help=help, formatter_class=formatter)
        parser.set_defaults(run=action, verb=name, fast=False, score=False, draws=0, seed=0, cases=[])
        return parser

    run = command("run", _run, "check a backend")
    which = run.add_mutually_exclusive_group(required=True)
    which.add_argument("--backend", metavar="MODULE:OBJECT", help="a Python object, or a class whose call gives one")
    which.add_argument("--command", metavar="COMMAND", help="a program that answers requests in JSON, one per line")
    run.add_argument("--timeout", type=float, default=TIMEOUT, metavar="S", help="time limit for each answer, in s")
    comparison = command("compare", _compare, "show what got better and what got worse between two reports")
    export = command("export", _export, "write every case as plain files")
    check = command("check", _check, "check the answers that another program wrote to exported cases")
    shown = command("list", _list, "print the cases, and the bugs that each is meant to find")
    bugs = command("bugs", _bugs, "show that every bug is found, planted or made by machine")
    generate = command("generate", _generate, "compute the cases again and write them")
    folders = (
        (export, "the folder to write"),
        (check, "the folder that export wrote"),
        (generate, "the folder to write"),
    )
    for parser, help in folders:
        parser.add_argument("directory", type=Path, metavar="DIR", help=help)
    for name in ("before", "after"):
        comparison.add_argument(name, type=Path, metavar=f"{name.upper()}.json", help="a report that run wrote")
    check.add_argument("results", type=Path, metavar="RESULTS", help="the answers, in one folder per case")
    run.add_argument("--draws", type=int, default=0, metavar="N", help="check N new cases; without --groups, no others")
    run.add_argument("--seed", type=int, default=0, metavar="S", help="what the new cases are drawn from")
    again = "check cases that an earlier run has written, in place of those it would choose"
    run.add_argument("--cases", type=Path, nargs="+", default=[], metavar="FILE.json", help=again)
    where = "where the smallest cases are written that new cases which fail are shrunk to"
    run.add_argument("--smallest", type=Path, default=Path(), metavar="DIR", help=where)
    run.add_argument("--fast", action="store_true", help="check few and small cases, with something of everything")
    run.add_argument("--score", action="store_true", help="measure accuracy, iterations, time and memory as well")
    for parser, more in ((run, "; list prints both"), (check, "; list prints both"), (shown, "")):
        names = f"names of groups, or ids of cases or checks, or patterns of these{more}"
        parser.add_argument("--groups", nargs="+", metavar="NAME", help=names)
    known = 'a file that gives the reason of each known failure: {"id or pattern": "reason"}'
    reports = f"write the report to a file ending in {', '.join(FORMATS)}"
    for parser in (run, check):
        add = parser.add_argument
        add("--expected-failures", type=Path, metavar="FILE.json", help=known)
        add("--report", type=Path, action="append", default=[], metavar="FILE", help=reports)
    bugs.add_argument("--all", action="store_true", help="find every case that a bug fails, not only the first one")
    bugs.add_argument("--report", type=Path, metavar="FILE.md", help="write a table of the results")


def _run(options: argparse.Namespace) -> int:
    _check_reports(options.report)
    if (options.draws or options.cases) and not options.smallest.is_dir():
        raise NotADirectoryError(
            f"--smallest must be a folder that is there; got {printable(options.smallest)}: create it."
        )
    if options.command is None:
        again = ["--backend", options.backend]
        return _reported(imported(options.backend), options, options.groups, again)
    if not 0 < options.timeout < threading.TIMEOUT_MAX:
        raise ValueError(f"--timeout must be positive, in seconds; got {options.timeout:g}.")
    again = ["--command", options.command, *(["--timeout", f"{options.timeout:g}"] * (options.timeout != TIMEOUT))]
    with closing(remote.Command(options.command, options.timeout)) as backend:
        return _reported(backend, options, options.groups, again)


def _reported(backend: Any, options: argparse.Namespace, groups: list[str] | None, again: list[str]) -> int:
    given = [shrinking.read(path) for path in options.cases]
    noted = Noted(backend, vectors.load()) if options.score else None
    report = runner.check_backend(
        noted or backend,
        groups,
        _expected(options.expected_failures),
        progress=partial(_progress, options),
        fast=options.fast,
        draws=options.draws,
        seed=options.seed,
        more=given,
    )
    report = replace(report, command=shlex.join(["idl-ref", "conformance", options.verb, *again, *_drawn(options)]))
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if noted and not report.interrupted:
        report = replace(report, score=scored(noted, report))
    print(report)
    failed: OSError | None = None
    for path in options.report:  # one that cannot be written takes no other with it
        try:
            with replacing(path, "w") as stream:
                stream.write(FORMATS[path.suffix](report))
            print(f"wrote {printable(path)}")
        except OSError as reason:
            failed = reason
    _write_smallest(backend, report, options, given, again)
    if failed is not None:
        raise failed
    if report.interrupted:
        return getattr(options.stopping, "status", None) or 130
    return int(not report.ok)


def _drawn(options: argparse.Namespace) -> list[str]:
    """The options of a run that choose new cases."""
    chosen = ["--draws", str(options.draws), "--seed", str(options.seed)] if options.draws else []
    return chosen + (["--cases", *map(str, options.cases)] if options.cases else [])


SHRUNK = 3  # how many of the new cases that fail are shrunk


def _write_smallest(
    backend: Any, report: Report, options: argparse.Namespace, given: list[Case], again: list[str]
) -> None:
    """Shrink some of the new cases that failed, and write what they were shrunk to."""
    new = {case.id: case for case in draws.drawn(options.draws, options.seed)} | {case.id: case for case in given}
    failed = {r.case: r for r in reversed(report.failed) if r.case in new and r.id.endswith((":forward", ":vjp"))}
    for id, result in list(failed.items())[-SHRUNK:] if not report.interrupted else ():
        small = smallest(backend, new[id], result.id.rpartition(":")[2])
        path = options.smallest / f"{id}.json"
        with replacing(path, "w") as stream:
            stream.write(shrinking.text(small))
        sizes = ", ".join(f"{name} = {size}" for name, size in zip("npqm", small.problem.sizes, strict=True))
        line = shlex.join(["idl-ref", "conformance", "run", *again, "--cases", str(path)])
        sizes += f", {small.problem.activation} and {small.problem.dtype}"
        print(f"{result.id} fails with {sizes} as well: {printable(line)}")


def _expected(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    with npz.reading(path, "a JSON file") as stream:
        expected = json.load(stream)
    if not (isinstance(expected, dict) and all(isinstance(reason, str) for reason in expected.values())):
        raise ValueError(f'{path} must hold one JSON object, {{"id or pattern": "reason"}}.')
    return expected


def _progress(options: argparse.Namespace, result: Result) -> None:
    """Show that a check was done, and stop for a signal whose exception the backend has swallowed."""
    if sys.stderr.isatty():
        mark = {"passed": ".", "failed": "F", "skipped": "s"}.get(result.outcome, "x")
        print(mark, end="", file=sys.stderr, flush=True)
    if options.stopping.caught is not None:
        raise KeyboardInterrupt


def _check_reports(paths: list[Path]) -> None:
    for path in paths:
        if path.suffix not in FORMATS:
            raise ValueError(f"--report must end in {', '.join(FORMATS)}; got {path}.")
        if not path.parent.is_dir():
            raise ValueError(f"--report must lie in a folder that exists; got {path}.")


def _compare(options: argparse.Namespace) -> int:
    lines, broken = compare.compared(compare.load(options.before), compare.load(options.after))
    print("\n".join(lines))
    return int(broken > 0)


def _export(options: argparse.Namespace) -> int:
    count = files.export(options.directory, vectors.load(), vectors.SHA256)
    folder = printable(options.directory)
    print(f"wrote {count} cases to {folder}; their ids are in {folder}/index.txt")
    return 0


def _check(options: argparse.Namespace) -> int:
    _check_reports(options.report)
    mark = options.directory / "vectors.sha256"
    if not mark.exists() or npz.whole(mark, 99).decode("ascii", "replace").strip() != vectors.SHA256:
        raise ValueError(
            f"{options.directory} must hold the cases of this version: idl-ref conformance export writes them."
        )
    cases = vectors.load()
    # Relations are left out: they ask about changed problems, to which the folder holds no answers.
    groups = options.groups or list(dict.fromkeys(case.group for case in cases))
    again = [str(options.directory), str(options.results)]
    return _reported(remote.Answers(options.results, cases), options, groups, again)


def _list(options: argparse.Namespace) -> int:
    cases = runner.select(vectors.load(), options.groups)[""]
    for case in cases:
        facts = case.facts
        condition = "-" if facts["condition"] is None else f"{facts['condition']:.4g}"
        print(f"{case.id}   [{case.group}; {', '.join(case.flags)}]")
        print(f"    {case.comment}")
        print(f"    ‖A‖∞ {facts['norm']:.4g}, Perron root {facts['perron']:.4g}, 1/(1 − κ) {condition}; ", end="")
        print(facts["provenance"])
    for flag in dict.fromkeys(flag for case in cases for flag in case.flags):
        bug, effect, link = FLAGS[flag]
        print(f"{flag}: meant to find {bug}; the effect: {effect}. {link}")
    print(f"{len(cases)} cases")
    return 0


def _bugs(options: argparse.Namespace) -> int:
    bugs, found = detection.broken(), {}
    for name, failures in detection.detected(options.all):
        found[name] = failures
        print(f"{failures[0].id if failures else 'NOT FOUND':<44} {bugs[name].diagnosis}", flush=True)
    killed = sum(map(bool, found.values()))
    print(f"{killed} of {len(found)} bugs found, which are planted or made by machine")
    if options.report is not None:
        with replacing(options.report, "w") as stream:
            stream.write(BUGS_HEAD.format(" --all" * options.all) + detection.table(found, options.all))
        print(f"wrote {printable(options.report)}")
    return int(killed < len(found))


def _generate(options: argparse.Namespace) -> int:
    digest = vectors.write(options.directory)
    print(f"wrote vectors.json and vectors.bin to {printable(options.directory)}, sha256 {digest}")
    if digest != vectors.SHA256:
        raise ValueError(f"the cases must have the published sha256 {vectors.SHA256}; the cases written here differ.")
    return 0
