"""The pretrained VAE of digits, read from the package in a few milliseconds; it does not need scikit-learn."""

from __future__ import annotations

from importlib.resources import files

import jax.numpy as jnp
import numpy as np
from flax import nnx

from artifex_rl.data.weights import path_name
from artifex_rl.models.vae import VAE

FILE_NAME = "digits_vae.npz"
#: What the decoder's mean may be wrong by: the standard deviation of its Gaussian likelihood. A pixel's range is 2.
LIKELIHOOD_STD = 0.4


def load_digits_vae() -> VAE:
    """A `VAE` of 8 × 8 digits in [−1, 1]: twelve latents, two layers of 128 units on either side, decoded to means.

    Trained on the training part of `load_digits` alone and stored in half precision. Made by
    `python -m artifex_rl.data.make_digits_vae`. Every call returns a new one.
    """
    model = new_digits_vae(nnx.Rngs(0))
    with (files("artifex_rl.data") / FILE_NAME).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param)):
            variable[...] = jnp.asarray(arrays[path_name(path)], jnp.float32)
    return model


def new_digits_vae(rngs: nnx.Rngs) -> VAE:
    """The same networks with random weights."""
    return VAE((8, 8), 12, (128, 128), rngs=rngs)
