"""The pretrained VAE of digits: what it draws and reads back, and that it can be made again."""

from __future__ import annotations

from importlib.resources import files

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from artifex_rl.data.digits import digit_judge, load_digits
from artifex_rl.data.digits_vae import load_digits_vae
from artifex_rl.data.make_digits_vae import make_digits_vae


@jax.jit
def read_back(model, images):
    posterior = model.encoder(images)
    return posterior.mean, model.decoder(posterior.mean)


def check_digits(model, share, codes_std):
    """The judge reads held-out digits from their codes, and the codes are about as wide as the prior."""
    heldout = load_digits().heldout
    codes, drawn = read_back(model, heldout.images)
    assert codes.shape == (360, 12) and drawn.shape == (360, 8, 8)
    assert np.mean(digit_judge().classify(drawn) == heldout.labels) >= share
    assert np.abs(codes.mean(axis=0)).max() < 0.3
    np.testing.assert_allclose(codes.std(), codes_std, atol=0.12)


def test_the_judge_reads_what_it_draws_from_codes_of_digits_that_it_has_not_seen():
    check_digits(load_digits_vae(), 0.97, 0.9)


def test_every_call_gives_a_new_one_with_the_same_weights_and_they_are_small():
    one, two = load_digits_vae(), load_digits_vae()
    jax.tree.map(np.testing.assert_array_equal, *(nnx.to_pure_dict(nnx.state(m, nnx.Param)) for m in (one, two)))
    one.decoder.network.layers.layers[0].kernel[...] = jnp.zeros(())
    assert np.abs(two.decoder.network.layers.layers[0].kernel[...]).max() > 0
    assert files("artifex_rl.data").joinpath("digits_vae.npz").stat().st_size <= 150_000


@pytest.mark.slow
def test_the_weights_can_be_made_again():
    check_digits(make_digits_vae(seed=1), 0.96, 0.9)  # after half of the steps the codes are not yet about the prior
