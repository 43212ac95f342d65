"""Make the pretrained denoiser of digits: `python -m artifex_rl.data.make_digits_diffusion`, some 20 seconds."""

from __future__ import annotations

from pathlib import Path

import jax
import optax
from flax import nnx

from artifex_rl.data.digits import load_digits
from artifex_rl.data.digits_denoiser import FILE_NAME, SCHEDULE, new_digits_denoiser
from artifex_rl.data.weights import save_weights
from artifex_rl.models.denoiser import Denoiser
from artifex_rl.trainers import DiffusionConfig, DiffusionTrainer

# Samples are all recognised from 2000 steps on, and come closer to the training pictures the longer it learns: after
# 20000, at 0.86 of the distance that other real digits have. It has begun to learn them by heart.
NUM_STEPS = 10_000
BATCH_SIZE = 256
LEARNING_RATE = 2e-3
LABEL_DROPOUT = 0.2
EMA_DECAY = 0.995


def make_digits_denoiser(num_steps: int = NUM_STEPS, seed: int = 0) -> Denoiser:
    """Train a denoiser on the training part: Adam with a cosine decay, and an average of the weights at the end."""
    init_key, key = jax.random.split(jax.random.key(seed))
    model = new_digits_denoiser(nnx.Rngs(init_key))
    learning_rate = optax.cosine_decay_schedule(LEARNING_RATE, num_steps)
    optimizer = nnx.Optimizer(model, optax.adam(learning_rate), wrt=nnx.Param)
    config = DiffusionConfig(ema_decay=EMA_DECAY, label_dropout=LABEL_DROPOUT)
    trainer = DiffusionTrainer(model, optimizer, config, schedule=SCHEDULE, key=key)
    images, labels = load_digits().train
    trainer.fit({"images": images, "labels": labels}, num_steps, batch_size=BATCH_SIZE)
    return trainer.average


if __name__ == "__main__":
    save_weights(make_digits_denoiser(), Path(__file__).with_name(FILE_NAME))
