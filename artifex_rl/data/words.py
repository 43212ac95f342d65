"""Real words of four languages, the tokens that a policy writes them with, and a scorer that tells them apart.

Words: wordfreq 3.1.1 (Speer, 2022, doi:10.5281/zenodo.7199437; code Apache-2.0, word lists CC BY-SA 4.0), whose
lists go by frequency over subtitles, Wikipedia, news, books and the web. Scorer: py3langid 0.4.0 (Barbaresi, after
Lui & Baldwin's langid.py, 2012, aclanthology.org/P12-3005; BSD licence). Both come with `artifex_rl[data]` and hold
their data themselves: nothing is downloaded.
"""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from artifex_rl.data.extras import require
from artifex_rl.data.vocabulary import Vocabulary

#: Codes, as in ISO 639-1, and names, in the order of the prompts.
LANGUAGES = {"en": "English", "it": "Italian", "de": "German", "fi": "Finnish"}
#: a–z, what German and Finnish cannot do without, and the accents of Italian.
LETTERS = "abcdefghijklmnopqrstuvwxyzäöüßàèéìòù"
WORD_LENGTHS = range(3, 13)
#: The longest word and its end.
MAX_TOKENS = 13
WORDS_PER_LANGUAGE = 10_000
HELDOUT_SHARE = 0.1
#: Stems of words that are left out, so that a class can read samples aloud.
CRUDE = re.compile(
    "fuck|shit(?!ake|tah|tim)|cunt|bitch|nigg[ae]|faggot|slut|whore|dickhead|cocksuck|twat|wanker|douche|molest|tits$|"
    "retard|asshole|shylock|^rape[drs]?$|^raping$|^rapists?$|cazz|puttan|stronz|scheiß|scheiss|vittu|vitun|perkele"
)


class Words(NamedTuple):
    """The words of a language, the most frequent first; none is in both parts, nor in another language's other."""

    train: tuple[str, ...]
    heldout: tuple[str, ...]


@functools.cache
def load_words(language: str) -> Words:
    """The 10,000 most frequent words of a language that can be spelt with `LETTERS` in 3 to 12 of them.

    A tenth, chosen by a checksum of the spelling, is held out: so a word of several languages is held out in all.

    Args:
        language: "en", "it", "de" or "fi".

    Returns:
        `Words`, lower case.

    Raises:
        ValueError: another language.
        ImportError: wordfreq is not installed; the message says how to.
    """
    if language not in LANGUAGES:
        raise ValueError(f"language: got {language!r}, needs one of {', '.join(map(repr, LANGUAGES))}")
    spelling = re.compile(f"[{LETTERS}]{{{WORD_LENGTHS.start},{WORD_LENGTHS.stop - 1}}}")
    # The small list, of words with at least one in a million, takes a tenth of the large one's time and memory.
    frequent = require("wordfreq").top_n_list(language, 3 * WORDS_PER_LANGUAGE, wordlist="small")
    words = [word for word in frequent if spelling.fullmatch(word) and not CRUDE.search(word)]
    words = words[:WORDS_PER_LANGUAGE]
    heldout = {word for word in words if is_held_out(word, HELDOUT_SHARE)}
    return Words(
        tuple(word for word in words if word not in heldout), tuple(word for word in words if word in heldout)
    )


def is_held_out(word: str, share: float) -> bool:
    """Whether a word is in the held-out part: its CRC-32 decides, so that it depends on no other word."""
    return zlib.crc32(word.encode()) < share * 2**32


@functools.cache
def word_vocabulary() -> Vocabulary:
    """The tokens of the four languages: end of word, `LETTERS`, and one prompt for each language."""
    return Vocabulary(LETTERS, tuple(LANGUAGES))


class LanguageReward:
    """P(language | word) of a word, in [0, 1]: a reward for policies that write tokens of `word_vocabulary()`.

    py3langid's naive Bayes over byte n-grams, restricted to the four languages, its logarithms divided by the square
    root of the word's length in bytes so that a short word leaves doubt. A word without any n-gram that it knows,
    such as "a" or an empty one, has 1/4 for each.

    Args:
        language: whose probability is the reward. None: that of each sample's prompt.

    Raises:
        ValueError: another language.
        ImportError: py3langid is not installed; the message says how to.
    """

    def __init__(self, language: str | None = None):
        if language is not None and language not in LANGUAGES:
            raise ValueError(f"language: got {language!r}, needs one of {', '.join(map(repr, LANGUAGES))}, or None")
        self.language = language
        _identifier()

    def __call__(
        self, samples: Any, conditions: Any = None, *, mask: Any = None, **kwargs: Any
    ) -> Float[np.ndarray, "B"]:
        """Rewards `(B,)`, float32.

        Args:
            samples: tokens `(B, T)`, or B words.
            conditions: prompts `(B, 1)`; without a language of its own the reward needs them.
            mask: `(B, T)`, true on the tokens of each response. None: they go up to the end.

        Raises:
            ValueError: a token is no letter, or a condition no prompt, or there are none.
        """
        words = list(samples) if isinstance(samples, list | tuple) else word_vocabulary().decode(samples, mask)
        return self.probabilities(words)[np.arange(len(words)), self._columns(conditions, len(words))]

    def probabilities(self, words: Sequence[str]) -> Float[np.ndarray, "B 4"]:
        """P(language | word) for B words and the languages of `LANGUAGES` in their order; rows add up to 1."""
        return np.array([_probabilities(word) for word in words], np.float32).reshape(-1, len(LANGUAGES))

    def _columns(self, conditions: Any, rows: int) -> Any:
        if self.language is not None:
            return list(LANGUAGES).index(self.language)
        first = word_vocabulary().num_outputs
        columns = np.asarray(-1 if conditions is None else conditions).reshape(-1) - first
        if len(columns) != rows or not np.isin(columns, np.arange(len(LANGUAGES))).all():
            raise ValueError(
                f"conditions: got {'none' if conditions is None else f'shape {np.shape(conditions)}'}, needs prompts "
                f"of word_vocabulary(), ({rows}, 1); or give the reward a language"
            )
        return columns


@functools.cache
def language_scorer(language: str | None = None) -> LanguageReward:
    """The `LanguageReward` of a language, or of each prompt's; the model behind is read once."""
    return LanguageReward(language)


@functools.cache
def _identifier() -> Any:
    langid = require("py3langid.langid")
    identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    identifier.set_languages(list(LANGUAGES))
    return identifier


@functools.lru_cache(maxsize=2**17)  # a policy that learns says the same again and again
def _probabilities(word: str) -> tuple[float, ...]:
    scores = dict(_identifier().rank(word))
    return tuple(scores[language] for language in LANGUAGES)
