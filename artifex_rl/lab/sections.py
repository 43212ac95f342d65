"""The headings of a Markdown text, and the anchors that GitHub, JupyterLab's viewers and MyST make of them."""

from __future__ import annotations

import re
from collections.abc import Iterator

_FENCE = re.compile(r"^\s{0,3}(```+|~~~+)")
_HEADING = re.compile(r"^ {0,3}(#{1,6})\s+(.+?)\s*#*\s*$")


def prose_lines(markdown: str) -> Iterator[str]:
    """The lines that do not belong to a block of code."""
    closing = None
    for line in markdown.splitlines():
        fence = _FENCE.match(line)
        if closing is None and fence:
            closing = fence[1]
        elif closing and fence and fence[1].startswith(closing):
            closing = None
        elif closing is None:
            yield line


def headings(markdown: str) -> list[tuple[int, str]]:
    """Level (1 to 6) and words of each heading, in order; inline markup is taken off."""
    found = (_HEADING.match(line) for line in prose_lines(markdown))
    return [(len(match[1]), plain(match[2])) for match in found if match]


def plain(text: str) -> str:
    """Words without the marks of code, emphasis and links."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"[`*]|(?<!\w)_|_(?!\w)", "", text)


def slug(heading: str) -> str:
    """The anchor of a heading: lower case, a hyphen for each space, punctuation dropped."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(markdown: str) -> list[str]:
    """The anchors of a whole text, in order; a heading that comes again gets a number."""
    seen: dict[str, int] = {}
    made = []
    for _, heading in headings(markdown):
        name = slug(heading)
        made.append(name if name not in seen else f"{name}-{seen[name]}")
        seen[name] = seen.get(name, 0) + 1
    return made
