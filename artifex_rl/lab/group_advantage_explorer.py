"""Explorer of group-relative advantages: what GRPO, Dr. GRPO and DAPO make of the same rewards."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from matplotlib.figure import Figure

from artifex_rl.data.scored_samples import load_scored_words
from artifex_rl.lab.canvas import INK
from artifex_rl.lab.control import Control
from artifex_rl.lab.explorer import Explorer
from artifex_rl.lab.scored_actions import check_finite
from artifex_rl.rl.arrays import read_floats
from artifex_rl.rl.losses import compute_clipped_surrogate
from artifex_rl.rl.returns import compute_group_advantages

#: The most groups told apart by colour, and answers in a group.
MOST_GROUPS, MOST_ANSWERS = 4, 16
#: Ratios π/π_old at which the push is drawn, and ε of the lower bound.
RATIOS = np.linspace(0.5, 2, 151).astype(np.float32)
CLIP_LOW = 0.2

SCALES = ("none", "group", "batch")
GROUP_INKS = ("blue", "orange", "green", "pink")


class GroupAdvantageExplorer(Explorer):
    """Rewards of a few groups, the advantages made of them, and how far each group's best answer is pushed.

    Drag the group size: with few answers, groups are all right or all wrong, their advantages are exactly 0, and they
    teach nothing (a dashed line marks them; DAPO draws such groups again). Drag the scale: "group" is GRPO, "none" is
    Dr. GRPO, "batch" divides all by one number. Drag the bonus to make the first answer of the first group an
    outlier, and see what its neighbours' advantages become. Drag ε_high, DAPO's clip-higher, to let the probability
    of a good answer rise further before the push ends.

    Args:
        rewards: `(N, G)` of your own, N from 1 to 4 prompts, G from 2 to 16 answers each. Default: 16 words for each
            of four languages, 1 where the word is of the language that was asked for.
        prompts: N names. Default: those languages, or numbers.

    Raises:
        ValueError: a shape does not fit, or a reward is not finite.

    Reference: Shao et al. (2024), arXiv:2402.03300; Liu et al. (2025), arXiv:2503.20783 (Dr. GRPO); Yu et al. (2025),
    arXiv:2503.14476 (DAPO).
    """

    def __init__(self, rewards: ArrayLike | None = None, prompts: list[str] | None = None):
        if rewards is None:
            words = load_scored_words()
            rewards, prompts = words.group_rewards, prompts or words.prompts.tolist()
        (rewards,) = read_floats(rewards=rewards)
        if rewards.ndim != 2 or not (1 <= rewards.shape[0] <= MOST_GROUPS and 2 <= rewards.shape[1] <= MOST_ANSWERS):
            raise ValueError(
                f"rewards: got shape {rewards.shape}, needs (N, G): 1 to {MOST_GROUPS} prompts with 2 to "
                f"{MOST_ANSWERS} answers each"
            )
        check_finite("rewards", rewards)
        groups, size = rewards.shape
        prompts = [f"prompt {i + 1}" for i in range(groups)] if prompts is None else [str(p) for p in prompts]
        if len(prompts) != groups:
            raise ValueError(f"prompts: got {len(prompts)}, needs {groups}, one for each row of rewards")
        spread = float(jnp.ptp(rewards)) or 1.0
        scale = Control(
            "scale", 0, 2, 1, 1, label="scale", names=SCALES, help="What the centred rewards are divided by"
        )
        super().__init__(
            [
                Control("group_size", 2, size, 1, min(8, size), label="G  group size", help="Answers to each prompt")
                if size > 2
                else Control("group_size", 1, 2, 1, 2, label="G  group size", help="Answers to each prompt"),
                scale,
                Control(
                    "bonus", 0, 3, 0.25, 0, label="bonus, answer 1", help="Makes the very first answer an outlier"
                ),
                Control("clip_param_high", 0, 0.8, 0.02, 0.2, label="ε_high", help="DAPO's clip-higher: 0.28 there"),
            ],
            jax.tree_util.Partial(_curves, rewards.astype(jnp.float32), jnp.float32(spread)),
            lambda curves, limits: _figure(curves, limits, prompts),
            lambda knobs, curves: _describe(knobs, curves, prompts),
            "Drag G, then the scale: which answers teach, and how much?",
        )


def group_advantages(rewards, group_size, scale):
    """`compute_group_advantages` of the first answers of each group, `(N, G)`, for a traced size and scale."""
    members = jnp.broadcast_to(jnp.arange(rewards.shape[1], dtype=jnp.float32) < group_size, rewards.shape)
    each = jnp.stack(
        [
            compute_group_advantages(rewards.reshape(-1), rewards.shape[1], name, mask=members.reshape(-1))
            for name in SCALES
        ]
    )
    return each[jnp.round(scale).astype(int)].reshape(rewards.shape), members


def _curves(rewards, spread, group_size, scale, bonus, clip_param_high):
    groups, size = rewards.shape
    rewards = rewards.at[0, 0].add(bonus * spread)
    advantages, members = group_advantages(rewards, group_size, scale)
    zero = jnp.all(advantages == 0, axis=1)
    best = jnp.argmax(jnp.where(members, advantages, -jnp.inf), axis=1)

    def push(log_ratio, advantage):  # the objective's gradient with respect to log π of this answer
        surrogate = jax.grad(
            lambda x: compute_clipped_surrogate(x, jnp.zeros(()), advantage, CLIP_LOW, clip_param_high)
        )
        return surrogate(log_ratio)

    curves = {}
    for row in range(groups):
        here = jnp.where(members[row], 1.0, jnp.nan)
        curves[f"rewards_{row}"] = _bars(rewards[row] * here, row)
        curves[f"advantages_{row}"] = _bars(advantages[row] * here, row)
        ends = jnp.array([-0.4, size - 0.6]) + row * (size + 2)
        curves[f"zero_{row}"] = jnp.stack([ends, jnp.where(zero[row], jnp.zeros(2), jnp.nan)], axis=1)
        curves[f"push_{row}"] = jax.vmap(push, (0, None))(jnp.log(RATIOS), advantages[row, best[row]])
    return curves


def _bars(heights, row):
    """A bar from 0 to each height, as one line with gaps, `(3 G, 2)`."""
    x = jnp.arange(len(heights), dtype=jnp.float32) + row * (len(heights) + 2.0)
    nothing = jnp.full_like(heights, jnp.nan)
    ys = jnp.stack([jnp.where(jnp.isnan(heights), jnp.nan, 0.0), heights, nothing], axis=1)
    return jnp.stack([jnp.repeat(x, 3), ys.reshape(-1)], axis=1)


def _figure(curves, limits, prompts):
    fig = Figure(figsize=(8.6, 4.3))
    grid = fig.add_gridspec(2, 2, width_ratios=(1.55, 1), height_ratios=(1, 1.9))
    reward, advantage = fig.add_subplot(grid[0, 0]), fig.add_subplot(grid[1, 0])
    push = fig.add_subplot(grid[:, 1])
    size = len(curves["rewards_0"]) // 3
    for row, prompt in enumerate(prompts):
        ink = INK[GROUP_INKS[row]]
        bar = {"color": ink["color"], "lw": 60 / size, "solid_capstyle": "butt"}
        reward.plot(*curves[f"rewards_{row}"].T, gid=f"rewards_{row}", **bar)
        advantage.plot(*curves[f"advantages_{row}"].T, gid=f"advantages_{row}", **bar)
        advantage.plot(*curves[f"zero_{row}"].T, gid=f"zero_{row}", color=ink["color"], lw=3, ls=(0, (1.5, 1)))
        push.plot(RATIOS, curves[f"push_{row}"], gid=f"push_{row}", label=prompt, **ink)
    middles = [(size - 1) / 2 + row * (size + 2) for row in range(len(prompts))]
    for axes, key in ((reward, "rewards"), (advantage, "advantages")):
        low, high = (
            pick(limits[f"{key}_{row}"][i] for row in range(len(prompts))) for i, pick in ((0, min), (1, max))
        )
        margin = 0.08 * (high - low) or 1.0
        axes.set(xlim=(-1.5, middles[-1] + size / 2 + 1), ylim=(low - margin, high + margin))
        axes.set_xticks(middles, prompts if axes is advantage else [""] * len(prompts))
        axes.grid(axis="x", visible=False)
        axes.axhline(0, color="#888888", lw=0.8)
    reward.set_title("Rewards")
    advantage.set_title("Advantages; dashed: all 0, nothing to learn")
    top = max(limits[f"push_{row}"][1] for row in range(len(prompts)))
    push.axvline(1, color="#888888", lw=0.8)
    push.set(xlim=(RATIOS[0], RATIOS[-1]), ylim=(-0.05 * top, 1.3 * top), xlabel="ratio π/π_old")
    push.set_title("Push on each group's best answer")
    push.legend(loc="upper left", ncols=2, fontsize=9.5, handlelength=2.4, columnspacing=1.2)
    return fig


def _describe(knobs, curves, prompts):
    best = {prompt: np.nanmax(curves[f"advantages_{row}"][1::3, 1]) for row, prompt in enumerate(prompts)}
    silent = [prompt for row, prompt in enumerate(prompts) if np.isfinite(curves[f"zero_{row}"]).all()]
    told = ", ".join(f"{prompt} {value:.2f}" for prompt, value in best.items())
    quiet = f"{len(silent)} of {len(prompts)} groups teach nothing" + (f" ({', '.join(silent)})" if silent else "")
    return (
        f"With {knobs['group_size']:.0f} answers and scale “{SCALES[round(knobs['scale'])]}”, {quiet}; the greatest "
        f"advantages are {told}; a good answer is pushed until its ratio is {1 + knobs['clip_param_high']:.2f}."
    )
