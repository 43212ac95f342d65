"""The sections of a notebook and the minutes that they take: what an agenda and a deck of slides are made of.

A section begins at a `##` heading, wherever in a cell that stands: lessons often close a section and open the next in
one cell. What precedes the first is the opening, under the name of the notebook. A cell's metadata
`{"teaching": {"minutes": 8, "note": "Let them guess first."}}` belongs to the section that the cell opens, or else to
the one that it stands in; a section that begins and ends within one cell has none of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from nbformat import NotebookNode

TEACHING = "teaching"
FENCE = re.compile(r"\s*(```|~~~)")


@dataclass
class Section:
    """A stretch of a notebook.

    Args:
        title: of its heading, without the marks.
        minutes: that its cells say they take, in all.
        exercises: the minutes of each exercise among them.
        notes: for the teacher, in order.
    """

    title: str
    minutes: int = 0
    exercises: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def sections(cells: Iterable[NotebookNode]) -> list[Section]:
    """The sections of a notebook's cells, the opening first.

    Raises:
        ValueError: a teaching note is not as it should be.
    """
    found = [Section("Opening")]
    for cell in cells:
        if cell.cell_type == "markdown":
            titles = [piece.splitlines()[0] for piece in pieces(cell.source, "## ") if piece.startswith("## ")]
            found += [Section(title.removeprefix("## ").strip()) for title in titles]
        teaching = teaching_of(cell)
        found[-1].minutes += teaching.get("minutes", 0)
        if "exercise" in cell.metadata.get("tags", []) and "minutes" in teaching:
            found[-1].exercises.append(teaching["minutes"])
        if "note" in teaching:
            found[-1].notes.append(teaching["note"])
    return found


def teaching_of(cell: NotebookNode) -> dict[str, Any]:
    """What the cell's metadata says to the teacher; empty where it says nothing.

    Raises:
        ValueError: there is something else than `minutes`, a positive whole number, and `note`, a text.
    """
    teaching = cell.metadata.get(TEACHING)
    if teaching is None:
        return {}
    if not isinstance(teaching, dict) or not teaching or set(teaching) - {"minutes", "note"}:
        raise ValueError(f"{TEACHING}: got {teaching!r} in the cell {cell.id!r}, needs minutes, note, or both")
    minutes, note = teaching.get("minutes", 1), teaching.get("note", "a note")
    if type(minutes) is not int or minutes < 1:
        raise ValueError(
            f"{TEACHING}: got minutes {minutes!r} in the cell {cell.id!r}, needs a positive whole number"
        )
    if not isinstance(note, str) or not note.strip():
        raise ValueError(f"{TEACHING}: got the note {note!r} in the cell {cell.id!r}, needs a text")
    return dict(teaching)


def pieces(markdown: str, mark: str) -> Iterator[str]:
    """The text cut before every line that begins with `mark`, but not inside fenced code; no part is empty."""
    piece: list[str] = []
    fenced = False
    for line in markdown.splitlines():
        if FENCE.match(line):
            fenced = not fenced
        if line.startswith(mark) and not fenced:
            yield from _whole(piece)
            piece = []
        piece.append(line)
    yield from _whole(piece)


def agenda(found: list[Section]) -> str:
    """Section, minutes and running total, as a Markdown table."""
    rows = ["| section | minutes | in all |", "|---|---:|---:|"]
    total = 0
    for section in found:
        total += section.minutes
        title = section.title.replace("|", r"\|")
        parts = f" (exercises: {' + '.join(map(str, section.exercises))})" if section.exercises else ""
        rows.append(f"| {title}{parts} | {section.minutes or '–'} | {total} |")
    return "\n".join(rows)


def _whole(lines: list[str]) -> list[str]:
    text = "\n".join(lines).strip()
    return [text] if text else []
