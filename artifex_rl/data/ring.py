"""A ring of Gaussians: data whose modes can be counted, to see which of them a generator has forgotten."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

NUM_MODES, RADIUS, STD = 8, 2.0, 0.02  # those of Metz et al. (2017)
HIGH_QUALITY = 3.0  # standard deviations


class ModeCount(NamedTuple):
    """Where samples fell."""

    covered: int  # modes with at least one high-quality sample
    high_quality: float  # share of the samples that lie within three standard deviations of a centre
    counts: np.ndarray  # (num_modes,) int64, high-quality samples of each mode


def ring_centres(num_modes: int = NUM_MODES, radius: float = RADIUS) -> Float[Array, "K 2"]:
    """Centres of the modes, evenly on a circle, from (radius, 0) against the clock.

    Raises:
        ValueError: `num_modes` is less than 1, or `radius` is not positive.
    """
    if num_modes < 1 or not radius > 0:
        raise ValueError(f"got num_modes={num_modes}, radius={radius}; needs at least 1, and more than 0")
    angles = 2 * math.pi * jnp.arange(num_modes, dtype=jnp.float32) / num_modes
    return radius * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)


def sample_ring(
    num_samples: int, key: Array, *, num_modes: int = NUM_MODES, radius: float = RADIUS, std: float = STD
) -> Float[Array, "N 2"]:
    """Samples of an even mixture of Gaussians on a circle.

    Args:
        num_samples: N.
        key: a JAX random key.
        num_modes: K ≥ 1.
        radius: of the circle, > 0.
        std: standard deviation of a mode along either axis, > 0, in the unit of the radius.

    Returns:
        `(N, 2)`.

    Raises:
        ValueError: a number is out of its range.

    Reference: Metz et al. (2017), *Unrolled Generative Adversarial Networks*, arXiv:1611.02163, section 3.1: eight
    modes of standard deviation .02 on a circle of radius 2.
    """
    if num_samples < 1 or not std > 0:
        raise ValueError(f"got num_samples={num_samples}, std={std}; needs at least 1, and more than 0")
    mode_key, key = jax.random.split(key)
    modes = jax.random.randint(mode_key, (num_samples,), 0, num_modes)
    return ring_centres(num_modes, radius)[modes] + std * jax.random.normal(key, (num_samples, 2))


def count_modes(
    samples: ArrayLike, *, num_modes: int = NUM_MODES, radius: float = RADIUS, std: float = STD
) -> ModeCount:
    """How many modes samples cover, and how many of them lie in one.

    A sample is of *high quality* if it lies within three standard deviations of the nearest centre; of samples of the
    ring itself, 98.9 % do. A mode is covered if it is the nearest to at least one of those.

    Args:
        samples: `(N, 2)`, finite.
        num_modes: of the ring, as `sample_ring` has it.
        radius: of the ring.
        std: of its modes.

    Raises:
        ValueError: the samples have another shape, there are none, or one is not finite.

    Reference: Srivastava et al. (2017), *VEEGAN*, arXiv:1705.07761, section 5.
    """
    samples = np.asarray(samples)
    if samples.ndim != 2 or samples.shape[1] != 2 or not len(samples) or not np.isfinite(samples).all():
        raise ValueError(f"samples: got shape {samples.shape}, needs (N, 2), at least one and all of them finite")
    distances = np.linalg.norm(samples[:, None] - np.asarray(ring_centres(num_modes, radius)), axis=-1)
    good = distances.min(axis=1) <= HIGH_QUALITY * std
    counts = np.bincount(distances.argmin(axis=1)[good], minlength=num_modes)
    return ModeCount(int((counts > 0).sum()), float(good.mean()), counts)
