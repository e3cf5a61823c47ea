"""Check the built site: links, anchors, figures, formulas and public names, and that no page asks the network.

Usage: python docs/check_site.py docs/_build/html
"""

import inspect
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHED = {
    "script": "src",
    "img": "src",
    "link": "href",
    "iframe": "src",
    "source": "src",
}  # the attribute of a tag whose target a browser loads


class Page(HTMLParser):
    """The links, anchors and texts of one page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.fetched, self.ids, self.words, self.warned = [], [], set(), [], []
        self.quotes = 0  # In the pages of the API, these are formulas that docutils took for prose.
        self.within = []  # the open tags of code, scripts and formulas, whose text is not prose
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if "id" in found:
            self.ids.add(found["id"])
        self.quotes += tag == "blockquote"
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in FETCHED and FETCHED[tag] in found and found.get("rel") not in ("index", "search", "next", "prev"):
            self.fetched.append(found[FETCHED[tag]])
        self.fetched += [part.split()[0] for part in found.get("srcset", "").split(",") if part]
        formula = tag == "math"
        if tag in ("script", "style", "code", "pre") or formula or self.within:
            self.within.append(tag)
        if "system-message" in (found.get("class") or ""):
            self.words.append("docutils system message")

    def handle_endtag(self, tag):
        if self.within and tag in self.within:
            while self.within.pop() != tag:
                pass

    def handle_data(self, data):
        if not self.within:
            self.words.append(data)
        self.warned += re.findall(r"\.py:\d+: (\w*Warning: .*)", data)


def problems(site, names=()):
    """Everything that is wrong with the pages under `site`, in words; `names` must each have an anchor."""
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    if not pages:
        yield f"{site} holds no pages"
    for path, page in pages.items():
        where = path.relative_to(site.resolve())
        for link in page.links:
            yield from (f"{where}: {reason}" for reason in _broken(link, path, pages))
        for link in page.fetched:
            if urlsplit(link).scheme not in ("", "data") or link.startswith("//"):
                yield f"{where}: loads {link} from the network"
            else:
                yield from (f"{where}: {reason}" for reason in _broken(link, path, pages))
        yield from (f"{where}: a script of the gallery warns: {warning}" for warning in page.warned)
        if where.parts[0] == "api" and page.quotes:
            yield f"{where}: not rendered: indented lines, which are folded without two colons before them"
        text = " ".join(page.words)
        for pattern in (r"docutils system message", r"\$\$?[^$ ]+\$", r"\{(?:py:\w+|doc|ref)\}"):
            if found := re.search(pattern, text):
                yield f"{where}: not rendered: {found.group()}"
    for sheet in site.rglob("*.css"):
        for address in re.findall(r"(?:url\(|@import )[\"']?(https?:[^\"')]+)", sheet.read_text(encoding="utf-8")):
            yield f"{sheet.relative_to(site)}: loads {address} from the network"
    anchors = {anchor for page in pages.values() for anchor in page.ids}
    yield from (f"no page documents {name}" for name in names if name not in anchors)


def _broken(link, path, pages):
    """The reason why a link leads nowhere, if it does."""
    parts = urlsplit(link)
    if parts.scheme or link.startswith("//"):
        return  # links to other sites are not checked
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir():
        target /= "index.html"
    if not target.exists():
        yield f"broken link {link}"
    elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
        yield f"no anchor for {link}"


def public_names():
    """Everything that `import idl_ref` offers."""
    import idl_ref

    return [f"idl_ref.{name}" for name in idl_ref.__all__ if not inspect.ismodule(getattr(idl_ref, name))]


if __name__ == "__main__":
    found = list(problems(Path(sys.argv[1]), public_names()))
    print("\n".join(found) or "the site has no broken links, figures, formulas or names")
    sys.exit(bool(found))
