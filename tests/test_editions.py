"""The student edition holds no solution, the teacher edition holds all, and both are the same bytes every time."""

from __future__ import annotations

import ast
import builtins
import contextlib
import dataclasses
import io
import json
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from artifex_rl.lab.checks import Choice, Number, check, registered
from artifex_rl.lab.editions import build, main, student_edition, teacher_edition
from artifex_rl.lab.exercise import Exercise
from artifex_rl.lab.expected_mistakes import _mistakes, expected_mistakes, source_of
from artifex_rl.lab.lesson_plan import agenda, pieces, sections

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
notebooks = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def is_solution(cell) -> bool:
    return "solution" in cell.metadata.get("tags", [])


@cache
def teacher_of(path: Path) -> nbformat.NotebookNode:
    """Once, for each wrong answer in it is really checked."""
    return teacher_edition(read(path))


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


@notebooks
def test_no_mistake_and_no_answer_of_a_quiz_is_told(path):
    text = " ".join("\n".join(cell.source for cell in student_edition(read(path)).cells).split())
    for made in registered().values():
        told = list(made.explanations.values()) if isinstance(made, Choice) else [hint for _, hint in made.mistakes]
        told = [hint for hint in told if len(hint.split()) > 6]  # "β divides the reward alone" is the lesson's, too
        assert not [hint for hint in told if " ".join(hint.split()) in text]
    assert "Expected mistakes" not in text and "expected_mistakes" not in text


# Minutes and notes


def stated(path: Path) -> int:
    head = read(path).cells[0].source
    return 15 if "A quarter of an hour." in head else int(re.search(r"\*\*Time\*\* about (\d+) minutes", head)[1])


@notebooks
def test_the_minutes_of_the_sections_are_those_that_the_head_states(path):
    assert sum(section.minutes for section in sections(read(path).cells)) == stated(path)


@notebooks
def test_every_section_and_every_exercise_has_minutes_and_a_note(path):
    """A section that begins and ends within one cell shares those of the next, for notes belong to cells."""
    cells = read(path).cells
    opened = [[p for p in pieces(cell.source, "## ") if p.startswith("## ")] for cell in cells]
    shared = [piece.splitlines()[0][3:] for found in opened for piece in found[:-1]]
    for section in sections(cells):
        if section.title in shared:
            continue
        assert section.minutes and section.notes, section.title
        assert all(len(note.split()) >= 6 for note in section.notes), section.notes
    boxes = [cell for cell in cells if "exercise" in cell.metadata.get("tags", []) and cell.cell_type == "markdown"]
    for box in boxes:
        assert box.metadata["teaching"]["minutes"] == int(re.search(r"·  (\d+) minutes  ·", box.source)[1]), box.id
        assert box.metadata["teaching"]["note"]


def test_no_note_is_used_twice():
    notes = [note for path in PATHS for section in sections(read(path).cells) for note in section.notes]
    assert not [note for note, times in Counter(notes).items() if times > 1]


def test_an_agenda_adds_up():
    cells = [
        new_markdown_cell(text, id=f"cell-{i}") for i, text in enumerate(["# A", "x\n\n## B | C", "> box", "## D"])
    ]
    for cell, minutes in zip(cells, (2, 5, 8, 1), strict=True):
        cell.metadata["teaching"] = {"minutes": minutes}
    cells[2].metadata["tags"] = ["exercise"]
    assert agenda(sections(cells)).splitlines()[2:] == [
        "| Opening | 2 | 2 |",
        r"| B \| C (exercises: 8) | 13 | 15 |",
        "| D | 1 | 16 |",
    ]
    assert list(pieces("a\n## b\n```\n## c\n```", "## ")) == ["a", "## b\n```\n## c\n```"]


# Expected mistakes


@pytest.mark.parametrize("name", ["n_step_advantages", "kept"])
def test_the_teacher_reads_what_the_checker_says_to_each_mistake(name):
    made = check(name)
    text = expected_mistakes(made.stub)
    rows = [row.split(" | ") for row in re.findall(r"^\| \d.*", text, re.MULTILINE)]
    assert len(rows) == len(made.mistakes)
    for (_, said, hinted), (wrong, _) in zip(rows, made.mistakes, strict=True):
        verdict = made.verdict(wrong)
        assert verdict.startswith(said.replace("\\", "")) and said.startswith("✗ ")
        assert verdict.endswith("Hint: " + hinted.removesuffix(" |").replace("\\", ""))
    assert _mistakes(made) == _mistakes(made) == text


def test_a_hint_that_is_not_given_is_not_printed():
    """The words are the checker's: a wrong function that is right after all is shown as right."""
    made = check("kept")
    fine = dataclasses.replace(made, mistakes=((made.reference, "this will never be said"),))
    assert "this will never be said" not in _mistakes(fine) and "✓ right." in _mistakes(fine)


@pytest.mark.slow
def test_every_wrong_function_has_a_source_that_runs_as_python():
    for name, made in registered().items():
        for wrong, _ in made.mistakes if isinstance(made, Exercise) else ():
            *around, function = ast.parse(source_of(wrong, name)).body
            assert all(isinstance(line, ast.Assign) for line in around) and isinstance(function, ast.FunctionDef)
            taken = [argument.arg for argument in function.args.args]
            assert function.args.vararg or len(taken) == len(made.ladder[0]), name


def test_quizzes_and_numbers_come_with_what_is_said_to_each_answer():
    text = expected_mistakes('check("ppo_quiz_corner")(1)\ncheck("half_life")(2)')
    for letter in "abc":
        assert f"| **{letter}** | {check('ppo_quiz_corner').verdict(letter)[:8]}" in text
    number = check("half_life")
    assert isinstance(number, Number) and f"| {number.value:g} | ✓ right. |" in text
    assert "✗ too low" in text and "✗ too high" in text
    suspects = re.findall(r"\*\*Answers\*\* to `(\w+)`", expected_mistakes('check(f"ppo_{name.lower()}")(answer)'))
    assert sorted(suspects) == ["ppo_blue", "ppo_green", "ppo_grey", "ppo_red"]
    assert expected_mistakes("checked = 1") is None
    with pytest.raises(ValueError, match="got 'nobody'"):
        expected_mistakes('check("nobody")(1)')


def test_the_teacher_is_told_what_is_said_to_every_answer_of_every_question():
    cells = [cell for path in PATHS for cell in read(path).cells if "quiz" in cell.metadata.get("tags", [])]
    told = "\n".join(filter(None, (expected_mistakes(cell.source) for cell in cells)))
    questions = {name for name, made in registered().items() if isinstance(made, Choice)}
    assert set(re.findall(r"\*\*Answers\*\* to `(\w+)`", told)) >= questions


# The teacher edition


@pytest.mark.slow
@notebooks
def test_solutions_are_open_and_outputs_are_kept(path):
    source, teacher = read(path), teacher_of(path)
    nbformat.validate(teacher)
    solved = [cell for cell in teacher.cells if is_solution(cell)]
    assert len(solved) == sum(map(is_solution, source.cells))
    assert all(cell.source.startswith("<details open>") for cell in solved if cell.cell_type == "markdown")
    assert [c.outputs for c in teacher.cells if c.cell_type == "code"] == [
        c.outputs for c in source.cells if c.cell_type == "code"
    ]


@pytest.mark.slow
@notebooks
def test_the_agenda_is_at_the_top_and_mistakes_stand_below_their_exercises(path):
    source, cells = read(path), teacher_of(path).cells
    assert cells[1].source.rstrip("|").rstrip().endswith(f"| {stated(path)}") or cells[2].source.startswith("**For")
    places = {cell.id: i for i, cell in enumerate(cells)}
    for cell in source.cells:
        names = re.findall(r'\bcheck\("(\w+)"\)\(', cell.source) if cell.cell_type == "code" else []
        for name in names:
            told = cells[places[f"teacher-mistakes-{cell.id}"]].source
            assert f"`{name}`" in told
            if isinstance(check(name), Exercise):
                assert places[f"teacher-mistakes-{cell.id}"] == places[cell.id.replace("stub", "solution")] + 1
                flat = " ".join(told.replace("\\", "").split())
                assert all(" ".join(hint.split()) in flat for _, hint in check(name).mistakes), name


def test_notes_stand_above_their_cells():
    teacher = teacher_edition(lesson())
    (i,) = [i for i, cell in enumerate(teacher.cells) if cell.id == "teacher-exercise-1"]
    assert teacher.cells[i].source == "> **For the teacher**  ·  8 minutes\n>\n> Let them guess first."
    assert teacher.cells[i + 1].id == "exercise-1"
    assert [cell.id for cell in teacher.cells if "teacher" in cell.metadata.get("tags", [])] == [
        *("teacher-agenda-title", "teacher-exercise-1", "teacher-mistakes-exercise-1-stub")
    ]
    assert teacher.cells[1].source.endswith("| Opening (exercises: 8) | 8 | 8 |")


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


@pytest.mark.slow
def test_the_course_itself_gives_the_same_bytes_twice(tmp_path):
    written, again = build(NOTEBOOKS, tmp_path / "a"), build(NOTEBOOKS, tmp_path / "b")
    assert {path.relative_to(tmp_path / "a").parts[0] for path in written} == {"student", "teacher"}
    assert len(written) == 2 * len(PATHS)
    assert [path.read_bytes() for path in written] == [path.read_bytes() for path in again]
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


@pytest.mark.parametrize(
    ("note", "needs"),
    [
        *((note, "minutes, note, or both") for note in ("8 minutes", {}, {"minute": 8})),
        *(({"minutes": minutes}, "a positive whole number") for minutes in (0, -1, 2.5, "8", True)),
        *(({"note": note}, "a text") for note in ("", " ", 8, None)),
    ],
)
def test_a_note_that_would_not_be_shown_is_refused(note, needs):
    careless = lesson()
    careless.cells[2].metadata["teaching"] = note
    with pytest.raises(ValueError, match=rf"teaching.*'exercise-1', needs {needs}"):
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


@pytest.mark.parametrize(
    "path", [path for path in PATHS if any(map(is_solution, read(path).cells))], ids=lambda p: p.stem
)
@pytest.mark.slow
def test_the_students_notebook_runs_to_its_end_with_stubs_and_with_the_solutions(path):
    """Without running all of it again.

    With stubs: its code cells are those of the lesson, which nbval runs. With solutions: no other cell reads a name
    that a solution sets, so nothing else changes; and what is pasted runs with the imports of the cells before it
    alone, and is right.
    """
    source = read(path)
    code = [cell for cell in source.cells if cell.cell_type == "code"]
    assert [c.source for c in student_edition(source).cells if c.cell_type == "code"] == [c.source for c in code]
    stubs = [cell for cell in code if cell.id.endswith("-stub")]
    solutions = {cell.id: cell.source for cell in pasted(source, student_edition(source)).cells}
    assert len(stubs) == 3 and all(solutions[cell.id] != cell.source for cell in stubs)

    solved = {name for cell in stubs for name in assigned(solutions[cell.id])}
    assert not {cell.id: found for cell in code if cell not in stubs and (found := solved & names(cell.source))}

    imports: list[ast.stmt] = []
    for cell in code:
        tree = ast.parse(cell.source)
        if cell in stubs:
            scope: dict = {}
            exec(compile(ast.Module(imports, []), cell.id, "exec"), scope)
            # Else the notebook's own variable of that name would be found in place of the import.
            assert not names(solutions[cell.id]) & {*rebound(code[: code.index(cell)])} & {*scope}
            assert ": … not written yet" in printed_by(cell.source, dict(scope))
            assert printed_by(solutions[cell.id], scope).endswith(": ✓ right.\n")
        imports += [line for line in tree.body if isinstance(line, ast.Import | ast.ImportFrom)]


def printed_by(source: str, scope: dict) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(source, scope)
    return said.getvalue()


def assigned(source: str) -> set[str]:
    """What a cell's top level defines."""
    scope = ast.parse(source).body
    stored = {
        n.id for line in scope for n in ast.walk(line) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    defined = [line.name for line in scope if isinstance(line, ast.FunctionDef | ast.ClassDef)]
    inner = {
        n.id
        for line in scope
        if isinstance(line, ast.FunctionDef | ast.ClassDef)
        for n in ast.walk(line)
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    return stored - inner | set(defined)


def names(source: str) -> set[str]:
    """What a cell reads and does not set itself."""
    found = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Name)]
    read, stored = ({n.id for n in found if isinstance(n.ctx, kind)} for kind in (ast.Load, ast.Store))
    return read - stored - set(dir(builtins))


def rebound(cells) -> set[str]:
    return {name for cell in cells for name in assigned(cell.source)}


@pytest.mark.slow
def test_the_command(tmp_path):
    source = write(tmp_path / "notebooks", lesson=lesson())
    command = [sys.executable, "-m", "artifex_rl.lab.editions", str(source), "--out", str(tmp_path / "course")]
    assert subprocess.run(command, capture_output=True, check=True).stdout.count(b"lesson.ipynb") == 2
