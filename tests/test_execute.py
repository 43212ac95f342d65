"""Executing a notebook for the repository: alive when opened, and the same bytes every time."""

import nbformat
import nbformat.v4 as nb
import pytest
from nbclient.exceptions import CellExecutionError

from artifex_rl.lab.execute import STATE, VIEW, execute


def write(path, *sources):
    cells = [nb.new_code_cell(source, id=f"cell-{i}") for i, source in enumerate(sources)]
    nbformat.write(nb.new_notebook(cells=cells), path)
    return path


@pytest.mark.slow
def test_executing_again_changes_no_byte_and_stores_what_is_shown(tmp_path):
    path = write(
        tmp_path / "lesson.ipynb",
        "from artifex_rl.lab import ClipExplorer, ReturnsExplorer\nunseen, shown = ClipExplorer(), ReturnsExplorer()",
        "shown",
        "shown.set(gamma=0.5)\nprint(shown.fingerprint())",
    )
    source = path.read_bytes()
    first = execute(path)
    assert path.read_bytes() == source  # the file is the caller's to write
    nbformat.write(first, path)
    once = path.read_bytes()
    nbformat.write(execute(path), path)
    assert path.read_bytes() == once

    models = first.metadata.widgets[STATE]["state"]
    (view,) = [o["data"][VIEW]["model_id"] for c in first.cells for o in c.outputs if VIEW in o.get("data", {})]
    assert models[view]["state"]["gamma"] == 0.5
    assert {m["model_name"] for m in models.values()} == {"AnyModel", "LayoutModel"} and len(models) == 2
    stored = {"/".join(buffer["path"]) for buffer in models[view]["buffers"]}
    assert stored == {"_strips/gamma/data", "_grid/data"}


def test_a_cell_that_raises_ends_the_execution(tmp_path):
    with pytest.raises(CellExecutionError, match="no such thing"):
        execute(write(tmp_path / "broken.ipynb", "raise RuntimeError('no such thing')"))


@pytest.mark.slow
def test_the_stored_picture_of_a_panel_is_that_of_the_end(tmp_path, request):
    shown = (
        f"import sys\nsys.path.insert(0, {str(request.path.parent)!r})\nfrom live import PAIRS, make_dpo\n"
        "from artifex_rl.lab import LiveTraining\npanel = LiveTraining(make_dpo(), PAIRS, batch_size=10)\npanel"
    )
    last = "panel.run(20)\nimport base64\nprint(base64.b64encode(panel.png()).decode())"
    notebook = execute(write(tmp_path / "lesson.ipynb", shown, last))
    assert [cell.id for cell in notebook.cells] == ["cell-0", "cell-1"]
    (panel,), (printed,) = notebook.cells[0].outputs, notebook.cells[1].outputs
    assert "".join(panel["data"]["image/png"]).strip() == printed["text"].strip()
    assert "20 steps" not in panel["data"]["text/plain"]  # what nbval compares is said when the panel is shown
