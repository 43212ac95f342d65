"""What stands on which slide: the cells of a notebook, cut into pieces that can be read from the back of a room.

Prose is packed into slides by an estimate of its lines. A picture or an explorer has a slide to itself, its code
folded away beneath it; code that only prints is shown with what it printed, as large as both allow; code that shows
nothing is folded away under the slide before. Solutions and explanations stay folded, as in the notebook.
"""

from __future__ import annotations

import html
import itertools
import math
import re
import textwrap
from dataclasses import dataclass, field

from nbconvert.filters import Highlight2HTML, ansi2html
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

from artifex_rl.lab.lesson_plan import FENCE, pieces, teaching_of

#: What a slide holds: lines of prose, characters of one, and, in hundredths of the height, room for code.
LINES, LINE, CODE_HEIGHT, CODE_WIDTH = 15.5, 82, 78, 152
LARGEST, SMALLEST, LEADING, ADVANCE = 2.8, 1.6, 1.32, 0.603
FOLDED, TOGETHER = 1.9, 11.5  # lines of a folded block; of a list that is not torn apart
PRINTED = 90  # characters of a printed line before it is wrapped
ITEM = re.compile(r"([-*]|\d+\.) ")


@dataclass
class Slide:
    """A slide: its kind ("prose-slide", "code-slide" or "figure-slide"), its HTML, and notes for the speaker."""

    kind: str
    html: str = ""
    notes: str = ""
    lines: float = 0.0


@dataclass
class Stack:
    """The slides of one section, under its heading."""

    title: str
    tag: str = "h2"
    slides: list[Slide] = field(default_factory=list)


def stacks(notebook: NotebookNode) -> list[Stack]:
    """The slides of a notebook that `artifex_rl.lab.published.publish` made.

    Raises:
        ValueError: the notebook does not begin with its title, or a teaching note is not as it should be.
    """
    first = notebook.cells[0].source if notebook.cells else ""
    if not first.startswith("# "):
        raise ValueError(f"notebook: got {first[:40]!r} at its beginning, needs a title, '# …'")
    heading = first.splitlines()[0]
    found = [Stack(_inline(heading[2:]), "h1")]
    for cell in notebook.cells:
        slides: list[Slide] = []
        if cell.cell_type == "markdown":
            for piece in pieces(cell.source.removeprefix(heading), "## "):
                if piece.startswith("## "):
                    found[-1].slides += slides
                    title, _, piece = piece.partition("\n")
                    found.append(Stack(_inline(title[3:])))
                    slides = []
                slides += [
                    Slide("prose-slide", markdown("\n".join(unit)), lines=sum(map(lines_of, unit)))
                    for unit in units(blocks(piece))
                ]
        else:
            slides = _code_slides(cell)
        if slides:
            slides[0].notes = _notes(cell)
        found[-1].slides += slides
    for stack in found:
        stack.slides = packed(stack.slides) or [Slide("prose-slide")]
    return found


def packed(slides: list[Slide]) -> list[Slide]:
    """Prose that follows prose put together, on as few slides as it needs, and about as much on each of them."""
    found: list[Slide] = []
    for is_prose, group in itertools.groupby(slides, lambda slide: slide.kind == "prose-slide"):
        if not is_prose:
            found += group
            continue
        parts = list(group)
        total = sum(part.lines for part in parts)
        share = total / math.ceil(total / LINES)
        found.append(Slide("prose-slide"))
        for part in parts:
            page = found[-1]
            if page.lines and (page.lines + part.lines > LINES or page.lines + part.lines / 2 > share):
                page = Slide("prose-slide")
                found.append(page)
            page.html += part.html
            page.notes += part.notes
            page.lines += part.lines
    return found


def _notes(cell: NotebookNode) -> str:
    teaching = teaching_of(cell)
    minutes = f"<p><strong>{teaching['minutes']} minutes</strong></p>" if "minutes" in teaching else ""
    return minutes + (markdown(teaching["note"]) if "note" in teaching else "")


def _code_slides(cell: NotebookNode) -> list[Slide]:
    pictures, printed = [], ""
    for output in cell.outputs:
        data = output.get("data", {})
        if "text/html" in data:
            pictures.append(_picture(data["text/html"]))
        elif "text/markdown" in data:
            pictures.append(markdown(data["text/markdown"]))
        else:
            printed += output.get("text", data.get("text/plain", "")).rstrip("\n") + "\n"
    said = f'<div class="printed"><pre>{ansi2html(printed.rstrip())}</pre></div>' if printed.strip() else ""
    code = _highlight(cell.source)
    if pictures:
        folded = _folded("Code" + (", and what it prints" if said else ""), code + said)
        pictures[-1] += folded
        return [Slide("figure-slide", picture) for picture in pictures]
    if not said:
        return [Slide("prose-slide", _folded(f"Code: {_about(cell.source)}", code), lines=FOLDED)]
    printed = "\n".join(textwrap.fill(line, PRINTED) for line in printed.splitlines())  # as the page wraps it
    together = font_size(f"{cell.source}\n\n{printed}")
    if together >= SMALLEST:
        return [Slide("code-slide", _sized(together, code + said))]
    return [
        Slide("code-slide", _sized(max(SMALLEST, font_size(text)), body))
        for text, body in ((cell.source, code), (printed, said))
    ]


def blocks(text: str) -> list[str]:
    """Markdown cut where a slide may end: between paragraphs, and between the items of a list."""
    found: list[list[str]] = [[]]
    depth, fenced = 0, False
    for line in text.strip().splitlines():
        if FENCE.match(line):
            fenced = not fenced
        held = depth or fenced
        if not held and found[-1] and (_breaks(line, found[-1])):
            found.append([])
        depth += line.count("<details") - line.count("</details>")
        found[-1].append(line)
    return [block for lines in found if (block := "\n".join(lines).strip("\n"))]


def units(found: list[str]) -> list[list[str]]:
    """Blocks that stay together: a short list, and the paragraph that introduces it."""
    whole: list[list[str]] = []
    i = 0
    while i < len(found):
        introduces = not ITEM.match(found[i]) and not found[i].startswith(("<", "|", ">"))
        end = i + introduces
        while end < len(found) and ITEM.match(found[end]):
            end += 1
        if end > i + introduces and sum(map(lines_of, found[i:end])) <= TOGETHER:
            whole.append(["\n".join([*found[i : i + introduces], ""]), *found[i + introduces : end]])
        else:
            end = max(end, i + 1)
            whole += [[block] for block in found[i:end]]
        i = end
    return whole


def _breaks(line: str, before: list[str]) -> bool:
    """Whether a block ends before this line: after an empty line, unless what follows belongs to a list's item."""
    in_list = ITEM.match(before[0])
    if ITEM.match(line) and in_list:
        return True
    return not before[-1].strip() and bool(line.strip()) and not (in_list and line.startswith(" "))


def lines_of(block: str) -> float:
    """How many lines of a slide a block takes, about."""
    rows = [row for row in block.splitlines() if row.strip()]
    if block.startswith("<details"):
        return FOLDED
    if block.startswith("|"):
        return 1.2 * len(rows)
    if FENCE.match(block):
        return 0.8 * len(rows) + 1
    formulas = re.findall(r"\$\$.*?\$\$", block, re.DOTALL)
    text = re.sub(r"\$\$.*?\$\$", "", block, flags=re.DOTALL)
    text = re.sub(r"\]\([^)]*\)|\*\*|[`\[]|\\[a-z]+", "", text)
    paragraphs = re.split(r"\n(?:> *)?\n", text)
    width = LINE - 6 if block.startswith(">") or ITEM.match(block) else LINE
    wrapped = sum(math.ceil(len(" ".join(part.split())) / width) for part in paragraphs if part.strip(" >\n"))
    return wrapped + 0.4 * len(paragraphs) + sum(2.6 + 1.6 * formula.count(r"\\") for formula in formulas)


def font_size(text: str) -> float:
    """Of fixed-width text that shall fill a slide and not leave it, in hundredths of the height."""
    rows = text.rstrip().splitlines()
    widest = max(map(len, rows), default=1)
    return min(LARGEST, CODE_HEIGHT / (LEADING * max(len(rows) + 2, 1)), CODE_WIDTH / (ADVANCE * max(widest, 1)))


def markdown(text: str) -> str:
    """HTML of Markdown; links to other notebooks lead to their decks."""
    rendered = MarkdownWithMath(renderer=IPythonRenderer(escape=False, exclude_anchor_links=True)).render(text)
    return re.sub(r'(href="(?:\d\d_\w+))\.ipynb', r"\1.html", rendered)


def _inline(title: str) -> str:
    return re.sub(r"^<p>|</p>\s*$", "", markdown(title.strip()).strip())


def _picture(fragment: str) -> str:
    """A figure; beneath a panel that needs a kernel stands what its picture shows."""
    if "artifex-still" in fragment:
        alt = re.search(r'alt="([^"]*)"', fragment)[1]
        return fragment.replace("<figcaption>", f"<figcaption>{alt}<br>")
    return f'<div class="picture">{fragment}</div>' if fragment.startswith("<img") else fragment


def _about(source: str) -> str:
    """What a cell defines, in a few words."""
    names = re.findall(r"^(?:def|class) (\w+)", source, re.MULTILINE)
    return html.escape(", ".join(names[:4]) if names else "preparations")


def _highlight(source: str) -> str:
    return Highlight2HTML(pygments_lexer="python3")(source, language="python3").strip()


def _folded(summary: str, body: str) -> str:
    return f"<details><summary>{summary}</summary>{body}</details>"


def _sized(size: float, body: str) -> str:
    return f'<div style="font-size: calc(var(--u) * {size:.2f})">{body}</div>'
