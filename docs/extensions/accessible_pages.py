"""What the theme leaves to be done for readers who listen, or who have no mouse."""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.application import Sphinx


def finish(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    # The captions of the navigation are headings, and a heading has a level.
    if "furo_navigation_tree" in context:
        tree = context["furo_navigation_tree"]
        context["furo_navigation_tree"] = tree.replace('role="heading"', 'role="heading" aria-level="2"')
    # Code that is wider than the page scrolls, and so keys have to reach it.
    if "body" in context:
        body = context["body"].replace("<pre>", '<pre tabindex="0">')
        # A list's children are items; the role that docutils gives to references is out of use.
        body = body.replace('role="doc-biblioentry"', 'role="listitem"')
        context["body"] = SIGNATURE.sub(_signature, body)


#: A long signature, a parameter a line: Sphinx makes a list of definitions of it, with nothing that is defined.
SIGNATURE = re.compile(r"<dl>\s*(<dd>.*?)</dl>", re.DOTALL)


def _signature(found: re.Match) -> str:
    lines = found[1].replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")
    return f'<span class="sig-lines">{lines}</span>'


def setup(app: Sphinx) -> dict:
    app.connect("html-page-context", finish, priority=900)  # after the theme
    return {"parallel_read_safe": True, "parallel_write_safe": True}
