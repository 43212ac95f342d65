"""Words as integers: what a sequence policy reads and writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True)
class Vocabulary:
    """Letters and prompts as token ids: 0 ends a word and fills what is behind it, then letters, then prompts.

    Prompts come last because a policy reads them and never writes them: its network has `num_outputs` logits, fewer
    than the `num_tokens` that it may read. A word of n letters is n + 1 tokens; the end counts.

    Args:
        letters: single characters, none twice.
        prompts: names of what a word may be asked for, such as languages; none twice.

    Raises:
        ValueError: there is no letter or no prompt, or one is there twice.
    """

    letters: str
    prompts: tuple[str, ...]

    eos_id = 0

    def __post_init__(self):
        for name, entries in (("letters", self.letters), ("prompts", self.prompts)):
            if not entries or len(set(entries)) < len(entries):
                raise ValueError(f"{name}: got {entries!r}, needs at least one, and none twice")

    @property
    def num_tokens(self) -> int:
        """All ids: the end, the letters, the prompts."""
        return 1 + len(self.letters) + len(self.prompts)

    @property
    def num_outputs(self) -> int:
        """The ids of a word alone: the end and the letters."""
        return 1 + len(self.letters)

    def encode(self, words: Sequence[str], max_length: int) -> tuple[Int[np.ndarray, "B T"], Int[np.ndarray, "B"]]:
        """Tokens and lengths of words, an end behind each.

        Args:
            words: B of them, of at most `max_length` − 1 letters.
            max_length: T.

        Returns:
            `(tokens, lengths)`, int32 `(B, T)` and `(B,)`; a length counts the end.

        Raises:
            ValueError: a word is too long, or has a letter that is not in the vocabulary.
        """
        ids = {letter: i for i, letter in enumerate(self.letters, start=1)}
        tokens = np.full((len(words), max_length), self.eos_id, np.int32)
        for row, word in zip(tokens, words, strict=True):
            unknown = [letter for letter in word if letter not in ids]
            if unknown or len(word) >= max_length:
                raise ValueError(
                    f"words: got {word!r}, needs at most {max_length - 1} letters, all of {self.letters!r}"
                )
            row[: len(word)] = [ids[letter] for letter in word]
        return tokens, np.array([len(word) + 1 for word in words], np.int32)

    def decode(self, tokens: Any, mask: Any = None) -> list[str]:
        """The words of tokens `(B, T)`, each up to its first end, or whole where it has none.

        Args:
            tokens: integers `(B, T)`, as a policy wrote them.
            mask: `(B, T)`, true on the tokens of the word. None: up to the end.

        Raises:
            ValueError: a token is neither a letter nor the end, or the mask has another shape.
        """
        tokens = np.asarray(tokens)
        if tokens.ndim != 2 or tokens.dtype.kind not in "iu":
            raise ValueError(f"tokens: got {tokens.dtype} of shape {tokens.shape}, needs integers (B, T)")
        if mask is not None:
            if np.shape(mask) != tokens.shape:
                raise ValueError(f"mask: got shape {np.shape(mask)}, needs {tokens.shape}")
            tokens = np.where(mask, tokens, self.eos_id)
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.num_outputs:
            raise ValueError(
                f"tokens: got {tokens.min()} to {tokens.max()}, needs ids of letters, 0 to {self.num_outputs - 1}"
            )
        alphabet = np.array(["\n", *self.letters])
        return ["".join(row).partition("\n")[0] for row in alphabet[tokens]]

    def prompt(self, names: Iterable[str]) -> Int[np.ndarray, "B 1"]:
        """Prompts as observations `(B, 1)`, int32.

        Raises:
            ValueError: a name is not one of the prompts.
        """
        names = list(names)
        for name in names:
            if name not in self.prompts:
                raise ValueError(f"prompt: got {name!r}, needs one of {', '.join(map(repr, self.prompts))}")
        ids = [self.num_outputs + self.prompts.index(name) for name in names]
        return np.array(ids, np.int32).reshape(-1, 1)
