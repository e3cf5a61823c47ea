"""A report as text for a terminal, in Markdown and in HTML: one content in three forms, each safe with any text.

Every text must be printable, as `text.short` makes it; here it is kept from being read as markup.
"""

from __future__ import annotations

import html
import re
import textwrap
from typing import NamedTuple

WIDTH = 112  # columns of the terminal
SHOWN = 5  # sections that the terminal shows in full; the files show all
NAMED = 3  # checks of a section that the terminal names
CODE = ("check", "again")  # the labels of facts that a user may copy
Row = tuple[str, ...]


class Section(NamedTuple):
    """One cause with its failures: a title, facts as (label, text), and the table of all of them, whose first is shown.

    A fact with the label "again" is a command.
    """

    title: str
    facts: list[tuple[str, str]]
    rows: list[Row]


class Page(NamedTuple):
    """The content of a report; `verdict` is one word, `head` and `foot` are facts, `groups` is a table of counts."""

    title: str
    verdict: str
    head: list[tuple[str, str]]
    sections: list[Section]
    foot: list[tuple[str, str]]
    columns: Row
    groups: list[Row]


# --- the terminal -----------------------------------------------------------------------------------------------------


def text(page: Page) -> str:
    """The page on one screen: the first causes, and the first check of each."""
    lines = [f"{page.title}: {page.verdict.upper()}", *_facts(page.head)]
    for number, section in enumerate(page.sections[:SHOWN], 1):
        lines += ["", *_wrapped(f"{number:2d}. {section.title}", "    ", first="")]
        lines += _facts(section.facts, "    ")
        others = [row[0] for row in section.rows[1:]]
        if others:
            more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
            lines += _facts([("also", f"{', '.join(others[:NAMED])}{more}")], "    ")
    if len(page.sections) > SHOWN:
        lines += ["", f"… and {len(page.sections) - SHOWN} more causes: --report FILE.html shows all."]
    return "\n".join([*lines, *([""] if page.foot and page.sections else []), *_facts(page.foot)])


def _facts(facts: list[tuple[str, str]], indent: str = "") -> list[str]:
    lines = []
    for label, fact in facts:
        if label == "again":  # A command is not broken, so that it can be copied.
            lines.append(f"{indent}{label:<9} {fact}")
        else:
            lines += _wrapped(f"{label:<9} {fact}" if label else fact, indent + " " * 10, indent)
    return lines


def _wrapped(line: str, indent: str, first: str) -> list[str]:
    return textwrap.wrap(
        line, WIDTH, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False, max_lines=3,
        placeholder=" …",
    )  # fmt: skip


# --- Markdown ---------------------------------------------------------------------------------------------------------


def markdown(page: Page) -> str:
    """The page in Markdown, with every failure."""
    lines = [f"# {_plain(page.title)}: {page.verdict}", "", *_items(page.head)]
    for number, section in enumerate(page.sections, 1):
        lines += ["", f"## {number}. {_plain(section.title)}", "", *_items(section.facts)]
        lines += ["", *_table(("check", "error / bound", "what"), section.rows)]
    lines += ["", "## Groups", "", *_table(page.columns, page.groups), "", *_items(page.foot)]
    return "\n".join(lines).rstrip() + "\n"


def _items(facts: list[tuple[str, str]]) -> list[str]:
    return [f"- {_plain(label)}: {(_code if label in CODE else _plain)(fact)}" for label, fact in facts]


def _table(head: Row, rows: list[Row]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return lines + [f"| {' | '.join(_code(cell).replace('|', chr(92) + '|') for cell in row)} |" for row in rows]


def _plain(line: str) -> str:
    """Text in which no character is markup: no HTML, no link, no picture, and nobody is notified."""
    line = re.sub(r"([\\`*_\[\]#!|~$])", r"\\\1", line.replace("&", "&amp;"))
    line = line.replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;").replace("://", "&#58;//")
    return line.replace("www.", "www&#46;")


def _code(line: str) -> str:
    """Text between more backticks than it holds in a row; < becomes ‹, for programs that know no backticks."""
    if not line or re.fullmatch(r"[0-9.e+-]+|inf", line):
        return line
    line = line.replace("<", "‹")
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    pad = " " if "`" in line else ""
    return f"{fence}{pad}{line}{pad}{fence}"


# --- HTML -------------------------------------------------------------------------------------------------------------


def page_html(page: Page) -> str:
    """The page in HTML, with every failure, without scripts or external files."""
    body = f"<h1>{_safe(page.title)} <b class={page.verdict}>{page.verdict}</b></h1>{_list(page.head)}"
    for number, section in enumerate(page.sections, 1):
        failures = _html_table(("check", "error / bound", "what"), section.rows)
        body += f"<section><h2>{number}. {_safe(section.title)}</h2>{_list(section.facts)}"
        body += f"<details><summary>all {len(section.rows)} checks</summary>{failures}</details></section>"
    body += f"{_list(page.foot)}<h2>Groups</h2>{_html_table(page.columns, page.groups)}"
    head = f"<meta charset=utf-8><meta name=viewport content='width=device-width'><title>{_safe(page.title)}</title>"
    return f"<!doctype html><html lang=en><head>{head}{STYLE}</head><body>{body}</body></html>\n"


def _safe(line: str) -> str:
    return html.escape(line)


def _list(facts: list[tuple[str, str]]) -> str:
    items = (f"<dt>{_safe(label)}<dd>{_coded(fact) if label in CODE else _safe(fact)}" for label, fact in facts)
    return f"<dl>{''.join(items)}</dl>" if facts else ""


def _coded(line: str) -> str:
    return f"<code>{_safe(line)}</code>"


def _html_table(head: Row, rows: list[Row]) -> str:
    lines = [("th", head), *(("td", row) for row in rows)]
    cells = ("".join(f"<{tag}>{_safe(cell)}</{tag}>" for cell in row) for tag, row in lines)
    return f"<div class=wide><table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table></div>"


STYLE = """<style>
:root{color-scheme:light dark;--line:#8884;--soft:#8881}
body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0 0 1rem}h2{font-size:1.1rem;margin:0 0 .5rem}
b{font-size:1rem;padding:.1rem .6rem;border-radius:1rem;color:#fff;background:#b3261e;vertical-align:middle}
b.passed{background:#1b6e3c}b.interrupted{background:#8a5a00}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;margin:0 0 1rem}dt{opacity:.7}
dd{margin:0;overflow-wrap:anywhere}code{font:.9em ui-monospace,monospace;user-select:all}
section{border:1px solid var(--line);border-left:4px solid #b3261e;border-radius:.4rem;padding:1rem;margin:1rem 0}
summary{cursor:pointer}.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem}
td,th{padding:.2rem .8rem .2rem 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
@media(max-width:40rem){dl{grid-template-columns:1fr}dd{margin-bottom:.4rem}}
</style>"""
