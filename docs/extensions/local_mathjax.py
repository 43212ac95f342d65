"""MathJax from a package on the disk beside the pages: nothing is fetched."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

from sphinx.application import Sphinx

FILES = ("tex-svg.js", "a11y/assistive-mml.js")  # the latter makes formulas readable to screen readers


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    source = Path(find_spec("sphinx-mathjax-offline").submodule_search_locations[0]) / "static" / "mathjax"
    for name in FILES:
        target = Path(app.outdir) / "_static" / "mathjax" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target)


def setup(app: Sphinx) -> dict:
    app.config.mathjax_path = "mathjax/tex-svg.js"
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
