"""Words that a policy wrote, in a notebook: what there is to count in them, and a table of them as a figure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float
from matplotlib.figure import Figure


def measure_words(
    words: ArrayLike, paid: Collection[str], listed: Collection[str]
) -> dict[str, Float[np.ndarray, "*S"]]:
    """Shares and numbers of sets of words.

    Args:
        words: `(*S, B)` strings, sets of B ≥ 1 words.
        paid: the words that a reward is after.
        listed: all words that count as real.

    Returns:
        For each set, `(*S)` floats: "paid" and "listed", shares in [0, 1]; "distinct" and "paid_distinct", how many
        different words, and different paid ones; "letters", the mean length.

    Raises:
        ValueError: there is no axis of words, or there are none.
    """
    words = np.asarray(words)
    if words.ndim < 1 or words.size == 0 or words.dtype.kind not in "UO":
        raise ValueError(f"words: got {words.dtype} of shape {words.shape}, needs strings (..., B), B at least 1")
    paid, listed = {*paid}, {*listed}
    rows = []
    for written in words.reshape(-1, words.shape[-1]).tolist():
        shares = [np.mean([word in known for word in written]) for known in (paid, listed)]
        rows.append([*shares, len({*written}), len({*written} & paid), np.mean([len(word) for word in written])])
    found = np.array(rows, float).reshape(*words.shape[:-1], 5)
    names = ("paid", "listed", "distinct", "paid_distinct", "letters")
    return {name: found[..., i] for i, name in enumerate(names)}


def draw_words(words: Sequence[Sequence[str]], rewards: ArrayLike, titles: Sequence[str], title: str) -> Figure:
    """A table of words, each on a colour of its reward; bright is high, and the ink follows.

    Args:
        words: R rows of C words.
        rewards: `(R, C)` in [0, 1].
        titles: R names of the rows.
        title: of the figure.

    Raises:
        ValueError: the shapes do not match.
    """
    words, rewards = np.asarray(words), np.asarray(rewards, float)
    if words.ndim != 2 or rewards.shape != words.shape or len(titles) != len(words):
        raise ValueError(
            f"rewards: got {rewards.shape} and {len(titles)} titles, needs those of words, {words.shape}"
        )
    figure = Figure(figsize=(9.4, 0.6 + 0.36 * len(words)))
    axes = figure.subplots()
    axes.imshow(rewards, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for (row, column), word in np.ndenumerate(words):
        ink = "black" if rewards[row, column] > 0.6 else "white"
        axes.text(column, row, word, ha="center", va="center", color=ink, fontsize=9.5)
    axes.set(xticks=[], title=title)
    axes.set_yticks(range(len(words)), titles)
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return figure
