"""What a stored widget shows: its sentence and the points of its curves, read without a kernel."""

from __future__ import annotations

import base64
import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
from nbformat import NotebookNode

from artifex_rl.lab.execute import STATE, VIEW
from artifex_rl.lab.frames import GAP, UNIT, Knobs, unpack


def stored_widgets(notebook: NotebookNode) -> dict[str, dict[str, Any]]:
    """The states of a notebook's explorers and panels, by the id of their model, binary parts in their places."""
    models = notebook.metadata.get("widgets", {}).get(STATE, {}).get("state", {})
    return {name: _with_buffers(model) for name, model in models.items() if model["model_name"] == "AnyModel"}


def _with_buffers(model: dict[str, Any]) -> dict[str, Any]:
    state = copy.deepcopy(model["state"])
    for buffer in model.get("buffers", []):
        *path, last = buffer["path"]
        place = state
        for key in path:
            place = place[key]
        place[last] = base64.b64decode(buffer["data"])
    return state


def sentence(data: dict[str, Any], widgets: dict[str, dict[str, Any]]) -> str:
    """What the picture in an output shows.

    An output keeps the sentence of the moment at which its cell ran, and an explorer's picture is of that moment. A
    panel's picture is of the end, when it has trained; the words that belong to it are in its state.

    Args:
        data: of the output: "image/png", "text/plain" and perhaps a view.
        widgets: the notebook's, from `stored_widgets`.
    """
    state = widgets.get(data.get(VIEW, {}).get("model_id"), {})
    return " ".join((state.get("_frame", {}).get("text") or data["text/plain"]).split())


def points(state: dict[str, Any], text: str) -> dict[str, np.ndarray] | None:
    """The curves of a stored explorer as `(P, 2)` points of its SVG, NaN where there is none, by name.

    Args:
        state: of an explorer.
        text: the sentence that the frame must have; None is returned if it is neither that of the sliders' first
            places nor that of their last.
    """
    for row, words in _frames(state):
        if " ".join(words.split()) == text:
            return _curves(state, row)
    return None


def _frames(state: dict[str, Any]) -> Iterator[tuple[np.ndarray, str]]:
    """Numbers and words of the frames where the sliders stand and where they stood at first."""
    controls = {control["name"]: control for control in state["_figure"]["controls"]}
    width = sum(curve["count"] * (1 if curve["x"] is not None else 2) for curve in state["_figure"]["curves"])
    last: Knobs = {name: state[name] for name in controls}
    for name, strip in state["_strips"].items():
        if strip["held"] == {other: value for other, value in last.items() if other != name}:
            stops = controls[name]["stops"]
            table, texts = unpack(strip["data"], len(stops), width)
            index = _nearest(stops, last[name])
            yield table[index], texts[index]
            break
    grid = state["_grid"]["stops"]
    table, texts = unpack(state["_grid"]["data"], int(np.prod([len(grid[name]) for name in controls])), width)
    places = [grid[name].index(_nearest(c["stops"], c["value"])) for name, c in controls.items()]
    index = int(np.ravel_multi_index(places, [len(grid[name]) for name in controls]))
    yield table[index], texts[index]


def _nearest(stops: list[float], value: float) -> int:
    return int(np.abs(np.asarray(stops, float) - value).argmin())


def _curves(state: dict[str, Any], row: np.ndarray) -> dict[str, np.ndarray]:
    places = np.where(row == GAP, np.nan, row / UNIT)
    curves, start = {}, 0
    for curve in state["_figure"]["curves"]:
        count, axes = curve["count"], []
        if curve["x"] is not None:
            axes.append(np.asarray(curve["x"], float))
        while len(axes) < 2:
            axes.append(places[start : start + count])
            start += count
        curves[curve["name"]] = np.stack(axes, axis=-1)
    return curves
