"""The gallery, built anew with every build of the site: it cannot be older than the notebooks."""

from __future__ import annotations

from pathlib import Path

from sphinx.application import Sphinx

from artifex_rl.lab.gallery import build


def write_gallery(app: Sphinx) -> None:
    """Into the folder `gallery` of the sources, which git ignores."""
    source = Path(app.srcdir)
    build(source.parent / "notebooks", source / "gallery", link=_page)


def _page(notebook: str, anchor: str) -> str:
    return f"../notebooks/{notebook}.ipynb" + (f"#{anchor}" if anchor else "")


def setup(app: Sphinx) -> dict:
    app.connect("builder-inited", write_gallery)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
