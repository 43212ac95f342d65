"""The pretrained GAN of digits, read from the package in a few milliseconds; it does not need scikit-learn."""

from __future__ import annotations

from flax import nnx

from artifex_rl.data.weights import load_weights
from artifex_rl.models.gan import Discriminator, Generator

FILE_NAME = "digits_gan.npz"
LATENT_SIZE, HIDDEN_FEATURES = 16, (192, 192)


def load_digits_gan() -> tuple[Generator, Discriminator]:
    """The players of a game that is over: G makes 8 × 8 digits in [−1, 1] of noise `(B, 16)`, and D scores pictures.

    Nobody is told a class. Trained on the training part of `load_digits` alone, with the non-saturating loss and an
    R1 penalty, and stored in half precision; G is the average of its weights. D's scores are logits: at its best,
    log p/q, the log-ratio of how often data and G's own pictures look like this one. Made by `python -m
    artifex_rl.data.make_digits_gan`. Every call returns new ones, to be trained on.
    """
    generator = load_weights(lambda rngs: new_digits_gan(rngs)[0], FILE_NAME, "generator.")
    discriminator = load_weights(lambda rngs: new_digits_gan(rngs)[1], FILE_NAME, "discriminator.")
    discriminator.dropout = nnx.Dropout(0.0, rngs=nnx.Rngs(0))
    return generator, discriminator


def new_digits_gan(rngs: nnx.Rngs) -> tuple[Generator, Discriminator]:
    """The same players with random weights."""
    generator = Generator(LATENT_SIZE, (8, 8), HIDDEN_FEATURES, rngs=rngs)
    return generator, Discriminator((8, 8), HIDDEN_FEATURES, rngs=rngs)
