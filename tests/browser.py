"""Headless Chromium for the tests of the built site; each of them has the mark `browser`.

The site is built by `python -m sphinx -b html docs docs/_build/html`, and IDL_REF_SITE names another place. These tests
need the extra `browser` and Chromium, and are skipped without them.
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[1]
SITE = Path(os.environ.get("IDL_REF_SITE", ROOT / "docs" / "_build" / "html")).resolve()
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Chromium refuses its sandbox to root, and looks for updates by itself.
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking")
QUIET = ("--disable-component-update", "--disable-sync", "--no-first-run")
WIDTHS = {"phone": 360, "tablet": 768, "desktop": 1280}


def missing() -> str:
    """Return why the tests of this kind cannot run here; nothing if they can."""
    if find_spec("playwright") is None:
        return "playwright comes with the extra browser"
    if CHROMIUM is None:
        return "Chromium is not installed: apt-get install chromium"
    if not (SITE / "index.html").exists():
        return f"{SITE} holds no site: python -m sphinx -b html docs docs/_build/html"
    return ""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and prints nothing."""

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print nothing."""


@contextmanager
def served() -> Iterator[str]:
    """Serve the site on the loopback, and return its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=SITE)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def started() -> Iterator[Any]:
    """Start Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *QUIET])
        yield browser
        browser.close()


class Visit:
    """A visitor of the site, and what went wrong for them: errors of the console, and requests to other hosts.

    Parameters
    ----------
    browser : playwright browser
    address : str
        Where the site is served.
    width : int
        The width of the window, in CSS pixels.
    dark : bool
        Whether the reader's system asks for dark pages.
    options
        Those of a context of playwright, such as has_touch, reduced_motion, java_script_enabled.
    """

    def __init__(self, browser: Any, address: str, width: int = 1280, dark: bool = False, **options: Any) -> None:
        scheme: Any = "dark" if dark else "light"
        self.address, self.wrong = address, []
        size: Any = {"width": width, "height": 800}
        self.context = browser.new_context(viewport=size, color_scheme=scheme, **options)
        self.page = self.context.new_page()
        self.page.on("console", lambda m: self.wrong.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", self._request)

    def _request(self, request: Any) -> None:
        """Note a request to another host."""
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https") and parts.netloc != urlsplit(self.address).netloc:
            self.wrong.append(f"a request to {request.url}")

    def open(self, name: str, from_disk: bool = False) -> Any:
        """Open a page of the site, such as "theory.html", and return playwright's page."""
        self.page.goto(f"file://{SITE}/{name}" if from_disk else f"{self.address}/{name}")
        return self.page

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        script = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.page.evaluate(script))

    def cut(self) -> list[str]:
        """Return the tables that scroll sideways, and the formulas within a line that leave the window."""
        script = """() => {
            const scrolls = (e) => e.tagName == "TABLE" && e.scrollWidth > e.clientWidth + 1;
            const leaves = (e) => e.getBoundingClientRect().right > innerWidth;
            const found = document.querySelectorAll("article table, article span.math math");
            const words = (e) => `${e.tagName} ${e.textContent.trim().slice(0, 60)}`;
            return [...found].filter((e) => scrolls(e) || leaves(e)).map(words);
        }"""
        return list(self.page.evaluate(script))

    def violations(self) -> list[str]:
        """Return what axe-core finds against the accessibility of the page, one line for each element."""
        import axe_core_python

        package = Path(axe_core_python.__file__).parent
        self.page.add_script_tag(path=package / "axe.min.js")
        result = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{found['id']}: {node['html'][:120]} ({node['failureSummary'].splitlines()[-1].strip()})"
            for found in result["violations"]
            for node in found["nodes"]
        ]

    def close(self) -> None:
        """Leave, and refuse what went wrong."""
        self.context.close()
        assert not self.wrong, self.wrong
