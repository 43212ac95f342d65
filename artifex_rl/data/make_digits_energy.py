"""Make the pretrained energy of digits: `python -m artifex_rl.data.make_digits_energy`, some 60 seconds."""

from __future__ import annotations

from pathlib import Path

import jax
import optax
from flax import nnx

from artifex_rl.data.digits import load_digits
from artifex_rl.data.digits_energy import FILE_NAME, NOISE_STD, new_digits_energy
from artifex_rl.data.weights import save_weights
from artifex_rl.models.energy import EnergyNetwork
from artifex_rl.trainers import EnergyConfig, EnergyTrainer

# Of its samples four in five can be read after 3000 steps, nine in ten from 12000 on.
NUM_STEPS = 12000
BATCH_SIZE = 256
LEARNING_RATE = 2e-3


def make_digits_energy(num_steps: int = NUM_STEPS, seed: int = 0) -> EnergyNetwork:
    """Train an energy on the training part by denoising score matching: Adam with a cosine decay."""
    init_key, key = jax.random.split(jax.random.key(seed))
    model = new_digits_energy(nnx.Rngs(init_key))
    learning_rate = optax.cosine_decay_schedule(LEARNING_RATE, num_steps)
    optimizer = nnx.Optimizer(model, optax.adam(learning_rate), wrt=nnx.Param)
    trainer = EnergyTrainer(model, optimizer, EnergyConfig("denoising", noise_std=NOISE_STD), key=key)
    trainer.fit({"images": load_digits().train.images}, num_steps, batch_size=BATCH_SIZE)
    return model


if __name__ == "__main__":
    save_weights(make_digits_energy(), Path(__file__).with_name(FILE_NAME))
