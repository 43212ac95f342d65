"""The evidence lower bound of a variational autoencoder, term by term, in nats."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float


def compute_gaussian_kl(mean: Float[Array, "*B"], log_std: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """KL(N(μ, σ²) ‖ N(0, 1)) of every dimension by itself: ½ (μ² + σ² − 1) − log σ, in nats.

    Reference: Kingma & Welling (2014), *Auto-Encoding Variational Bayes*, arXiv:1312.6114, appendix B.
    """
    return 0.5 * (mean**2 + jnp.exp(2 * log_std) - 1) - log_std


def compute_bernoulli_log_likelihood(logits: Float[Array, "B *D"], data: Float[Array, "B *D"]) -> Float[Array, "B"]:
    """Σ x log σ(l) + (1 − x) log(1 − σ(l)), summed over D, in nats: how well ink in [0, 1] is foretold.

    Data between 0 and 1 are read as probabilities; then it is no normalised density (Loaiza-Ganem & Cunningham, 2019,
    arXiv:1907.06845), and differences of it count, not the number itself.

    Raises:
        ValueError: logits and data differ in shape.
    """
    _check_alike("logits", logits, data)
    return _per_row(data * logits - jax.nn.softplus(logits))


def compute_gaussian_log_likelihood(
    mean: Float[Array, "B *D"], data: Float[Array, "B *D"], std: ArrayLike = 1.0
) -> Float[Array, "B"]:
    """log N(x; μ, std² I), summed over D, in nats.

    Raises:
        ValueError: mean and data differ in shape.
    """
    _check_alike("mean", mean, data)
    std = jnp.asarray(std, mean.dtype)
    return _per_row(-0.5 * ((data - mean) / std) ** 2 - jnp.log(std) - 0.5 * math.log(2 * math.pi))


def apply_free_bits(kl: Float[Array, "B Z"], free_bits: ArrayLike) -> Float[Array, ""]:
    """Σ_z max(λ, mean over the batch of the KL of dimension z): nothing is won by pressing it below λ nats.

    The mean is taken first: a dimension may then say much about some of the data and nothing about the rest.

    Reference: Kingma et al. (2016), *Improved Variational Inference with Inverse Autoregressive Flow*,
    arXiv:1606.04934, eq. 15.
    """
    return jnp.sum(jnp.maximum(jnp.mean(kl, axis=0), jnp.asarray(free_bits, kl.dtype)))


def compute_kl_weight(step: ArrayLike, annealing: str = "none", steps: ArrayLike = 1000.0) -> Float[Array, ""]:
    """How much the KL counts after `step` steps, from 0 to 1.

    - "none": 1 throughout.
    - "linear": rises evenly, and is 1 from `steps` on.
    - "sigmoid": σ(12 (step / steps − ½)): .0025 at the start, ½ in the middle, .9975 at `steps`.
    - "cyclical": cycles of `steps` steps, each of which rises evenly over its first half and is 1 over its second.

    Args:
        step: 0 for the first step.
        annealing: one of those names.
        steps: > 0.

    Raises:
        ValueError: `annealing` has no such name.

    Reference: Bowman et al. (2016), arXiv:1511.06349, section 3.1; Fu et al. (2019), *Cyclical Annealing Schedule*,
    arXiv:1903.10145, eq. 6, with R = ½.
    """
    progress = jnp.asarray(step, jnp.float32) / jnp.asarray(steps, jnp.float32)
    if annealing == "none":
        return jnp.ones_like(progress)
    if annealing == "linear":
        return jnp.minimum(progress, 1.0)
    if annealing == "sigmoid":
        return jax.nn.sigmoid(12 * (progress - 0.5))
    if annealing == "cyclical":
        return jnp.minimum(2 * (progress % 1), 1.0)
    raise ValueError(f"annealing: got {annealing!r}, needs 'none', 'linear', 'sigmoid' or 'cyclical'")


def count_active_units(mean: Float[Array, "B Z"], threshold: float = 0.01) -> Float[Array, ""]:
    """How many dimensions say anything at all: those whose posterior mean has a variance over the batch of more than
    `threshold`.

    Reference: Burda, Grosse & Salakhutdinov (2016), *Importance Weighted Autoencoders*, arXiv:1509.00519, sec. 5.2.
    """
    return jnp.sum(jnp.var(mean, axis=0) > threshold, dtype=mean.dtype)


def _check_alike(name: str, decoded: Array, data: Array) -> None:
    if jnp.shape(decoded) != jnp.shape(data):
        raise ValueError(f"{name}: got shape {jnp.shape(decoded)}, needs {jnp.shape(data)}, that of the data")


def _per_row(x: Array) -> Array:
    return jnp.sum(x.reshape(len(x), -1), axis=1)
