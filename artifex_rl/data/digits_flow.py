"""The pretrained flow of digits, read from the package in a few milliseconds; it does not need scikit-learn."""

from __future__ import annotations

from flax import nnx

from artifex_rl.data.digits_denoiser import new_digits_denoiser, read_weights
from artifex_rl.models.denoiser import Denoiser

FILE_NAME = "digits_flow.npz"


def load_digits_flow() -> Denoiser:
    """Velocities of 8 × 8 digits in [−1, 1], from noise at time 0 to data at 1; labels 0 … 9, and 10 for any digit.

    A `Denoiser` of 3 × 256 units, trained by flow matching on the training part of `load_digits` alone, and stored in
    half precision. Made by `python -m artifex_rl.data.make_digits_flow`. Every call returns a new one, to be trained
    on.
    """
    return read_weights(new_digits_denoiser(nnx.Rngs(0)), FILE_NAME)
