"""A fixed CartPole policy, bad in an instructive way."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

STIFFNESS = 80.0  # per rad: at 1° of lean, 80 % of the pushes go to the right side


def demonstration_policy(observation: Float[Array, "4"], key: Array) -> tuple[Int[Array, ""], Float[Array, ""]]:
    """Push towards the side to which the pole leans, and never ask how fast it is moving.

    P(right) = σ(80 θ). A spring without a damper: the pole overshoots, every swing is wider than the last, and
    after 24 to 75 steps (nine episodes of ten) it falls. How wide it swings tells a critic how soon.

    Args:
        observation: `(4,)` of one CartPole; only the angle, in radians, is used.
        key: a JAX random key.

    Returns:
        `(action, log_prob)`: 1 is right and 0 left, int32; and the logarithm of that action's probability.
    """
    logit = STIFFNESS * observation[2]
    right = jax.random.uniform(key) < jax.nn.sigmoid(logit)
    return right.astype(jnp.int32), jax.nn.log_sigmoid(jnp.where(right, logit, -logit))
