"""Settings of the site: python -m sphinx -W --keep-going -b html docs docs/_build/html. No page asks the network."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "interactive"))

import course
import digit_models
import lessons

import idl_ref

project, author, copyright = "idl_ref", "The idl_ref authors", "The idl_ref authors, BSD-3-Clause"
version = release = idl_ref.__version__
extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "mathml",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
# estimators_table.md is a part of estimators.md
exclude_patterns = ["_build", "teaching/labs", "teaching/solutions", "estimators_table.md"]
default_role = "py:obj"

# --- pages ------------------------------------------------------------------------------------------------------------

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"idl_ref {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/favicon.svg"
html_show_sourcelink = False
html_show_sphinx = False
html_math_renderer = "mathml"
pygments_style, pygments_dark_style = "a11y-high-contrast-light", "a11y-high-contrast-dark"

# --- API --------------------------------------------------------------------------------------------------------------

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # shapes and meanings stand in the Parameters sections
autodoc_preserve_defaults = True
numpydoc_show_class_members = False

# --- gallery ----------------------------------------------------------------------------------------------------------

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "ignore_pattern": "|".join(lessons.LEFT_OUT),
    "within_subsection_order": "lessons.Lesson",
    "reset_modules": ("matplotlib", "lessons.style"),
    "reset_modules_order": "before",
    "abort_on_example_error": True,
    "image_srcset": ["2x"],
    "doc_module": ("idl_ref",),
    "backreferences_dir": "gallery/backreferences",
    "write_computation_times": False,  # the page of computation times loads scripts from the network
    "show_memory": False,
    "download_all_examples": False,
    "min_reported_time": 1e6,
}

# --- course -----------------------------------------------------------------------------------------------------------


def write_downloads(app):
    """Write what readers of the course download, before pages link to it."""
    course.write_downloads(course.TEACHING / "downloads")


# --- what the theme leaves out ----------------------------------------------------------------------------------------

FINISHED = {  # for readers who listen, or have no mouse
    '<p class="caption" role="heading">': '<p class="caption" role="heading" aria-level="2">',
    '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="All pages">',
    '<aside class="toc-drawer">': '<aside class="toc-drawer" aria-label="This page">',
    '<aside class="toc-drawer no-toc">': '<aside class="toc-drawer no-toc" aria-label="This page">',
    # Blocks, tables and figures may be wider than a phone; with the focus, they scroll by the arrow keys.
    "<pre>": '<pre tabindex="0">',
    '<table class="docutils': '<table tabindex="0" class="docutils',
    "<p><img ": '<p tabindex="0"><img ',
    '<figure class="': '<figure tabindex="0" class="',
    '<div class="figure">': '<div tabindex="0" class="figure">',
    '<div id="search-results">': '<h1>Search</h1><div id="search-results">',
}


def finish_pages(app, exception):
    """Complete the pages as FINISHED says."""
    if exception is not None or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for left_out, complete in FINISHED.items():
            text = text.replace(left_out, complete)
        page.write_text(text, encoding="utf-8")


# --- the page on drawn digits -----------------------------------------------------------------------------------------


def train_digit_models(app, exception):
    """Train the models that the page on drawn digits runs, and write them into the site."""
    if exception is None and app.builder.format == "html":
        digit_models.write(Path(app.outdir, "_static", "interactive"))


def drop_back_links(app, exception):
    """Remove the links from source pages back to the API: they use module names under which nothing is documented."""
    for page in Path(app.outdir, "_modules").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        page.write_text(re.sub(r'<a class="viewcode-back".*?</a>', "", text), encoding="utf-8")


def link_gallery(app, name, source):
    """Let a link to an example lead to its page in the gallery, not to its file."""
    example = rf"\]\((?:\.\./)+examples/({'|'.join(lessons.ORDER)})\.py\)"
    source[0] = re.sub(example, r"](/gallery/\1.rst)", source[0])


def wrap_figures(app, page, template, context, doctree):
    """Put each figure of the gallery, which may be wider than a phone, into a box that scrolls."""
    if context.get("body"):
        figure = r"<img [^>]*sphx-glr-single-img[^>]*>"
        context["body"] = re.sub(figure, r'<div class="figure">\g<0></div>', context["body"])


def escape_bars(app, what, name, obj, options, lines):
    """Escape the bars of |A| in docstrings, which would be a substitution in reStructuredText."""
    code = (">>>", "...", "|")
    lines[:] = [line if line.lstrip().startswith(code) else line.replace("|", r"\|") for line in lines]


def setup(app):
    app.connect("builder-inited", write_downloads)
    app.connect("build-finished", finish_pages)
    app.connect("build-finished", train_digit_models)
    app.connect("build-finished", drop_back_links)
    app.connect("autodoc-process-docstring", escape_bars)
    app.connect("source-read", link_gallery)
    app.connect("html-page-context", wrap_figures)
