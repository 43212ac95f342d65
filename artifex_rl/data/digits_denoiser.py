"""The pretrained denoiser of digits, read from the package in a few milliseconds; it does not need scikit-learn."""

from __future__ import annotations

from flax import nnx

from artifex_rl.data.weights import load_weights
from artifex_rl.diffusion import cosine_schedule
from artifex_rl.models.denoiser import Denoiser

FILE_NAME = "digits_denoiser.npz"
#: The noise levels that it was trained with.
SCHEDULE = cosine_schedule(20)


def load_digits_denoiser() -> Denoiser:
    """A `Denoiser` of 8 × 8 digits in [−1, 1], 3 × 128 units, labels 0 … 9, and 10 for any digit.

    Trained on the training part of `load_digits` alone, with the noise levels of `SCHEDULE`, and stored in half
    precision. Made by `python -m artifex_rl.data.make_digits_diffusion`. Every call returns a new one, to be trained
    on.
    """
    return load_weights(new_digits_denoiser, FILE_NAME)


def new_digits_denoiser(rngs: nnx.Rngs) -> Denoiser:
    """The same network with random weights."""
    return Denoiser((8, 8), (128, 128, 128), num_classes=10, rngs=rngs)
