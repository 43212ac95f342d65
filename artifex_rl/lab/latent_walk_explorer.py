"""Explorer of a walk through latents: what each place decodes to, what the scorer says of it, and what is paid."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from matplotlib.figure import Figure

from artifex_rl.data.digits import digit_scorer, load_digits, to_pixels
from artifex_rl.data.digits_vae import load_digits_vae
from artifex_rl.envs import LatentWalk
from artifex_rl.lab.canvas import INK
from artifex_rl.lab.control import Control
from artifex_rl.lab.explorer import Explorer
from artifex_rl.lab.halftone import SIDE, draw_halftone, halftone
from artifex_rl.lab.scored_actions import check_finite
from artifex_rl.rl.arrays import check_shape, read_floats

MOST_STEPS = 10


class LatentWalkExplorer(Explorer):
    """A walk straight from one place among the latents towards another, one film picture for each step.

    The walker knows the way: each move is what is left of it, plus Gaussian noise, and the environment cuts it to the
    longest move that there is. Above, from the start to the end: P(target), as the scorer says; what the rewards have
    added up to; and each reward, at the move that was paid. Without a price on moves the two lines differ by
    P(target) at the start alone: the rewards of a walk are the probability won on the way. Below: what the places
    decode to. `LatentWalk.begin` and `LatentWalk.step` walk.

    Args:
        walk: the environment; its decoder draws 8 × 8 pictures in [−1, 1], and its episodes have at most 10 steps.
            Default: digits, by `load_digits_vae` and `digit_scorer`.
        start: `(Z,)`, where the walk begins. Default: a 0 that the decoder has never seen.
        goals: `(K, Z)`, for each class a place to go to. Default: the mean of the class's codes.

    Raises:
        ValueError: a shape does not fit, or a number is not finite; or only some of the three are given.
    """

    def __init__(
        self, walk: LatentWalk | None = None, start: ArrayLike | None = None, goals: ArrayLike | None = None
    ):
        given = [argument is not None for argument in (walk, start, goals)]
        if any(given) and not all(given):
            raise ValueError("got some of walk, start and goals, needs all three or none")
        if walk is None:
            walk, start, goals = _digits()
        start, goals = read_floats(start=start, goals=goals)
        check_shape("start", start, (walk.latent_size,))
        check_shape("goals", goals, (walk.num_classes, walk.latent_size))
        check_finite("start", start)
        check_finite("goals", goals)
        picture = jax.eval_shape(walk.decode, start[None]).shape[1:]
        if picture != (SIDE, SIDE) or walk.max_steps > MOST_STEPS:
            raise ValueError(
                f"walk: got {walk.max_steps} steps and pictures of shape {picture}, needs at most {MOST_STEPS} "
                f"and ({SIDE}, {SIDE})"
            )
        classes = tuple(map(str, range(walk.num_classes)))
        super().__init__(
            [
                Control("target", 0, len(classes) - 1, 1, min(2, len(classes) - 1), label="target", names=classes),
                Control("move", 0.1, 2, 0.1, 0.6, label="longest move", help="Cut to this length, in latents' units"),
                Control("cost", 0, 0.05, 0.005, 0.01, label="move cost", help="Of a move of length 1"),
                Control("noise", 0, 0.6, 0.05, 0, label="σ  noise", help="Deviation of each number of a move"),
            ],
            jax.tree_util.Partial(_curves_of(walk), start, goals),
            _figure,
            _describe,
            "Drag the target: where does the walk lead, and what does it earn?",
        )


@cache
def _digits():
    vae, (train, heldout) = load_digits_vae(), load_digits()
    codes = vae.encoder(train.images).mean
    goals = jnp.stack([codes[train.labels == digit].mean(axis=0) for digit in range(10)])
    first = int(np.flatnonzero(heldout.labels == 0)[0])
    walk = LatentWalk(vae.decoder, digit_scorer().probabilities, vae.latent_size)
    return walk, vae.encoder(heldout.images[first][None]).mean[0], goals


@lru_cache(maxsize=8)
def _curves_of(walk):
    """One function for each environment, so that another explorer of it compiles nothing."""
    return partial(_curves, walk)


def _curves(walk, start, goals, target, move, cost, noise):
    env = replace(walk, max_move=move, move_cost=cost)
    goal = goals[target.astype(int)]
    deviations = jax.random.normal(jax.random.key(0), (walk.max_steps, walk.latent_size))  # the same at every stop

    def go(state, deviation):
        reached, reward, *_ = env.step(state, goal - state.latents + noise * deviation)
        return reached, (reached, reward)

    begun = env.begin(start, target.astype(int))
    _, (places, rewards) = jax.lax.scan(go, begun, deviations)
    latents = jnp.concatenate([begun.latents[None], places.latents])
    time = jnp.arange(1, walk.max_steps + 1, dtype=jnp.float32)
    return {
        "probability": jnp.append(begun.probability[None], places.probability),
        "earned": jnp.append(jnp.zeros(1), jnp.cumsum(rewards)),
        "rewards": jnp.stack([jnp.repeat(time, 3), _stems(rewards)], axis=1),
        "pictures": halftone(to_pixels(walk.decode(latents))),
    }


def _stems(heights):
    """A line with gaps that stands on 0."""
    return jnp.stack([jnp.zeros_like(heights), heights, jnp.full_like(heights, jnp.nan)], axis=1).reshape(-1)


def _figure(curves, limits):
    steps = np.arange(len(curves["probability"]))
    fig = Figure(figsize=(8.6, 4.1))
    axes, film = fig.subplots(2, 1, height_ratios=(2.7, 1))
    axes.plot(*curves["rewards"].T, gid="rewards", label="reward of the move", lw=9, alpha=0.6, **_solid("green"))
    axes.plot(steps, curves["probability"], gid="probability", label="P(target)", lw=2.4, **INK["blue"])
    axes.plot(steps, curves["earned"], gid="earned", label="rewards so far", **INK["orange"])
    axes.axhline(0, color="#888888", lw=0.8)
    axes.set(xlim=(-0.45, steps[-1] + 0.45), ylim=(-1, 1.35), xlabel="moves made", xticks=steps)
    axes.legend(loc="upper center", ncols=3)
    draw_halftone(film, curves["pictures"], "pictures", width=6.2)
    film.set(xlim=(-1, 10 * len(steps) - 1))
    return fig


def _solid(ink):
    return {"color": INK[ink]["color"], "solid_capstyle": "butt"}


def _describe(knobs, curves):
    probability, earned = curves["probability"], curves["earned"][-1]
    won = probability[-1] - probability[0]
    target = f"{knobs['target']:.0f}"
    return (
        f"P({target}) goes from {_two(probability[0])} to {_two(probability[-1])} in {len(probability) - 1} moves of "
        f"at most {knobs['move']:.1f}. The rewards add up to {_two(earned)}: {_two(won)} won, less "
        f"{_two(won - earned)} for the moves."
    )


def _two(number):
    return f"{round(float(number), 2) + 0.0:.2f}".replace("-", "−")
