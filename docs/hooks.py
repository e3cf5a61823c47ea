"""What this site does while Sphinx builds it: pages are read, written, and completed when all of them are there."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "interactive"))

import course
import digit_models
import lessons
import phone
from docutils import nodes
from PIL import Image
from sphinx import addnodes

# --- before pages are read --------------------------------------------------------------------------------------------


def write_downloads(app):
    """Write what readers of the course download, before pages link to it."""
    course.write_downloads(course.TEACHING / "downloads")


# --- while pages are read ---------------------------------------------------------------------------------------------


def link_gallery(app, name, source):
    """Let a link to an example lead to its page in the gallery, not to its file."""
    example = rf"\]\((?:\.\./)+examples/({'|'.join(lessons.ORDER)})\.py\)"
    source[0] = re.sub(example, r"](/gallery/\1.rst)", source[0])


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


# --- while pages are written ------------------------------------------------------------------------------------------

FIGURE = re.compile(r"<img [^>]*sphx-glr-single-img[^>]*>")
SCRIPT = re.compile(r'<div class="highlight-Python notranslate">.*?</pre></div>\s*</div>', re.S)


def figures_first(app, page, template, context, doctree):
    """Put figures of the gallery into boxes that scroll; the first one stands before its script, which is folded."""
    body = context.get("body")
    if not body:
        return
    boxes = [f'<div tabindex="0" class="figure">{figure}</div>' for figure in FIGURE.findall(body)]
    if not (page.startswith("gallery/") and SCRIPT.search(body)):
        left = iter(boxes)
        context["body"] = FIGURE.sub(lambda _: next(left), body)
        return
    first, *further = boxes or [""]
    left, fold = iter(["", *further]), '<details class="script"><summary>The script</summary>{}</details>'
    body = SCRIPT.sub(lambda block: fold.format(block.group()), FIGURE.sub(lambda _: next(left, ""), body))
    context["body"] = body.replace('<details class="script">', f'{first}<details class="script">', 1)


def fit_phones(app, page, template, context, doctree):
    """Let tables, figures, formulas and printed sentences fit a phone."""
    if body := context.get("body"):
        kept = phone.keep_numbers, phone.keep_options, phone.label_cells
        for step in (*kept, phone.join_punctuation, phone.break_sentences):
            body = step(body)
        context["body"] = phone.fit_figures(body, Path(app.srcdir))


# --- when all pages are there -----------------------------------------------------------------------------------------

FINISHED = {  # what the theme leaves out, for readers who listen, or have no mouse
    '<p class="caption" role="heading">': '<p class="caption" role="heading" aria-level="2">',
    '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="All pages">',
    '<aside class="toc-drawer">': '<aside class="toc-drawer" aria-label="This page">',
    '<aside class="toc-drawer no-toc">': '<aside class="toc-drawer no-toc" aria-label="This page">',
    '<div id="search-results"></div>': (
        '<h1>Search</h1><form class="search" action="search.html" role="search">'
        '<input name="q" type="search" aria-label="Words to search for"> <button>Search</button></form>'
        '<div id="search-results" class="results"></div>'
    ),
    # Blocks, tables and figures may be wider than a phone; with the focus, they scroll by the arrow keys.
    "<pre>": '<pre tabindex="0">',
    '<table class="docutils': '<table tabindex="0" class="docutils',  # Those of cards do not scroll.
    "<p><img ": '<p tabindex="0"><img ',
    '<figure class="': '<figure tabindex="0" class="',
}


def finish_pages(app):
    """Complete the pages as FINISHED says; a page that was completed in an earlier build stays as it is."""
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for left_out, complete in FINISHED.items():
            text = text.replace(left_out, complete)
        page.write_text(text, encoding="utf-8")


def finish_sources(app):
    """Let the titles of source pages break behind a dot, and remove the links from there back to the API.

    These use module names under which nothing is documented.
    """
    for page in Path(app.outdir, "_modules").rglob("*.html"):
        text = re.sub(r'<a class="viewcode-back".*?</a>', "", page.read_text(encoding="utf-8"))
        text = re.sub(r"(?<=<h1>Source code for )[\w.]+", lambda name: name[0].replace(".", ".<wbr>"), text)
        page.write_text(text, encoding="utf-8")


def show_panels(app):
    """Let thumbnails show one panel."""
    size = app.config.sphinx_gallery_conf["thumbnail_size"]
    lessons.show_panels(Path(app.srcdir, "gallery"), Path(app.outdir, "_images"), size)


def lighten_thumbnails(app):
    """Give thumbnails 64 colours, which takes a quarter of the bytes: a page shows up to thirty of them."""
    for path in Path(app.outdir, "_images").glob("*_thumb.png"):
        with Image.open(path) as picture:
            whole = picture.convert("RGBA")
        page = Image.new("RGB", whole.size, "white")
        page.paste(whole, mask=whole)
        # An octree keeps the colours of thin lines, which few pixels have.
        page.quantize(64, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(path, optimize=True)


def write_indexes(app):
    """Write llms.txt, a plain list of all pages, and sitemap.xml if the address of the site is known."""
    titles, base = {name: title.astext() for name, title in sorted(app.env.titles.items())}, app.config.html_baseurl
    lines = [f"- [{title}]({base}{name}.html)" for name, title in titles.items()]
    text = f"# idl_ref\n\nThe reference implementation of Implicit Deep Learning. All pages:\n\n{chr(10).join(lines)}\n"
    Path(app.outdir, "llms.txt").write_text(text, encoding="utf-8")
    if base:
        places = "".join(f"<url><loc>{base}{name}.html</loc></url>" for name in titles)
        head = '<?xml version="1.0" encoding="UTF-8"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">'
        Path(app.outdir, "sitemap.xml").write_text(f"{head}{places}</urlset>\n", encoding="utf-8")


def train_digit_models(app):
    """Train the models that the page on drawn digits runs, and write them into the site."""
    digit_models.write(Path(app.outdir, "_static", "interactive"))


def complete(app, exception):
    """Do all that needs the whole site."""
    if exception is None and app.builder.format == "html":
        for step in (finish_pages, finish_sources, show_panels, lighten_thumbnails, write_indexes, train_digit_models):
            step(app)


def setup(app):
    app.connect("builder-inited", write_downloads)
    app.connect("source-read", link_gallery)
    app.connect("autodoc-process-docstring", escape_bars)
    app.connect("doctree-read", index_keywords)
    app.connect("html-page-context", figures_first)
    app.connect("html-page-context", fit_phones)
    app.connect("build-finished", complete)
