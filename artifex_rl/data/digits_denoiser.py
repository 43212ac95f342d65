"""The pretrained denoiser of digits, read from the package in a few milliseconds; it does not need scikit-learn."""

from __future__ import annotations

from importlib.resources import files

import jax.numpy as jnp
import numpy as np
from flax import nnx

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
    return read_weights(new_digits_denoiser(nnx.Rngs(0)), FILE_NAME)


def read_weights(network: Denoiser, file_name: str) -> Denoiser:
    """The network with the weights of a file of this package, which holds them by name."""
    with (files("artifex_rl.data") / file_name).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        for path, variable in nnx.to_flat_state(nnx.state(network)):
            variable[...] = jnp.asarray(arrays[path_name(path)], jnp.float32)
    return network


def new_digits_denoiser(rngs: nnx.Rngs) -> Denoiser:
    """The same network with random weights."""
    return Denoiser((8, 8), (128, 128, 128), num_classes=10, rngs=rngs)


def path_name(path: tuple) -> str:
    """Where a weight stands, as the file has it, such as "layers.0.kernel"."""
    return ".".join(map(str, path))
