"""What ten people thought of a word: real preferences, with the disagreement that real people have.

Ratings: the lexicon of vaderSentiment 3.3.2 (MIT licence), in which ten people each said how a word feels, from −4,
extremely negative, to 4, extremely positive (Hutto & Gilbert, 2014, *VADER*, ICWSM 8(1), section 3.1). The package
comes with `artifex_rl[data]` and holds them itself: nothing is downloaded.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float, Int

from artifex_rl.data.extras import require
from artifex_rl.data.vocabulary import Vocabulary
from artifex_rl.data.words import CRUDE, HELDOUT_SHARE, MAX_TOKENS, is_held_out

SPELLING = re.compile("[a-z]{4,12}")  # shorter ones are mostly initials from chats
FAMILY_LETTERS = 4


class Ratings(NamedTuple):
    """N words, and what each of ten raters said of them."""

    words: tuple[str, ...]
    ratings: Int[np.ndarray, "N 10"]  # int8, −4 … 4; the order of the raters means nothing


class RatingsSplit(NamedTuple):
    """No word is in both parts."""

    train: Ratings
    heldout: Ratings


class Pairs(NamedTuple):
    """B preferences: one rating of each of two words was drawn, and the word with the higher one is chosen."""

    chosen: tuple[str, ...]
    rejected: tuple[str, ...]
    chosen_ratings: Int[np.ndarray, "B"]
    rejected_ratings: Int[np.ndarray, "B"]

    def batch(self) -> dict[str, np.ndarray]:
        """The pairs as `DPOTrainer` takes them: prompts `(B, 1)`, tokens `(B, 13)`, and lengths with the end."""
        vocabulary = rating_vocabulary()
        chosen, chosen_lengths = vocabulary.encode(self.chosen, MAX_TOKENS)
        rejected, rejected_lengths = vocabulary.encode(self.rejected, MAX_TOKENS)
        return {
            "observations": vocabulary.prompt(["word"] * len(self.chosen)),
            "chosen": chosen,
            "rejected": rejected,
            "chosen_lengths": chosen_lengths,
            "rejected_lengths": rejected_lengths,
        }


@functools.cache
def rating_vocabulary() -> Vocabulary:
    """The tokens of the rated words: the end, a–z, and the one prompt, "word"."""
    return Vocabulary("abcdefghijklmnopqrstuvwxyz", ("word",))


@functools.cache
def load_ratings(hold_out: str = "words") -> RatingsSplit:
    """The rated words of 4 to 12 letters a–z; about a tenth, chosen by a checksum, is held out.

    Args:
        hold_out: "words" decides word by word: of most that are held out, a relative was trained on ("abandoned"
            here, "abandons" there). "families" decides by the first four letters: relatives stay together, and a
            policy must know feeling from other signs.

    Returns:
        `(train, heldout)`, each with words and ratings `(N, 10)`, which are not to be written to.

    Raises:
        ValueError: `hold_out` is another word.
        ImportError: vaderSentiment is not installed; the message says how to.
    """
    letters = {"words": None, "families": FAMILY_LETTERS}
    if hold_out not in letters:
        raise ValueError(f"hold_out: got {hold_out!r}, needs 'words' or 'families'")
    rated = _read_lexicon()
    outside = [is_held_out(word[: letters[hold_out]], HELDOUT_SHARE) for word in rated]
    return RatingsSplit(*(_select(rated, [out is part for out in outside]) for part in (False, True)))


def draw_pairs(ratings: Ratings, num_pairs: int, seed: int = 0) -> Pairs:
    """Preferences between words, as single people have them.

    Each pair: two different words at random, one of the ten ratings of each; if they are equal, draw again. So the
    better liked word of a pair is often, not always, the chosen one.

    Args:
        ratings: at least two words.
        num_pairs: B, at least 1.
        seed: of the draw.

    Raises:
        ValueError: there are fewer words or pairs than that, or all ratings are equal.
    """
    rows, columns = ratings.ratings.shape
    if rows < 2 or num_pairs < 1 or (ratings.ratings == ratings.ratings[0, 0]).all():
        raise ValueError(
            f"got {rows} words, num_pairs={num_pairs}; needs at least 2 words that are not rated alike, and 1 pair"
        )
    rng = np.random.default_rng(seed)
    chosen, rejected = (np.empty((0, 2), np.int64) for _ in range(2))
    size = (2, num_pairs)
    while len(chosen) < num_pairs:
        first, second = np.stack([rng.integers(rows, size=size), rng.integers(columns, size=size)], axis=-1)
        difference = ratings.ratings[tuple(first.T)] - ratings.ratings[tuple(second.T)]
        keep = (difference != 0) & (first[:, 0] != second[:, 0])
        higher = (difference > 0)[:, None]
        chosen = np.concatenate([chosen, np.where(higher, first, second)[keep]])
        rejected = np.concatenate([rejected, np.where(higher, second, first)[keep]])
    sides = chosen[:num_pairs], rejected[:num_pairs]
    words = (tuple(ratings.words[row] for row in side[:, 0]) for side in sides)
    return Pairs(*words, *(ratings.ratings[tuple(side.T)] for side in sides))


def compute_word_log_probs(policy: Any, words: Sequence[str], batch_size: int = 512) -> Float[np.ndarray, "N"]:
    """log π(word) of each word, summed over its letters and its end: what to order words by, and DPO's references.

    Words are few and pairs are many: `batch["ref_chosen_log_probs"]` looked up in here takes a tenth of the memory
    and time that a `reference_model` takes to read every pair.

    Args:
        policy: a `SequencePolicy` over `rating_vocabulary()`, an `nnx.Module`.
        words: N of them.
        batch_size: words that are read at once.

    Returns:
        `(N,)` float32, in nats.
    """
    vocabulary = rating_vocabulary()
    tokens, lengths = vocabulary.encode(words, MAX_TOKENS)
    rows = np.arange(-(-len(words) // batch_size) * batch_size).reshape(-1, batch_size) % max(len(words), 1)
    prompts, split = vocabulary.prompt(["word"] * batch_size), nnx.split(policy)
    totals = [np.asarray(_total_log_probs(*split, prompts, tokens[now], lengths[now])) for now in rows]
    return np.concatenate([np.empty(0, np.float32), *totals])[: len(words)]


@functools.partial(jax.jit, static_argnums=0)
def _total_log_probs(graphdef, state, prompts, tokens, lengths):
    mask = jnp.arange(tokens.shape[1])[None] < lengths[:, None]
    return nnx.merge(graphdef, state).evaluate(prompts, tokens, mask).log_probs.sum(axis=1)


def compute_agreement(scores: Any, ratings: Ratings) -> float:
    """The share of preferences that an order of the words gets right; exact, over all pairs that could be drawn.

    Args:
        scores: `(N,)`, one for each word: log-probabilities, or a mean rating. Words of equal score count half.
        ratings: N words.

    Returns:
        P(score of the chosen > score of the rejected), in [0, 1].

    Raises:
        ValueError: the scores have another shape.
    """
    scores = np.asarray(scores)
    if scores.shape != (len(ratings.words),):
        raise ValueError(f"scores: got shape {scores.shape}, needs ({len(ratings.words)},), one for each word")
    share, below = _histograms(ratings)
    levels, level = np.unique(scores, return_inverse=True)
    alike = np.zeros((len(levels), below.shape[1]))
    np.add.at(alike, level, below)  # (levels, 9): summed over the words of one score
    under = np.cumsum(alike, axis=0) - alike
    right = share * (under[level] + 0.5 * (alike[level] - below))
    return float(right.sum() / (share * (alike.sum(axis=0, keepdims=True) - below)).sum())


def compute_agreement_ceiling(ratings: Ratings) -> float:
    """The highest agreement with single people that anything can have: on each pair of words, with the majority.

    People who disagree with each other cannot all be agreed with.
    """
    share, below = _histograms(ratings)
    best = total = 0.0
    for row in range(len(share)):  # all pairs at once would take gigabytes
        wins, losses = below[:row] @ share[row], share[:row] @ below[row]
        best, total = best + np.maximum(wins, losses).sum(), total + (wins + losses).sum()
    return float(best / total)


def _histograms(ratings: Ratings) -> tuple[Float[np.ndarray, "N 9"], Float[np.ndarray, "N 9"]]:
    """P(rating of word i = v) and P(rating of word i < v) for v = −4 … 4."""
    share = (ratings.ratings[:, :, None] == np.arange(-4, 5)).mean(axis=1)
    return share, np.cumsum(share, axis=1) - share


@functools.cache
def _read_lexicon() -> dict[str, list[int]]:
    require("vaderSentiment")
    lines = files("vaderSentiment").joinpath("vader_lexicon.txt").read_text(encoding="utf-8").splitlines()
    entries = (line.split("\t") for line in lines if line.strip())
    return {word: json.loads(ratings) for word, _, _, ratings in entries if _is_plain(word)}


def _is_plain(word: str) -> bool:
    return SPELLING.fullmatch(word) is not None and CRUDE.search(word) is None


def _select(rated: dict[str, list[int]], chosen: list[bool]) -> Ratings:
    ratings = np.array(list(rated.values()), np.int8)[chosen]
    ratings.flags.writeable = False
    return Ratings(tuple(word for word, keep in zip(rated, chosen, strict=True) if keep), ratings)
