"""The notebooks as pages, their explorers alive; and a directive that puts one explorer of a notebook into any page.

    ```{explorer} 01_returns_and_advantages advantage-explorer
    ```

names the notebook and the id of the cell that shows the explorer.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import nbformat
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from artifex_rl.lab.published import publish

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


@cache
def published(path: Path) -> nbformat.NotebookNode:
    return publish(nbformat.read(path, as_version=4))


def write_notebooks(app: Sphinx) -> None:
    """Into the folder `notebooks` of the sources, which git ignores; what has not changed is not touched."""
    folder = Path(app.srcdir) / "notebooks"
    folder.mkdir(exist_ok=True)
    paths = sorted(NOTEBOOKS.glob("*.ipynb"))
    for old in set(folder.iterdir()) - {folder / path.name for path in paths}:
        old.unlink()
    for path in paths:
        text = nbformat.writes(published(path)) + "\n"
        target = folder / path.name
        if not target.exists() or target.read_text("utf-8") != text:
            target.write_text(text, "utf-8")


class Explorer(SphinxDirective):
    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        name, cell_id = self.arguments
        path = NOTEBOOKS / f"{name}.ipynb"
        if not path.exists():
            raise self.error(
                f"explorer: got {name!r}, needs the name of a notebook: {sorted(NOTEBOOKS.glob('*.ipynb'))}"
            )
        self.env.note_dependency(str(path))
        shown = {
            cell.id: output.data["text/html"]
            for cell in published(path).cells
            for output in cell.get("outputs", [])
            if "artifex-page" in output.get("data", {}).get("text/html", "")
        }
        if cell_id not in shown:
            raise self.error(f"explorer: got {cell_id!r}, needs a cell of {name} with one: {', '.join(shown)}")
        # Twice on a page, an id would not be unique.
        html = shown[cell_id].replace(f"artifex-{cell_id}-", f"artifex-{name}-{cell_id}-")
        return [nodes.raw("", html, format="html")]


def setup(app: Sphinx) -> dict:
    app.connect("builder-inited", write_notebooks)
    app.add_directive("explorer", Explorer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
