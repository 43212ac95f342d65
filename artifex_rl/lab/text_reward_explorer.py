"""Explorer of text rewards: how likely whole words are, what they are paid, and what the best policy makes of it."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from matplotlib.figure import Figure

from artifex_rl.data.scored_samples import load_scored_spellings
from artifex_rl.generative.sequences import restrict_logits
from artifex_rl.lab.canvas import INK
from artifex_rl.lab.control import Control
from artifex_rl.lab.explorer import Explorer
from artifex_rl.lab.scored_actions import check_finite
from artifex_rl.rl.arrays import check_shape, read_array, read_floats
from artifex_rl.rl.composed_rewards import compute_length_penalty
from artifex_rl.rl.distributions import Categorical

MOST_WORDS = 20
#: Log-probabilities below this are drawn at the lower edge.
LOWEST = -40.0


class TextRewardExplorer(Explorer):
    """Words as a policy sees them, token by token, under a temperature and a top-p; their reward less the price of
    their length; and the best policy for both, π ∝ π_ref · exp(r/β).

    Top: log π of each word, the sum over its letters *and its end*, as the policy is, and as it draws under the
    temperature and top-p. Where the second is missing the word cannot be drawn: one of its letters was cut away.
    Middle: what is paid. Bottom: the probability of each word, before (grey) and at the optimum (blue). All else that
    the policy could write is one entry more: it has the probability that the words leave over, is paid nothing, and
    has the mean of their lengths. The library's `restrict_logits`, `Categorical` and `compute_length_penalty` draw
    it all.

    Args:
        words: W from 2 to 20 names, for the axis. Default, with all others: 16 words and strings of letters, with the
            logits of the pretrained policy "english"; a rhyme with "light" is paid 1, another word of the list 0.1.
        logits: `(W, T, V)`, about each token of each word, given those before it.
        tokens: `(W, T)` integers, 0 … V − 1.
        lengths: `(W,)`, tokens that count, the end included, 1 … T.
        rewards: `(W,)`.

    Raises:
        ValueError: only a part is given, a shape or range does not fit, or a number is not finite.
    """

    def __init__(
        self,
        words: Sequence[str] | None = None,
        logits: ArrayLike | None = None,
        tokens: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        rewards: ArrayLike | None = None,
    ):
        given = [part is not None for part in (words, logits, tokens, lengths, rewards)]
        if not any(given):
            known = load_scored_spellings()
            words, logits, tokens, lengths = known.words.tolist(), known.logits, known.tokens, known.lengths
            rewards = known.listed * (0.1 + 0.9 * known.rhymes)
        elif not all(given):
            raise ValueError("words, logits, tokens, lengths, rewards: got a part of them, needs all or none")
        words = [str(word) for word in words]
        scored = _read(len(words), logits, tokens, lengths, rewards)
        super().__init__(
            [
                Control("temperature", 0.3, 2, 0.1, 1, label="T  temperature", help="Logits are divided by it"),
                Control("top_p", 0.5, 1, 0.02, 1, label="top-p", help="The likeliest letters that make up this much"),
                Control("length_coeff", -1, 1, 0.1, 0, label="price of length", help="Below 0 length is paid for"),
                Control("beta", 0.04, 0.4, 0.02, 0.1, label="β  leash", help="Weight of the KL to the reference"),
            ],
            jax.tree_util.Partial(_curves, *scored),
            lambda curves, limits: _figure(curves, limits, words),
            lambda knobs, curves: _describe(knobs, curves, words),
            "Drag T, the price of length and β: which words are drawn, paid, and kept?",
        )


def compute_word_log_probs(logits, tokens, lengths, temperature=1.0, top_p=1.0):
    """log π of whole words, `(W,)`: the sum over their tokens, the end included; −∞ for what cannot be drawn."""
    log_probs = Categorical(restrict_logits(logits, temperature, top_p=top_p)).log_prob(tokens)
    return jnp.where(jnp.arange(tokens.shape[1])[None] < lengths[:, None], log_probs, 0.0).sum(axis=1)


def compute_best_policy(log_probs, rewards, beta):
    """π_ref · exp(r/β), adding up to 1: what maximises E[r] − β KL(π ‖ π_ref), if these are all outcomes."""
    return jnp.exp(Categorical(log_probs + rewards / beta).log_probs)


def _curves(logits, tokens, lengths, rewards, temperature, top_p, length_coeff, beta):
    whole = compute_word_log_probs(logits, tokens, lengths)
    drawn = compute_word_log_probs(logits, tokens, lengths, temperature, top_p)
    whole, drawn = (_with_all_else(log_probs) for log_probs in (whole, drawn))
    lengths = lengths.astype(jnp.float32)
    lengths = jnp.append(lengths, lengths.mean())
    paid = jnp.append(rewards, 0.0) - length_coeff * compute_length_penalty(lengths, tokens.shape[1] + 1)
    after, places = compute_best_policy(whole, paid, beta), jnp.arange(len(paid), dtype=jnp.float32)
    possible = jnp.where(jnp.isfinite(drawn), jnp.maximum(drawn, LOWEST), jnp.nan)
    return {
        "whole": jnp.stack([places, jnp.maximum(whole, LOWEST)], axis=1),
        "drawn": jnp.stack([places, possible], axis=1),
        "paid": _bars(places, paid),
        "before": _bars(places - 0.18, jnp.exp(whole)),
        "after": _bars(places + 0.18, after),
    }


def _with_all_else(log_probs):
    """One entry more: the logarithm of what is left over."""
    return jnp.append(log_probs, jnp.log1p(-jnp.minimum(jnp.exp(log_probs).sum(), 1 - 1e-6)))


def _bars(x, heights):
    """A bar from 0 to each height, as one line with gaps, `(3 W, 2)`."""
    ys = jnp.stack([jnp.zeros_like(heights), heights, jnp.full_like(heights, jnp.nan)], axis=1)
    return jnp.stack([jnp.repeat(x, 3), ys.reshape(-1)], axis=1)


def _figure(curves, limits, words):
    fig = Figure(figsize=(8.6, 5.4))
    likely, paid, share = fig.subplots(3, 1, sharex=True, height_ratios=(1.25, 1, 1))
    marks = {"ls": "", "marker": "o", "mew": 1.8}
    likely.plot(*curves["whole"].T, gid="whole", label="as the policy is", ms=9, mfc="none", color="#7f7f7f", **marks)
    likely.plot(*curves["drawn"].T, gid="drawn", label="as it draws", ms=5, color=INK["blue"]["color"], **marks)
    low = min(limits[name][0] for name in ("whole", "drawn"))
    likely.set(ylim=(max(low, LOWEST) - 2, 4))
    likely.set_title("log π(word): letters and end; missing: cannot be drawn")
    likely.legend(loc="lower left", ncols=2, fontsize=9.5)
    bar = {"solid_capstyle": "butt"}
    paid.plot(*curves["paid"].T, gid="paid", lw=16, color=INK["orange"]["color"], **bar)
    paid.axhline(0, color="#888888", lw=0.8)
    low, high = limits["paid"]
    paid.set(ylim=(min(low, 0) - 0.1, high + 0.1), title="Paid: the reward less the price of length")
    share.plot(*curves["before"].T, gid="before", lw=8, color="#9a9a9a", label="before", **bar)
    share.plot(
        *curves["after"].T, gid="after", lw=8, color=INK["blue"]["color"], label="best, π ∝ π_ref exp(r/β)", **bar
    )
    share.set(ylim=(0, 1.02), title="Probability")
    share.legend(loc="upper left", ncols=2, fontsize=9.5, handlelength=1.2)
    share.set_xticks(range(len(words) + 1), [*words, "all else"], rotation=40, ha="right", rotation_mode="anchor")
    share.set(xlim=(-0.7, len(words) + 0.7))
    for axes in (likely, paid, share):
        axes.grid(axis="x", visible=False)
    return fig


def _describe(knobs, curves, words):
    drawn, paid, after = curves["drawn"][:-1, 1], curves["paid"][1:-3:3, 1], curves["after"][1::3, 1]
    missing = int(np.isnan(drawn).sum())
    likeliest = "none" if missing == len(words) else words[int(np.nanargmax(drawn))]
    best = int(np.argmax(paid))
    return (
        f"At temperature {knobs['temperature']:.1f} and top-p {knobs['top_p']:.2f} the likeliest of these words is "
        f"{likeliest}, and {missing} of {len(words)} cannot be drawn. Paid most: {words[best]}, {paid[best]:.2f}. "
        f"The best policy with β = {knobs['beta']:.2f} writes something else in {after[-1]:.0%} of all cases, and of "
        f"these words {words[int(np.argmax(after[:-1]))]} most often, in {after[:-1].max():.0%}."
    )


def _read(count, logits, tokens, lengths, rewards):
    if not 2 <= count <= MOST_WORDS:
        raise ValueError(f"words: got {count}, needs 2 to {MOST_WORDS}")
    logits, rewards = read_floats(logits=logits, rewards=rewards)
    tokens, lengths = read_array("tokens", tokens), read_array("lengths", lengths)
    if logits.ndim != 3:
        raise ValueError(f"logits: got shape {logits.shape}, needs (W, T, V)")
    check_shape("logits", logits, (count, *logits.shape[1:]))
    check_shape("tokens", tokens, logits.shape[:2])
    for name, array in (("lengths", lengths), ("rewards", rewards)):
        check_shape(name, array, (count,))
    for name, array in (("logits", logits), ("rewards", rewards)):
        check_finite(name, array)
    for name, array, high in (("tokens", tokens, logits.shape[2] - 1), ("lengths", lengths, logits.shape[1])):
        low = int(name == "lengths")
        if not ((array >= low) & (array <= high) & (array == jnp.round(array))).all():
            raise ValueError(f"{name}: got some out of range, needs integers from {low} to {high}")
    whole_numbers = tokens.astype(jnp.int32), lengths.astype(jnp.int32)
    return logits.astype(jnp.float32), *whole_numbers, rewards.astype(jnp.float32)
