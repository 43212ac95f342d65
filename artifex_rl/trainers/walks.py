"""Walks on the energy of a model: where they begin, where they stand between steps of training, where they end."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from artifex_rl.generative.energy import begin_walks, sample_langevin, sample_mala
from artifex_rl.rl.energy_walks import frozen_energy


class ReplayBuffer(nnx.Variable):
    """Where persistent walks stand, `(buffer_size, *shape)`."""


def pick_walks(
    buffer: ReplayBuffer, rows: int, key: Array, config: Any
) -> tuple[Int[Array, "B"], Float[Array, "B *D"]]:
    """Different rows of the buffer, and where their walks go on, or begin anew for a `reinit_share` of them.

    Raises:
        ValueError: the buffer has fewer rows.
    """
    size, *shape = buffer[...].shape
    if rows > size:
        raise ValueError(f"data: got {rows} rows in a batch, needs at most {size}, the buffer_size")
    row_key, new_key, key = jax.random.split(key, 3)
    chosen = jax.random.permutation(row_key, size)[:rows]
    anew = jax.random.bernoulli(new_key, config.reinit_share, (rows, *(1,) * len(shape)))
    return chosen, jnp.where(anew, begin_walks((rows, *shape), key, config.low, config.high), buffer[...][chosen])


def walk(
    model: nnx.Module, start: Float[Array, "B *D"], key: Array, config: Any, **changed: Any
) -> tuple[Float[Array, "B *D"], Float[Array, ""]]:
    """The ends of walks on the energy of a model in its evaluation mode, and the share of steps that were taken.

    Nothing of the model changes, and no gradient goes through.

    Args:
        model: the energy.
        start: where the walks begin.
        key: a JAX random key.
        config: an `EnergyConfig`; its `num_steps`, `sampler`, `step_size`, `temperature`, `low` and `high` count.
        changed: any of "num_steps", "step_size" and "temperature" in place of the config's; None leaves it.
    """
    energy = frozen_energy(model)
    names = ("num_steps", "step_size", "temperature", "low", "high")
    setting = {name: getattr(config, name) for name in names}
    setting |= {name: value for name, value in changed.items() if value is not None}
    start = jax.lax.stop_gradient(start)
    if config.sampler == "mala":
        return sample_mala(energy, start, key, **setting)
    return sample_langevin(energy, start, key, **setting), jnp.ones((), start.dtype)
