"""The pretrained energy of digits: small, ready, and the law of digits with noise."""

import subprocess
import sys
from importlib.resources import files

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recognisable import judge_digits

from artifex_rl.data.digits_energy import FILE_NAME, NOISE_STD, load_digits_energy
from artifex_rl.generative.energy import expected_clean, sample_mala

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def draw():
    """Pictures that walks on an energy end in, from noise on, and the share of steps that were taken."""

    @jax.jit
    def samples(weights):
        energy = load_digits_energy()
        for mine, theirs in zip(energy.layers, weights[:-1], strict=True):
            mine.kernel[...], mine.bias[...] = theirs
        energy.head.kernel[...], energy.head.bias[...] = weights[-1]
        ends, taken = sample_mala(energy, jax.random.normal(KEY, (300, 8, 8)), KEY, 400, 0.02)
        return expected_clean(energy, ends, NOISE_STD), taken

    def draw(energy):
        layers = [*energy.layers, energy.head]
        return samples([(layer.kernel[...], layer.bias[...]) for layer in layers])

    return draw


@pytest.mark.slow
def test_its_samples_are_recognisable_and_of_all_classes(draw):
    images, taken = draw(load_digits_energy())
    share, classes = judge_digits(images)
    assert share >= 0.8 and classes.min() >= 0.03 and 0.8 < taken < 1


@pytest.mark.slow
def test_the_weights_can_be_made_again_in_less_time(draw):
    from artifex_rl.data.make_digits_energy import make_digits_energy

    share, classes = judge_digits(draw(make_digits_energy(num_steps=3000, seed=1))[0])
    assert share >= 0.65 and classes.min() >= 0.02


def test_it_tells_digits_with_noise_from_shuffled_pixels_and_from_noise_and_knows_what_is_beneath():
    from artifex_rl.data import load_digits

    heldout, rng = load_digits().heldout.images, np.random.default_rng(0)
    noise = NOISE_STD * rng.normal(size=heldout.shape).astype(np.float32)
    energy, shuffled = load_digits_energy(), rng.permuted(heldout, axis=0)
    mine, others = (np.asarray(energy(jnp.asarray(x + noise))) for x in (heldout, shuffled))
    assert (mine < others.mean()).mean() > 0.95 and others.mean() - mine.mean() > 10  # nats
    clean = np.asarray(expected_clean(energy, jnp.asarray(heldout + noise), NOISE_STD))
    assert np.mean((clean - heldout) ** 2) < 0.4 * np.mean(noise**2)


def test_the_weights_are_small_and_load_without_scikit_learn():
    assert files("artifex_rl.data").joinpath(FILE_NAME).stat().st_size <= 400_000
    code = (
        "import sys; sys.modules['sklearn'] = None; from artifex_rl.data.digits_energy import load_digits_energy; "
        "print(load_digits_energy().shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "(8, 8)\n", done.stderr
