"""Execute notebooks for the repository: `python -m artifex_rl.lab.execute notebooks/*.ipynb`.

The saved notebook is alive when it is opened, before anything runs: it holds the state of its widgets. Executing an
unchanged notebook again changes no byte: ids are made from their order, and what differs between runs is dropped.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from artifex_rl.lab.explorer import EMBED

#: Run after the last cell: what the panels that were shown look like by then.
PICTURES = "from artifex_rl.lab.execute import show_pictures\nshow_pictures()"
PICTURE = "application/vnd.artifex-rl.pictures+json"
STATE = "application/vnd.jupyter.widget-state+json"
VIEW = "application/vnd.jupyter.widget-view+json"


def execute(path: str | os.PathLike, embed: str = "state") -> nbformat.NotebookNode:
    """Run every cell of a notebook in a fresh kernel and return it, tidied; the file is left as it is.

    Args:
        path: of the notebook; it runs in that folder.
        embed: what explorers carry, see `artifex_rl.lab.explorer.EMBED`.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    path = Path(path)
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("widgets", None)
    notebook.cells.append(nbformat.v4.new_code_cell(PICTURES, id="pictures"))
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        store_widget_state=True,
        record_timing=False,
        coalesce_streams=True,
    )
    client.execute(env={**os.environ, EMBED: embed})
    _store_pictures(notebook, notebook.cells.pop())
    return _tidy(notebook, seed=path.name)


def show_pictures() -> None:
    """In the kernel: hand over a picture of every widget whose looks have changed since it was shown."""
    from IPython.display import display
    from ipywidgets.widgets.widget import _instances

    pictures = {name: base64.b64encode(w.png()).decode() for name, w in _instances.items() if hasattr(w, "png")}
    display({PICTURE: pictures}, raw=True)


def _store_pictures(notebook: nbformat.NotebookNode, last: nbformat.NotebookNode) -> None:
    """Where no widget can be drawn, its picture stands for it: that of the end, not of its first moment."""
    pictures = {name: png for output in last.outputs for name, png in output["data"].get(PICTURE, {}).items()}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            name = data.get(VIEW, {}).get("model_id")
            if name in pictures and "image/png" in data:
                data["image/png"] = pictures[name]


def _tidy(notebook: nbformat.NotebookNode, seed: str) -> nbformat.NotebookNode:
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata["language_info"] = {"name": "python"}
    models = notebook.metadata.get("widgets", {}).get(STATE, {}).get("state", {})
    shown = [
        output["data"][VIEW]["model_id"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if VIEW in output.get("data", {})
    ]
    kept = _reachable(models, shown)
    if not kept:
        notebook.metadata.pop("widgets", None)
        return notebook
    notebook.metadata["widgets"][STATE]["state"] = {name: models[name] for name in kept}
    text = nbformat.writes(notebook)
    for order, name in enumerate(kept):
        text = text.replace(name, hashlib.sha256(f"{seed} {order}".encode()).hexdigest()[:32])
    return nbformat.reads(text, as_version=4)


def _reachable(models: dict, shown: list[str]) -> list[str]:
    """The models that the views need, in the order in which they are first met."""
    kept: dict[str, None] = {}
    waiting = list(reversed(shown))
    while waiting:
        name = waiting.pop()
        if name in kept or name not in models:
            continue
        kept[name] = None
        text = json.dumps(models[name], sort_keys=True)
        waiting += sorted((other for other in models if f"IPY_MODEL_{other}" in text), key=text.index, reverse=True)
    return list(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="+", type=Path)
    for path in parser.parse_args().notebooks:
        notebook = execute(path)
        nbformat.write(notebook, path)
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
