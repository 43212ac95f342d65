"""Notebooks for readers without a kernel: nothing is lost or fetched, and every picture says what it shows."""

from __future__ import annotations

import base64
import copy
import json
import re
from pathlib import Path

import nbformat
import pytest

from artifex_rl.lab.execute import STATE, VIEW
from artifex_rl.lab.published import NEEDS_KERNEL, publish

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
FRAGMENT = re.compile(
    r'<div id="artifex-([^"]+)" class="artifex-page">.*?<script type="application/json">(.*?)</script>', re.DOTALL
)
FETCHED = re.compile(r"""(src|href)=["'](?!data:|#)|https?://(?!www\.w3\.org|matplotlib\.org|purl\.org)""")


@pytest.fixture(scope="module")
def returns():
    return nbformat.read(NOTEBOOKS[1], as_version=4)


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_widget_of_a_notebook_is_alive_or_a_picture(path):
    notebook = nbformat.read(path, as_version=4)
    published = publish(notebook)
    nbformat.validate(published)
    models = notebook.metadata["widgets"][STATE]["state"]
    names = []
    for before, after in zip(outputs(notebook), outputs(published), strict=True):
        if VIEW not in before.data and "image/png" not in before.data:
            assert after == before
            continue
        assert list(after.data) == ["text/html"]
        text = after.data["text/html"]
        assert not FETCHED.search(text.replace('\\"', '"'))
        if VIEW in before.data and "_grid" in models[before.data[VIEW]["model_id"]]["state"]:
            name, state = FRAGMENT.search(text).groups()
            names.append(name)
            assert {control["name"] for control in json.loads(state)["_figure"]["controls"]} < set(json.loads(state))
        elif VIEW in before.data:
            assert NEEDS_KERNEL in text and "<img alt=" in text
    assert len(set(names)) == len(names) > 0
    assert "widgets" not in published.metadata and publish(notebook) == published


def test_an_explorer_keeps_the_bytes_of_its_frames(returns):
    models = returns.metadata["widgets"][STATE]["state"]
    shown = [output for output in outputs(returns) if VIEW in output.data]
    for before, after in zip(
        shown, [o for o in outputs(publish(returns)) if "artifex-page" in str(o.data)], strict=True
    ):
        stored = {tuple(b["path"]): b["data"] for b in models[before.data[VIEW]["model_id"]]["buffers"]}
        state = json.loads(FRAGMENT.search(after.data["text/html"]).group(2).replace("<\\/", "</"))
        for path, data in stored.items():
            found = state
            for key in path:
                found = found[key]
            assert base64.b64decode(found["$b64"]) == base64.b64decode(data)


def test_the_notebook_itself_stays_as_it_is(returns):
    before = copy.deepcopy(returns)
    publish(returns)
    assert returns == before


def test_what_cannot_be_published_is_named(returns):
    stateless = copy.deepcopy(returns)
    del stateless.metadata["widgets"]
    with pytest.raises(ValueError, match="first-touch-0: got a widget view without state, needs"):
        publish(stateless)
    speechless = copy.deepcopy(returns)
    next(output for output in outputs(speechless) if "image/png" in output.data).data["text/plain"] = " "
    with pytest.raises(ValueError, match="first-touch: got a picture without text/plain"):
        publish(speechless)
