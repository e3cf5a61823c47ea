"""Settings of the site: python -m sphinx -W --keep-going -b html docs docs/_build/html. No page asks the network."""

import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "interactive"))

import course
import digit_models
import lessons
from docutils import nodes
from sphinx import addnodes

import idl_ref

project, author, copyright = "idl_ref", "The idl_ref authors", "The idl_ref authors, BSD-3-Clause"
version = release = idl_ref.__version__
extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "mathml",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
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
html_baseurl = os.environ.get("IDL_REF_URL", "")  # where the site will be, such as https://example.org/idl_ref/
myst_html_meta = {
    "description": "Implicit Deep Learning: equilibrium models with certificates and exact gradients",
    "property=og:image": f"{html_baseurl}_static/social.png",
    "property=og:title": "idl_ref, the reference implementation of Implicit Deep Learning",
}
html_show_sourcelink = False
html_show_sphinx = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "  # what a reader does not type
copybutton_prompt_is_regexp = True
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
    "image_scrapers": ("lessons.one_panel",),
    "thumbnail_size": (400, 280),
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


def write_indexes(app, exception):
    """Write llms.txt, a plain list of all pages, and sitemap.xml if the address of the site is known."""
    if exception is not None or app.builder.format != "html":
        return
    titles = {name: title.astext() for name, title in sorted(app.env.titles.items())}
    lines = [f"- [{title}]({html_baseurl}{name}.html)" for name, title in titles.items()]
    text = f"# idl_ref\n\nThe reference implementation of Implicit Deep Learning. All pages:\n\n{chr(10).join(lines)}\n"
    Path(app.outdir, "llms.txt").write_text(text, encoding="utf-8")
    if html_baseurl:
        places = "".join(f"<url><loc>{html_baseurl}{name}.html</loc></url>" for name in titles)
        head = '<?xml version="1.0" encoding="UTF-8"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">'
        Path(app.outdir, "sitemap.xml").write_text(f"{head}{places}</urlset>\n", encoding="utf-8")


CODE = re.compile(r'<div class="highlight-Python notranslate">.*?</pre></div>\s*</div>', re.S)


def show_panels(app, exception):
    """Let thumbnails show one panel."""
    if exception is None and app.builder.format == "html":
        size = sphinx_gallery_conf["thumbnail_size"]
        lessons.show_panels(Path(app.srcdir, "gallery"), Path(app.outdir, "_images"), size)


def figures_first(app, page, template, context, doctree):
    """Put each figure of the gallery into a box that scrolls, and before its script, which is folded."""
    body = context.get("body")
    if not body:
        return
    figure = r"<img [^>]*sphx-glr-single-img[^>]*>"
    body = re.sub(figure, r'<div class="figure">\g<0></div>', body)
    if page.startswith("gallery/") and (first := CODE.search(body)):
        figures = re.findall(rf'<div class="figure">{figure}</div>', body)
        for each in figures:
            body = body.replace(each, "")
        shown = "".join(figures[:1])
        body = body[: first.start()] + shown + body[first.start() :]
        fold = '<details class="script"><summary>The script</summary>{}</details>{}'
        pieces = iter([*figures[1:]])
        body = CODE.sub(lambda block: fold.format(block.group(), next(pieces, "")), body)
    context["body"] = body


def escape_bars(app, what, name, obj, options, lines):
    """Escape the bars of |A| in docstrings, which would be a substitution in reStructuredText."""
    code = (">>>", "...", "|")
    lines[:] = [line if line.lstrip().startswith(code) else line.replace("|", r"\|") for line in lines]


def index_keywords(app, doctree):
    """Let the search find a page by the keywords of its head, as `html_meta` has them: as by its main index entries."""
    for meta in list(doctree.findall(nodes.meta)):
        if meta.get("name") == "keywords":
            words = [word.strip().lower() for word in meta["content"].split(",")]
            doctree.append(addnodes.index(entries=[("single", word, "", "main", None) for word in words]))


def setup(app):
    app.connect("doctree-read", index_keywords)
    app.connect("builder-inited", write_downloads)
    app.connect("build-finished", finish_pages)
    app.connect("build-finished", write_indexes)
    app.connect("build-finished", show_panels)
    app.connect("build-finished", train_digit_models)
    app.connect("build-finished", drop_back_links)
    app.connect("autodoc-process-docstring", escape_bars)
    app.connect("source-read", link_gallery)
    app.connect("html-page-context", figures_first)
