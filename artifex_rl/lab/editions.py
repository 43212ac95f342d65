"""The course for a class: `python -m artifex_rl.lab.editions notebooks --out course/`.

From the same notebooks come two folders. `student`: without solutions and without outputs, with the checks.
`teacher`: solutions open, outputs kept; a table of the sections and their minutes at the top, notes above the cells
that have some, and below each exercise and quiz the wrong answers to expect with what the checker says to them. The
same notebooks always give the same bytes. It takes about a minute: each wrong answer is really checked.

A cell is a solution if "solution" is among its tags. Notes are a cell's metadata, see `artifex_rl.lab.lesson_plan`.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from artifex_rl.lab.course_files import make_texts, run_command, write_texts
from artifex_rl.lab.expected_mistakes import expected_mistakes
from artifex_rl.lab.lesson_plan import TEACHING, agenda, sections, teaching_of

SOLUTION, TEACHER = "solution", "teacher"
LOOKS_SOLVED = re.compile(r"<summary>\s*(?:<\w+>\s*)*solution", re.IGNORECASE)


def student_edition(notebook: NotebookNode) -> NotebookNode:
    """The notebook without solutions, outputs, widget state and notes for teachers.

    Raises:
        ValueError: a cell looks like a solution and has no tag that says so, or a tag is misspelt.
    """
    _check_tags(notebook)
    edition = copy.deepcopy(notebook)
    edition.metadata.pop("widgets", None)
    edition.cells = [cell for cell in edition.cells if not _is_solution(cell)]
    for cell in edition.cells:
        cell.metadata.pop(TEACHING, None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return edition


def teacher_edition(notebook: NotebookNode) -> NotebookNode:
    """The notebook with its outputs, its solutions open, an agenda, notes, and the mistakes to expect.

    Raises:
        ValueError: as for `student_edition`; or a note is not as it should be, or a cell calls an unknown check.
    """
    _check_tags(notebook)
    edition = copy.deepcopy(notebook)
    cells = []
    mistakes = None
    for cell in edition.cells:
        solved = _is_solution(cell)
        if mistakes and not solved:  # they stand below the solution where there is one
            cells.append(mistakes)
            mistakes = None
        note = _note(cell)
        if note:
            cells.append(_for_teachers(note, cell))
        if solved:
            cell.source = cell.source.replace("<details>", "<details open>")
        cells.append(cell)
        if cell.cell_type == "code":
            wrong = expected_mistakes(cell.source)
            mistakes = _for_teachers(wrong, cell, "mistakes-") if wrong else mistakes
    cells += [mistakes] if mistakes else []
    found = sections(notebook.cells)
    if any(section.minutes for section in found):
        cells.insert(1, _for_teachers(f"**For the teacher**\n\n{agenda(found)}", cells[0], "agenda-"))
    edition.cells = cells
    return edition


EDITIONS: dict[str, Callable[[NotebookNode], NotebookNode]] = {
    "student": student_edition,
    "teacher": teacher_edition,
}


def build(source: str | os.PathLike, out: str | os.PathLike) -> list[Path]:
    """Write both editions of every notebook of a folder.

    Everything is read and checked before anything is written. Other files of the target folders stay as they are.

    Args:
        source: the folder of the notebooks.
        out: a folder outside of it; made where it is missing.

    Returns:
        The files written.

    Raises:
        ValueError: there are no notebooks, `out` lies in `source`, or a notebook is not valid; the message names it.
    """
    return write_texts(out, make_texts(source, out, _editions))


def _editions(stem: str, notebook: NotebookNode) -> dict[str, str]:
    texts = {}
    for name, edition_of in EDITIONS.items():
        edition = edition_of(notebook)
        nbformat.validate(edition)
        texts[f"{name}/{stem}.ipynb"] = nbformat.writes(edition) + "\n"
    return texts


def _is_solution(cell: NotebookNode) -> bool:
    return SOLUTION in cell.metadata.get("tags", [])


def _check_tags(notebook: NotebookNode) -> None:
    """A solution that is not tagged would be handed to the class."""
    for cell in notebook.cells:
        near = [tag for tag in cell.metadata.get("tags", []) if tag != SOLUTION and tag.lower().startswith("sol")]
        if near:
            raise ValueError(f"tags: got {near[0]!r} in the cell {cell.id!r}, needs {SOLUTION!r} if it is one")
        if cell.cell_type == "markdown" and LOOKS_SOLVED.search(cell.source) and not _is_solution(cell):
            raise ValueError(f"tags: got none in the cell {cell.id!r}, needs {SOLUTION!r}: its summary says so")


def _note(cell: NotebookNode) -> str | None:
    """What a teacher should know before the cell, as Markdown."""
    teaching = teaching_of(cell)
    if not teaching:
        return None
    parts = ["**For the teacher**"]
    if "minutes" in teaching:
        parts.append(f"{teaching['minutes']} minutes")
    return "> " + "  ·  ".join(parts) + (f"\n>\n> {teaching['note']}" if "note" in teaching else "")


def _for_teachers(text: str, beside: NotebookNode, kind: str = "") -> NotebookNode:
    return new_markdown_cell(text, id=f"teacher-{kind}{beside.id}"[:64], metadata={"tags": [TEACHER]})


def main(arguments: list[str] | None = None) -> None:
    description = "Write the student and the teacher edition of a course."
    goes = "where the folders student and teacher go"
    run_command(build, "artifex_rl.lab.editions", description, goes, arguments)


if __name__ == "__main__":
    main()
