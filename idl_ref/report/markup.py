"""This module writes the parts of a page of HTML, in which every foreign text is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from idl_ref.checks import printable

LONGEST = 28  # Longer names are cut; the whole name is shown under the pointer.

STYLE = """
:root { color-scheme: light dark; --back: #fff; --front: #1b1f24; --soft: #59636e; --rule: #d1d9e0; --card: #f6f8fa;
  --s0: #0b5cad; --s1: #b3470a; --s2: #1a7f37; --hit: 11 92 173; --miss: 200 80 10; }
@media (prefers-color-scheme: dark) {
  :root { --back: #14171c; --front: #e6e8eb; --soft: #9aa4af; --rule: #363c45; --card: #1d2229;
    --s0: #6cb0f5; --s1: #f0954a; --s2: #5fc97b; --hit: 90 160 240; --miss: 240 140 60; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 62rem; background: var(--back); color: var(--front);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0.5rem 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 0.6rem; border-bottom: 1px solid var(--rule); padding-bottom: 0.25rem; }
p { max-width: 46rem; }
footer, figcaption, caption { color: var(--soft); font-size: 0.875rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: 0.75rem; margin: 1rem 0; }
.cards div { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 0.6rem 0.8rem; }
.cards dt { color: var(--soft); font-size: 0.875rem; }
.cards dd { margin: 0; font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1.5rem; }
figure { margin: 0; min-width: 0; max-width: 36rem; }
figure h3 { font-size: 0.95rem; margin: 0 0 0.25rem; font-weight: 600; }
svg { width: 100%; height: auto; display: block; }
svg text { font-size: 12px; fill: var(--soft); }
.end { text-anchor: end; } .middle { text-anchor: middle; }
.grid { stroke: var(--rule); stroke-width: 0.7; } .axis { stroke: var(--soft); }
.bound { stroke: var(--soft); stroke-dasharray: 6 4; }
polyline { fill: none; stroke-width: 2; stroke-linejoin: round; } .dotted { stroke-dasharray: 2 4; }
.s0 { stroke: var(--s0); } .s1 { stroke: var(--s1); } .s2 { stroke: var(--s2); }
circle.s0 { fill: var(--s0); } circle.s1 { fill: var(--s1); } circle.s2 { fill: var(--s2); }
.dots { stroke: var(--s0); stroke-width: 4; stroke-linecap: round; opacity: 0.55; }
.key { display: inline-block; margin-right: 1rem; } .key line { stroke-width: 2.5; }
.key svg { display: inline-block; width: 1.6rem; height: 0.6rem; margin-right: 0.35rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
caption { text-align: left; padding-bottom: 0.35rem; } caption span { display: block; max-width: calc(100vw - 2rem); }
th, td { border: 1px solid var(--rule); padding: 0.3rem 0.6rem; text-align: right; font-weight: 400; }
td { white-space: nowrap; } th { background: var(--card); }
th:first-child, .mistakes :is(th, td):nth-child(2) { text-align: left; }
.facts th { min-width: 7rem; } .facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.matrix td { text-align: center; min-width: 2.4rem; } .matrix thead th { text-align: center; }
td.hit { background: rgb(var(--hit) / calc(0.1 + 0.35 * var(--share))); font-weight: 600; }
td.miss { background: rgb(var(--miss) / calc(0.12 + 0.4 * var(--share))); } td.zero { color: var(--soft); }
details { margin-top: 1.2rem; } summary { cursor: pointer; color: var(--soft); }
@media (max-width: 30rem) { table { font-size: 0.875rem; } th, td { padding: 0.3rem 0.4rem; } }
@media print { body { max-width: none; } figure, .cards { break-inside: avoid; } }
"""


def text(value: object) -> str:
    """Return foreign text as one printable line in which nothing is a tag."""
    return html.escape(printable(value))


def name(value: object) -> str:
    """Return the name of a class, cut if it is long."""
    whole = printable(value)
    if len(whole) <= LONGEST:
        return html.escape(whole) or "(empty)"
    return f'<span title="{html.escape(whole)}">{html.escape(whole[: LONGEST - 1])}…</span>'


def number(value: float, digits: int = 4) -> str:
    """Return a number with so many digits; a dash for NaN."""
    if value != value:
        return "–"
    if value in (float("inf"), float("-inf")):
        return "∞" if value > 0 else "−∞"
    shown = f"{value:,.0f}" if value == int(value) and abs(value) < 1e9 else f"{value:.{digits}g}"
    return shown.replace("-", "−")


def duration(seconds: float) -> str:
    """Return a time in words."""
    if not 100 <= seconds < float("inf"):
        return f"{number(seconds, 3)} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def percent(value: float) -> str:
    """Return a fraction in percent; a dash for NaN."""
    return "–" if value != value else f"{100 * value:.2f} %"


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], style: str = "") -> str:
    """Return a table of cells that are HTML already, in which the first cell of a row is its header."""
    parts = [f"<caption><span>{caption}</span></caption>"]
    if head:
        columns = "".join(f'<th scope="col">{cell}</th>' for cell in head)
        parts.append(f"<thead><tr>{columns}</tr></thead>")
    for first, *rest in rows:
        cells = "".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in rest)
        parts.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    around = f'<div class="wide" role="region" tabindex="0" aria-label="{caption}">'  # The keyboard scrolls it.
    return f'{around}<table class="{style}">{"".join(parts)}</table></div>'


def figure(title: str, drawing: str, legend: Iterable[tuple[str, str]]) -> str:
    """Return a drawing with its title and legend."""
    keys = "".join(
        '<span class="key"><svg viewBox="0 0 24 8" aria-hidden="true">'
        f'<line class="{style}" x1="0" x2="24" y1="4" y2="4"/></svg>{text(word)}</span>'
        for style, word in legend
    )
    return f"<figure><h3>{text(title)}</h3>{drawing}<figcaption>{keys}</figcaption></figure>"


def section(title: str, *parts: str) -> str:
    """Return a section of a page; "" if it has no parts."""
    body = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{text(title)}</h2>\n{body}\n</section>" if body else ""


def page(title: str, *parts: str) -> str:
    """Return a page that loads nothing and runs nothing."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{text(title)}</h1>
{chr(10).join(part for part in parts if part)}
</main>
</body>
</html>
"""
