"""What a reader reads: the repository's Markdown and the notebooks, with their links, pictures and anchors."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import nbformat

from artifex_rl.lab.sections import anchors, prose_lines

ROOT = Path(__file__).parent.parent
#: Folders that the build of the site writes, by what they are made of; git ignores them.
WRITTEN = {"docs/notebooks": "notebooks", "docs/api": None, "docs/gallery": None}

_CODE = re.compile(r"(`+)(?:.*?[^`])?\1(?!`)", re.DOTALL)
_IMAGE = re.compile(r"!\[([^\]]*)\]\(\s*<?([^)\s>]+)>?[^)]*\)")
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
_TAG = re.compile(r"<(img|a)\b([^>]*)>", re.IGNORECASE)
_BARE = re.compile(r"<(https?://[^>\s]+)>")


class Document(NamedTuple):
    """A file and its Markdown; a notebook's is that of all its Markdown cells."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def prose(self) -> str:
        """Without code."""
        return _CODE.sub("", "\n".join(prose_lines(self.text)))

    def images(self) -> list[tuple[str, str]]:
        """Alternative text (empty if there is none) and address of each picture."""
        found = _IMAGE.findall(self.prose)
        for tag, attributes in _TAG.findall(self.prose):
            if tag.lower() == "img":
                found.append((_attribute(attributes, "alt"), _attribute(attributes, "src")))
        return found

    def links(self) -> list[tuple[str, str]]:
        """Words and address of each link."""
        prose = _IMAGE.sub("picture", self.prose)
        found = _LINK.findall(prose) + [("", address) for address in _BARE.findall(prose)]
        tags = [attributes for tag, attributes in _TAG.findall(prose) if tag.lower() == "a"]
        return found + [("", _attribute(attributes, "href")) for attributes in tags]

    def anchors(self) -> set[str]:
        """What a link to this document may name after a #."""
        explicit = re.findall(r"^\((\S+)\)=\s*$", self.text, re.MULTILINE)
        return {*anchors(self.text), *explicit, *re.findall(r'\bid="([^"]+)"', self.text)}


def _attribute(attributes: str, name: str) -> str:
    match = re.search(rf"\b{name}\s*=\s*[\"']([^\"']*)[\"']", attributes)
    return match[1] if match else ""


@cache
def documents() -> tuple[Document, ...]:
    """README, the documentation and the notebooks, without what the build of the site writes."""
    pages = [ROOT / "README.md", *sorted((ROOT / "benchmarks").glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
    pages = [page for page in pages if not any(page.is_relative_to(ROOT / folder) for folder in WRITTEN)]
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    return tuple(Document(path, read(path)) for path in [*pages, *notebooks])


@cache
def read(path: Path) -> str:
    if path.suffix != ".ipynb":
        return path.read_text("utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def origin(target: Path) -> Path | None:
    """What a link's target is made of, if the build of the site writes it; None if that is not known."""
    for folder, source in WRITTEN.items():
        if target.is_relative_to(ROOT / folder):
            return ROOT / source / target.relative_to(ROOT / folder) if source else None
    return target
