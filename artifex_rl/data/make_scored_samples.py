"""Make the built-in scored words, digits and spellings: `python -m artifex_rl.data.make_scored_samples`."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np

from artifex_rl.data.extras import require
from artifex_rl.data.pretrained import pretrained_words
from artifex_rl.data.ratings import rating_vocabulary
from artifex_rl.data.rhymes import load_rhymes
from artifex_rl.data.scored_samples import (
    DIGITS_FILE,
    SPELLINGS_FILE,
    WORDS_FILE,
    ScoredDigits,
    ScoredSpellings,
    ScoredWords,
)
from artifex_rl.data.words import MAX_TOKENS, load_words
from artifex_rl.rl.measured_rewards import CompressibilityReward

LANGUAGES = {"en": "English", "it": "Italian", "de": "German", "fi": "Finnish"}
#: How often the policy of the groups answers in the language that it was asked for.
SKILL = {"en": 0.5, "it": 0.9, "de": 0.15, "fi": 0.0}
GROUP_SIZE, NUM_PAIRS = 16, 48
# Chosen by eye among a few: of the first eight answers one group has a single success and one has none, and with
# fewer answers more groups have none.
SEED = 9
#: Pixels of a digit's side as a JPEG.
SIZE = 48
EVERY = 19  # 95 of 1797 digits, of all classes and many hands
#: Rhymes of "light", rhymes for the eye alone, other words, and what only looks like words.
SPELLINGS = (
    *("light", "night", "bite", "quite", "height", "tonight", "appetite"),
    *("weight", "suite", "favorite", "opposite"),
    *("house", "information"),
    *("dright", "sanite", "overlightnes"),
)


def make_scored_words() -> ScoredWords:
    """Frequent words, groups of answers to four prompts, and preference pairs with log-probabilities."""
    rng = np.random.default_rng(SEED)
    frequent = {code: _frequent_words(code) for code in LANGUAGES}
    words = [word for code in LANGUAGES for word in [w for w in frequent[code] if len(w) >= 5][:4]]

    groups = [[_answer(code, frequent, rng) for _ in range(GROUP_SIZE)] for code in LANGUAGES]
    rewards = [[_probabilities(w)[code] > 0.5 for w in group] for code, group in zip(LANGUAGES, groups, strict=True)]

    chosen = [str(word) for word in rng.choice(frequent["it"], NUM_PAIRS, replace=False)]
    others = [word for code in ("en", "de", "fi") for word in frequent[code] if word not in frequent["it"]]
    rejected = [str(word) for word in rng.choice(others, NUM_PAIRS, replace=False)]
    policy, reference = _Bigram(frequent["it"]), _Bigram([w for code in LANGUAGES for w in frequent[code]])
    return ScoredWords(
        words=np.array(words),
        log_frequencies=np.array([np.log(_frequency(word)) for word in words], np.float32),
        p_italian=np.array([_probabilities(word)["it"] for word in words], np.float32),
        prompts=np.array(list(LANGUAGES.values())),
        group_words=np.array(groups),
        group_rewards=np.array(rewards, np.float32),
        chosen=np.array(chosen),
        rejected=np.array(rejected),
        chosen_lengths=np.array([len(word) + 1 for word in chosen], np.float32),
        rejected_lengths=np.array([len(word) + 1 for word in rejected], np.float32),
        chosen_log_probs=np.array([policy(word) for word in chosen], np.float32),
        rejected_log_probs=np.array([policy(word) for word in rejected], np.float32),
        ref_chosen_log_probs=np.array([reference(word) for word in chosen], np.float32),
        ref_rejected_log_probs=np.array([reference(word) for word in rejected], np.float32),
    )


def make_scored_digits() -> ScoredDigits:
    """Digits that a classifier has not seen, and what three rewards say of them."""
    data = require("sklearn.datasets").load_digits()
    pixels, labels = data.images / 16, data.target
    shown = np.arange(len(labels)) % EVERY == 0
    classifier = require("sklearn.linear_model").LogisticRegression(C=0.1, max_iter=2000, tol=1e-8)
    classifier.fit(pixels[~shown].reshape(-1, 64), labels[~shown])
    believed = classifier.predict_proba(pixels[shown].reshape(-1, 64))
    count = int(shown.sum())
    images = data.images[shown].astype(np.uint8)
    return ScoredDigits(
        images=images,
        labels=labels[shown].astype(np.int32),
        ink=pixels[shown].mean(axis=(1, 2)).astype(np.float32),
        small=np.asarray(CompressibilityReward()(enlarge(images, SIZE) / 16)),
        legible=believed[np.arange(count), labels[shown]].astype(np.float32),
    )


def enlarge(images: np.ndarray, size: int) -> np.ndarray:
    """Integer images `(B, n, n)` as `(B, size, size)` of the same range, by linear interpolation; n divides `size`.

    Exact but for one division: hundreds of pixels lie half-way between two grey levels, where a float's last digit
    would decide, and that is another one on another processor.
    """
    (_, n, _), twice = images.shape, 2 * (size // images.shape[1])
    left, right = divmod(2 * np.arange(size) + 1 - twice // 2, twice)  # the pixel before each place, and how far past
    weights = np.zeros((size, n), np.int64)
    for pixel, weight in ((left, twice - right), (left + 1, right)):
        np.add.at(weights, (np.arange(size), np.clip(pixel, 0, n - 1)), weight)
    return weights @ images.astype(np.int64) @ weights.T / twice**2


def make_scored_spellings() -> ScoredSpellings:
    """What the policy "english" says of `SPELLINGS` token by token, and which of them are paid."""
    vocabulary, policy = rating_vocabulary(), pretrained_words("english")
    tokens, lengths = vocabulary.encode(SPELLINGS, MAX_TOKENS)
    known, rhymes = {word for part in load_words("en") for word in part}, load_rhymes("light")
    seen = policy.evaluate(vocabulary.prompt(["word"] * len(tokens)), tokens)
    return ScoredSpellings(
        words=np.array(SPELLINGS),
        tokens=tokens,
        lengths=lengths,
        logits=np.asarray(seen.distribution.logits, np.float16),
        listed=np.array([word in known for word in SPELLINGS], np.float32),
        rhymes=np.array([word in rhymes for word in SPELLINGS], np.float32),
    )


def _frequent_words(code: str) -> list[str]:
    words = require("wordfreq").top_n_list(code, 6000, wordlist="small")
    return [word for word in words if word.isalpha() and 3 <= len(word) <= 12][:3000]


def _frequency(word: str) -> float:
    return sum(require("wordfreq").word_frequency(word, code) for code in LANGUAGES)


def _probabilities(word: str) -> dict[str, float]:
    """P(language | word) for each of the four."""
    langid = require("py3langid.langid")
    if not hasattr(_probabilities, "identifier"):
        identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
        identifier.set_languages(list(LANGUAGES))
        _probabilities.identifier = identifier
    return {code: float(p) for code, p in _probabilities.identifier.rank(word)}


def _answer(code: str, frequent: dict[str, list[str]], rng: np.random.Generator) -> str:
    """A word of the language asked for, or, as often as the policy fails, of another."""
    others = [other for other in LANGUAGES if other != code]
    return str(rng.choice(frequent[code if rng.random() < SKILL[code] else rng.choice(others)]))


class _Bigram:
    """log P(word) of a letter bigram with its end, each letter seen half a time more than it was."""

    def __init__(self, words: list[str]):
        self.pairs = Counter(pair for word in words for pair in pairwise(f" {word} "))
        self.starts = Counter(letter for word in words for letter in f" {word}")
        self.letters = len(self.starts)

    def __call__(self, word: str) -> float:
        return float(
            sum(
                np.log((self.pairs[pair] + 0.5) / (self.starts[pair[0]] + 0.5 * self.letters))
                for pair in pairwise(f" {word} ")
            )
        )


if __name__ == "__main__":
    folder = Path(__file__).parent
    np.savez_compressed(folder / WORDS_FILE, **make_scored_words()._asdict())
    np.savez_compressed(folder / DIGITS_FILE, **make_scored_digits()._asdict())
    np.savez_compressed(folder / SPELLINGS_FILE, **make_scored_spellings()._asdict())
