"""The course site: `sphinx-build docs site`, from the executed notebooks, without a network or a kernel.

MyST-NB was chosen over Jupyter Book 2: that one downloads its theme while it builds, and its pages want a server.
"""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS / "extensions"), str(DOCS), str(DOCS.parent)]

project = "artifex_rl"
author = copyright = "The artifex_rl authors"
version = release = version_of("artifex_rl")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinxcontrib.bibtex",
    "sphinx_copybutton",
    "sphinx_design",
    # Ours, in extensions/:
    "course_notebooks",
    "course_gallery",
    "api_pages",
    "source_pages",
    "glossary_links",
    "local_mathjax",
    "accessible_pages",
]

# What is read
nb_execution_mode = "off"
nb_mime_priority_overrides = [("html", "text/html", 0)]
myst_enable_extensions = ["dollarmath", "amsmath", "deflist", "colon_fence", "attrs_inline", "substitution"]
myst_heading_anchors = 3
bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"
exclude_patterns = ["extensions", "**/.ipynb_checkpoints"]
default_role = "py:obj"  # single backticks of the docstrings: code, and a link where there is something to link to
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 80
napoleon_google_docstring, napoleon_numpy_docstring = True, False
suppress_warnings = ["misc.highlighting_failure", "mystnb.unknown_mime_type"]

# What is written
html_theme = "furo"
html_title = "artifex_rl"
html_static_path = ["_static"]
html_css_files = ["course.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_domain_indices = False
html_show_search_summary = False  # it would fetch the pages, which a browser refuses on the disk
html_last_updated_fmt = None  # the same sources give the same pages
templates_path = []
copybutton_exclude = ".linenos, .gp, .go"
pygments_style, pygments_dark_style = "a11y-high-contrast-light", "a11y-high-contrast-dark"
