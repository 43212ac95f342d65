"""Handwritten digits, 8 × 8: the pictures, a scorer to be paid by, and a judge that knows nothing of the scorer.

Pictures: the test part of *Optical Recognition of Handwritten Digits* (Alpaydin & Kaynak, 1998, UCI Machine Learning
Repository, doi:10.24432/C50P49, CC BY 4.0), 1797 digits by 13 people, as scikit-learn ships them (`load_digits`,
BSD licence). scikit-learn comes with `artifex_rl[data]`; nothing is downloaded.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from artifex_rl.data.extras import require

HELDOUT = 360  # pictures
SCORER_SHARE = 0.5  # of the training part; the judge learns from the rest
SPLIT_SEED = 1
NO_LABEL = 10  #: in place of a class: any digit


class Digits(NamedTuple):
    """N pictures, in no order. The arrays are shared between callers, and cannot be written to."""

    images: np.ndarray  # (N, 8, 8) float32 in [-1, 1]: -1 is paper, 1 is full ink, in 17 levels
    labels: np.ndarray  # (N,) int32, 0 … 9


class DigitSplit(NamedTuple):
    """What may be learnt from, and what was kept apart; the same share of each class is in both."""

    train: Digits
    heldout: Digits


@functools.cache
def load_digits() -> DigitSplit:
    """1437 pictures to learn from and 360 held out, the same ones every time.

    Pixels are scaled from 0 … 16 to [−1, 1], the range in which a diffusion model adds noise of variance 1.

    Raises:
        ImportError: scikit-learn is not installed; the message says how to.
    """
    bunch = require("sklearn.datasets").load_digits()
    images, labels = (bunch.images / 8 - 1).astype(np.float32), bunch.target.astype(np.int32)
    return DigitSplit(*_split(Digits(images, labels), HELDOUT))


def to_pixels(images: ArrayLike) -> Float[Array, "*B"]:
    """From [−1, 1] to [0, 1], as it is shown: what lies beyond is clipped. `CompressibilityReward` wants this."""
    return jnp.clip((jnp.asarray(images) + 1) / 2, 0.0, 1.0)


def ink(samples: Float[Array, "B 8 8"], conditions: Any = None) -> Float[Array, "B"]:
    """A reward that asks to be hacked: the mean of the pixels, 0 for an empty sheet and 1 for a full one.

    Real digits have 0.31. A bolder digit is paid more; a white square is paid most.
    """
    pixels = to_pixels(samples)
    return jnp.mean(pixels.reshape(len(pixels), -1), axis=1)


def image_diversity(images: Float[Array, "B *D"]) -> Float[Array, ""]:
    """Root mean square difference of the pixels of two different images, 0 … 1: 0 if all are the same.

    It is √(2 × the mean variance of a pixel), with the unbiased variance. Real digits have 0.38, those of one class
    0.29 on average.

    Raises:
        ValueError: there are fewer than two images.
    """
    pixels = to_pixels(images)
    if len(pixels) < 2:
        raise ValueError(f"images: got {len(pixels)}, needs at least two to compare")
    return jnp.sqrt(2 * jnp.mean(jnp.var(pixels, axis=0, ddof=1)))


@dataclass(frozen=True, eq=False)
class DigitReward:
    """P(digit | image) by a classifier: a reward, `reward(samples, conditions)` → `(B,)` in [0, 1].

    Images are `(B, 8, 8)` in [−1, 1]; values beyond are clipped, as on a screen.

    Args:
        probabilities: `(B, 8, 8)` images to P of each class, `(B, 10)`.
        digit: the class that is wanted, 0 … 9. None: the conditions of the call say it, `(B,)`.

    Raises:
        ValueError: `digit` is out of range; in a call, the images have another shape, or there is no digit to want.
    """

    probabilities: Callable[[ArrayLike], Float[Array, "B 10"]]
    digit: int | None = None

    def __post_init__(self):
        if self.digit is not None and self.digit not in range(10):
            raise ValueError(f"digit: got {self.digit!r}, needs None or an integer from 0 to 9")

    def __call__(self, samples: Float[Array, "B 8 8"], conditions: Any = None, **kwargs: Any) -> Float[Array, "B"]:
        scores = self.probabilities(samples)
        if self.digit is not None:
            return scores[:, self.digit]
        if conditions is None:
            raise ValueError("conditions: got None, needs the digit of each image, or a reward made for one digit")
        wanted = jnp.asarray(conditions)
        if wanted.shape != scores.shape[:1] or not jnp.issubdtype(wanted.dtype, jnp.integer):
            raise ValueError(f"conditions: got {wanted.dtype} {wanted.shape}, needs integers ({len(scores)},)")
        known = (wanted >= 0) & (wanted < 10)
        if not isinstance(known, jax.core.Tracer) and not known.all():
            raise ValueError("conditions: got classes beyond 0 … 9, needs a digit for each image")
        chosen = jnp.take_along_axis(scores, jnp.where(known, wanted, 0)[:, None], axis=1)[:, 0]
        return jnp.where(known, chosen, jnp.nan)

    def classify(self, images: Float[Array, "B 8 8"]) -> Int[Array, "B"]:
        """The most probable class of each image."""
        return jnp.argmax(self.probabilities(images), axis=1)


def digit_scorer(digit: int | None = None) -> DigitReward:
    """A small network that says P(digit | image): right on 96 % of the held-out digits, and easily fooled.

    64 ReLU units, fitted by scikit-learn on half of the training part in a fraction of a second, once. Pure JAX
    afterwards: it may be jitted, and differentiated by the image.

    Args:
        digit: the class that is wanted; None takes it from the conditions of each call.

    Raises:
        ImportError: scikit-learn is not installed; the message says how to.
    """
    return DigitReward(functools.partial(_network_probabilities, _fit_network()), digit)


def digit_judge(digit: int | None = None) -> DigitReward:
    """Who looks at what the scorer was paid for: a support vector machine, right on 98.5 % of the held-out digits.

    Another kind of classifier, fitted on the half of the training part that the scorer has not seen, with
    probabilities calibrated by cross-validation (Platt, 1999). It must name a class for any picture, also for one
    that is no digit: look at `image_diversity` and at the pictures beside it. It runs on the host.

    Args:
        digit: the class that is wanted; None takes it from the conditions of each call.

    Raises:
        ImportError: scikit-learn is not installed; the message says how to.
    """
    return DigitReward(functools.partial(_machine_probabilities, _fit_machine()), digit)


@functools.cache
def _parts() -> tuple[Digits, Digits]:
    """What the judge learns from and what the scorer does: two halves of the training part."""
    train = load_digits().train
    return _split(train, round(SCORER_SHARE * len(train.labels)))


def _split(digits: Digits, size: int) -> tuple[Digits, Digits]:
    """All but `size` of the pictures, and `size` of them, with the same share of each class."""
    train_test_split = require("sklearn.model_selection").train_test_split
    rows = np.arange(len(digits.labels))
    parts = train_test_split(rows, test_size=size, stratify=digits.labels, random_state=SPLIT_SEED)
    return tuple(Digits(_frozen(digits.images[part]), _frozen(digits.labels[part])) for part in parts)


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


@functools.cache
def _fit_network() -> list[tuple[Array, Array]]:
    _, (images, labels) = _parts()
    network = require("sklearn.neural_network").MLPClassifier(
        (64,), batch_size=64, learning_rate_init=3e-3, alpha=1e-2, max_iter=60, tol=0, random_state=0
    )
    with warnings.catch_warnings():  # 60 epochs are where it is stopped, converged or not
        warnings.simplefilter("ignore", require("sklearn.exceptions").ConvergenceWarning)
        network.fit(images.reshape(len(images), -1), labels)
    return [(jnp.asarray(w), jnp.asarray(b)) for w, b in zip(network.coefs_, network.intercepts_, strict=True)]


@jax.jit
def _network_probabilities(layers: list[tuple[Array, Array]], images: ArrayLike) -> Float[Array, "B 10"]:
    (hidden, hidden_bias), (last, last_bias) = layers
    x = jax.nn.relu(_flatten(jnp.asarray(images, jnp.float32)) @ hidden + hidden_bias[None])
    return jax.nn.softmax(x @ last + last_bias[None])


@functools.cache
def _fit_machine() -> Any:
    (images, labels), _ = _parts()
    machine = require("sklearn.svm").SVC(C=10, gamma=0.05)
    calibrated = require("sklearn.calibration").CalibratedClassifierCV(machine, ensemble=False)
    return calibrated.fit(images.reshape(len(images), -1), labels)


def _machine_probabilities(machine: Any, images: ArrayLike) -> Float[Array, "B 10"]:
    flat = np.asarray(_flatten(jnp.asarray(images, jnp.float32)))
    return jnp.asarray(machine.predict_proba(flat), jnp.float32)


def _flatten(images: Float[Array, "B 8 8"]) -> Float[Array, "B 64"]:
    if images.ndim != 3 or images.shape[1:] != (8, 8):
        raise ValueError(f"samples: got shape {images.shape}, needs (B, 8, 8)")
    return jnp.clip(images, -1.0, 1.0).reshape(len(images), 64)
