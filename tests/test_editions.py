"""The student edition holds no solution, the teacher edition holds all, and both are the same bytes every time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from artifex_rl.lab.checks import check
from artifex_rl.lab.editions import build, main, student_edition, teacher_edition

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
notebooks = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def is_solution(cell) -> bool:
    return "solution" in cell.metadata.get("tags", [])


def lines(cells) -> Counter:
    return Counter(line.strip() for cell in cells for line in cell.source.splitlines() if line.strip())


def lesson() -> nbformat.NotebookNode:
    """A small one, as if it had been executed, with a solution of either kind, notes, and stored widgets."""
    box, stub, solved = check("returns_of_episodes").cells(1)
    stub.outputs = [new_output("stream", text="returns_of_episodes: … not written yet.\n")]
    box.metadata["teaching"] = {"minutes": 8, "note": "Let them guess first."}
    worked = new_code_cell("print('the secret is', 6 * 7)", id="worked", metadata={"tags": ["solution"]})
    worked.outputs = [new_output("stream", text="the secret is 42\n")]
    setup = new_code_cell("import numpy as np\nfrom artifex_rl.lab.checks import check", id="setup")
    for number, cell in enumerate((setup, stub, worked), 1):
        cell.execution_count = number
    cells = [new_markdown_cell("# A lesson", id="title"), setup, box, stub, solved, worked]
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "widgets": {"w": {}},
    }
    return new_notebook(cells=cells, metadata=metadata)


def write(folder: Path, **lessons) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, notebook in lessons.items():
        nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder


def run(notebook: nbformat.NotebookNode, folder: Path) -> dict[str, str]:
    """What its cells print; a cell that raises is an error."""
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return {
        cell.id: "".join(output.get("text", "") for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    }


def pasted(source: nbformat.NotebookNode, student: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The student's notebook with every stub replaced by the solution that the source has for it."""
    code = "\n".join(
        block
        for cell in source.cells
        if is_solution(cell)
        for block in re.findall(r"```python\n(.*?)```", cell.source, re.S)
    )
    solutions = {part.split("(")[0]: f"def {part}" for part in re.split(r"^def ", code, flags=re.M)[1:]}
    for cell in student.cells:
        stub = re.search(r"def (\w+)\(.*\):\n    \.\.\.\n", cell.source)
        if cell.cell_type == "code" and stub:
            cell.source = cell.source.replace(stub[0], solutions[stub[1]])
    return student


# The student edition


@notebooks
def test_no_line_of_a_solution_is_left(path):
    """Lines that a solution shares with the lesson, such as `return returns`, are left as often as that has them."""
    source = read(path)
    lesson_has, student_has = (
        lines(c for c in source.cells if not is_solution(c)),
        lines(student_edition(source).cells),
    )
    for line in lines(c for c in source.cells if is_solution(c)):
        assert student_has[line] == lesson_has[line], line
    lesson_text = "\n".join(cell.source for cell in source.cells if not is_solution(cell))
    own = [line for line in lines(c for c in source.cells if is_solution(c)) if line not in lesson_text]
    text = json.dumps(student_edition(source), ensure_ascii=False)
    assert not [line for line in own if json.dumps(line, ensure_ascii=False)[1:-1] in text]


@notebooks
def test_the_rest_of_the_lesson_is_there_in_its_order(path):
    source = read(path)
    kept = [cell for cell in source.cells if not is_solution(cell)]
    assert [(c.id, c.source) for c in student_edition(source).cells] == [(c.id, c.source) for c in kept]
    checked = [c for c in kept if c.cell_type == "code" and "exercise" in c.metadata.get("tags", [])]
    assert all('check("' in c.source for c in checked)


@notebooks
def test_nothing_that_was_computed_is_left(path):
    student = student_edition(read(path))
    nbformat.validate(student)
    assert "widgets" not in student.metadata
    for cell in student.cells:
        assert "teaching" not in cell.metadata
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None


def test_a_solution_in_code_goes_with_its_output():
    student = json.dumps(student_edition(lesson()))
    assert "secret" not in student and "42" not in student and "guess" not in student
    assert "secret" in json.dumps(teacher_edition(lesson()))


# The teacher edition


@notebooks
def test_solutions_are_open_and_outputs_are_kept(path):
    source, teacher = read(path), teacher_edition(read(path))
    nbformat.validate(teacher)
    solved = [cell for cell in teacher.cells if is_solution(cell)]
    assert len(solved) == sum(map(is_solution, source.cells))
    assert all(cell.source.startswith("<details open>") for cell in solved if cell.cell_type == "markdown")
    assert [c.outputs for c in teacher.cells if c.cell_type == "code"] == [
        c.outputs for c in source.cells if c.cell_type == "code"
    ]


def test_notes_stand_above_their_cells():
    teacher = teacher_edition(lesson())
    (i,) = [i for i, cell in enumerate(teacher.cells) if "teacher" in cell.metadata.get("tags", [])]
    assert teacher.cells[i].source == "> **For the teacher**  ·  8 minutes\n>\n> Let them guess first."
    assert teacher.cells[i + 1].id == "exercise-1"


# Both


def test_building_twice_gives_the_same_bytes_and_leaves_the_source_alone(tmp_path, capsys):
    source = write(tmp_path / "notebooks", **{"01_first": lesson(), "02_second": lesson()})
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    main([str(source), "--out", str(tmp_path / "a")])
    assert [line.split(":")[0].split("/")[-2:] for line in capsys.readouterr().out.splitlines()] == [
        [edition, name] for name in ("01_first.ipynb", "02_second.ipynb") for edition in ("student", "teacher")
    ]
    build(source, tmp_path / "b")
    build(source, tmp_path / "b")
    first, second = (
        {path.relative_to(tmp_path / out): path.read_bytes() for path in (tmp_path / out).rglob("*.ipynb")}
        for out in "ab"
    )
    assert first == second and len(first) == 4
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before


def test_the_course_itself_can_be_built(tmp_path):
    written = build(NOTEBOOKS, tmp_path)
    assert {path.relative_to(tmp_path).parts[0] for path in written} == {"student", "teacher"}
    assert len(written) == 2 * len(PATHS)
    assert all(path.stat().st_size < 200_000 for path in written if path.parent.name == "student")


def test_a_notebook_of_a_students_own_is_left_where_it_is(tmp_path):
    source = write(tmp_path / "notebooks", **{"01_first": lesson()})
    mine = write(tmp_path / "out" / "student", mine=lesson()) / "mine.ipynb"
    before = mine.read_bytes()
    build(source, tmp_path / "out")
    assert mine.read_bytes() == before


@pytest.mark.parametrize("tags", [[], ["exercise"], ["Solution"], ["solutions"]])
def test_a_solution_without_its_tag_is_refused_before_anything_is_written(tmp_path, tags):
    careless = lesson()
    careless.cells[4].metadata["tags"] = tags
    source = write(tmp_path / "notebooks", **{"01_first": lesson(), "02_careless": careless})
    with pytest.raises(ValueError, match=r"02_careless.*'exercise-1-solution', needs 'solution'"):
        build(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("note", ["8 minutes", {}, {"minute": 8}])
def test_a_note_that_would_not_be_shown_is_refused(note):
    careless = lesson()
    careless.cells[2].metadata["teaching"] = note
    with pytest.raises(ValueError, match=r"teaching.*'exercise-1', needs minutes, note, or both"):
        teacher_edition(careless)


def test_bad_folders_are_named(tmp_path, capsys):
    with pytest.raises(ValueError, match="needs a folder with notebooks"):
        build(tmp_path, tmp_path / "out")
    source = write(tmp_path / "notebooks", lesson=lesson())
    for out in (source, source / "course"):
        with pytest.raises(ValueError, match="needs a folder outside"):
            build(source, out)
    with pytest.raises(SystemExit, match="needs a folder with notebooks"):
        main([str(tmp_path), "--out", str(tmp_path / "out")])


# In a kernel


@pytest.mark.slow
def test_a_student_runs_it_pastes_the_solution_and_passes(tmp_path):
    student = student_edition(lesson())
    assert "not written yet" in run(student, tmp_path)["exercise-1-stub"]
    assert (
        run(pasted(lesson(), student_edition(lesson())), tmp_path)["exercise-1-stub"]
        == "returns_of_episodes: ✓ right.\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [path for path in PATHS if any(map(is_solution, read(path).cells))], ids=lambda p: p.stem
)
def test_the_students_notebook_runs_to_its_end_with_stubs_and_with_the_solutions(path, tmp_path):
    """The whole runs with the solutions in place; stubs with the imports alone, for nbval runs them with the rest."""
    source = read(path)
    printed = run(pasted(source, student_edition(source)), tmp_path)
    checked = [cell.id for cell in source.cells if cell.id.endswith("-stub")]
    assert len(checked) == 3 and all(printed[name].endswith(": ✓ right.\n") for name in checked)
    stubs = student_edition(source)
    stubs.cells = [cell for cell in stubs.cells if cell.id in (*checked, "setup")]
    assert all("not written yet" in printed for name, printed in run(stubs, tmp_path).items() if name in checked)


@pytest.mark.slow
def test_the_command(tmp_path):
    source = write(tmp_path / "notebooks", lesson=lesson())
    command = [sys.executable, "-m", "artifex_rl.lab.editions", str(source), "--out", str(tmp_path / "course")]
    assert subprocess.run(command, capture_output=True, check=True).stdout.count(b"lesson.ipynb") == 2
