"""A badge: a small picture with the result of a run, as SVG."""

from __future__ import annotations

from html import escape

from idl_ref.conformance.judge.report import SKIPPED, Report

COLOURS = {"passed": "#2e7d32", "failed": "#c62828", "interrupted": "#757575"}
TITLE = "idl_ref conformance"
LETTER, MARGIN, HEIGHT = 6.6, 8, 20  # pixels: the mean width of a letter at 11 pixels, and the room beside a text


def svg(report: Report) -> str:
    """The badge of a report: how many of the checks that were run passed."""
    run = sum(r.outcome != SKIPPED for r in report.results)
    text = f"{len(report.passed)} of {run}"
    left, right = (round(LETTER * len(words) + 2 * MARGIN) for words in (TITLE, text))
    end = f"a3 3 0 0 1 3 3v{HEIGHT - 6}a3 3 0 0 1-3 3h-{right - 3}z"
    label = escape(f"{report.backend}: {TITLE}, {text} checks passed", quote=True)

    def words(of: str, x: int) -> str:
        return f'<text x="{x}" y="14" textLength="{round(LETTER * len(of))}">{of}</text>'

    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="{HEIGHT}" role="img" '
        f'aria-label="{label}"><title>{label}</title>'
        f'<rect width="{left + right}" height="{HEIGHT}" rx="3" fill="#444"/>'
        f'<path d="M{left} 0h{right - 3}{end}" fill="{COLOURS[report.verdict]}"/>'
        f'<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">'
        f"{words(TITLE, MARGIN)}{words(text, left + MARGIN)}</g></svg>\n"
    )
