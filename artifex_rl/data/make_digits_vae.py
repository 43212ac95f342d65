"""Make the pretrained VAE of digits: `python -m artifex_rl.data.make_digits_vae`, some 5 seconds."""

from __future__ import annotations

from pathlib import Path

import jax
import optax
from flax import nnx

from artifex_rl.data.digits import load_digits
from artifex_rl.data.digits_vae import FILE_NAME, LIKELIHOOD_STD, new_digits_vae
from artifex_rl.data.weights import save_weights
from artifex_rl.models.vae import VAE
from artifex_rl.trainers import VAEConfig, VAETrainer

NUM_STEPS = 2000
BATCH_SIZE = 128
LEARNING_RATE = 3e-3


def make_digits_vae(num_steps: int = NUM_STEPS, seed: int = 0) -> VAE:
    """Train a VAE on the training part: Adam with a cosine decay."""
    init_key, key = jax.random.split(jax.random.key(seed))
    model = new_digits_vae(nnx.Rngs(init_key))
    optimizer = nnx.Optimizer(model, optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, num_steps)), wrt=nnx.Param)
    config = VAEConfig(likelihood="gaussian", likelihood_std=LIKELIHOOD_STD)
    trainer = VAETrainer(model, optimizer, config, key=key)
    trainer.fit({"data": load_digits().train.images}, num_steps, batch_size=BATCH_SIZE)
    return trainer.model


if __name__ == "__main__":
    save_weights(make_digits_vae(), Path(__file__).with_name(FILE_NAME))
