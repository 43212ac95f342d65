"""An executed notebook for readers without a kernel: explorers stay alive, and every picture says what it shows.

The course site and the slides are made of such notebooks. Nothing is executed: a stored explorer carries its script,
its style and its curves over all sliders (`artifex_rl.lab.execute`), which is all that a page needs.
"""

from __future__ import annotations

import copy
import html

from nbformat import NotebookNode

from artifex_rl.lab.execute import VIEW
from artifex_rl.lab.page import fragment
from artifex_rl.lab.stored import sentence, stored_widgets

#: Said beside the picture of a widget that is nothing without a kernel: a panel that trains.
NEEDS_KERNEL = "This panel trains while you watch and steer. That needs a kernel: open the notebook in JupyterLab."


def publish(notebook: NotebookNode) -> NotebookNode:
    """A copy whose outputs are text, tables and HTML that fetches nothing.

    A stored explorer becomes HTML with working sliders, any other widget the picture that was stored beside it, and a
    picture an `<img>` with its alternative text. The stored state of the widgets is dropped.

    Args:
        notebook: executed by `artifex_rl.lab.execute`.

    Raises:
        ValueError: a widget has no stored state, or a picture has no alternative text; the message names the cell.
    """
    widgets = stored_widgets(notebook)
    published = copy.deepcopy(notebook)
    published.metadata.pop("widgets", None)
    for cell in published.cells:
        for k, output in enumerate(cell.get("outputs", [])):
            data = output.get("data", {})
            if VIEW not in data and "image/png" not in data:
                continue
            if not data.get("text/plain", "").strip():
                raise ValueError(f"{cell.id}: got a picture without text/plain, needs a sentence on what it shows")
            output.data = NotebookNode({"text/html": _as_html(data, widgets, name=f"{cell.id}-{k}")})
            output.metadata = NotebookNode()
    return published


def _as_html(data: dict, widgets: dict, name: str) -> str:
    image = _image(data, alt=sentence(data, widgets))
    if VIEW not in data:
        return image
    state = widgets.get(data[VIEW]["model_id"])
    if state is None:
        raise ValueError(f"{name}: got a widget view without state, needs one stored by artifex_rl.lab.execute")
    if not state.get("_grid"):
        return f'<figure class="artifex-still">{image}<figcaption>{NEEDS_KERNEL}</figcaption></figure>'
    knobs = {control["name"]: state[control["name"]] for control in state["_figure"]["controls"]}
    frames = {key: state[key] for key in ("_figure", "_strips", "_grid")}
    return fragment(state["_esm"], state["_css"], {**knobs, **frames}, fallback=image, name=name)


def _image(data: dict, alt: str) -> str:
    png = "".join(data["image/png"].split())
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{png}">'
