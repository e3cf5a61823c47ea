"""Two reports in JSON compared: what got better, and what got worse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from idl_ref import npz
from idl_ref.conformance.judge.report import EXPECTED, FAILED, PASSED, SCHEMA, SKIPPED
from idl_ref.conformance.judge.text import short
from idl_ref.conformance.score.words import size, time

SHOWN = 5  # checks of each kind
NOTICED = 1.5  # smaller changes, either way, are noise


def load(path: Path) -> dict[str, Any]:
    """A report that `run --report FILE.json` wrote."""
    with npz.reading(path, "a JSON file") as stream:
        report = json.load(stream)
    results = report.get("results") if isinstance(report, dict) else None
    if not isinstance(results, list) or report.get("schema") != SCHEMA or not all(map(_is_result, results)):
        raise ValueError(f"{path} must be a report of schema {SCHEMA}, which run --report FILE.json writes.")
    return report


def _is_result(r: Any) -> bool:
    """Whether a part of a report is the result of a check, as far as it is compared."""
    return (
        isinstance(r, dict)
        and isinstance(r.get("id"), str)
        and isinstance(r.get("message"), str)
        and r.get("outcome") in (PASSED, FAILED, EXPECTED, SKIPPED)
    )


def compared(before: dict[str, Any], after: dict[str, Any]) -> tuple[list[str], int]:
    """The lines that tell the differences, and how many checks passed before and fail now."""
    was, now = ({r["id"]: r for r in report["results"]} for report in (before, after))
    both = [id for id in was if id in now]

    def moved(olds: tuple[str, ...], news: tuple[str, ...]) -> list[str]:
        return [id for id in both if was[id]["outcome"] in olds and now[id]["outcome"] in news]

    broken = moved((PASSED,), (FAILED, EXPECTED))
    lines = [f"before  {_summary(before)}", f"after   {_summary(after)}"]
    if before.get("vectors") != after.get("vectors"):
        lines.append("The reports are about different versions of the cases; those with the same names are compared.")
    lines += _listed("fail now", broken, now)
    lines += _listed("pass now", moved((FAILED, EXPECTED), (PASSED,)), was)
    lines += _listed("passed, and are skipped now", moved((PASSED,), (SKIPPED,)), now)
    lines += _listed("passed, and were not run now", [id for id in was if id not in now and _passed(was[id])], was)
    lines += _listed("are new and fail", [id for id in now if id not in was and now[id]["outcome"] == FAILED], now)
    if before.get("score") and after.get("score"):
        try:
            lines += ["", *scores(before["score"], after["score"])]
        except (LookupError, TypeError, AttributeError, ValueError) as reason:
            raise ValueError(
                f"a report must have the score that run --score writes; got another one: {reason!r}."
            ) from None
    return lines, len(broken)


def _passed(result: dict[str, Any]) -> bool:
    return bool(result["outcome"] == PASSED)


def _summary(report: dict[str, Any]) -> str:
    outcomes = [r["outcome"] for r in report["results"]]
    counts = [f"{outcomes.count(which)} {which}" for which in (PASSED, FAILED, SKIPPED)]
    return f"{short(report.get('backend', ''), 60)}: {', '.join(counts)}"


def _listed(what: str, ids: list[str], results: dict[str, Any]) -> list[str]:
    if not ids:
        return []
    more = [f"    … and {len(ids) - SHOWN} more"] * (len(ids) > SHOWN)
    shown = [f"    {short(id, 80)}  {short(results[id]['message'], 90)}".rstrip() for id in ids[:SHOWN]]
    return ["", f"{len(ids)} {what}", *shown, *more]


# --- scores -----------------------------------------------------------------------------------------------------------


def scores(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """A line for each quantity, time, count and size that both scores have."""
    for name, old in before["accuracy"].items():
        if name in after["accuracy"]:
            new = after["accuracy"][name]
            was, now = (f"{of['median']:.2g} ({of['worst']:.2g})" for of in (old, new))
            yield _line(f"error of {name}", was, now, old["worst"], new["worst"])
    if before["iterations"] and after["iterations"]:
        old, new = before["iterations"]["median"], after["iterations"]["median"]
        yield _line("iterations / fewest", f"{old:.3g}", f"{new:.3g}", old, new)
    for name, old in before["speed"].items():
        new = after["speed"].get(name, {"reason": "not measured"})
        yield _line(name, time(old), time(new), old.get("ratio"), new.get("ratio"))
    old, new = before["memory"], after["memory"]
    yield _line("memory", size(old).partition(",")[0], size(new).partition(",")[0], old.get("bytes"), new.get("bytes"))


def _line(what: str, before: str, after: str, old: float | None, new: float | None) -> str:
    mark = ""
    if old and new:
        change = new / old
        mark = "worse" if change > NOTICED else "better" if change < 1 / NOTICED else ""
    return f"{what:<20} {before:<32} → {after:<32} {mark}".rstrip()
