"""Adversarial losses: what a discriminator and a generator play for, as functions of the discriminator's scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import relu, softplus
from jaxtyping import Array, Float

Scores = Float[Array, "B"]


class AdversarialLoss(NamedTuple):
    """One game: what each score costs. `real` and `fake` are the discriminator's, `generator` is of fake scores."""

    real: Callable[[Scores], Scores]
    fake: Callable[[Scores], Scores]
    generator: Callable[[Scores], Scores]
    boundary: float | None  # the score at which it cannot tell; None: a score means nothing by itself


ADVERSARIAL_LOSSES = {
    "non_saturating": AdversarialLoss(lambda s: softplus(-s), softplus, lambda s: softplus(-s), 0.0),
    "minimax": AdversarialLoss(lambda s: softplus(-s), softplus, lambda s: -softplus(s), 0.0),
    "wasserstein": AdversarialLoss(lambda s: -s, lambda s: s, lambda s: -s, None),
    "hinge": AdversarialLoss(lambda s: relu(1 - s), lambda s: relu(1 + s), lambda s: -s, 0.0),
    "least_squares": AdversarialLoss(
        lambda s: 0.5 * (s - 1) ** 2, lambda s: 0.5 * s**2, lambda s: 0.5 * (s - 1) ** 2, 0.5
    ),
}


def compute_discriminator_loss(
    real_scores: Float[Array, "B"], fake_scores: Float[Array, "M"], loss_type: str = "non_saturating"
) -> Float[Array, ""]:
    """What the discriminator minimises, with D its score and σ the logistic function:

    - "non_saturating", "minimax": −E log σ(D(x)) − E log(1 − σ(D(G(z)))). At the best D = log p/q it is
      log 4 − 2 JSD(p, q).
    - "wasserstein": E D(G(z)) − E D(x), minus the distance W₁ at the best D of slope 1.
    - "hinge": E max(0, 1 − D(x)) + E max(0, 1 + D(G(z))): scores beyond ±1 on the right side cost nothing.
    - "least_squares": ½ E (D(x) − 1)² + ½ E D(G(z))².

    Args:
        real_scores: `(B,)`, of data.
        fake_scores: `(M,)`, of generated samples.
        loss_type: one of those names.

    Raises:
        ValueError: `loss_type` has no such name.

    Reference: Goodfellow et al. (2014), arXiv:1406.2661, eq. 1; Arjovsky et al. (2017), arXiv:1701.07875, eq. 2;
    Lim & Ye (2017), arXiv:1705.02894; Mao et al. (2017), arXiv:1611.04076, eq. 2 with a = 0, b = c = 1.
    """
    loss = _loss(loss_type)
    return jnp.mean(loss.real(real_scores)) + jnp.mean(loss.fake(fake_scores))


def compute_generator_loss(fake_scores: Float[Array, "B"], loss_type: str = "non_saturating") -> Float[Array, ""]:
    """What the generator minimises.

    - "non_saturating": −E log σ(D(G(z))): steep where the discriminator is sure of a fake.
    - "minimax": E log(1 − σ(D(G(z)))), flat there, so that a generator that is far behind learns nothing.
    - "wasserstein", "hinge": −E D(G(z)).
    - "least_squares": ½ E (D(G(z)) − 1)².

    Raises:
        ValueError: `loss_type` has no such name.

    Reference: as `compute_discriminator_loss`; the first from section 3 of Goodfellow et al. (2014).
    """
    return jnp.mean(_loss(loss_type).generator(fake_scores))


def compute_discriminator_accuracy(
    real_scores: Float[Array, "B"], fake_scores: Float[Array, "M"], loss_type: str = "non_saturating"
) -> Float[Array, ""]:
    """How often the discriminator is right, real and fake weighing the same: ½ is guessing, and 0 … 1.

    It says "real" above a score of 0, for "least_squares" of ½. A Wasserstein critic knows differences alone: there
    the boundary lies midway between the two mean scores.
    """
    boundary = _loss(loss_type).boundary
    if boundary is None:
        boundary = (jnp.mean(real_scores) + jnp.mean(fake_scores)) / 2
    dtype = real_scores.dtype
    return (jnp.mean(real_scores > boundary, dtype=dtype) + jnp.mean(fake_scores < boundary, dtype=dtype)) / 2


def interpolate(real: Float[Array, "B *D"], fake: Float[Array, "B *D"], key: Array) -> Float[Array, "B *D"]:
    """A point on the line between each real sample and a fake one, uniformly: where the slope of 1 is asked for."""
    share = jax.random.uniform(key, (len(real), *(1,) * (real.ndim - 1)), real.dtype)
    return real + share * (fake - real)


def compute_gradient_penalty(
    critic: Callable[[Float[Array, "B *D"]], Float[Array, "B"]], samples: Float[Array, "B *D"]
) -> Float[Array, ""]:
    """E (‖∇D(x)‖ − 1)²: holds a Wasserstein critic to slope 1. A linear critic w·x pays (‖w‖ − 1)².

    Args:
        critic: a pure function of samples; the score of one may not depend on the others.
        samples: points of `interpolate`.

    Reference: Gulrajani et al. (2017), *Improved Training of Wasserstein GANs*, arXiv:1704.00028, eq. 3.
    """
    squares = _squared_slopes(critic, samples)
    # The root of 0 has no gradient: where D is flat, a subgradient of 0 in place of NaN.
    slopes = jnp.sqrt(jnp.where(squares > 0, squares, 1.0))
    return jnp.mean((jnp.where(squares > 0, slopes, 0.0) - 1) ** 2)


def compute_r1_penalty(
    critic: Callable[[Float[Array, "B *D"]], Float[Array, "B"]], real: Float[Array, "B *D"]
) -> Float[Array, ""]:
    """½ E ‖∇D(x)‖² over data: lets a discriminator be flat where the data are. A linear critic w·x pays ½ ‖w‖².

    Args:
        critic: a pure function of samples; the score of one may not depend on the others.
        real: data.

    Reference: Mescheder et al. (2018), *Which Training Methods for GANs do actually Converge?*, arXiv:1801.04406,
    eq. 9.
    """
    return 0.5 * jnp.mean(_squared_slopes(critic, real))


def _squared_slopes(critic, samples):
    gradients = jax.grad(lambda x: jnp.sum(critic(x)))(samples)
    return jnp.sum(gradients.reshape(len(samples), -1) ** 2, axis=1)


def _loss(loss_type: str) -> AdversarialLoss:
    if loss_type not in ADVERSARIAL_LOSSES:
        raise ValueError(f"loss_type: got {loss_type!r}, needs {' or '.join(map(repr, ADVERSARIAL_LOSSES))}")
    return ADVERSARIAL_LOSSES[loss_type]
