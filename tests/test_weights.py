"""The files of weights: what is written is what ships, and comes back."""

from importlib.resources import files

import jax
import numpy as np
import pytest
from flax import nnx

from artifex_rl.data.digits_denoiser import load_digits_denoiser
from artifex_rl.data.digits_energy import load_digits_energy
from artifex_rl.data.digits_flow import load_digits_flow
from artifex_rl.data.digits_vae import load_digits_vae
from artifex_rl.data.weights import load_weights, save_weights


@pytest.mark.parametrize(
    ("load", "name"),
    [
        (load_digits_denoiser, "digits_denoiser.npz"),
        (load_digits_energy, "digits_energy.npz"),
        (load_digits_flow, "digits_flow.npz"),
        (load_digits_vae, "digits_vae.npz"),
    ],
)
def test_what_ships_is_what_its_network_would_be_saved_as(load, name, tmp_path):
    save_weights(load(), tmp_path / name)
    shipped = files("artifex_rl.data") / name
    with np.load(tmp_path / name, allow_pickle=False) as saved, shipped.open("rb") as file:
        arrays = np.load(file, allow_pickle=False)
        assert set(saved.files) == set(arrays.files)
        for array in arrays.files:
            assert saved[array].dtype == np.float16
            np.testing.assert_array_equal(saved[array], arrays[array])


def test_no_random_weights_are_made():
    made = []

    def make(rngs):
        network = nnx.Linear(27, 128, use_bias=False, rngs=rngs)
        made.append(network.kernel[...])
        return network

    network = load_weights(make, "digits_denoiser.npz", "contexts.0.")
    assert isinstance(made[0], jax.core.Tracer)
    np.testing.assert_array_equal(network.kernel[...], load_digits_denoiser().contexts[0].kernel[...])
