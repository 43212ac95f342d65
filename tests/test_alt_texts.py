"""Every picture says in words what it shows, in words of its own."""

from __future__ import annotations

import html
import re
from collections import defaultdict
from pathlib import Path

import nbformat
import pytest
from documents import ROOT, Document, documents

from artifex_rl.lab.execute import VIEW
from artifex_rl.lab.published import publish
from artifex_rl.lab.stored import sentence, stored_widgets

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def fault(alt: str) -> str:
    """Why somebody who does not see the picture learns nothing from these words; empty if they do."""
    if re.search(r"<\w+ |\bobject at 0x|^Figure\(|^\w+\(.*=.*\)$|^<", alt):
        return "is the repr of an object"
    if re.search(r"\.(png|gif|jpe?g|svg)\b", alt, re.IGNORECASE):
        return "is a file's name"
    if re.match(r"(?i)(an? |the )?(image|picture|figure|plot|graph|chart|screenshot)( of \w+)?\W*$", alt):
        return "says that there is a picture, not what is in it"
    if len(re.findall(r"\w+", alt)) < 3:
        return "has fewer than three words"
    return ""


def is_sentence(alt: str) -> bool:
    return len(re.findall(r"\w+", alt)) >= 6 and alt.endswith(".") and "\n" not in alt


def shown(path: Path) -> list[tuple[str, str, str]]:
    """Cell, words and picture of each picture in a notebook's outputs."""
    notebook = nbformat.read(path, as_version=4)
    widgets = stored_widgets(notebook)
    return [
        (f"{path.stem}, {cell.id}", sentence(output.data, widgets), output.data["image/png"])
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
def test_pictures_in_prose_have_an_alternative_text(document):
    alts = [alt for alt, _ in document.images()]
    assert not [(alt, fault(alt)) for alt in alts if fault(alt)]
    assert len(set(alts)) == len(alts), "two pictures with the same words"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_picture_of_a_notebook_has_a_sentence(path):
    found = shown(path)
    assert len(found) >= 4
    for name, words, _ in found:
        assert not fault(words), f"{name}: {words!r} {fault(words)}"
        assert is_sentence(words), f"{name}: {words!r} is no sentence on one line"


def test_no_two_pictures_have_the_same_words():
    pictures, names = defaultdict(set), defaultdict(list)
    for name, words, png in (found for path in NOTEBOOKS for found in shown(path)):
        pictures[words].add(png)
        names[words].append(name)
    assert len(pictures) > 100
    assert not {words: names[words] for words, different in pictures.items() if len(different) > 1}


def test_the_words_of_a_panel_on_a_page_are_of_its_picture():
    """Its output says "not trained yet"; the picture beside it was taken after the training."""
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        page = publish(notebook)
        widgets = stored_widgets(notebook)
        for before, after in zip(notebook.cells, page.cells, strict=True):
            for output, written in zip(before.get("outputs", []), after.get("outputs", []), strict=True):
                state = widgets.get(output.get("data", {}).get(VIEW, {}).get("model_id"), {})
                if "_layout" in state:
                    alt = html.unescape(re.search(r'<img alt="([^"]*)"', written.data["text/html"])[1])
                    assert alt == " ".join(state["_frame"]["text"].split()), before.id
                    assert re.search(r" after [\d,]+ steps", alt), f"{path.stem}: never trained"


@pytest.mark.parametrize(
    ("alt", "why"),
    [
        ("<Figure size 640x480 with 1 Axes>", "repr"),
        ("Figure(640x480)", "repr"),
        ("AdvantageExplorer(gamma=0.99, gae_lambda=0.95)", "repr"),
        ("docs/explorer.png", "file"),
        ("A picture", "not what is in it"),
        ("plot of returns.", "not what is in it"),
        ("", "fewer"),
        ("Open on Binder", ""),
        ("The return sinks within each of five episodes.", ""),
    ],
)
def test_words_that_say_nothing_are_found(alt, why):
    assert (why in fault(alt)) if why else not fault(alt)


def test_a_picture_in_html_without_words_is_found():
    document = Document(ROOT / "README.md", '<img src="docs/explorer.png">\n\n![](docs/explorer.gif)')
    assert [alt for alt, _ in document.images()] == ["", ""]
