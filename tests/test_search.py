"""The search of the built site, used by readers: they type a word, and the right page is among the first three."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
WANTED = {  # what people type, and the page that answers them
    "regression": "your_data",
    "scikit": "from_scikit_learn",
    "sklearn": "from_scikit_learn",
    "adam": "training",
    "csv": "your_data",
    "pandas": "from_scikit_learn",
    "nan": "errors",
    "missing values": "your_data",
    "convergence warning": "errors",
    "precision_limit": "errors",
    "learning rate": "training",
    "gpu": "gpu",
    "early stopping": "training",
    "onnx": "deployment",
    "pytorch": "from_pytorch_and_jax",
    "jax": "from_pytorch_and_jax",
    "install": "start",
}


@pytest.mark.browser
@pytest.mark.parametrize("words", WANTED)
def test_what_people_type_finds_the_right_page(visit, words):
    page = visit().open("index.html")
    page.locator("input[name=q]:visible").fill(words)
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?*")
    page.wait_for_function("document.querySelectorAll('#search-results li a').length >= 3")
    page.wait_for_function("!document.querySelector('#search-progress')?.innerText")
    links = page.locator("#search-results li > a").evaluate_all("links => links.map(link => link.pathname)")
    assert WANTED[words] in [Path(link).stem for link in links[:3]]


@pytest.mark.browser
def test_the_page_of_the_search_has_a_field_of_its_own(visit):
    """On a phone, the field of the menu is hidden."""
    page = visit(width=360).open("search.html")
    page.locator("form.search input").fill("regression")
    page.locator("form.search button").click()
    page.wait_for_function("document.querySelectorAll('#search-results li a').length >= 3")


@pytest.mark.browser
def test_keywords_are_told_in_the_head_and_stand_nowhere_in_the_text(visit):
    page = visit().open("gpu.html")
    assert "nvidia" in page.locator("meta[name=keywords]").get_attribute("content")
    assert "cuda, nvidia" not in page.locator("body").text_content()


def test_few_pages_claim_a_keyword():
    """The search shows three pages or more at once; a word on more pages than that would hide one of them."""
    pages: dict = {}
    for path in DOCS.rglob("*.md"):
        head = re.match(r"---\nmyst:\n  html_meta:\n    keywords: (.*)\n---\n", path.read_text(encoding="utf-8"))
        for word in head[1].split(", ") if head else ():
            pages.setdefault(word.lower(), []).append(path.stem)
    assert all(len(found) <= 3 and len(found) == len(set(found)) for found in pages.values()), pages
    assert {word: page for word, page in WANTED.items() if page not in pages.get(word, ())} == {}
