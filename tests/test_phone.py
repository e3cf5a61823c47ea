"""What docs/phone.py and docs/mathml.py do so that pages fit a phone; tests/test_site_pages.py looks at the pages."""

import re
import struct
from pathlib import Path
from xml.etree import ElementTree

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def phone(docs_modules):
    return docs_modules("phone")


def table(head, *rows):
    """Return a table as docutils writes it."""
    line = "<tr>{}</tr>".format
    heads = line("".join(f"<th><p>{cell}</p></th>" for cell in head))
    body = "".join(line("".join(f"<td><p>{cell}</p></td>" for cell in row)) for row in rows)
    return f'<table class="docutils align-default">\n<thead>{heads}</thead>\n<tbody>{body}</tbody>\n</table>'


def test_a_wide_table_becomes_cards_with_labels(phone):
    prose = "a sentence that is long enough to break into many lines"
    made = phone.label_cells(table(["what", "<code>a</code> & b", "why"], ["x", prose, prose], ["y", "", "1 < 2"]))
    assert made.startswith('<table role="table" class="cards docutils')
    assert re.findall(r'<td role="cell" data-label="(.*?)"', made) == ["what", "a &amp; b", "why", "what", "why"]
    assert made.count("<td") == 6  # An empty cell has no label, and does not show on a phone.
    assert made.count('role="row"') == 3
    assert made.count('role="columnheader"') == 3


def test_a_narrow_table_stays_a_table(phone):
    for narrow in (table(["n", "µs"], ["1", "2"]), table(["option", "meaning"], ["--task", "many words " * 9])):
        assert phone.label_cells(narrow) == narrow


def test_a_number_stays_in_one_line(phone):
    made = phone.keep_numbers(
        table(["a", "b"], ["3.7e-07", "0.98 or so"], ["−1,024.5 ms", "12×"], ["−3/2", "1/2 or so"])
    )
    assert re.findall(r"<td data-number><p>(.*?)</p>", made) == ["3.7e-07", "−1,024.5 ms", "12×", "−3/2"]


def test_punctuation_stays_beside_its_formula(phone):
    assert phone.join_punctuation("<math>x</math></span>, so") == "<math>x</math>,</span> so"
    assert phone.join_punctuation("<math>x</math></span> so") == "<math>x</math></span> so"


def test_an_option_stays_in_one_line(phone):
    block = '<div class="highlight-sh notranslate"><pre><i></i>mpiexec<i> </i>-n <b>4</b> a-b --out=x\n</pre>'
    assert re.findall(r'<span class="option">(.*?)</span>', phone.keep_options(block)) == ["-n", "--out"]
    sentence = '<span class="pre">--out</span> <span class="pre">a-b</span> <span class="pre">-1</span>'
    assert re.findall(r'<span class="pre option">(.*?)</span>', phone.keep_options(sentence)) == ["--out"]
    code = '<div class="highlight-python notranslate"><pre>a -b</pre></div>'
    assert phone.keep_options(code) == code


def test_sentences_of_an_output_break_and_columns_do_not(phone):
    block = '<div class="highlight-text notranslate"><pre>{}</pre></div>'.format
    assert "prose" in phone.break_sentences(block("idl-ref: error: a long sentence\n  indented"))
    assert "prose" not in phone.break_sentences(block("loss    0.25"))
    assert "prose" not in phone.break_sentences(block("sample,label,p_a,p_b\n0,a,9e-05,0.9"))
    assert "prose" in phone.break_sentences(block("a, b, c, d").replace("text", "none"))


def test_wide_figures_scroll_and_have_a_sharp_file(phone, tmp_path):
    images = tmp_path / "gallery" / "images"
    images.mkdir(parents=True)
    for name, width in (("one.png", 560), ("two.png", 950), ("two_2_00x.png", 1900)):
        (images / name).write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, 400))
    body = '<img alt="a" src="../_images/one.png" /><img src="_images/two.png" /><img src="_images/other.png" />'
    one, two, other = re.findall("<img.*?>", phone.fit_figures(body, tmp_path))
    assert one == '<img alt="a" src="../_images/one.png" />'
    assert two == '<img data-wide="true" src="_images/two.png" srcset="_images/two_2_00x.png 2x" />'
    assert other == '<img src="_images/other.png" />'


# --- formulas ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def mathml(docs_modules):
    pytest.importorskip("latex2mathml", reason="needs the extra docs")
    return docs_modules("mathml")


def plain(made):
    return re.sub("<[^>]*>", "", made)


def test_a_long_formula_breaks_behind_relations_and_nowhere_else(mathml):
    pieces = mathml.lines(r"v = (I - |A| / \kappa)^{-1} 1 = \sum_k f(a, b)^k \ge 1")
    assert [plain(piece) for piece in pieces] == ["v=", "(I−|A|/κ)−11=", "∑kf(a,b)k≥", "1"]
    assert all(piece.startswith("<math ") and 'alttext="' in piece for piece in pieces)
    assert len(mathml.lines("x = y = z")) == 1


def test_a_prime_stands_beside_its_letter(mathml):
    made = mathml.mathml(r"\varphi'(z) + C_1'", "inline")
    assert "msup" not in made
    assert "<mi>φ</mi><mi>′</mi>" in made
    assert "<msub><mrow><mi>C</mi><mi>′</mi></mrow><mn>1</mn></msub>" in made
    assert "msup" in mathml.mathml("x^2", "inline")


def test_the_font_has_all_letters_and_signs_of_the_formulas(mathml):
    fonts = pytest.importorskip("fontTools.ttLib")
    font = fonts.TTFont(DOCS / "_static" / "formulas.woff")
    assert "MATH" in font, "without this table, brackets do not grow"
    formulas = []
    for page in DOCS.rglob("*.md"):
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.S)
        formulas += re.findall(r"\$\$(.*?)\$\$|(?<!\$)\$([^$\n]+)\$(?!\$)", text, flags=re.S)
    assert len(formulas) > 500
    signs = {sign for pair in formulas for sign in "".join(mathml.element("".join(pair), "inline").itertext())}
    assert {sign for sign in signs if not sign.isspace() and ord(sign) not in font.getBestCmap()} == set()


@pytest.mark.parametrize(
    ("formula", "sign", "space"),
    [
        ("x / 2", "/", {"lspace": "0", "rspace": "0"}),
        (r"x = \max(a, 0)", "max", {"lspace": "0.1667em", "rspace": "0"}),
        (r"\max(a, 0)", "max", {"lspace": "0", "rspace": "0"}),
        ("z = -1", "−", {"form": "prefix", "lspace": "0", "rspace": "0"}),
        ("(-1, 2)", "−", {"form": "prefix", "lspace": "0", "rspace": "0"}),
        ("a - b", "−", {}),
    ],
)
def test_operators_have_the_space_that_they_need(mathml, formula, sign, space):
    (found,) = [each for each in mathml.element(formula, "inline").iter() if each.text == sign]
    assert {name: found.get(name) for name in ("form", "lspace", "rspace") if found.get(name)} == space


def test_a_hat_stands_above_its_letter(mathml):
    (hat,) = [each for each in mathml.element(r"\hat{Y} = C X", "inline").iter() if each.tag.endswith("mover")]
    assert hat.get("accent") is None


def test_a_formula_on_lines_of_its_own_breaks_at_quads_and_further_relations(mathml):
    def texts(latex):
        return [ElementTree.fromstring(part).get("alttext") for part in mathml.parts(latex)]

    assert texts(r"f(a, b) = c, \qquad d = e") == ["f(a,b)=c,", "d=e"]
    assert texts("a = b = c") == ["a = b = c"]
    long = r"x = (a = b) + \alpha + \beta + \gamma + \delta + \varepsilon + \zeta + \eta = 2 \quad\text{and}\quad y = 1"
    assert texts(long) == ["x=(a=b)+α+β+γ+δ+ε+ζ+η", "=2", "and", "y=1"]
    classes = [ElementTree.fromstring(part).get("class") for part in mathml.parts(long)]
    assert classes == [None, None, "apart", "apart"]


def test_words_beside_a_relation_are_no_space(mathml):
    root = mathml.element(r"\text{less} \le \text{more, if so}", "inline")
    assert [each.tag.rpartition("}")[2] for each in root.iter() if each.text] == ["mi", "mo", "mi"]
