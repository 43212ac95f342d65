"""The gallery: `python -m artifex_rl.lab.gallery notebooks --out docs/gallery`.

Every explorer, every live panel, every grid of samples and every figure of the executed notebooks as a picture, with
the sentence that says what it shows and the way to its notebook. Nothing is executed: the pictures are those that the
notebooks hold, made compact. So the gallery is as fresh as the notebooks, and building it again changes no byte.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat

from artifex_rl.lab.execute import VIEW
from artifex_rl.lab.gallery_picture import compact, decode
from artifex_rl.lab.sections import anchors, headings
from artifex_rl.lab.stored import sentence, stored_widgets

#: What a cell calls that draws samples: digits, words, frames of a film.
SAMPLES = re.compile(r"\b(draw_row|draw_words|show_words)\(|\bimshow\((?![^\n]*cmap=)")

KINDS = {
    "ready": ("Explorers", "Ready-made, to be imported from `artifex_rl.lab`. In a notebook they follow the hand."),
    "own": ("Explorers built in the notebooks", "Each is three small pieces in a cell that a learner can change."),
    "panel": ("Live panels", "A training run to steer while it trains. The pictures are of the end of a run."),
    "samples": ("Samples", "What the models make: before training by reward, after it, and when it went wrong."),
    "figure": ("Figures", "What was measured, over several seeds."),
}


@dataclass
class Picture:
    """A picture of the gallery.

    Attributes:
        kind: a key of `KINDS`.
        name: its file's, without the ending.
        alt: a sentence on what it shows.
        title: of the explorer or panel; the section's, if it is a figure.
        class_path: of the widget, dotted; empty for a figure.
        places: where it is shown: notebook's stem, cell, words of the notebook and of its section, anchor.
        png: the file's bytes.
    """

    kind: str
    name: str
    alt: str
    title: str
    class_path: str
    png: bytes
    places: list[tuple[str, str, str, str, str]] = field(default_factory=list)

    @property
    def class_name(self) -> str:
        return self.class_path.rpartition(".")[2]


def build(
    notebooks: str | os.PathLike, out: str | os.PathLike, link: Callable[[str, str], str] | None = None
) -> list[Picture]:
    """Write the pictures and `index.md`, and take away what an earlier call wrote and this one does not.

    Args:
        notebooks: folder of the executed notebooks.
        out: folder of the gallery; it is made if it is not there.
        link: `link(stem, anchor)`, the address of a notebook's section. Default: relative, to the notebook's file.

    Returns:
        The pictures, in the order of the page.

    Raises:
        ValueError: there is no notebook, or a picture has no sentence; the message names the cell.
    """
    notebooks, out = Path(notebooks), Path(out)
    paths = sorted(notebooks.glob("*.ipynb"))
    if not paths:
        raise ValueError(f"notebooks: got {notebooks} without any, needs a folder of executed notebooks")
    away = Path(os.path.relpath(notebooks.resolve(), out.resolve())).as_posix()
    link = link or (lambda stem, anchor: f"{away}/{stem}.ipynb" + (f"#{anchor}" if anchor else ""))

    merged: dict[tuple[str, bytes], Picture] = {}
    for path in paths:
        for picture in pictures(path):
            known = merged.setdefault((picture.alt, picture.png), picture)
            if known is not picture:  # the same explorer, shown again in another notebook
                known.places += picture.places
    kinds, classes = list(KINDS), list(dict.fromkeys(picture.class_path for picture in merged.values()))
    found = sorted(
        merged.values(),
        key=lambda p: (kinds.index(p.kind), classes.index(p.class_path) if p.kind == "ready" else 0),
    )

    out.mkdir(parents=True, exist_ok=True)
    names = {f"{picture.name}.png" for picture in found}
    for old in out.glob("[0-9][0-9]-*.png"):
        if old.name not in names:
            old.unlink()
    for picture in found:
        (out / f"{picture.name}.png").write_bytes(picture.png)
    (out / "index.md").write_text(index(found, link), encoding="utf-8")
    return found


def pictures(path: Path) -> Iterator[Picture]:
    """The pictures of one executed notebook, in its order; a panel's samples follow it."""
    notebook = nbformat.read(path, as_version=4)
    widgets = stored_widgets(notebook)
    number = path.stem.partition("_")[0]
    title = headings(notebook.cells[0].source)[0][1]
    section, anchor, seen = title, "", ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            seen += cell.source + "\n\n"
            known = headings(seen)
            if len(known) > 1:
                section, anchor = known[-1][1], anchors(seen)[-1]
            continue
        place = (path.stem, cell.id, title, section, anchor)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" not in data:
                continue
            if not data.get("text/plain", "").strip():
                raise ValueError(f"{path.name}, {cell.id}: got a picture without a sentence, needs text/plain")
            state = widgets.get(data.get(VIEW, {}).get("model_id"), {})
            yield _picture(number, cell, data, state, sentence(data, widgets), place)
            if state.get("_sample", {}).get("png"):
                yield _samples(number, cell, state, place)


def _picture(number: str, cell: Any, data: Mapping, state: Mapping, alt: str, place: tuple) -> Picture:
    section, path = _bare(place[3]), state.get("_anywidget_id", "")
    if not state:
        kind, title = ("samples" if SAMPLES.search(cell.source) else "figure"), section
    elif "_layout" in state:
        kind, title = "panel", state["_layout"]["title"]
    else:
        kind = "own" if path.endswith(".Explorer") else "ready"
        title = state["_figure"]["title"] or section
    png = compact(decode(data["image/png"]), state, alt)
    return Picture(kind, f"{number}-{cell.id}", alt, title, path, png, [place])


def _samples(number: str, cell: Any, state: Mapping, place: tuple) -> Picture:
    """What a panel's policy made when the run was stored."""
    sample = state["_sample"]
    alt = " ".join(f"After {sample['step']:,} steps of {state['_layout']['title']}: {sample['alt']}".split())
    return Picture(
        "samples", f"{number}-{cell.id}-samples", alt, _bare(place[3]), "", compact(sample["png"]), [place]
    )


def _bare(section: str) -> str:
    """A section's words without its number."""
    return re.sub(r"^\d+ · ", "", section)


def index(found: list[Picture], link: Callable[[str, str], str]) -> str:
    """The page, in Markdown that GitHub and MyST read alike."""
    size = sum(len(picture.png) for picture in found)
    lines = [
        "# Gallery",
        "",
        f"Every explorer, panel, sample and figure of the course: {len(found)} pictures, {size / 1e6:.1f} MB. They"
        " are read out of the executed notebooks by `python -m artifex_rl.lab.gallery`; the sentence under each"
        " is what a screen reader says.",
    ]
    for kind, (heading, words) in KINDS.items():
        chosen = [picture for picture in found if picture.kind == kind]
        lines += ["", f"## {heading}", "", words] if chosen else []
        last = ""
        for picture in chosen:
            head = picture.class_name if kind == "ready" else f"{picture.name[:2]} · {picture.title}"
            if head != last:
                lines += ["", f"### {head}", ""]
                lines += [_about(picture.class_path), ""] if kind == "ready" else []
                last = head
            lines += [f"![{_escaped(picture.alt)}]({picture.name}.png)", "", f"{_escaped(picture.alt)}"]
            lines += ["", _whence(picture, link), ""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def _about(class_path: str) -> str:
    """The first sentence of the class's docstring."""
    module, _, name = class_path.rpartition(".")
    return inspect.getdoc(getattr(importlib.import_module(module), name)).split("\n\n")[0].replace("\n", " ")


def _whence(picture: Picture, link: Callable[[str, str], str]) -> str:
    places = []
    for stem, _, title, section, anchor in picture.places:
        where = title if section == title else f"{title}, “{section}”"
        places.append(f"[{where}]({link(stem, anchor)})")
    what = f"`{picture.class_name}` in " if picture.class_path else ""
    return f"{what}{'; '.join(places)}"


def _escaped(text: str) -> str:
    """A sentence that Markdown leaves as it is."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", text)


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m artifex_rl.lab.gallery",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("notebooks", type=Path, help="folder of the executed notebooks")
    parser.add_argument(
        "--out", type=Path, default=Path("docs/gallery"), help="folder to write (default: %(default)s)"
    )
    options = parser.parse_args()
    found = build(options.notebooks, options.out)
    size = sum(len(picture.png) for picture in found)
    print(f"{options.out}: index.md and {len(found)} pictures, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
