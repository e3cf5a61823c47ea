"""Formulas as MathML, which browsers draw themselves: a page with formulas needs no script and no font of its own."""

import html
import re

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

BAR = re.compile(r'<mo(?: fence="false")?(?: stretchy="false")?>(&#x0007C;|&#x02016;)</mo>')


def mathml(latex, display):
    """Return a formula as a MathML element, with its source as text for readers that cannot draw it.

    A command of LaTeX that is not known is an error of the build, and not a formula with a hole.
    """
    known = latex.replace(r"{aligned}", r"{align*}")
    made = convert(known, display=display)
    if left := re.search(r"\\.*?[^a-zA-Z]", made):
        raise ValueError(f"docs/mathml.py does not know {left.group()} in the formula {latex}: write it otherwise.")
    made = BAR.sub(r'<mo stretchy="false" lspace="0" rspace="0">\1</mo>', made)  # |A| is no binary operator.
    return made.replace("<math ", f'<math alttext="{html.escape(latex)}" ', 1)


def inline(translator, node):
    """Write a formula in a line."""
    translator.body.append(f'<span class="math">{mathml(node.astext(), "inline")}</span>')
    raise SkipNode


def block(translator, node):
    """Write a formula on a line of its own, which scrolls by itself where it is wider than a phone."""
    translator.body.append(f'<div class="math" tabindex="0">{mathml(node.astext(), "block")}</div>')
    raise SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
