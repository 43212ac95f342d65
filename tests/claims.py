"""Numbers in prose, and where they come from: what `test_claims` checks the notebooks with.

A number is a claim if it has a decimal point, a percent sign or three digits: nobody sees at a glance that such a
number is stale. Code, formulas, headings, addresses, licences, references, years in brackets and the minutes in a
notebook's head are no claims.

A claim is backed if a cell near it prints it, rounded to as many decimals as the prose has, or says it in a figure's
sentence or in a table, or has it as a constant. Near are the claim's own section, the section before it, whose
results it may speak of, and the cells before the first section, which set everything up.
"""

from __future__ import annotations

import io
import re
import tokenize
from typing import NamedTuple

from nbformat import NotebookNode

from artifex_rl.lab.sections import headings, prose_lines

_CLAIMED = re.compile(
    r"(?<![\w.,/–-])(?P<whole>\d{1,3}(?:[,\u202f\u00a0 ]\d{3})+|\d+)(?P<part>\.\d+)?(?P<percent>[ \u202f\u00a0]?%)?"
    r"(?!\w|[.,]\d)"
)
_PRINTED = re.compile(r"(?<![\w.])\d{1,3}(?:,\d{3})+(?:\.\d+)?|(?<![A-Za-z_.\d])\d+(?:\.\d+)?(?:e[+-]?\d+)?\s?%?")
_NO_CLAIMS = (
    r"(?s)\$\$.*?\$\$",
    r"\$[^$]*\$",
    r"`[^`]*`",
    r"\]\([^)]*\)",
    r"https?://\S+",
    r"<[^>]+>",
    r"(?:arXiv|doi):\S+",
    r"CC BY(?:-SA)? \d\.\d",
    r"© \d{4}(?:–\d{4})?",
    r"\((?:[^()]*,\s)?(?:19|20)\d\d\)",  # (Hutto and Gilbert, 2014), Williams (1992)
    r"\*\*Time\*\*[^\n]*",
)


class Claim(NamedTuple):
    """A number in prose: the id of its cell, how it is written, what that is, and the words around it."""

    cell: str
    written: str
    value: float
    decimals: int
    percent: bool
    around: str

    def __str__(self) -> str:
        return f"{self.cell}: {self.written} in “… {self.around} …”"


class Sources(NamedTuple):
    """What a claim may rest on: numbers that cells printed (and whether with a percent sign), and constants."""

    printed: list[tuple[float, bool]]
    constants: set[float]

    def back(self, claim: Claim) -> bool:
        if claim.value in self.constants:
            return True
        if claim.percent and any(abs(100 * constant - claim.value) < 1e-6 for constant in self.constants):
            return True
        for value, percent in self.printed:
            scaled = 100 * value if claim.percent and not percent else value
            if abs(scaled - claim.value) <= 0.5 * 10**-claim.decimals + 1e-9:
                return True
        return False


def claims(notebook: NotebookNode) -> list[Claim]:
    """Every claim of a notebook's Markdown, in order."""
    found = []
    for cell in notebook.cells:
        text = _prose(cell.source) if cell.cell_type == "markdown" else ""
        for match in _CLAIMED.finditer(text):
            whole, part, percent = re.sub(r"\D", "", match["whole"]), match["part"] or "", bool(match["percent"])
            if part or percent or len(whole) >= 3:
                around = " ".join(text[max(0, match.start() - 50) : match.end() + 30].split())
                found.append(Claim(cell.id, match[0].strip(), float(whole + part), len(part[1:]), percent, around))
    return found


def sources(notebook: NotebookNode) -> dict[str, Sources]:
    """What a claim in each Markdown cell may rest on, by the cell's id."""
    section, spans = 0, []
    for cell in notebook.cells:
        before = section
        section += cell.cell_type == "markdown" and any(level == 2 for level, _ in headings(cell.source))
        spans.append((before, section))  # a cell with a heading may end one section and begin the next
    found: dict[tuple[int, int], Sources] = {}
    near = {}
    for cell, span in zip(notebook.cells, spans, strict=True):
        if span not in found:
            chosen = [
                other
                for other, (_, own) in zip(notebook.cells, spans, strict=True)
                if other.cell_type == "code" and (span[0] - 1 <= own <= span[1] or own <= 1)
            ]
            results = [other for other, (_, own) in zip(notebook.cells, spans, strict=True) if own >= span[0] - 1]
            found[span] = Sources(_printed([cell for cell in chosen if cell in results]), _constants(chosen))
        near[cell.id] = found[span]
    return near


def unbacked(notebook: NotebookNode) -> list[Claim]:
    """The claims that rest on nothing near them."""
    near = sources(notebook)
    return [claim for claim in claims(notebook) if not near[claim.cell].back(claim)]


def _printed(cells: list[NotebookNode]) -> list[tuple[float, bool]]:
    texts = []
    for output in (output for cell in cells for output in cell.get("outputs", [])):
        texts.append(output.get("text", ""))
        texts += [text for kind, text in output.get("data", {}).items() if kind in ("text/plain", "text/markdown")]
    found = _PRINTED.findall("\n".join(texts).replace("−", "-"))
    return [(float(re.sub(r"[,%\s]", "", number)), number.endswith("%")) for number in found]


def _constants(cells: list[NotebookNode]) -> set[float]:
    """Numbers in code, not in its comments; in its texts, too, for they name settings."""
    found = set()
    for cell in cells:
        for token in tokenize.generate_tokens(io.StringIO(cell.source).readline):
            if token.type == tokenize.NUMBER and not token.string.lower().startswith(("0x", "0b", "0o")):
                found.add(abs(complex(token.string.replace("_", ""))))
            elif token.type == tokenize.STRING:
                found |= {float(number) for number in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])", token.string)}
    return found


def _prose(markdown: str) -> str:
    """What is left of Markdown without all that makes no claims."""
    lines = []
    for line in prose_lines(markdown):
        if re.match(r"(#+ .*|\W*)References\b", line):
            break
        lines += [] if line.startswith("#") else [line]
    text = "\n".join(lines)
    for pattern in _NO_CLAIMS:
        text = re.sub(pattern, " ", text)
    return text
