"""The pretrained energy of digits, read from the package in a few milliseconds; it does not need scikit-learn."""

from __future__ import annotations

from flax import nnx

from artifex_rl.data.weights import load_weights
from artifex_rl.models.energy import EnergyNetwork

FILE_NAME = "digits_energy.npz"
#: σ of the noise that it knows digits with, in the unit of the pixels, whose range is 2.
NOISE_STD = 0.4


def load_digits_energy() -> EnergyNetwork:
    """An `EnergyNetwork` of 8 × 8 digits in [−1, 1] *with noise* of `NOISE_STD`, 2 × 256 units: p(x) ∝ exp(−E(x)).

    The noise makes one landscape of what would else be a thousand needles, so that walks go from digit to digit.
    `expected_clean(energy, x, NOISE_STD)` is the picture without it. Trained on the training part of `load_digits`
    alone, and stored in half precision. Made by `python -m artifex_rl.data.make_digits_energy`. Every call returns a
    new one, to be trained on.
    """
    return load_weights(new_digits_energy, FILE_NAME)


def new_digits_energy(rngs: nnx.Rngs) -> EnergyNetwork:
    """The same network with random weights."""
    return EnergyNetwork((8, 8), (256, 256), rngs=rngs)
