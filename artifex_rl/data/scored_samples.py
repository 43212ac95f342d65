"""Real samples with real scores, small enough to ship: words with their language, and digits with their ink."""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple

import numpy as np

WORDS_FILE, DIGITS_FILE, SPELLINGS_FILE = "scored_words.npz", "scored_digits.npz", "scored_spellings.npz"


class ScoredWords(NamedTuple):
    """Words of four languages, and how Italian (or how right) a language identifier finds them."""

    words: np.ndarray  # (16,) str: four frequent words each of English, Italian, German and Finnish
    log_frequencies: np.ndarray  # (16,) float32: log of their frequency, summed over the four languages
    p_italian: np.ndarray  # (16,) float32: P(Italian | word)
    prompts: np.ndarray  # (4,) str: the languages that were asked for
    group_words: np.ndarray  # (4, 16) str: what a policy answered to each prompt
    group_rewards: np.ndarray  # (4, 16) float32: 1 where P(language asked for | word) > ½, else 0
    chosen: np.ndarray  # (48,) str: an Italian word, and
    rejected: np.ndarray  # (48,) str: beside it one of another language
    chosen_lengths: np.ndarray  # (48,) float32: tokens: the letters, and the end of the word
    rejected_lengths: np.ndarray  # (48,) float32
    chosen_log_probs: np.ndarray  # (48,) float32: of the word, summed over its tokens, under a bigram of Italian
    rejected_log_probs: np.ndarray  # (48,) float32
    ref_chosen_log_probs: np.ndarray  # (48,) float32: the same under a bigram of all four languages
    ref_rejected_log_probs: np.ndarray  # (48,) float32


class ScoredDigits(NamedTuple):
    """Handwritten digits, and three things that a reward might like about them."""

    images: np.ndarray  # (95, 8, 8) uint8, from 0, paper, to 16, ink
    labels: np.ndarray  # (95,) int32: the digit that was meant
    ink: np.ndarray  # (95,) float32: mean darkness, 0 to 1
    small: np.ndarray  # (95,) float32: `CompressibilityReward`, minus the size as a JPEG in kB
    legible: np.ndarray  # (95,) float32: P(digit that was meant | image) of a logistic regression


class ScoredSpellings(NamedTuple):
    """Words and strings of letters as a network that writes English sees them letter by letter, and who pays."""

    words: np.ndarray  # (16,) str: rhymes of "light", words that only look like one, other words, and no words
    tokens: np.ndarray  # (16, 13) int32, of `rating_vocabulary()`: the letters, an end, padding
    lengths: np.ndarray  # (16,) int32: the letters, and the end
    logits: np.ndarray  # (16, 13, 27) float32: about each token, given those before
    listed: np.ndarray  # (16,) float32: 1 for a word of the list, else 0
    rhymes: np.ndarray  # (16,) float32: 1 for what rhymes with "light" by ear, else 0


def load_scored_words() -> ScoredWords:
    """Words scored by py3langid 0.4.0 (BSD) between four languages; words and frequencies of wordfreq 3.1.1
    (CC BY-SA 4.0). The policy of the groups answers in the language asked for nine times in ten for Italian, half
    the time for English, one time in seven for German, and never for Finnish. Made by
    `python -m artifex_rl.data.make_scored_samples`.
    """
    return _load(WORDS_FILE, ScoredWords)


def load_scored_digits() -> ScoredDigits:
    """Each 19th of scikit-learn's digits (UCI, CC BY 4.0), scored by `CompressibilityReward` at 48 × 48 pixels,
    and by a classifier fitted on the others. Made by `python -m artifex_rl.data.make_scored_samples`.
    """
    return _load(DIGITS_FILE, ScoredDigits)


def load_scored_spellings() -> ScoredSpellings:
    """Logits of the pretrained policy "english", in half precision; the list is wordfreq's (CC BY-SA 4.0), the ear
    the CMU Pronouncing Dictionary's. Made by `python -m artifex_rl.data.make_scored_samples`.
    """
    spellings = _load(SPELLINGS_FILE, ScoredSpellings)
    return spellings._replace(logits=spellings.logits.astype(np.float32))


def _load(name: str, kind: type):
    with (files("artifex_rl.data") / name).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return kind(**{field: arrays[field] for field in kind._fields})
