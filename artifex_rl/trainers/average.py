"""An exponential moving average of a model's weights: what generative models are sampled from."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike


def new_average(model: nnx.Module) -> nnx.Module:
    """The average before the first step: a copy, with variables of its own."""
    return nnx.clone(model)


def follow(average: nnx.Module, model: nnx.Module, decay: ArrayLike, step: ArrayLike) -> None:
    """Move the average a little towards the model: θ̄ ← d θ̄ + (1 − d) θ, with d = min(decay, (1 + n) / (10 + n)).

    The warm-up of d lets the average leave the random weights of the start behind within some tens of steps. What is
    no parameter, such as running statistics or counts, is copied.

    Args:
        average: moves; made by `new_average`.
        model: its weights after step n.
        decay: in [0, 1); 0 makes the average the model itself.
        step: n, 0 for the first step.

    Reference: Polyak & Juditsky (1992), doi:10.1137/0330046; the warm-up is that of TensorFlow's
    ExponentialMovingAverage with `num_updates`.
    """
    step = jnp.asarray(step, jnp.float32)
    decay = jnp.minimum(jnp.asarray(decay, jnp.float32), (1 + step) / (10 + step))

    def one(mine: jax.Array, theirs: jax.Array) -> jax.Array:
        return theirs + decay.astype(mine.dtype) * (mine - theirs)  # with a decay of 0 to the bit the model's own

    params, others = nnx.split_state(nnx.state(model), nnx.Param, ...)
    moved = jax.tree.map(one, nnx.state(average, nnx.Param), params)
    nnx.update(average, moved, others)
