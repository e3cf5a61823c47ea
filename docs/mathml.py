"""Formulas as MathML, which browsers draw themselves: a page with formulas needs no script and no font of its own."""

import re
from xml.etree import ElementTree

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

NAMESPACE = "http://www.w3.org/1998/Math/MathML"
OPENING, CLOSING, BARS = "([{⟨⌈⌊", ")]}⟩⌉⌋", "|‖"
BREAKS = "=<>≤≥≠≈∈→←↦⇒⇔⪯⪰≼≽,+−"  # a line may end behind one of these, outside all parentheses
FUNCTIONS = "max", "min", "det"  # names that stand close to what they are applied to
BEFORE_SIGN = (",", "=", "(", "[", "≤", "≥")  # behind one of these, − is the sign of a number, not a difference
SPACED = "⪯⪰"  # The converter does not know that these are relations.
RELATIONS = tuple("=≤≥<>⟹⇒")  # before one of these, a long formula on lines of its own may go on in the next line
QUADS = "1em", "2em"  # how wide a space is that separates formulas
WIDE = 70  # characters of LaTeX: so long a formula is wider than a phone
LONG = 30  # characters of LaTeX: a formula that is shorter fits into a line of a phone

ElementTree.register_namespace("", NAMESPACE)


def tag(name):
    """Return the name of an element with its namespace."""
    return f"{{{NAMESPACE}}}{name}"


def element(latex, display):
    """Return a formula as an element of MathML.

    A command of LaTeX that is not known is an error of the build, and not a formula with a hole.
    """
    made = convert(latex.replace(r"{aligned}", r"{align*}"), display=display)
    if left := re.search(r"\\.*?[^a-zA-Z]", made):
        raise ValueError(f"docs/mathml.py does not know {left.group()} in the formula {latex}: write it otherwise.")
    root = ElementTree.fromstring(made)
    for row in root.iter():
        for before, each in zip([None, *row], row, strict=False):
            space(each, before)
    for each in root.iter():
        if each.tag == tag("mo") and each.text in BARS and each.get("stretchy") != "true":
            each.attrib.clear()
            each.attrib.update(stretchy="false", lspace="0", rspace="0")  # |A| is no binary operator.
        elif each.tag == tag("mover") and each[-1].text == "^":
            each.attrib.pop("accent", None)  # As an accent, the sign of the font runs into its letter.
        elif each.text and each.text in SPACED:
            each.tag = tag("mo")
            each.attrib.update(lspace="0.2778em", rspace="0.2778em")
        elif each.tag in (tag("msup"), tag("msubsup")) and set("".join(each[-1].itertext())) <= set("′″‴"):
            lower_prime(each)
    return root


def space(each, before):
    """Set the space around an operator where browsers take it for another one: relations, /, a function, a sign."""
    if before is not None and (each.text in RELATIONS or before.text in RELATIONS):
        for word in (before, each):
            if word.tag == tag("mtext"):  # Text counts as space, beside which an operator has no space of its own.
                word.tag = tag("mi")
    if each.tag != tag("mo"):
        return
    if each.text == "/":
        each.attrib.update(lspace="0", rspace="0")
    elif each.text in RELATIONS:
        each.set("form", "infix")  # also at the beginning of a piece
    elif each.text in FUNCTIONS:
        each.attrib.update(lspace="0" if before is None else "0.1667em", rspace="0")
    elif each.text in ("−", "-") and (before is None or before.text in BEFORE_SIGN):
        each.attrib.update(form="prefix", lspace="0", rspace="0")


def lower_prime(script):
    """Put a prime beside its letter: the sign is raised by itself, and raised again it hangs in the air."""
    letter, prime = script[0], script[-1]
    script.remove(prime)
    row = ElementTree.Element(tag("mrow"))
    row.extend((letter, prime))
    if script.tag == tag("msup"):
        script.tag = tag("mrow")
        script[:] = list(row)
    else:
        script.tag = tag("msub")
        script[0] = row


def mathml(latex, display):
    """Return a formula as a text of MathML, with its source as text for readers that cannot draw it."""
    root = element(latex, display)
    root.set("alttext", latex)
    return ElementTree.tostring(root, encoding="unicode")


def sign_of(part):
    """Return the sign that an element is, or that has its exponent or index in it, as in ")²"; or a space."""
    sign = part[0] if part.tag in (tag("msup"), tag("msub"), tag("msubsup")) else part
    return sign.text if sign.tag == tag("mo") and sign.text else " "


def lines(latex):
    """Return a formula as pieces, between which a line of text may end: browsers break no formula."""
    if len(latex) < LONG:
        return [mathml(latex, "inline")]
    pieces, depth, within = [[]], 0, set()
    for part in element(latex, "inline")[0]:
        pieces[-1].append(part)
        sign = sign_of(part)
        depth += (sign in OPENING) - (sign in CLOSING)
        if sign in BARS:
            within ^= {sign}
        if sign in BREAKS and not depth and not within and len(pieces[-1]) > 1:
            pieces.append([])
    return [alone(piece) for piece in pieces if piece]


def alone(piece, **attributes):
    """Return a piece of a formula as a text of MathML."""
    root = ElementTree.Element(tag("math"), display="inline", **attributes)
    ElementTree.SubElement(root, tag("mrow")).extend(piece)
    root.set("alttext", "".join(root.itertext()))
    return ElementTree.tostring(root, encoding="unicode")


def parts(latex):
    """Return a formula on lines of its own as pieces, which stand side by side, or on a phone below each other.

    They are what stands between quads; of a long formula, also what begins with a further relation.
    """
    groups, depth, relations = [[[]]], 0, 0  # groups of pieces of elements
    for part in element(latex, "block")[0]:
        sign = sign_of(part)
        depth += (sign in OPENING) - (sign in CLOSING)
        if not depth and part.tag == tag("mspace") and part.get("width") in QUADS:
            groups.append([[]])
            relations = 0
            continue
        if not depth and sign in RELATIONS:
            relations += 1
            if relations > 1 and len(latex) > WIDE:
                groups[-1].append([])
        groups[-1][-1].append(part)
    groups = [pieces for pieces in groups if pieces[0]]
    if sum(map(len, groups)) < 2:
        return [mathml(latex, "block")]
    made = []
    for i, pieces in enumerate(groups):
        for j, piece in enumerate(pieces):
            made.append(alone(piece, displaystyle="true", **({"class": "apart"} if i and not j else {})))
    return made


def inline(translator, node):
    """Write a formula in a line."""
    translator.body.append(f'<span class="math">{"<wbr>".join(lines(node.astext()))}</span>')
    raise SkipNode


def block(translator, node):
    """Write a formula on lines of its own, which scrolls by itself where a piece of it is wider than a phone."""
    translator.body.append(f'<div class="math" tabindex="0">{"<wbr>".join(parts(node.astext()))}</div>')
    raise SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
