"""Make the pretrained denoiser of digits: `python -m artifex_rl.data.make_digits_diffusion`, some 20 seconds."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from artifex_rl.data.digits import NO_LABEL, load_digits
from artifex_rl.data.digits_denoiser import FILE_NAME, SCHEDULE, new_digits_denoiser, path_name
from artifex_rl.diffusion import compute_x0_loss, drop_labels
from artifex_rl.models.denoiser import Denoiser

# Samples are all recognised from 2000 steps on. From 10000 on they come closer to the training pictures than other
# real digits do: it has begun to learn them by heart.
NUM_STEPS = 5000
BATCH_SIZE = 256
LEARNING_RATE = 1e-3
LABEL_DROPOUT = 0.2
EMA_DECAY = 0.995


def make_digits_denoiser(num_steps: int = NUM_STEPS, seed: int = 0) -> Denoiser:
    """Train a denoiser on the training part: Adam with a cosine decay, and an average of the weights at the end."""
    init_key, key = jax.random.split(jax.random.key(seed))
    graphdef, params = nnx.split(new_digits_denoiser(nnx.Rngs(init_key)))
    data = jax.tree.map(jnp.asarray, load_digits().train)
    average = _train(graphdef, params, data, jax.random.split(key, num_steps))
    return nnx.merge(graphdef, average)


@partial(jax.jit, static_argnums=0)
def _train(graphdef, params, data, keys):
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, len(keys)))

    def loss(params, rows, label_key, key):
        labels = drop_labels(data.labels[rows], NO_LABEL, LABEL_DROPOUT, label_key)
        return compute_x0_loss(nnx.merge(graphdef, params), data.images[rows], labels, SCHEDULE, key)

    def step(carry, key):
        params, average, opt_state = carry
        row_key, label_key, key = jax.random.split(key, 3)
        rows = jax.random.randint(row_key, (BATCH_SIZE,), 0, len(data.labels))
        grads = jax.grad(loss)(params, rows, label_key, key)
        with jax.numpy_dtype_promotion("standard"):  # optax counts steps in integers and mixes them with floats
            updates, opt_state = optimizer.update(grads, opt_state)
        params = optax.apply_updates(params, updates)
        average = optax.incremental_update(params, average, 1 - EMA_DECAY)
        return (params, average, opt_state), None

    (_, average, _), _ = jax.lax.scan(step, (params, params, optimizer.init(params)), keys)
    return average


def save(denoiser: Denoiser, path: Path) -> None:
    """Write the weights in half precision, by name."""
    flat = nnx.to_flat_state(nnx.state(denoiser))
    np.savez_compressed(path, **{path_name(name): np.asarray(value[...], np.float16) for name, value in flat})


if __name__ == "__main__":
    save(make_digits_denoiser(), Path(__file__).with_name(FILE_NAME))
