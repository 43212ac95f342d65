"""Explorer of classifier-free guidance: how much a label counts, what it makes of the pictures, and what it costs."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.figure import Figure

from artifex_rl.diffusion import guided
from artifex_rl.generative.ode import integrate
from artifex_rl.lab.canvas import INK
from artifex_rl.lab.control import Control
from artifex_rl.lab.explorer import Explorer
from artifex_rl.lab.halftone import SIDE, draw_halftone, halftone

CLASSES = 10
#: Pictures of each class that are measured, and those that are drawn.
MEASURED, DRAWN = 12, 8
#: Weights of the guidance, and numbers of Euler steps.
WEIGHTS = np.arange(13, dtype=np.float32) / 4
STEPS = (1, 2, 4, 8)


class GuidanceExplorer(Explorer):
    """A flow of digits whose label counts w times: u + w (c − u) in place of the velocity, with c told the label.

    At w = 0 the label is ignored, 1 is the model as it was trained, and more exaggerates what the label changes.
    Left: P(the digit asked for), of the digit in hand and the mean of all ten. Right: how much pictures of the digit
    differ. Below: eight of them, always from the same noise. All of them are drawn by the library's `guided`
    velocities and `integrate`, by Euler's method, when the explorer is made; the sliders choose among them.

    Args:
        velocity: called with x_t `(B, 8, 8)`, times `(B,)` from 0, noise, to 1, data, and labels `(B,)` or None.
            Default: the pretrained flow.
        reward: `reward(images, labels)`, P(label) of images `(B, 8, 8)` in [−1, 1], traceable by JAX. Default:
            `digit_scorer`.

    Raises:
        ValueError: the velocity cannot be asked for ten classes of 8 × 8 pictures, or the reward answers otherwise.

    Reference: Ho & Salimans (2022), *Classifier-Free Diffusion Guidance*, arXiv:2207.12598, eq. 6.
    """

    def __init__(self, velocity: nnx.Module | None = None, reward: Any = None):
        known = velocity is None and reward is None
        tables = _default_tables() if known else _draw_all(*_with_defaults(velocity, reward))
        super().__init__(
            [
                Control(
                    "weight", 0, float(WEIGHTS[-1]), 0.25, 1, label="w  guidance", help="How much the label counts"
                ),
                Control("steps", 0, len(STEPS) - 1, 1, 3, label="T  steps", names=tuple(map(str, STEPS))),
                Control("digit", 0, CLASSES - 1, 1, 5, label="digit", help="The label"),
            ],
            jax.tree_util.Partial(_curves, *tables),
            _figure,
            _describe,
            "Drag w: the digits become clearer. What do they pay with?",
        )


def draw_guided(velocity: Any, labels: jax.Array, weight: Any, num_steps: int, start: jax.Array) -> jax.Array:
    """Pictures `(B, 8, 8)` by the guided ODE from given noise, with Euler's method."""
    model = guided(velocity, weight)

    def field(x, time):
        return model(x, jnp.full(len(x), time), labels)

    return integrate(field, start, jnp.linspace(0.0, 1.0, num_steps + 1), "euler")


@functools.cache
def _default_tables():
    return _draw_all(*_with_defaults(None, None))


def _with_defaults(velocity, reward):
    if velocity is None:
        from artifex_rl.data.digits_flow import load_digits_flow

        velocity = load_digits_flow()
    if reward is None:
        from artifex_rl.data.digits import digit_scorer

        reward = digit_scorer()
    return velocity, reward


def _draw_all(velocity, reward):
    """For each number of steps, weight and class: pictures to be shown `(DRAWN, 8, 8)`, P(class), and diversity."""
    from artifex_rl.data.digits import image_diversity, to_pixels

    labels = jnp.repeat(jnp.arange(CLASSES), MEASURED)
    start = jnp.tile(jax.random.normal(jax.random.key(0), (MEASURED, SIDE, SIDE)), (CLASSES, 1, 1))
    _check(velocity, reward, labels, start)
    graphdef, state = nnx.split(velocity)

    @functools.partial(jax.jit, static_argnums=1)
    def draw(state, num_steps):
        def at(weight):
            images = draw_guided(nnx.merge(graphdef, state), labels, weight, num_steps, start)
            grouped = images.reshape(CLASSES, MEASURED, SIDE, SIDE)
            scores = jnp.mean(reward(images, labels).reshape(CLASSES, MEASURED), axis=1)
            return to_pixels(grouped[:, :DRAWN]), scores, jax.vmap(image_diversity)(grouped)

        return jax.lax.map(at, jnp.asarray(WEIGHTS))

    found = [draw(state, num_steps) for num_steps in STEPS]
    return tuple(jnp.stack(parts) for parts in zip(*found, strict=True))  # (steps, weights, classes, ...)


def _check(velocity, reward, labels, start):
    if not isinstance(velocity, nnx.Module):
        raise ValueError(f"velocity: got {type(velocity).__name__}, needs an nnx.Module")
    graphdef, state = nnx.split(velocity)
    for name, told in (("labels", labels), ("None", None)):
        try:
            answer = jax.eval_shape(
                lambda state, x, t, told=told: nnx.merge(graphdef, state)(x, t, told), state, start, start[:, 0, 0]
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"velocity: cannot be asked with {name} as labels: {error}") from error
        if getattr(answer, "shape", None) != start.shape:
            raise ValueError(f"velocity: answers {getattr(answer, 'shape', answer)}, needs {start.shape}")
    scores = jax.eval_shape(reward, start, labels)
    if getattr(scores, "shape", None) != labels.shape:
        raise ValueError(f"reward: answers {getattr(scores, 'shape', scores)}, needs {labels.shape}")


def _curves(pictures, scores, diversity, weight, steps, digit):
    row, column, digit = steps.astype(int), jnp.round(4 * weight).astype(int), digit.astype(int)
    score, spread = scores[row, :, digit], diversity[row, :, digit]
    return {
        "score": score,
        "score_all": jnp.mean(scores[row], axis=1),
        "diversity": spread,
        "diversity_all": jnp.mean(diversity[row], axis=1),
        "here_score": jnp.stack([weight, score[column]])[None],
        "here_diversity": jnp.stack([weight, spread[column]])[None],
        "pictures": halftone(pictures[row, column, digit]),
    }


def _figure(curves, limits):
    fig = Figure(figsize=(8.6, 4.2))
    grid = fig.add_gridspec(2, 2, height_ratios=(2.6, 1))
    panels = {"score": fig.add_subplot(grid[0, 0]), "diversity": fig.add_subplot(grid[0, 1])}
    for (name, axes), ink in zip(panels.items(), ("blue", "green"), strict=True):
        axes.plot(WEIGHTS, curves[f"{name}_all"], gid=f"{name}_all", label="mean of all ten", **INK["grey"])
        axes.plot(WEIGHTS, curves[name], gid=name, label="this digit", **INK[ink])
        axes.plot(*curves[f"here_{name}"].T, gid=f"here_{name}", marker="o", ms=7, ls="", color=INK[ink]["color"])
        axes.axvline(1, color="#888888", lw=0.8)
        axes.set(xlim=(-0.08, WEIGHTS[-1] + 0.08), xlabel="w, weight of the label")
    panels["score"].set(ylim=(-0.03, 1.05), title="P(the digit that was asked for)")
    panels["diversity"].set(ylim=(0, 0.45), title="Diversity of its pictures")
    panels["score"].legend(loc="lower right")
    below = fig.add_subplot(grid[1, :])
    draw_halftone(below, curves["pictures"], "pictures", width=5.6)
    return fig


def _describe(knobs, curves):
    return (
        f"Asked for a {knobs['digit']:.0f} with w = {knobs['weight']:.2f} in {STEPS[int(knobs['steps'])]} "
        f"step{'s' * (knobs['steps'] > 0)}, the flow draws pictures with P({knobs['digit']:.0f}) = "
        f"{curves['here_score'][0, 1]:.2f} that differ by {curves['here_diversity'][0, 1]:.2f}."
    )
