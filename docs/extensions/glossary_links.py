"""On every page the first use of a term of the glossary is a link to what it means; nobody has to write it."""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.application import Sphinx

GLOSSARY = "glossary"
#: Where a link would be in the way, or is one already.
NOT_IN = (
    nodes.reference,
    nodes.title,
    nodes.literal,
    nodes.literal_block,
    nodes.math,
    nodes.raw,
    nodes.term,
    nodes.topic,
)
#: Pages that would be all links: the reference speaks of its own names.
NOT_ON = ("api/", "genindex", "search", GLOSSARY)


def terms(app: Sphinx) -> dict[str, tuple[str, str]]:
    """Where each term is explained, (anchor, as it is written), by the term in small letters."""
    return {
        name.lower(): (anchor, name)
        for name, _, kind, docname, anchor, _ in app.env.get_domain("std").get_objects()
        if kind == "term" and docname == GLOSSARY
    }


def link_terms(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    known = terms(app)
    if docname.startswith(NOT_ON) or not known:
        return
    words = sorted(map(re.escape, known), key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w-])({'|'.join(words)})(?:s|es)?(?![\w-])", re.IGNORECASE)
    home = app.builder.get_relative_uri(docname, GLOSSARY)
    seen: set[str] = set()
    for text in list(doctree.findall(nodes.Text)):
        if _inside(text, NOT_IN):
            continue
        parts: list[nodes.Node] = []
        end = 0
        for match in pattern.finditer(text):
            anchor, written = known[match[1].lower()]
            if anchor in seen or (written.isupper() and match[1] != written):
                continue
            seen.add(anchor)
            parts += [nodes.Text(text[end : match.start()])]
            link = nodes.reference("", match[0], refuri=f"{home}#{anchor}", internal=True, classes=["glossary-term"])
            parts, end = [*parts, link], match.end()
        if parts:
            text.parent.replace(text, [*parts, nodes.Text(text[end:])])


def _inside(node: nodes.Node, kinds: tuple[type, ...]) -> bool:
    parent = node.parent
    while parent is not None:
        if isinstance(parent, kinds):
            return True
        parent = parent.parent
    return False


def setup(app: Sphinx) -> dict:
    app.connect("doctree-resolved", link_terms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
