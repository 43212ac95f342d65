"""Slides for a lecture: `python -m artifex_rl.lab.slides notebooks --out slides/`.

From every notebook comes one deck, from the same cells: its explorers are alive, without a kernel, without a network,
and opened from the disk. `index.html` lists the decks and the keys. reveal.js turns the slides, and MathJax sets the
formulas; both are copied beside the decks from PyPI packages (the extra `site`), so nothing is fetched when a deck is
shown. The same notebooks always give the same bytes.

A `##` heading begins a section, `artifex_rl.lab.slide_layout` says what stands on which slide, and a cell's teaching
notes are the speaker's (the key S).
"""

from __future__ import annotations

import html
import importlib.metadata
import os
import re
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter

from artifex_rl.lab.course_files import make_texts, run_command, write_texts
from artifex_rl.lab.published import publish
from artifex_rl.lab.slide_layout import stacks

ASSETS = "assets"
#: The packages on PyPI that bring other people's files, and how each file is called beside the decks.
BORROWED = {
    "sphinx-revealjs": {
        "_static/revealjs/dist/reset.css": "reset.css",
        "_static/revealjs/dist/reveal.css": "reveal.css",
        "_static/revealjs/dist/reveal.js": "reveal.js",
        "_static/revealjs/plugin/notes/notes.js": "notes.js",
        "_static/revealjs/LICENSE": "reveal.LICENSE",
    },
    "sphinx-mathjax-offline": {"static/mathjax/tex-svg.js": "mathjax.js"},
}


def deck(notebook: NotebookNode) -> str:
    """The HTML of a notebook's deck. It looks for its scripts and styles in the folder `assets` beside it.

    Args:
        notebook: executed by `artifex_rl.lab.execute`.

    Raises:
        ValueError: the notebook has no title, or cannot be published; see `artifex_rl.lab.published.publish`.
    """
    found = stacks(publish(notebook))
    return _template("deck.html.j2").render(title=_plain(found[0].title), stacks=found, assets=ASSETS) + "\n"


def build(source: str | os.PathLike, out: str | os.PathLike) -> list[Path]:
    """Write a deck of every notebook of a folder, an index, and what they need.

    Args:
        source: the folder of the notebooks.
        out: a folder outside of it; made where it is missing.

    Returns:
        The decks written.

    Raises:
        ValueError: there are no notebooks, `out` lies in `source`, or a notebook is not valid; the message names it.
        ModuleNotFoundError: a package of the extra `site` is missing.
    """
    beside = {f"{ASSETS}/{name}": text for name, text in assets().items()}
    decks = make_texts(source, out, lambda stem, notebook: {f"{stem}.html": deck(notebook)})
    titles = {name: re.search(r"<title>(.*?)</title>", text)[1] for name, text in decks.items()}
    index = _template("index.html.j2").render(decks=titles.items(), assets=ASSETS) + "\n"
    write_texts(out, {**beside, "index.html": index})
    return write_texts(out, decks)


def assets() -> dict[str, str]:
    """The scripts and styles of a deck by their names: our own, and those of reveal.js and MathJax.

    Raises:
        ModuleNotFoundError: a package that brings them is missing.
    """
    own = {name: _own(name) for name in ("deck.css", "deck.js")}
    light, dark = (HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("default", "github-dark"))
    colours = f"{_colours(light)}\n@media (prefers-color-scheme: dark) {{\n{_colours(dark)}\n}}\n"
    found = {**own, "deck.css": own["deck.css"] + colours}
    for package, names in BORROWED.items():
        try:
            there = importlib.metadata.files(package) or []
        except importlib.metadata.PackageNotFoundError as error:
            raise ModuleNotFoundError(f"{package} is missing: pip install 'artifex_rl[site]'") from error
        for path, name in names.items():
            (file,) = [file for file in there if file.as_posix().endswith(path)]
            found[name] = file.locate().read_text(encoding="utf-8")
    return found


def _colours(css: str) -> str:
    """Of the tokens alone: the background is the deck's."""
    return "\n".join(line for line in css.splitlines() if re.match(r"\.highlight \.\w+ ", line))


def _own(name: str) -> str:
    return files("artifex_rl.lab").joinpath("deck", name).read_text(encoding="utf-8")


def _template(name: str):
    return Environment(autoescape=False, keep_trailing_newline=False).from_string(_own(name))


def _plain(title: str) -> str:
    return html.escape(html.unescape(re.sub(r"<[^>]+>", "", title)))


def main(arguments: list[str] | None = None) -> None:
    description = "Write a deck of slides of every notebook of a course."
    run_command(build, "artifex_rl.lab.slides", description, "where the decks go", arguments)


if __name__ == "__main__":
    main()
