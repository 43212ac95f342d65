"""Decks hold every cell of their notebook, fetch nothing, and are the same bytes every time."""

from __future__ import annotations

import html
import importlib.metadata
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from artifex_rl.lab.lesson_plan import sections
from artifex_rl.lab.published import publish
from artifex_rl.lab.slide_layout import CODE_HEIGHT, LEADING, LINES, blocks, font_size, lines_of, stacks, units
from artifex_rl.lab.slides import ASSETS, assets, build, deck, main

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
notebooks = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


@cache
def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


@cache
def deck_of(path: Path) -> str:
    return deck(read(path))


class Tags(HTMLParser):
    """Tags with their attributes, and the text outside of scripts and styles."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.silent = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.silent = tag if tag in ("script", "style") else self.silent

    def handle_endtag(self, tag):
        self.silent = None if tag == self.silent else self.silent

    def handle_data(self, data):
        if not self.silent:
            self.text.append(data)


def lesson(*cells) -> nbformat.NotebookNode:
    return new_notebook(cells=[new_markdown_cell("# A lesson\n\nRead me.", id="title"), *cells])


def laid_out(*cells):
    return stacks(publish(lesson(*cells)))


def prose(words: int) -> str:
    return " ".join(["word"] * words)


# The course's decks


@notebooks
def test_a_deck_fetches_nothing(path):
    """No script, style, font or picture from elsewhere; links that a reader may follow are no such thing."""
    for tag, attributes in Tags(deck_of(path)).tags:
        if tag == "a":
            continue
        for name in ("src", "href", "srcset", "data", "poster", "action"):
            assert re.match(rf"(data:|{ASSETS}/[\w.]+$|#|$)", attributes.get(name) or ""), (tag, attributes)
    own = re.sub(r"<a [^>]*>", "", deck_of(path))
    assert not re.search(r"""url\(\s*\\?["']?https?:|@import|(src|href)=\\?["']https?:|import\(|fetch\(""", own)


def test_the_assets_fetch_nothing_and_are_all_there():
    found = assets()
    for name, text in found.items():
        if name.endswith(".css"):
            assert not re.search(r"url\((?!data:)|@import", text), name
    used = {
        attributes[name].removeprefix(f"{ASSETS}/")
        for tag, attributes in Tags(deck_of(PATHS[0])).tags
        for name in ("src", "href")
        if (attributes.get(name) or "").startswith(ASSETS)
    }
    assert used == set(found) - {"reveal.LICENSE"}
    assert "Permission is hereby granted" in found["reveal.LICENSE"]


@notebooks
def test_nothing_of_a_notebook_is_lost(path):
    """Every explorer, every picture, every line of code and of what it printed, every word of every paragraph."""
    found, published = deck_of(path), publish(read(path))
    for output in (output for cell in published.cells for output in cell.get("outputs", [])):
        shown = output.get("data", {}).get("text/html")
        if shown and "artifex-still" not in shown:
            assert found.count(shown) == 1
    text = " ".join("".join(Tags(found).text).split())
    for cell in published.cells:
        if cell.cell_type == "code":
            assert " ".join(cell.source.split()) in text, cell.id
            for output in cell.outputs:
                assert " ".join(output.get("text", "").split()) in text, cell.id
        else:
            for line in cell.source.splitlines():
                if not re.search(r"[\\$`*<>\[|_]", line):
                    assert " ".join(re.sub(r"^\s*(#+|[-*]|\d+\.) ", "", line).split()) in text, line


@notebooks
def test_a_section_is_a_stack_and_notes_are_the_speakers(path):
    found = stacks(publish(read(path)))
    titles = [html.unescape(re.sub("<[^>]+>", "", stack.title)) for stack in found[1:]]
    assert titles == [re.sub(r"[*`]", "", section.title) for section in sections(read(path).cells)[1:]]
    for stack, section in zip(found, sections(read(path).cells), strict=True):
        minutes = [int(m) for m in re.findall(r"<strong>(\d+) minutes", "".join(s.notes for s in stack.slides))]
        assert sum(minutes) == section.minutes


@notebooks
def test_slides_are_not_overfull(path):
    for stack in stacks(publish(read(path))):
        for slide in stack.slides:
            assert slide.lines <= LINES or slide.html.count("<tr") > 9, (stack.title, slide.html[:200])


@pytest.mark.slow
def test_building_twice_gives_the_same_bytes_and_only_known_files(tmp_path, capsys):
    main([str(NOTEBOOKS), "--out", str(tmp_path / "a")])
    assert len(capsys.readouterr().out.splitlines()) == len(PATHS)
    build(NOTEBOOKS, tmp_path / "b")
    first, second = (
        {file.relative_to(tmp_path / out): file.read_bytes() for file in (tmp_path / out).rglob("*.*")}
        for out in "ab"
    )
    assert first == second
    index = (tmp_path / "a" / "index.html").read_text()
    assert all(f'<a href="{path.stem}.html">' in index for path in PATHS)
    assert {str(name) for name in first} == {
        "index.html",
        *(f"{path.stem}.html" for path in PATHS),
        *(f"{ASSETS}/{name}" for name in assets()),
    }


# What stands on which slide


def test_a_heading_in_the_middle_of_a_cell_begins_a_section_and_takes_the_cells_notes_along():
    cell = new_markdown_cell("The end.\n\n## Next\n\nA beginning.\n\n```\n## no heading\n```", id="turn")
    cell.metadata["teaching"] = {"minutes": 7, "note": "Wait for *everybody*."}
    opening, following = laid_out(cell)
    assert (opening.title, opening.tag, following.title) == ("A lesson", "h1", "Next")
    assert "The end." in opening.slides[-1].html and not opening.slides[-1].notes
    assert "## no heading" in following.slides[0].html
    assert following.slides[0].notes.startswith("<p><strong>7 minutes</strong></p><p>Wait for <em>everybody</em>.")


def test_a_picture_has_a_slide_to_itself_and_its_code_is_folded():
    shown = new_output("display_data", data={"image/png": "iVBORw0KGgo=", "text/plain": "A curve that falls."})
    cell = new_code_cell("draw()", id="draw", outputs=[shown, new_output("stream", text="0.25\n")])
    (stack,) = laid_out(new_markdown_cell("Look.", id="look"), cell, new_markdown_cell("Seen?", id="seen"))
    before, picture, after = stack.slides
    assert [slide.kind for slide in stack.slides] == ["prose-slide", "figure-slide", "prose-slide"]
    assert 'alt="A curve that falls."' in picture.html
    assert picture.html.index("<img") < picture.html.index("<details><summary>Code, and what it prints")
    assert "0.25" in picture.html and "Look." in before.html and "Seen?" in after.html


def test_code_that_prints_is_shown_with_what_it_prints_and_code_that_shows_nothing_is_folded():
    two = [new_output("stream", text="one\n"), new_output("stream", name="stderr", text="two\n")]
    prints = new_code_cell("print(1)", id="prints", outputs=two)
    long = new_code_cell("x = 1\n" * 40 + "print(x)", id="long", outputs=[new_output("stream", text="1\n")])
    silent = new_code_cell("def helper():\n    return 1", id="silent")
    (stack,) = laid_out(prints, long, silent)
    assert [slide.kind for slide in stack.slides] == [
        *("prose-slide", "code-slide", "code-slide", "code-slide", "prose-slide")
    ]
    assert re.search(r'class="printed"><pre>one\ntwo</pre>', stack.slides[1].html)
    assert "printed" not in stack.slides[2].html
    assert "<details><summary>Code: helper</summary>" in stack.slides[4].html


def test_solutions_stay_folded():
    text = (
        "<details><summary>Solution of exercise 1</summary>\n\n```python\nreturn 42\n```\n\nWell done.\n\n</details>"
    )
    (stack,) = laid_out(new_markdown_cell(text, id="solved"))
    assert "<details><summary>Solution of exercise 1</summary>" in stack.slides[0].html
    assert "open" not in Tags(stack.slides[0].html).tags[1][1]


def test_long_prose_is_spread_evenly():
    (stack,) = laid_out(*(new_markdown_cell(prose(60), id=f"cell-{i}") for i in range(8)))
    loads = [slide.lines for slide in stack.slides]
    assert len(loads) == 3 and max(loads) <= LINES and max(loads) - min(loads) <= lines_of(prose(60)) + 0.1


def test_a_short_list_is_not_torn_from_its_paragraph_and_a_long_one_may_be():
    short = f"Three things:\n\n- {prose(10)}\n- {prose(10)}\n\n  and more\n- {prose(3)}\n\nThen."
    assert [len(unit) for unit in units(blocks(short))] == [4, 1]
    long = "Many things:\n\n" + "\n".join(f"{i}. {prose(30)}" for i in range(1, 9))
    assert [len(unit) for unit in units(blocks(long))] == [1] * 9
    assert blocks("| a |\n|---|\n| b |\n\n> quoted\n>\n> twice\n\nend") == [
        *("| a |\n|---|\n| b |", "> quoted\n>\n> twice", "end")
    ]


def test_code_is_as_large_as_its_lines_and_its_width_allow():
    assert font_size("x") > font_size("x" * 100) > font_size("x" * 116)
    assert font_size("x\n" * 20) > font_size("x\n" * 40)
    wide = new_code_cell("print(x)", id="wide", outputs=[new_output("stream", text=f"{prose(40)}\n")])
    (stack,) = laid_out(wide)
    assert f"* {font_size('x'):.2f})" in stack.slides[1].html and prose(40) in stack.slides[1].html
    assert 40 * LEADING * font_size("x\n" * 40) <= CODE_HEIGHT


def test_a_link_to_a_notebook_leads_to_its_deck():
    (stack,) = laid_out(new_markdown_cell("[Next](02_reinforce.ipynb), [out](https://a.b/03_ppo.ipynb)", id="links"))
    assert 'href="02_reinforce.html"' in stack.slides[0].html
    assert 'href="https://a.b/03_ppo.ipynb"' in stack.slides[0].html


# What is refused


def test_what_cannot_be_made_into_a_deck_is_named(tmp_path, monkeypatch, capsys):
    with pytest.raises(ValueError, match=r"needs a title"):
        deck(new_notebook(cells=[new_markdown_cell("No title.", id="none")]))
    with pytest.raises(ValueError, match="needs a folder with notebooks"):
        build(tmp_path, tmp_path / "out")
    source = tmp_path / "notebooks"
    source.mkdir()
    nbformat.write(new_notebook(cells=[]), source / "empty.ipynb")
    with pytest.raises(ValueError, match="needs a folder outside"):
        build(source, source / "slides")
    with pytest.raises(ValueError, match=r"empty.ipynb: notebook: got ''"):
        build(source, tmp_path / "out")

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(SystemExit, match=r"sphinx-revealjs is missing: pip install 'artifex_rl\[site\]'"):
        main([str(source), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
