"""The form of the committed notebooks: executed in order, alive when opened, in the same shape. Nothing is run."""

from __future__ import annotations

import base64
import json
import re
import struct
from pathlib import Path

import nbformat
import pytest

from artifex_rl.lab.execute import STATE, VIEW

FOLDER = Path(__file__).parent.parent / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
LESSONS = [path for path in PATHS if not path.name.startswith("00")]
MOST_BYTES = 1_500_000

notebooks = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
lessons = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def prose(path: Path) -> str:
    return "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


def outputs(path: Path) -> list[tuple[str, nbformat.NotebookNode]]:
    return [(cell.id, output) for cell in code(path) for output in cell.outputs]


def bundles(path: Path) -> list[tuple[str, dict]]:
    return [(name, output.data) for name, output in outputs(path) if "data" in output]


@notebooks
def test_it_is_a_valid_notebook_small_enough_to_travel(path):
    nbformat.validate(read(path))
    assert path.stat().st_size < MOST_BYTES


@notebooks
def test_every_code_cell_was_run_in_order_without_an_error(path):
    """nbval runs a cell that was saved without a number, but never compares it."""
    counts = [cell.execution_count for cell in code(path)]
    assert counts == list(range(1, len(counts) + 1))
    failed = [
        name for name, output in outputs(path) if output.output_type == "error" or output.get("name") == "stderr"
    ]
    assert not failed


@notebooks
def test_cells_have_short_ids_of_their_own_that_say_what_they_are(path):
    ids = [cell.id for cell in read(path).cells]
    assert len(set(ids)) == len(ids)
    assert all(
        re.fullmatch(r"[a-z][a-z0-9-]{2,31}", name) and not re.fullmatch(r"[0-9a-f-]{8,}", name) for name in ids
    )


@notebooks
def test_every_widget_comes_with_a_picture_and_a_sentence(path):
    """The picture is what GitHub shows, the sentence is what an untrusted notebook and a screen reader show."""
    for name, data in bundles(path):
        if VIEW in data:
            assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG"), name
            assert data["text/plain"].endswith(".") and len(data["text/plain"]) > 40, name


@notebooks
def test_every_widget_is_stored_with_all_it_refers_to(path):
    """Else JupyterLab shows "model not found" until the cell is run."""
    notebook = read(path)
    models = notebook.metadata.get("widgets", {}).get(STATE, {}).get("state", {})
    shown = [data[VIEW]["model_id"] for _, data in bundles(path) if VIEW in data]
    referred = re.findall(r"IPY_MODEL_([0-9a-f]+)", json.dumps(models))
    assert set(shown) | set(referred) <= set(models)
    assert len(models) <= 3 * len(shown), "state of widgets that no cell shows"


@notebooks
def test_every_stored_explorer_works_without_a_kernel(path):
    for model in read(path).metadata.get("widgets", {}).get(STATE, {}).get("state", {}).values():
        if model["model_name"] == "AnyModel":
            assert model["state"]["_error"] == ""
            if "_sample" in model["state"]:  # a live training: its sliders steer a kernel, its curves are stored
                assert model["state"]["_frame"]["lines"], "stored before it had trained a step"
                continue
            assert model["state"]["_grid"]["stops"], (
                "executed without ARTIFEX_RL_EMBED: the sliders are dead when opened"
            )


@notebooks
def test_pictures_are_wide_enough_to_read_and_have_an_alternative_text(path):
    for name, output in outputs(path):
        if "image/png" not in output.get("data", {}):
            continue
        width, height = struct.unpack(">II", base64.b64decode(output.data["image/png"])[16:24])
        assert 500 <= width <= 1600 and height >= 120, name
        if VIEW not in output.data:
            assert output.metadata["image/png"]["alt"] == output.data["text/plain"], name


@notebooks
def test_what_is_printed_is_the_same_on_every_machine(path):
    """No address, no path, no time of day; and no number with more digits than two processors agree on."""
    texts = [
        (name, output.get("text") or output.get("data", {}).get("text/plain", "")) for name, output in outputs(path)
    ]
    for name, text in texts:
        assert not re.search(r"0x[0-9a-f]{6,}|(?:/[\w.-]+){3,}|[A-Z]:\\|\d\d:\d\d:\d\d", text), name
        assert not re.search(r"\d\.0*[1-9]\d{5,}|<Figure|<matplotlib", text), name


@notebooks
def test_nothing_is_installed_downloaded_or_read_from_one_machine(path):
    """Sources and outputs; the explorers' script is the library's."""
    everything = "\n".join(cell.source for cell in read(path).cells)
    assert not re.search(
        r"pip install|apt-get|wget|curl |urlopen|requests\.", everything.replace("pip install artifex_rl", "")
    )
    assert not re.search(r"/(home|root|tmp|work|Users)/|C:\\", everything)


@notebooks
def test_no_pyplot_state(path):
    """Pictures come from `Figure`: a figure left in pyplot shows up in somebody else's cell."""
    assert not [cell.id for cell in code(path) if "pyplot" in cell.source]


@notebooks
def test_a_collapsed_part_ends_with_an_empty_line(path):
    """Else what follows it is not Markdown, and a heading no heading."""
    sources = [(cell.id, cell.source) for cell in read(path).cells if cell.cell_type == "markdown"]
    assert [name for name, source in sources if re.search(r"</details>[ \t]*\n(?!\n|$)", source)] == []


@notebooks
def test_no_cell_ends_in_a_bare_value(path):
    """A repr changes with the library's version; what is worth showing is printed."""
    results = [(name, output.data) for name, output in outputs(path) if output.output_type == "execute_result"]
    assert [name for name, data in results if VIEW not in data] == []


@lessons
def test_a_lesson_has_the_course_s_shape(path):
    cells = read(path).cells
    first = cells[0].source
    assert first.startswith("# ") and "What" not in first.splitlines()[0]
    assert f"mybinder.org/v2/gh/artifex-rl/artifex_rl/HEAD?labpath=notebooks%2F{path.name}" in first
    for part in ("Afterwards you can", "You need", "minutes"):
        assert part in first, part
    text = prose(path)
    for part in (
        "Predict",
        "by hand",
        "Measure",
        "Compare settings",
        "Diagnosis lab",
        "hree questions",
        "References",
    ):
        assert part in text, part
    assert 35 <= len(cells) <= 45
    assert len(re.findall(r"arXiv:\d{4}\.\d{4,5}", text)) >= 2


@lessons
def test_the_first_minute_has_something_to_drag(path):
    first = code(path)[0]
    assert any(VIEW in output.get("data", {}) for output in first.outputs)
    assert len(first.source.splitlines()) <= 5


@lessons
def test_explorers_are_shown_and_driven_to_their_extremes(path):
    models = [data[VIEW]["model_id"] for _, data in bundles(path) if VIEW in data]
    assert 3 <= len(models) <= 5
    sources = "\n".join(cell.source for cell in code(path))
    assert sources.count(".set(") >= 2 and "fingerprint()" in sources


@lessons
def test_code_cells_fit_on_a_screen(path):
    lengths = [len(cell.source.splitlines()) for cell in code(path)]
    assert max(lengths) <= 32
    assert sum(length >= 25 for length in lengths) <= len(lengths) // 5
    too_wide = [cell.id for cell in code(path) for line in cell.source.splitlines() if len(line) > 116]
    assert not too_wide


@lessons
def test_hand_written_code_is_asserted_equal_to_the_library(path):
    checked = [cell.id for cell in code(path) if "assert_allclose" in cell.source and "def " in cell.source]
    assert len(checked) >= 3


@lessons
def test_every_exercise_has_a_box_a_stub_a_check_and_a_collapsed_solution(path):
    """In this order, so that a teacher can take the cells tagged "solution" away."""
    cells = read(path).cells
    tags = [cell.metadata.get("tags", []) for cell in cells]
    solved = [i for i, found in enumerate(tags) if "solution" in found]
    assert len(solved) == 3
    for i in solved:
        box, stub, solution = cells[i - 2 : i + 1]
        assert "exercise" in tags[i - 2] and re.search(r"\*\*Exercise \d .*minutes", box.source)
        assert "exercise" in tags[i - 1] and "    ...\n" in stub.source
        name = re.search(r"^def (\w+)\(", stub.source, re.MULTILINE)[1]
        assert f'check("{name}")({name})' in stub.source and "not written yet" in stub.outputs[0].text
        assert solution.source.startswith("<details><summary>") and solution.source.endswith("</details>")
        assert f"def {name}(" in solution.source


@lessons
def test_quizzes_are_not_answered_yet(path):
    asked = [cell for cell in code(path) if "quiz" in cell.metadata.get("tags", [])]
    text = "".join(output.text for cell in asked for output in cell.outputs if "text" in output)
    assert text.count("no answer yet") >= 3 and "✓" not in text
