"""Every page of the built site, as readers with a phone, a keyboard, a dark screen or a screen reader meet it."""

import functools
import gzip
from urllib.parse import unquote, urlsplit

import browser
import pytest

pytestmark = pytest.mark.browser
# Source pages of modules have the form of one another.
SKIPPED = ("_modules/", "_static/")
HEAVY = 400_000  # bytes, of all that a browser loads for a page, or has kept since an earlier one
LOADED = "performance.getEntries().filter((entry) => entry.decodedBodySize).map((entry) => entry.name)"
TEXT = (".html", ".css", ".js", ".svg", ".txt")


def pages():
    """Return the names of all pages, with one source page."""
    names = sorted(str(path.relative_to(browser.SITE)) for path in browser.SITE.rglob("*.html"))
    return [name for name in names if not name.startswith(SKIPPED)] + ["_modules/idl_ref/model.html"]


@functools.cache
def sent(address):
    """Return how many bytes a server sends for a file of the site, which compresses text."""
    path = browser.SITE / unquote(urlsplit(address).path).lstrip("/")
    return len(gzip.compress(path.read_bytes(), 6)) if path.suffix in TEXT else path.stat().st_size


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", browser.WIDTHS.values(), ids=browser.WIDTHS)
def test_all_pages_fit_are_accessible_light_and_quiet(visit, width, dark):
    """A visit fails at its end if the console has an error, or a page asked another host.

    What axe-core finds depends on the width by the menus, and on the colours by their contrast: it looks at a light
    phone and at a dark desktop, which have each of both.
    """
    visitor, problems, weights = visit(width=width, dark=dark), [], []
    whole = (width == browser.WIDTHS["desktop"]) == dark and width != browser.WIDTHS["tablet"]
    for current in pages():
        visitor.open(current)
        visitor.page.wait_for_load_state("load")
        if visitor.overflow() > 0:
            problems.append(f"{current} is {visitor.overflow()} pixels wider than the window")
        if width == browser.WIDTHS["phone"]:
            problems += [f"{current}: {found} is cut" for found in visitor.cut()]
        if whole:
            problems += [f"{current}: {violation}" for violation in visitor.violations()]
        weights.append(sum(map(sent, visitor.page.evaluate(LOADED))))
        if weights[-1] > HEAVY:
            problems.append(f"{current} weighs {weights[-1]} bytes")
    assert len(weights) > 60
    assert min(weights) > 20_000
    assert problems == []


def test_brackets_grow_with_the_font_of_the_site(visit):
    """A matrix stands in brackets of its height, whatever fonts the machine has."""
    visitor = visit(width=360)
    visitor.open("composition.html")
    visitor.page.evaluate("document.fonts.ready")
    loaded = "[...document.fonts].filter((font) => font.family == 'formulas').map((font) => font.status)"
    assert visitor.page.evaluate(loaded) == ["loaded"]
    ratios = visitor.page.evaluate(
        """() => {
            const height = (e) => e.getBoundingClientRect().height;
            const tables = [...document.querySelectorAll("mtable")];
            const matrices = tables.filter((e) => e.previousElementSibling?.textContent == "(");
            return matrices.map((e) => height(e.previousElementSibling) / height(e));
        }"""
    )
    assert len(ratios) > 5
    assert min(ratios) > 0.9


def test_a_page_that_breaks_each_rule_is_found(visit):
    """The rules above can fail: a page with an error of each kind."""
    visitor = visit(width=360)
    visitor.page.set_content("<html lang=en><title>x</title><main><h1>x</h1><div style='width:900px'>wide</div></main>")
    assert visitor.overflow() > 500
    wide = "<td>wide</td>" * 30
    visitor.page.set_content(f"<article><div style='overflow:hidden'><table><tr>{wide}</table></div></article>")
    assert [found[:5] for found in visitor.cut()] == ["TABLE"]
    visitor.page.set_content(
        "<html lang=en><title>x</title><main><h1>x</h1><img src=data:,><p style='color:#ccc'>pale words</p>"
    )
    found = {line.split(":")[0] for line in visitor.violations()}
    assert found >= {"image-alt", "color-contrast"}
    visitor.page.evaluate("console.error('mine')")
    visitor.page.wait_for_timeout(50)
    assert "mine" in visitor.wrong
    visitor.wrong.clear()
