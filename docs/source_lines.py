"""Pointing at a line of the library by its words: shared by the site's role `{line}` and the tests of the pages."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parents[1] / "artifex_rl"
_ROLE = re.compile(r'(?P<path>[\w/]+\.py) "(?P<words>.+)"')


class SourceLine(NamedTuple):
    """A line of the package: its file, relative to `artifex_rl/`, and its number from 1."""

    path: str
    number: int


def find_line(text: str) -> SourceLine:
    """The one line that holds the words.

    Args:
        text: as in `rl/ppo.py "ratio = jnp.exp"`: a file of the package and, in quotes, a part of one of its lines.

    Raises:
        ValueError: it is not of that form, there is no such file, or not exactly one line holds the words.
    """
    match = _ROLE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'line: got {text!r}, needs a file and words of a line, as in rl/ppo.py "ratio = jnp.exp"')
    path, words = match["path"], match["words"]
    if not (PACKAGE / path).is_file():
        raise ValueError(f"line: got {path}, needs a file of artifex_rl/")
    numbers = [number for number, line in enumerate(_lines(path), start=1) if words in line]
    if len(numbers) != 1:
        where = f" ({', '.join(map(str, numbers[:5]))})" if numbers else ""
        raise ValueError(f"line: got {words!r}, which is in {len(numbers)} lines of {path}{where}, needs exactly one")
    return SourceLine(path, numbers[0])


@cache
def _lines(path: str) -> list[str]:
    return (PACKAGE / path).read_text("utf-8").splitlines()
