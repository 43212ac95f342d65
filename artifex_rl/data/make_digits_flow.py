"""Make the pretrained flow of digits: `python -m artifex_rl.data.make_digits_flow`, some 15 seconds."""

from __future__ import annotations

from pathlib import Path

import jax
import optax
from flax import nnx

from artifex_rl.data.digits import load_digits
from artifex_rl.data.digits_flow import FILE_NAME, new_digits_flow
from artifex_rl.data.make_digits_diffusion import BATCH_SIZE, EMA_DECAY, LABEL_DROPOUT
from artifex_rl.data.weights import save_weights
from artifex_rl.models.denoiser import Denoiser
from artifex_rl.trainers import FlowConfig, FlowTrainer

NUM_STEPS = 5000
LEARNING_RATE = 1e-3


def make_digits_flow(num_steps: int = NUM_STEPS, seed: int = 0) -> Denoiser:
    """Train velocities on the training part, with the denoiser's batches, dropout of labels and average of weights.

    Noise and digits are paired at random: optimal transport takes twice the time, and its samples are as legible.
    """
    init_key, key = jax.random.split(jax.random.key(seed))
    model = new_digits_flow(nnx.Rngs(init_key))
    learning_rate = optax.cosine_decay_schedule(LEARNING_RATE, num_steps)
    optimizer = nnx.Optimizer(model, optax.adam(learning_rate), wrt=nnx.Param)
    trainer = FlowTrainer(model, optimizer, FlowConfig(ema_decay=EMA_DECAY, label_dropout=LABEL_DROPOUT), key=key)
    images, labels = load_digits().train
    trainer.fit({"data": images, "labels": labels}, num_steps, batch_size=BATCH_SIZE)
    return trainer.average


if __name__ == "__main__":
    save_weights(make_digits_flow(), Path(__file__).with_name(FILE_NAME))
