"""Minutes: what the notebooks' heads say is one thing, in one form, and is held against what CI measures."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from documents import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from run_times import PROMISED, RunTimes, fault, free_share, promise

from artifex_rl.lab.sections import headings

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
HEAD = "# 01 · A lesson\n\n**Time** about 90 minutes with the exercises. Running every cell takes {}."


def head(path: Path) -> str:
    return nbformat.read(path, as_version=4).cells[0].source


@pytest.mark.parametrize("path", NOTEBOOKS[1:], ids=lambda path: path.stem)
def test_every_lesson_says_how_long_it_takes(path):
    minutes, words = promise(head(path))
    assert words in PROMISED
    assert 60 <= minutes <= 120 and minutes % 5 == 0


def test_the_map_of_the_course_and_readme_name_every_lesson_as_its_head_does():
    course = "\n\n".join(
        c.source for c in nbformat.read(NOTEBOOKS[0], as_version=4).cells if c.cell_type == "markdown"
    )
    readme = (ROOT / "README.md").read_text("utf-8")
    names = [
        dict(reversed(found) for found in re.findall(rf"\[(\d\d [^\]]+)\]\({folder}(\d\d_\w+\.ipynb)\)", text))
        for text, folder in ((course, ""), (readme, "notebooks/"))
    ]
    names[1].pop(NOTEBOOKS[0].name)
    assert names[0] == names[1] and set(names[0]) == {path.name for path in NOTEBOOKS[1:]}
    for path in NOTEBOOKS[1:]:
        title = set(re.findall(r"\w+", headings(head(path))[0][1].lower()))
        label = names[0][path.name]
        assert set(re.findall(r"\w+", label.lower())) <= title, f"{label}: it is called otherwise"


def run(folder: Path, words: str, seconds: list[float], *, failed: int = 0, share: float = 1.0) -> RunTimes:
    """A run of a notebook of two cells whose reports have these seconds, the last `failed` of them red."""
    cells = [new_markdown_cell(HEAD.format(words)), new_code_cell("1"), new_code_cell("2")]
    nbformat.write(new_notebook(cells=cells), folder / "01_lesson.ipynb")
    times = RunTimes(folder, share=lambda: share)
    for i, duration in enumerate(seconds):
        passed = i < len(seconds) - failed
        name = f"01_lesson.ipynb::Cell {i}"
        times.pytest_runtest_logreport(SimpleNamespace(nodeid=name, duration=3.0, when="setup", passed=True))
        times.pytest_runtest_logreport(SimpleNamespace(nodeid=name, duration=duration, when="call", passed=passed))
    return times


def finish(times: RunTimes) -> int:
    session = SimpleNamespace(exitstatus=pytest.ExitCode.OK)
    times.pytest_sessionfinish(session)
    return session.exitstatus


@pytest.mark.parametrize(
    ("words", "seconds", "exit_status"),
    [
        ("about one", [20.0, 30.0], 0),
        ("about one", [20.0, 200.0], 0),  # a slow machine
        ("about one", [20.0, 500.0], 1),
        ("about one", [1.0, 2.0], 1),
        ("less than one", [1.0, 2.0], 0),
        ("less than one", [60.0, 60.0], 0),
        ("less than one", [100.0, 100.0], 1),
    ],
)
def test_a_notebook_that_does_not_take_what_it_promises_fails_the_run(tmp_path, words, seconds, exit_status):
    times = run(tmp_path, words, seconds)
    assert finish(times) == exit_status
    assert times.complete() == {"01_lesson.ipynb": sum(seconds) + 6}  # with the start of the kernel
    assert len(times.faults) == exit_status


def test_what_others_take_of_the_machine_is_not_the_notebook_s_fault(tmp_path):
    assert finish(run(tmp_path, "about one", [200.0, 200.0])) == 1
    assert finish(run(tmp_path, "about one", [200.0, 200.0], share=0.5)) == 0
    assert finish(run(tmp_path, "about one", [400.0, 400.0], share=0.5)) == 1
    assert 0 < free_share() <= 1


def test_a_run_of_some_cells_or_with_a_red_cell_measures_nothing(tmp_path):
    assert finish(run(tmp_path, "about one", [1.0])) == 0
    assert finish(run(tmp_path, "about one", [1.0, 500.0], failed=1)) == 0
    assert run(tmp_path, "about one", [1.0]).complete() == {}


def test_the_table_says_what_was_measured_and_what_is_wrong(tmp_path):
    times, lines = run(tmp_path, "about one", [20.0, 500.0]), []
    finish(times)
    times.pytest_terminal_summary(SimpleNamespace(section=lines.append, line=lambda text, **_: lines.append(text)))
    assert lines[1] == " 526.0  526.0  01_lesson.ipynb"
    assert lines[2].startswith(
        "FAILED  01_lesson.ipynb: its head says that running every cell takes about one minute"
    )
    assert "took 526 s" in lines[2]


def test_words_without_a_measure_are_refused():
    with pytest.raises(KeyError):
        fault("takes a while", 50.0, 50.0)
    assert promise("# 01 · A lesson\n\nSome time.") is None


def test_the_run_that_you_see_has_the_plugin(pytestconfig):
    """Where it belongs: in the process that gets the reports of all workers."""
    loaded = any(isinstance(plugin, RunTimes) for plugin in pytestconfig.pluginmanager.get_plugins())
    assert loaded != hasattr(pytestconfig, "workerinput")
