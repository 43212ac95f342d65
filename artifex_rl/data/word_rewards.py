"""Rewards of written words that JAX can compile: is it in a list, and how does it end?

Both are called as `reward(tokens, conditions=None, mask=None)` and return 1 or 0 for each row, so that they fit into
`MultiObjectiveReward` and the rest. Tokens `(B, T)` are those of a vocabulary, and a word is what stands before its
first end. What has no end within its mask was cut off, and is no word.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from artifex_rl.data.vocabulary import Vocabulary

DEAD, ROOT = 0, 1


class WordListReward:
    """1 for a word of a list, else 0.

    The list is a tree of letters: each state is a beginning of some word, and each letter leads on, or to nowhere.
    Reading a word is a walk of T look-ups, exact for any list.

    Args:
        words: that are paid; any number, none of them empty.
        vocabulary: of the tokens.

    Raises:
        ValueError: there is no word, one is empty, or one has a letter that the vocabulary has not.
    """

    def __init__(self, words: Iterable[str], vocabulary: Vocabulary):
        words = sorted({*words})
        if not words or not words[0]:
            raise ValueError(f"words: got {'an empty one' if words else 'none'}, needs at least one, of some letters")
        tokens, _ = vocabulary.encode(words, max(map(len, words)) + 1)
        moves, accepts = [dict(), dict()], [False, False]
        for row in tokens:
            state = ROOT
            for token in row[: np.flatnonzero(row == vocabulary.eos_id)[0]]:
                following = moves[state].setdefault(int(token), len(moves))
                if following == len(moves):
                    moves.append({})
                    accepts.append(False)
                state = following
            accepts[state] = True
        self._eos_id, self._accepts = vocabulary.eos_id, np.array(accepts)
        self._moves = np.full((len(moves), vocabulary.num_outputs), DEAD, np.int32)
        for state, onward in enumerate(moves):
            self._moves[state, list(onward)] = list(onward.values())

    def __call__(
        self, samples: Int[Array, "B T"], conditions: Any = None, *, mask: Any = None, **kwargs: Any
    ) -> Float[Array, "B"]:
        """1.0 or 0.0 for each row."""
        tokens, lengths, ended = _read(samples, mask, self._eos_id)
        moves = jnp.asarray(self._moves)

        def read(state, now):
            token, inside = now
            return jnp.where(inside, moves[state, token], state), None

        inside = jnp.arange(tokens.shape[1])[:, None] < lengths[None, :]
        state, _ = jax.lax.scan(read, jnp.full(len(tokens), ROOT, jnp.int32), (tokens.T, inside))
        return jnp.where(ended, jnp.asarray(self._accepts)[state], False).astype(jnp.float32)


class EndingReward:
    """1 for what ends in one of some groups of letters, be it a word or not; else 0. A rhyme for the eye.

    Args:
        endings: such as ("ight", "ite"), none of them empty.
        vocabulary: of the tokens.

    Raises:
        ValueError: there is no ending, one is empty, or one has a letter that the vocabulary has not.
    """

    def __init__(self, endings: Iterable[str], vocabulary: Vocabulary):
        endings = [*endings]
        if not endings or not all(endings):
            raise ValueError(f"endings: got {endings}, needs at least one, of some letters")
        self._eos_id = vocabulary.eos_id
        self._endings = [vocabulary.encode([ending], len(ending) + 1)[0][0, :-1] for ending in endings]

    def __call__(
        self, samples: Int[Array, "B T"], conditions: Any = None, *, mask: Any = None, **kwargs: Any
    ) -> Float[Array, "B"]:
        """1.0 or 0.0 for each row."""
        tokens, lengths, ended = _read(samples, mask, self._eos_id)
        found = jnp.zeros(len(tokens), bool)
        for ending in self._endings:
            places = lengths[:, None] + jnp.arange(-len(ending), 0)[None]
            last = jnp.take_along_axis(tokens, jnp.maximum(places, 0), axis=1)
            found |= jnp.all((last == ending[None]) & (places >= 0), axis=1)
        return (found & ended).astype(jnp.float32)


def _read(samples: Any, mask: Any, eos_id: int) -> tuple[Int[Array, "B T"], Int[Array, "B"], Array]:
    """Tokens, the number of letters before the first end, and whether there is an end within the mask."""
    tokens = jnp.asarray(samples)
    if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise ValueError(f"samples: got {tokens.dtype} of shape {tokens.shape}, needs integers (B, T)")
    if mask is not None and jnp.shape(mask) != tokens.shape:
        raise ValueError(f"mask: got shape {jnp.shape(mask)}, needs {tokens.shape}")
    ends = (tokens == eos_id) & (jnp.ones_like(tokens, bool) if mask is None else jnp.asarray(mask))
    ended = jnp.any(ends, axis=1)
    return tokens, jnp.where(ended, jnp.argmax(ends, axis=1), tokens.shape[1]), ended
