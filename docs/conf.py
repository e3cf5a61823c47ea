"""Settings of the site: python -m sphinx -W --keep-going -b html docs docs/_build/html. No page asks the network."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

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
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "hooks",
]
# estimators_table.md is a part of estimators.md
exclude_patterns = ["_build", "teaching/labs", "teaching/solutions", "estimators_table.md"]
default_role = "py:obj"
smartquotes = False  # Sentences of docstrings have code in them, which readers copy.

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
    "show_signature": False,
    "image_scrapers": ("lessons.one_panel",),
    "thumbnail_size": (400, 280),
    "download_all_examples": False,
    "min_reported_time": 1e6,
}
