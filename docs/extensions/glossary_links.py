"""On every page the first use of a term of the glossary is a link to what it means; nobody has to write it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

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
NOT_ON = ("api/", "genindex", "search", "references", GLOSSARY)


@cache
def terms(app: Sphinx) -> dict[str, tuple[str, str]]:
    """Where each term is explained, (anchor, as it is written), by the term in small letters."""
    return {
        name.lower(): (anchor, name)
        for name, _, kind, docname, anchor, _ in app.env.get_domain("std").get_objects()
        if kind == "term" and docname == GLOSSARY
    }


def find_terms(text: str, known: dict[str, tuple[str, str]]) -> Iterator[tuple[int, int, str]]:
    """(start, end, term in small letters) of the terms in a text: the longest that fits, with a plural's s."""
    starting: dict[str, list[str]] = {}
    for term in sorted(known, key=len, reverse=True):
        starting.setdefault(term[0], []).append(term)
    small, end = text.lower(), 0
    for word in WORD.finditer(small):  # a table of first letters, for a pattern of all terms takes minutes
        for term in starting.get(small[word.start()], ()) if word.start() >= end else ():
            if small.startswith(term, word.start()) and (rest := REST.match(small, word.start() + len(term))):
                end = rest.end()
                yield word.start(), end, term
                break


WORD, REST = re.compile(r"(?<![\w-])\S"), re.compile(r"(?:s|es)?(?![\w-])")


def link_terms(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    known = terms(app)
    if docname.startswith(NOT_ON) or not known:
        return
    home = app.builder.get_relative_uri(docname, GLOSSARY)
    seen: set[str] = set()
    for text in list(doctree.findall(nodes.Text)):
        if _inside(text, NOT_IN):
            continue
        parts: list[nodes.Node] = []
        last = 0
        for start, end, term in find_terms(text, known):
            anchor, written = known[term]
            found = text[start:end]
            if anchor in seen or (written.isupper() and not found.startswith(written)):  # PPO, and not "ppo"
                continue
            seen.add(anchor)
            link = nodes.reference("", found, refuri=f"{home}#{anchor}", internal=True, classes=["glossary-term"])
            parts += [nodes.Text(text[last:start]), link]
            last = end
        if parts:
            text.parent.replace(text, [*parts, nodes.Text(text[last:])])


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
