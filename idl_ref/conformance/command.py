"""The command line of the kit: run, export, check, list, bugs, generate."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from idl_ref.conformance import remote, runner, vectors
from idl_ref.conformance.cases import FLAGS
from idl_ref.conformance.report import Report, Result

FORMATS = {".json": Report.to_json, ".xml": Report.to_junit, ".md": Report.to_markdown, ".html": Report.to_html}

BUGS_HEAD = """# Which case finds which planted bug

Written by `idl-ref conformance bugs --all --report FILE.md`;
see [how a bug gets its name](conformance.md#how-a-bug-gets-its-name).
"""


def add(commands: Any, formatter: Any) -> None:
    """Add `conformance` and its commands to a parser's."""
    parser = commands.add_parser(
        "conformance",
        help="check another backend against exact answers",
        description="Check any backend of implicit models against exact answers, and name what is wrong with it.",
    )
    inner = parser.add_subparsers(title="commands", required=True, metavar="{run,export,check,list,bugs,generate}")
    run = inner.add_parser("run", help="check a backend", formatter_class=formatter)
    which = run.add_mutually_exclusive_group(required=True)
    which.add_argument("--backend", metavar="MODULE:OBJECT", help="a Python object, or a class to make one of")
    which.add_argument("--command", metavar="COMMAND", help="a program that answers JSON lines")
    run.add_argument("--timeout", type=float, default=10.0, metavar="S", help="seconds for an answer of the program")
    _add_choice(run)
    run.set_defaults(run=_run)
    export = inner.add_parser("export", help="write every case as plain files", formatter_class=formatter)
    export.add_argument("directory", type=Path, metavar="DIR")
    export.set_defaults(run=_export)
    check = inner.add_parser("check", help="check answers to exported cases", formatter_class=formatter)
    check.add_argument("directory", type=Path, metavar="DIR", help="what export wrote")
    check.add_argument("results", type=Path, metavar="RESULTS", help="a folder of answers, one folder per case")
    _add_choice(check)
    check.set_defaults(run=_check)
    shown = inner.add_parser("list", help="the cases, and what each hunts", formatter_class=formatter)
    shown.add_argument("--groups", nargs="+", metavar="NAME", help="groups, or patterns of ids")
    shown.set_defaults(run=_list)
    bugs = inner.add_parser("bugs", help="show that every planted bug is found", formatter_class=formatter)
    bugs.add_argument("--all", action="store_true", help="all the cases that find each bug, not only the first")
    bugs.add_argument("--report", type=Path, metavar="FILE.md", help="write the table")
    bugs.set_defaults(run=_bugs)
    generate = inner.add_parser("generate", help="compute the cases again and write them", formatter_class=formatter)
    generate.add_argument("directory", type=Path, metavar="DIR")
    generate.set_defaults(run=_generate)


def _add_choice(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--groups", nargs="+", metavar="NAME", help="groups, or patterns of ids; see list")
    add("--expected-failures", type=Path, metavar="FILE.json", help='{"id or pattern": "reason"}')
    add("--report", type=Path, action="append", default=[], metavar="FILE", help=f"ending in {', '.join(FORMATS)}")


def _run(options: argparse.Namespace) -> int:
    reports = _formats(options.report)
    if options.command is not None:
        if not options.timeout > 0:
            raise ValueError(f"--timeout must be positive; got {options.timeout:g}.")
        backend: Any = remote.Command(options.command, options.timeout)
    else:
        backend = _imported(options.backend)
    try:
        return _reported(backend, options, options.groups, reports)
    finally:
        if options.command is not None:
            backend.close()


def _imported(name: str) -> Any:
    module, _, attribute = name.partition(":")
    if not (module and attribute):
        raise ValueError(f"--backend must be MODULE:OBJECT, as in my_package.backends:mine; got {name!r}.")
    sys.path.insert(0, "")  # as `python -m` has it, also for the console script
    value: Any = importlib.import_module(module)
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise ValueError(f"--backend: {module} has no {attribute}.")
        value = getattr(value, part)
    value = value() if isinstance(value, type) else value
    missing = [need for need in ("name", "forward") if not hasattr(value, need)]
    if missing:
        raise TypeError(f"--backend must have name, capabilities, forward and vjp; {name} has no {', '.join(missing)}.")
    return value


def _reported(backend: Any, options: argparse.Namespace, groups: list[str] | None, reports: list[Any]) -> int:
    expected = {}
    if options.expected_failures is not None:
        expected = json.loads(options.expected_failures.read_text(encoding="utf-8"))
        if not (isinstance(expected, dict) and all(isinstance(reason, str) for reason in expected.values())):
            raise ValueError(f'{options.expected_failures} must hold an object {{"id or pattern": "reason"}}.')
    report = runner.check_backend(backend, groups, expected, progress=_dot if sys.stderr.isatty() else None)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(report)
    for path, write in reports:
        path.write_text(write(report), encoding="utf-8")
        print(f"wrote {path}")
    return 0 if report.ok else 1


def _dot(result: Result) -> None:
    print({"passed": ".", "failed": "F", "skipped": "s"}.get(result.outcome, "x"), end="", file=sys.stderr, flush=True)


def _formats(paths: list[Path]) -> list[Any]:
    for path in paths:
        if path.suffix not in FORMATS:
            raise ValueError(f"--report must end in {', '.join(FORMATS)}; got {path}.")
        if not path.parent.is_dir():
            raise ValueError(f"--report must lie in a folder that is there; got {path}.")
    return [(path, FORMATS[path.suffix]) for path in paths]


def _export(options: argparse.Namespace) -> int:
    count = remote.export(options.directory, vectors.load(), vectors.SHA256)
    print(f"wrote {count} cases to {options.directory}; their ids are in {options.directory / 'index.txt'}")
    return 0


def _check(options: argparse.Namespace) -> int:
    reports = _formats(options.report)
    mark = options.directory / "vectors.sha256"
    if not mark.exists() or mark.read_text(encoding="ascii").strip() != vectors.SHA256:
        raise ValueError(f"{options.directory} must hold this version's cases: run idl-ref conformance export.")
    cases = vectors.load()
    groups = options.groups or [name for name in runner.group_names(cases) if name != "relations"]
    return _reported(remote.Answers(options.results, cases), options, groups, reports)


def _list(options: argparse.Namespace) -> int:
    cases = runner.select(vectors.load(), options.groups)[""]
    for case in cases:
        condition = case.facts["condition"]
        print(f"{case.id}   [{case.group}; {', '.join(case.flags)}]")
        print(f"    {case.comment}")
        print(
            f"    ‖A‖∞ {case.facts['norm']:.4g}, Perron root {case.facts['perron']:.4g}, "
            f"1/(1 − κ) {'-' if condition is None else format(condition, '.4g')}; {case.facts['provenance']}"
        )
    for flag in dict.fromkeys(flag for case in cases for flag in case.flags):
        hunts, effect, link = FLAGS[flag]
        print(f"{flag}: hunts {hunts}; {effect}. {link}")
    print(f"{len(cases)} cases")
    return 0


def _bugs(options: argparse.Namespace) -> int:
    found = []
    for row in runner.hunt(options.all):
        found.append(row)
        print(f"{row.name:<28}{row.failures[0].id if row.killed else 'NOT FOUND'}", flush=True)
    survivors = [row.name for row in found if not row.killed]
    print(f"{len(found) - len(survivors)} of {len(found)} planted bugs found")
    if options.report is not None:
        options.report.write_text(f"{BUGS_HEAD}\n{runner.table(found)}", encoding="utf-8")
        print(f"wrote {options.report}")
    return 1 if survivors else 0


def _generate(options: argparse.Namespace) -> int:
    digest = vectors.write(options.directory)
    print(f"wrote vectors.json and vectors.bin to {options.directory}, sha256 {digest}")
    if digest != vectors.SHA256:
        raise ValueError(f"the cases must have the published sha256 {vectors.SHA256}: their bits differ.")
    return 0
