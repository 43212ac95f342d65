"""Explorer of the four algorithms on one task: as many scored samples for each, and the best policy known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from artifex_rl.lab.answers_task import ALGORITHMS, SAMPLES, UPDATES, train
from artifex_rl.lab.canvas import INK
from artifex_rl.lab.control import Control
from artifex_rl.lab.explorer import Explorer

INKS = dict(zip(ALGORITHMS, ("orange", "blue", "green", "pink"), strict=True))
#: Where the curves have their points, in scored samples.
BUDGETS = np.arange(UPDATES + 1) * SAMPLES
#: Stops of the learning rate: each about twice the one before.
RATES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)


class AlgorithmExplorer(Explorer):
    """REINFORCE, PPO, GRPO and DPO learn the same ten answers to four prompts, and every stop is trained anew.

    The library's trainers train a table of logits, with the guide's settings. Each may score as many samples as the
    others. A thick line is the mean over the seeds of the exact mean quality of the policy, thin lines are the worst
    and the best seed; 1 is the best that any policy can earn.

    Drag the learning rate: PPO takes sixteen gradient steps where the others take one, so it is far ahead with small
    ones, and settles for a wrong answer with large ones. Drag the reward from graded to all or nothing, make it
    noisy, or have preferences told the wrong way round.

    Args:
        num_seeds: runs of each algorithm, from 2 to 32.
        seed: where their random numbers come from.

    Raises:
        ValueError: `num_seeds` is out of its range.
    """

    def __init__(self, num_seeds: int = 6, seed: int = 0):
        if isinstance(num_seeds, bool) or not hasattr(num_seeds, "__index__") or not 2 <= num_seeds <= 32:
            raise ValueError(f"num_seeds: got {num_seeds!r}, needs an integer from 2 to 32")
        seeds = jnp.uint32(seed) + jnp.arange(num_seeds, dtype=jnp.uint32)
        super().__init__(
            [
                Control(
                    "rate",
                    0,
                    5,
                    1,
                    2,
                    label="learning rate",
                    names=tuple(f"{rate:g}" for rate in RATES),
                    help="Of Adam, the same for all four",
                ),
                Control(
                    "noise",
                    0,
                    2,
                    0.5,
                    0,
                    label="noise of scores",
                    help="Standard deviation, where qualities go from 0 to 1",
                ),
                Control(
                    "sparsity",
                    0,
                    1,
                    0.25,
                    0,
                    label="graded … all or nothing",
                    help="0: a near miss is worth nearly as much. 1: only the right answer is worth anything",
                ),
                Control(
                    "flips",
                    0,
                    0.5,
                    0.1,
                    0,
                    label="pairs told wrongly",
                    help="Share of the preferences that DPO is told the wrong way round",
                ),
            ],
            jax.tree_util.Partial(_curves, seeds),
            _figure,
            _describe,
            "Drag the learning rate first: which of the four would you take?",
        )


def _curves(seeds, rate, noise, sparsity, flips):
    learning_rate = jnp.asarray(RATES)[jnp.round(rate).astype(int)]
    curves = {}
    for algorithm in ALGORITHMS:
        seen = jax.vmap(
            lambda seed, name=algorithm: train(name, jax.random.key(seed), learning_rate, noise, sparsity, flips)
        )(seeds)
        curves[algorithm] = jnp.mean(seen, axis=0)
        curves[f"{algorithm}_worst"], curves[f"{algorithm}_best"] = jnp.min(seen, axis=0), jnp.max(seen, axis=0)
    return curves


def _figure(curves, limits):
    fig = Figure(figsize=(8.4, 3.7))
    axes = fig.subplots()
    axes.axhline(1, color="#888888", lw=1, ls=(0, (1, 2)))
    axes.text(BUDGETS[-1], 1.012, "the best policy", ha="right", va="bottom", fontsize=9, color="#777777")
    for algorithm in ALGORITHMS:
        ink = INK[INKS[algorithm]]
        for edge in ("worst", "best"):
            name = f"{algorithm}_{edge}"
            axes.plot(BUDGETS, curves[name], gid=name, color=ink["color"], lw=0.7, alpha=0.6)
        axes.plot(BUDGETS, curves[algorithm], gid=algorithm, label=algorithm, **{**ink, "lw": 2.4})
    axes.set(
        xlim=(0, BUDGETS[-1] + 15),
        ylim=(0, 1.09),
        xlabel="budget: scored samples",
        ylabel="mean quality of the policy",
    )
    axes.legend(loc="lower right", ncols=4, fontsize=9.5)
    return fig


def _describe(knobs, curves):
    ends = {name: curves[name][-1] for name in ALGORITHMS}
    told = ", ".join(f"{name} {value:.2f}" for name, value in ends.items())
    early = max(ALGORITHMS, key=lambda name: curves[name][UPDATES // 6])
    unsure = max(ALGORITHMS, key=lambda name: curves[f"{name}_best"][-1] - curves[f"{name}_worst"][-1])
    spread = curves[f"{unsure}_best"][-1] - curves[f"{unsure}_worst"][-1]
    return (
        f"After {BUDGETS[-1]} scored samples the mean quality is {told}; after {BUDGETS[UPDATES // 6]} it is highest "
        f"with {early}; the seeds differ most with {unsure}, by {spread:.2f}."
    )
