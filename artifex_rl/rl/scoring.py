"""How samples are scored: what a reward function is, and the one place where the library calls one.

A reward may be any Python: a network, a rule, a program that runs on the host. What it must keep is its shape, one
number for each sample, and `score_samples` holds it to that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from artifex_rl.rl.arrays import check_shape, read_array, read_floats, read_scalar


@runtime_checkable
class RewardFunction(Protocol):
    """Anything that is called with samples and returns one number for each: a function, a module, an object.

    `isinstance(x, RewardFunction)` can see only that x may be called; the shape is checked when it is.
    """

    def __call__(self, samples: Any, conditions: Any = None, **kwargs: Any) -> jax.Array:
        """Compute rewards for generated samples.

        Args:
            samples: B samples along the first axis of an array, or a sequence of B, such as a list of strings.
            conditions: what the samples were generated for, B along the first axis; or None.
            **kwargs: what else a reward may want to know, such as the `mask` of sequences.

        Returns:
            `(B,)`, higher is better.
        """
        ...


def score_samples(
    name: str, reward_fn: RewardFunction, samples: Any, conditions: Any = None, /, **kwargs: Any
) -> Float[Array, "B"]:
    """The rewards of samples, as floats and of the right shape. NaN and infinities come back as they are.

    Args:
        name: what to call the reward in an error, such as "reward_fn".
        reward_fn: called as `reward_fn(samples, conditions, **kwargs)`.
        samples: B samples, see `RewardFunction`.
        conditions: passed on.
        **kwargs: passed on.

    Returns:
        `(B,)`, float64 if the reward is, else float32.

    Raises:
        ValueError: the reward returned something else than B numbers; the message names the reward.
        Exception: whatever the reward raises, with a note that names the reward.
    """
    count = count_samples(samples)
    name = f"{name} ({getattr(reward_fn, '__name__', type(reward_fn).__name__)})"
    try:
        returned = reward_fn(samples, conditions, **kwargs)
    except Exception as error:
        error.add_note(f"raised by {name}")
        raise
    (rewards,) = read_floats(**{name: returned})
    check_shape(name, rewards, (count,))
    return rewards


def count_samples(samples: Any) -> int:
    """B, the length of the first axis of an array or of a sequence; a ValueError for anything else."""
    shape = getattr(samples, "shape", None)
    if shape is not None:
        if len(shape) == 0:
            raise ValueError("samples: got shape (), needs (B, ...) with the samples along the first axis")
        return shape[0]
    if isinstance(samples, Sequence) and not isinstance(samples, str | bytes):
        return len(samples)
    raise ValueError(
        f"samples: got {type(samples).__name__}, needs an array (B, ...) or a sequence of B, such as a list of texts"
    )


def check_callable(name: str, value: Any) -> None:
    """ValueError unless `value` can be called; a class in the place of its instance is the usual slip."""
    if isinstance(value, type):
        raise ValueError(f"{name}: got the class {value.__name__}, needs an instance of it")
    if not callable(value):
        raise ValueError(f"{name}: got {type(value).__name__}, needs a callable")


def check_number(name: str, value: ArrayLike, finite: bool = True) -> float | None:
    """`value` as a float, or None while JAX traces it; a ValueError unless it is one number, finite, not NaN."""
    number = read_array(name, value)
    check_shape(name, number, ())
    if isinstance(number, jax.core.Tracer):
        return None
    number = float(number)
    if np.isnan(number) or (finite and np.isinf(number)):
        raise ValueError(f"{name}: got {value}, needs a {'finite ' if finite else ''}number")
    return number


def apply_threshold(scores: jax.Array, threshold: jax.Array, above: jax.Array, below: jax.Array) -> jax.Array:
    """`above` where the score is strictly above the threshold, else `below`; NaN where the score is NaN."""
    return jnp.where(jnp.isnan(scores), jnp.nan, jnp.where(scores > threshold, above, below))


def weighted_sum(scores: Iterable[jax.Array], weights: Iterable[ArrayLike]) -> jax.Array:
    """Σᵢ wᵢ sᵢ of scores of one shape and type."""
    return sum(read_scalar("weights", w, s.dtype) * s for w, s in zip(weights, scores, strict=True))
