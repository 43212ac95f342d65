"""Rewards that fit together: a constant, and the sum, threshold, scale and clip of other rewards.

Each is a frozen object called as `reward(samples, conditions=None, **kwargs)` that returns `(B,)`. It passes the
conditions and keyword arguments on to what it wraps, and a wrapped reward of a wrong shape is an error that names it.
NaN from a wrapped reward stays NaN: no threshold, clip or gate hides a broken scorer. Where everything wrapped is
pure JAX, so is the whole: it may be jitted, and differentiated with respect to samples, weights and bounds.

Rewards for real work are importable from here too: those that look at the samples live in `measured_rewards`, those
that combine scores with a rule of their own in `composed_rewards`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from artifex_rl.rl.arrays import read_floats, read_scalar
from artifex_rl.rl.composed_rewards import MultiObjectiveReward, SequenceReward, compute_length_penalty
from artifex_rl.rl.measured_rewards import CompressibilityReward, EmbeddingReward
from artifex_rl.rl.scoring import (
    RewardFunction,
    apply_threshold,
    check_callable,
    check_number,
    count_samples,
    score_samples,
    weighted_sum,
)

__all__ = [
    "ClippedReward",
    "CompositeReward",
    "CompressibilityReward",
    "ConstantReward",
    "EmbeddingReward",
    "MultiObjectiveReward",
    "RewardFunction",
    "ScaledReward",
    "SequenceReward",
    "ThresholdReward",
    "compute_length_penalty",
    "score_samples",
]


@dataclass(frozen=True, eq=False)
class ConstantReward:
    """The same reward for every sample, for tests: whatever a policy learns from it, it did not learn from reward.

    Args:
        value: that reward, a finite number.

    Raises:
        ValueError: `value` is not a finite number.
    """

    value: ArrayLike = 1.0

    def __post_init__(self):
        check_number("value", self.value)

    def __call__(self, samples: Any, conditions: Any = None, **kwargs: Any) -> Float[Array, "B"]:
        (value,) = read_floats(value=self.value)
        return jnp.full((count_samples(samples),), value)


@dataclass(frozen=True, eq=False)
class CompositeReward:
    """Weighted sum of rewards: Σᵢ wᵢ rᵢ.

    Args:
        reward_fns: one reward or more.
        weights: a finite number for each of them, of any sign and any sum. None: 1/n each, their mean.

    Raises:
        ValueError: there are no rewards, one is not callable, or the weights do not match them or are not finite.
    """

    reward_fns: Sequence[RewardFunction]
    weights: Sequence[ArrayLike] | None = None

    def __post_init__(self):
        reward_fns = _read_tuple("reward_fns", self.reward_fns)
        if not reward_fns:
            raise ValueError("reward_fns: got none, needs at least one reward")
        equal = (1 / len(reward_fns),) * len(reward_fns)
        weights = equal if self.weights is None else _read_tuple("weights", self.weights)
        if len(weights) != len(reward_fns):
            raise ValueError(f"weights: got {len(weights)}, needs {len(reward_fns)}, one for each of reward_fns")
        for i, reward_fn in enumerate(reward_fns):
            check_callable(f"reward_fns[{i}]", reward_fn)
            check_number(f"weights[{i}]", weights[i])
        object.__setattr__(self, "reward_fns", reward_fns)
        object.__setattr__(self, "weights", weights)

    def __call__(self, samples: Any, conditions: Any = None, **kwargs: Any) -> Float[Array, "B"]:
        scores = {
            f"reward_fns[{i}]": score_samples(f"reward_fns[{i}]", reward_fn, samples, conditions, **kwargs)
            for i, reward_fn in enumerate(self.reward_fns)
        }
        return weighted_sum(read_floats(**scores), self.weights)


@dataclass(frozen=True, eq=False)
class ThresholdReward:
    """One of two rewards: `above_value` where the wrapped reward is strictly above the threshold, else `below_value`.

    Args:
        reward_fn: the reward to compare.
        threshold: a finite number; a reward equal to it counts as below.
        above_value: a finite number.
        below_value: a finite number.

    Raises:
        ValueError: `reward_fn` is not callable, or a number is not finite.
    """

    reward_fn: RewardFunction
    threshold: ArrayLike
    above_value: ArrayLike = 1.0
    below_value: ArrayLike = 0.0

    def __post_init__(self):
        check_callable("reward_fn", self.reward_fn)
        for name in ("threshold", "above_value", "below_value"):
            check_number(name, getattr(self, name))

    def __call__(self, samples: Any, conditions: Any = None, **kwargs: Any) -> Float[Array, "B"]:
        scores = score_samples("reward_fn", self.reward_fn, samples, conditions, **kwargs)
        above = read_scalar("above_value", self.above_value, scores.dtype)
        below = read_scalar("below_value", self.below_value, scores.dtype)
        return apply_threshold(scores, read_scalar("threshold", self.threshold, scores.dtype), above, below)


@dataclass(frozen=True, eq=False)
class ScaledReward:
    """The wrapped reward times a constant; a negative one turns it around.

    Args:
        reward_fn: the reward to scale.
        scale: a finite number.

    Raises:
        ValueError: `reward_fn` is not callable, or `scale` is not finite.
    """

    reward_fn: RewardFunction
    scale: ArrayLike = 1.0

    def __post_init__(self):
        check_callable("reward_fn", self.reward_fn)
        check_number("scale", self.scale)

    def __call__(self, samples: Any, conditions: Any = None, **kwargs: Any) -> Float[Array, "B"]:
        scores = score_samples("reward_fn", self.reward_fn, samples, conditions, **kwargs)
        return read_scalar("scale", self.scale, scores.dtype) * scores


@dataclass(frozen=True, eq=False)
class ClippedReward:
    """The wrapped reward, no lower than `min_value` and no higher than `max_value`.

    Args:
        reward_fn: the reward to clip.
        min_value: lower bound; −∞ for none.
        max_value: upper bound, at least `min_value`; ∞ for none.

    Raises:
        ValueError: `reward_fn` is not callable, a bound is NaN, or the bounds are the wrong way round.
    """

    reward_fn: RewardFunction
    min_value: ArrayLike = -1.0
    max_value: ArrayLike = 1.0

    def __post_init__(self):
        check_callable("reward_fn", self.reward_fn)
        low = check_number("min_value", self.min_value, finite=False)
        high = check_number("max_value", self.max_value, finite=False)
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_value: got {self.min_value}, needs at most max_value, which is {self.max_value}")

    def __call__(self, samples: Any, conditions: Any = None, **kwargs: Any) -> Float[Array, "B"]:
        scores = score_samples("reward_fn", self.reward_fn, samples, conditions, **kwargs)
        low = read_scalar("min_value", self.min_value, scores.dtype)
        return jnp.clip(scores, low, read_scalar("max_value", self.max_value, scores.dtype))


def _read_tuple(name: str, value: Any) -> tuple:
    try:
        return tuple(value)
    except TypeError as error:
        raise ValueError(f"{name}: got {value!r}, needs a sequence") from error
