"""For tests of generated digits: which of them are any.

A judge names a class for anything, and is as sure of noise as of digits. Recognisable is what three classifiers of
different kinds give the same name, a support vector machine, a network, and the nearest held-out digit: .96 of real
digits, .05 of noise, .31 of digits whose pixels were shuffled between pictures.
"""

from __future__ import annotations

import numpy as np
from jax.typing import ArrayLike


def judge_digits(images: ArrayLike) -> tuple[float, np.ndarray]:
    """The share of `(B, 8, 8)` images that are recognisable, and the share of each class `(10,)` by the judge."""
    from artifex_rl.data import digit_judge, digit_scorer, load_digits

    images, heldout = np.clip(np.asarray(images), -1, 1), load_digits().heldout
    distances = ((images[:, None] - heldout.images[None]) ** 2).sum(axis=(2, 3))
    names = np.asarray(digit_judge().classify(images))
    agree = (names == np.asarray(digit_scorer().classify(images))) & (
        names == heldout.labels[distances.argmin(axis=1)]
    )
    return float(agree.mean()), np.bincount(names, minlength=10) / len(names)
