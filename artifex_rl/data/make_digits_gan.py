"""Make the pretrained GAN of digits: `python -m artifex_rl.data.make_digits_gan`, some 20 seconds."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import optax
from flax import nnx

from artifex_rl.data.digits import load_digits
from artifex_rl.data.digits_gan import FILE_NAME, new_digits_gan
from artifex_rl.data.weights import path_name
from artifex_rl.models.gan import Discriminator, Generator
from artifex_rl.trainers import GANConfig, GANTrainer

# Three classifiers agree on four of five samples from 4000 steps on, and all ten digits are made alike often.
NUM_STEPS = 8000
BATCH_SIZE = 128
LEARNING_RATE = 5e-4
R1_WEIGHT = 0.3
EMA_DECAY = 0.995


def make_digits_gan(num_steps: int = NUM_STEPS, seed: int = 0) -> tuple[Generator, Discriminator]:
    """Play on the training part: Adam with a cosine decay for both, and an average of the generator's weights."""
    generator, discriminator = new_digits_gan(nnx.Rngs(seed))

    def optimizer(player: nnx.Module) -> nnx.Optimizer:
        learning_rate = optax.cosine_decay_schedule(LEARNING_RATE, num_steps)
        return nnx.Optimizer(player, optax.adam(learning_rate, b1=0.5, b2=0.99), wrt=nnx.Param)

    trainer = GANTrainer(
        generator,
        optimizer(generator),
        GANConfig(r1_weight=R1_WEIGHT, ema_decay=EMA_DECAY),
        discriminator=discriminator,
        discriminator_optimizer=optimizer(discriminator),
        key=jax.random.key(seed),
    )
    trainer.fit({"data": load_digits().train.images}, num_steps, batch_size=BATCH_SIZE)
    return trainer.average, trainer.discriminator


def save(generator: Generator, discriminator: Discriminator, path: Path) -> None:
    """Write the weights of both in half precision, by name."""
    arrays = {
        f"{name}.{path_name(where)}": np.asarray(value[...], np.float16)
        for name, player in (("generator", generator), ("discriminator", discriminator))
        for where, value in nnx.to_flat_state(nnx.state(player, nnx.Param))
    }
    np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    save(*make_digits_gan(), Path(__file__).with_name(FILE_NAME))
