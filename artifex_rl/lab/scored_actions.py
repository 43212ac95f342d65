"""What the explorers of a policy over K answers take: a reward and a logit for each answer."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from artifex_rl.rl.arrays import check_shape, read_floats

#: More answers would make pages heavy and legends meaningless.
MOST_ACTIONS = 32


def read_scored_actions(rewards: ArrayLike | None, logits: ArrayLike | None) -> tuple[jax.Array, jax.Array]:
    """Rewards and logits `(K,)` as finite float32 arrays; logits that are not given are all 0.

    Raises:
        ValueError: a shape does not fit, a number is not finite, or all rewards are equal.
    """
    (rewards,) = read_floats(rewards=rewards)
    if rewards.ndim != 1 or not 2 <= rewards.shape[0] <= MOST_ACTIONS:
        raise ValueError(
            f"rewards: got shape {rewards.shape}, needs (K,), a reward for each of 2 to {MOST_ACTIONS} answers"
        )
    (logits,) = read_floats(logits=jnp.zeros_like(rewards) if logits is None else logits)
    check_shape("logits", logits, rewards.shape)
    for name, array in (("rewards", rewards), ("logits", logits)):
        check_finite(name, array)
    if np.ptp(rewards) == 0:
        raise ValueError(f"rewards: got {float(rewards[0]):g} for every answer, needs some that differ")
    return rewards.astype(jnp.float32), logits.astype(jnp.float32)


def check_finite(name: str, array: jax.Array) -> None:
    """ValueError that says how many numbers are not finite."""
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise ValueError(f"{name}: got {bad} NaN or infinite of {array.size}, needs finite numbers")
