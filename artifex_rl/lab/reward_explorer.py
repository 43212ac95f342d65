"""Explorer of composed rewards: which samples win, as the weights of what is liked about them move."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from matplotlib.figure import Figure

from artifex_rl.data.scored_samples import load_scored_digits
from artifex_rl.lab.canvas import INK
from artifex_rl.lab.control import Control
from artifex_rl.lab.explorer import Explorer
from artifex_rl.lab.halftone import SIDE, draw_halftone, halftone
from artifex_rl.lab.scored_actions import check_finite
from artifex_rl.rl.arrays import check_shape, read_floats
from artifex_rl.rl.returns import normalize_advantages
from artifex_rl.rl.rewards import ClippedReward, CompositeReward, ScaledReward, ThresholdReward

MOST_SCORES, MOST_SAMPLES, WINNERS = 3, 256, 8


class RewardExplorer(Explorer):
    """A weighted sum of real scores, scaled and clipped, or cut by a threshold; and the samples that it makes win.

    Left: the reward of every sample, best first: the sum Σ wᵢ zᵢ times the scale, the same clipped to ±1, and as 0 or
    1 by the threshold. Where the clipped curve is flat all samples are worth the same: nothing more is learnt there.
    Right: the samples by their first two scores, with a ring around the eight that win. Below: those eight, and the
    eight of the first setting. The library's `CompositeReward`, `ScaledReward`, `ClippedReward` and `ThresholdReward`
    draw it all, over scores that are known.

    Args:
        scores: two or three names, each with `(N,)` scores of the same 8 to 256 samples; each is standardised to mean
            0 and deviation 1, so that weights compare. Names are Python identifiers. Default: ink, smallness as a
            JPEG and legibility of 95 handwritten digits.
        images: `(N, 8, 8)`, of the samples, from 0, paper, to 1, ink; larger ones are to be shrunk first. Default for
            given scores: none are drawn.

    Raises:
        ValueError: a name or shape does not fit, a number is not finite, or all samples have the same score.
    """

    def __init__(self, scores: Mapping[str, ArrayLike] | None = None, images: ArrayLike | None = None):
        if scores is None:
            digits = load_scored_digits()
            scores = {"ink": digits.ink, "small": digits.small, "legible": digits.legible}
            images = digits.images / np.float32(16) if images is None else images
        scores = _read_scores(scores)
        names, count = list(scores), len(next(iter(scores.values())))
        if images is not None:
            (images,) = read_floats(images=images)
            check_shape("images", images, (count, SIDE, SIDE))
            check_finite("images", images)
            images = jnp.clip(images.astype(jnp.float32), 0, 1)
        super().__init__(
            [
                *[
                    Control(f"weight_{name}", -2, 2, 0.1, float(i == 0), label=f"w  {name}", help=f"Weight of {name}")
                    for i, name in enumerate(names)
                ],
                Control("scale", 0, 2, 0.1, 1, label="scale", help="Factor on the sum, before the clip"),
                Control("threshold", -3, 3, 0.1, 0.5, label="threshold", help="Above it the reward is 1, else 0"),
            ],
            jax.tree_util.Partial(_curves, scores, jnp.stack([scores[names[0]], scores[names[1]]], axis=1), images),
            lambda curves, limits: _figure(curves, scores),
            lambda knobs, curves: _describe(knobs, curves, sorted(names)),
            "Drag the weights: who wins, and by what?",
        )


def composed_reward(names, scale, weights):
    """The library's reward of samples that are rows of scores, `(N, K)`, in the order of the names."""
    columns = [lambda table, conditions=None, i=i: table[:, i] for i in range(len(names))]
    return ScaledReward(CompositeReward(columns, [weights[f"weight_{name}"] for name in names]), scale)


def _curves(scores, plane, images, scale, threshold, **weights):
    table = jnp.stack(list(scores.values()), axis=1)
    reward = composed_reward(list(scores), scale, weights)
    total = reward(table)
    best = jnp.argsort(-total, stable=True)
    winners = best[:WINNERS]
    mean = jnp.mean(table[winners], axis=0)
    bars = jnp.stack([jnp.zeros_like(mean), mean, jnp.full_like(mean, jnp.nan)], axis=1)
    curves = {
        "total": total[best],
        "clipped": ClippedReward(reward)(table)[best],
        "passes": ThresholdReward(reward, threshold)(table)[best],
        "threshold": jnp.full(2, threshold),
        "winners": plane[winners],
        "profile": bars.reshape(-1),
    }
    if images is not None:
        curves["pictures"] = halftone(images[winners])
    return curves


def _figure(curves, scores):
    names = list(scores)
    pictures = "pictures" in curves
    fig = Figure(figsize=(8.6, 4.6 if pictures else 3.7))
    grid = fig.add_gridspec(2 if pictures else 1, 6, height_ratios=(4.2, 1) if pictures else (1,))
    ranked, plane, profile = (fig.add_subplot(grid[0, part]) for part in (slice(0, 3), slice(3, 5), slice(5, 6)))

    rank = np.arange(1, len(curves["total"]) + 1)
    ranked.plot(rank, curves["total"], gid="total", label="scaled sum", **INK["grey"])
    ranked.plot(rank, curves["clipped"], gid="clipped", label="clipped to ±1", lw=2.4, **INK["blue"])
    ranked.plot(rank, curves["passes"], gid="passes", label="1 above the threshold", **INK["orange"])
    ranked.plot([1, len(rank)], curves["threshold"], gid="threshold", label="threshold", **INK["pink"])
    ranked.set(xlim=(1, len(rank)), ylim=(-4, 5.6), xlabel="rank of the sample", title="Reward, best first")
    ranked.legend(loc="upper right", ncols=2, fontsize=9.5, handlelength=2.4, columnspacing=1.2)

    first, second = (np.asarray(scores[name]) for name in names[:2])
    plane.plot(first, second, ".", color="#888888", ms=5)
    plane.plot(*curves["winners"].T, gid="winners", ls="", marker="o", ms=9, mfc="none", mew=2, **_colour("blue"))
    plane.set(xlabel=names[0], ylabel=names[1], title=f"The {WINNERS} winners")
    sorted_names = sorted(names)
    x = np.repeat(np.arange(len(names)), 3)
    profile.plot(x, curves["profile"], gid="profile", lw=16, solid_capstyle="butt", **_colour("blue"))
    profile.axhline(0, color="#888888", lw=0.8)
    profile.set_xticks(range(len(names)), sorted_names, rotation=90)
    profile.set(xlim=(-0.6, len(names) - 0.4), ylim=(-2.6, 2.6), title="mean")

    if pictures:
        for part, title, gid in ((slice(0, 3), "Winners now", "pictures"), (slice(3, 6), "Winners at first", None)):
            axes = fig.add_subplot(grid[1, part])
            draw_halftone(axes, curves["pictures"], gid)
            axes.set_title(title)
    return fig


def _colour(ink):
    return {"color": INK[ink]["color"]}


def _describe(knobs, curves, names):
    means = ", ".join(f"{name} {value:+.2f}" for name, value in zip(names, curves["profile"][1::3], strict=True))
    full = int((curves["clipped"] >= 1).sum())
    return (
        f"The {WINNERS} winners lie, in standard deviations from the mean, at {means}; "
        f"{int(curves['passes'].sum())} of {len(curves['total'])} samples are above the threshold of "
        f"{knobs['threshold']:.1f}, and the clip makes {full} of them all worth 1."
    )


@jax.jit
def _standardise(array):
    return normalize_advantages(array).astype(jnp.float32)


def _read_scores(scores):
    """The scores, standardised, by name."""
    if not isinstance(scores, Mapping) or not 2 <= len(scores) <= MOST_SCORES:
        raise ValueError(
            f"scores: got {type(scores).__name__}, needs a mapping from 2 or {MOST_SCORES} names to scores"
        )
    for name in scores:
        if not isinstance(name, str) or not f"weight_{name}".isidentifier():
            raise ValueError(f"scores: got the name {name!r}, needs an identifier, such as 'ink'")
    arrays = dict(zip(scores, read_floats(**{f"scores[{name!r}]": scores[name] for name in scores}), strict=True))
    shape = next(iter(arrays.values())).shape
    if len(shape) != 1 or not WINNERS <= shape[0] <= MOST_SAMPLES:
        raise ValueError(f"scores: got shape {shape}, needs (N,) with {WINNERS} to {MOST_SAMPLES} samples")
    standardised = {}
    for name, array in arrays.items():
        check_shape(f"scores[{name!r}]", array, shape)
        check_finite(f"scores[{name!r}]", array)
        if np.ptp(array) == 0:
            raise ValueError(f"scores[{name!r}]: got {float(array[0]):g} for every sample, needs some that differ")
        standardised[name] = _standardise(array)
    return standardised
