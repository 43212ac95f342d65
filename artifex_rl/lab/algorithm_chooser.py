"""The chooser: say what data, what reward and what memory there is, and see which algorithm suits, and why."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

from artifex_rl.lab.canvas import INK
from artifex_rl.lab.control import Control
from artifex_rl.lab.explorer import Explorer
from artifex_rl.rl.advice import advise, count_points, facts

DATA = ("scores", "pairs", "both")
REWARDS = ("at the end", "each step")
MEMORY = tuple(range(4, 11))
WISHES = ("simple", "stable")


class AlgorithmChooser(Explorer):
    """Which of the four suits: a bar for each, and its memory beside the limit. The rule is `artifex_rl.rl.advice`.

    What an algorithm needs is read off its trainer, so this is never an opinion about it. A missing bar is an
    algorithm that cannot be used, because of the data or of the memory; the sentence says which.
    """

    def __init__(self):
        each = [
            [count_points(fact, **_task(*setting)) for fact in facts().values()]
            for setting in itertools.product(range(3), range(2), MEMORY, range(2))
        ]
        table = jnp.asarray(each, jnp.float32).reshape(3, 2, len(MEMORY), 2, len(facts()))
        super().__init__(
            [
                Control(
                    "data",
                    0,
                    2,
                    1,
                    0,
                    label="what I have",
                    names=DATA,
                    help="Scores of new answers; pairs of answers of which people preferred one; or both",
                ),
                Control(
                    "reward",
                    0,
                    1,
                    1,
                    0,
                    label="rewards come",
                    names=REWARDS,
                    help="One for a whole answer, or one at every step; pairs have none",
                ),
                Control(
                    "memory",
                    MEMORY[0],
                    MEMORY[-1],
                    1,
                    8,
                    label="memory",
                    help="In copies of the policy's weights: they, their gradients and Adam's two averages make four",
                ),
                Control(
                    "wish",
                    0,
                    1,
                    1,
                    1,
                    label="I want it",
                    names=WISHES,
                    help="What decides between those that are possible",
                ),
            ],
            jax.tree_util.Partial(_curves, table),
            _figure,
            _describe,
            "What do you have? Drag the memory down to 5.",
        )


def _task(data, reward, memory, wish):
    """The arguments of `advise` at a setting of the sliders."""
    return {
        "scores": data != 1,
        "pairs": data != 0,
        "step_rewards": bool(reward),
        "memory": memory,
        "stable": bool(wish),
    }


def _curves(table, data, reward, memory, wish):
    data, reward, wish = (jnp.round(knob).astype(int) for knob in (data, reward, wish))
    points = table[data, reward, jnp.round(memory).astype(int) - MEMORY[0], wish]
    best = (points == jnp.max(points)) & (points > 0)
    curves = {"limit": jnp.stack([jnp.stack([memory, memory]) + 0.15, jnp.array([-0.6, len(facts()) - 0.4])], axis=1)}
    for row, name in enumerate(facts()):
        end = jnp.where(points[row] > 0, points[row], jnp.nan)
        curves[name] = jnp.stack([jnp.stack([jnp.zeros(()), end]), jnp.full(2, float(row))], axis=1)
        mark = jnp.where(best[row], points[row] + 0.22, jnp.nan)
        curves[f"{name}_best"] = jnp.stack([mark, jnp.float32(row)])[None]
        curves[f"{name}_out"] = jnp.stack([jnp.where(points[row] > 0, jnp.nan, 0.12), jnp.float32(row)])[None]
    return curves


def _figure(curves, limits):
    fig = Figure(figsize=(8.4, 2.9))
    left, right = fig.subplots(1, 2, width_ratios=(1.5, 1))
    names = list(facts())
    for row, name in enumerate(names):
        left.plot(*curves[name].T, gid=name, color=INK["blue"]["color"], lw=15, solid_capstyle="butt")
        left.plot(*curves[f"{name}_best"].T, "*", gid=f"{name}_best", color=INK["orange"]["color"], ms=15)
        left.plot(*curves[f"{name}_out"].T, "x", gid=f"{name}_out", color="#888888", ms=9, mew=2)
        right.plot([0, facts()[name].copies], [row, row], color="#888888", lw=15, solid_capstyle="butt")
    right.plot(*curves["limit"].T, gid="limit", color=INK["orange"]["color"], lw=2)
    left.set(xlim=(0, 4.4), xticks=range(5), xlabel="points; × cannot be used", title="How well it suits")
    right.set(xlim=(0, MEMORY[-1] + 1), xlabel="copies of the policy's weights", title="Memory, and your limit")
    for axes in (left, right):
        axes.set(ylim=(len(names) - 0.4, -0.6))
        axes.set_yticks(range(len(names)), names if axes is left else [""] * len(names))
        axes.grid(axis="y", visible=False)
    return fig


def _describe(knobs, curves):
    advice = advise(**_task(*(round(knobs[name]) for name in ("data", "reward", "memory", "wish"))))
    if not advice.best:
        return (
            "None of the four is possible: "
            + "; ".join(f"{name} {why}" for name, why in advice.reasons.items())
            + "."
        )
    others = "; ".join(f"{name}: {why}" for name, why in advice.reasons.items() if name not in advice.best)
    merits = "; ".join(advice.reasons[name] for name in advice.best)
    return f"Begin with {' or '.join(advice.best)}: {merits}. The others: {others}."
