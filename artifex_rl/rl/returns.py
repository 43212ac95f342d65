"""From rewards to credit: discounted returns, TD errors, generalised advantages, and their normalisation.

Time is the first axis. Arrays are `(T,)` for one stream of experience or `(T, N)` for N streams side by side; a
stream may hold many episodes, one after another. Every function is pure, and may be jitted, vmapped and
differentiated; gamma and lambda may be traced.
"""

from __future__ import annotations

import warnings
from numbers import Integral

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from artifex_rl.rl.arrays import check_shape, read_array, read_floats, read_mask, read_scalar


def compute_discounted_returns(
    rewards: ArrayLike, gamma: ArrayLike, dones: ArrayLike | None = None, last_value: ArrayLike | None = None
) -> Float[Array, "T *N"]:
    """Discounted return, or reward-to-go, of every step: Gₜ = rₜ + γ Gₜ₊₁, cut where an episode ends.

    Args:
        rewards: `(T,)` or `(T, N)`, the reward received for the action taken at t.
        gamma: discount γ in [0, 1], a scalar.
        dones: like `rewards`; true where step t was the last of its episode. None: one unfinished episode.
        last_value: scalar or `(N,)`, the value of the state reached after the last step, V(s_T). It counts only
            where the last step did not end its episode. None: 0.

    Returns:
        Like `rewards`.

    Raises:
        ValueError: a shape does not fit; the message names the argument.

    Reference: Sutton & Barto (2018), *Reinforcement Learning*, eq. 3.9; Williams (1992) for reward-to-go.
    """
    (rewards,) = read_floats(rewards=rewards)
    _check_time(rewards)
    ends = jnp.zeros(rewards.shape, bool) if dones is None else read_mask("dones", dones, rewards.shape)
    last = _read_last_value(last_value, rewards)
    return _discounted_sum(rewards, read_scalar("gamma", gamma, rewards.dtype), ends, last)


def compute_td_errors(
    rewards: ArrayLike,
    values: ArrayLike,
    dones: ArrayLike,
    gamma: ArrayLike,
    truncations: ArrayLike | None = None,
    next_values: ArrayLike | None = None,
    last_value: ArrayLike | None = None,
) -> Float[Array, "T *N"]:
    """Temporal-difference error of every step: δₜ = rₜ + γ V(sₜ₊₁) − V(sₜ).

    V(sₜ₊₁) is 0 where the episode terminated at t. Arguments and errors are those of `compute_gae_advantages`.

    Reference: Sutton & Barto (2018), eq. 6.5.
    """
    rewards, values, following, _ = _read_trajectory(
        rewards, values, dones, truncations, next_values, last_value, caller="compute_td_errors"
    )
    return rewards + read_scalar("gamma", gamma, rewards.dtype) * following - values


def compute_gae_advantages(
    rewards: ArrayLike,
    values: ArrayLike,
    dones: ArrayLike,
    gamma: ArrayLike,
    gae_lambda: ArrayLike,
    truncations: ArrayLike | None = None,
    next_values: ArrayLike | None = None,
    last_value: ArrayLike | None = None,
) -> Float[Array, "T *N"]:
    """Generalised advantage estimate of every step: Aₜ = δₜ + γλ Aₜ₊₁, cut where an episode ends.

    λ = 0 is the TD error δₜ (low variance, biased by the critic); λ = 1 is the return minus the value (unbiased,
    high variance). Nothing crosses the end of an episode: neither a reward nor a value, be it NaN.

    Args:
        rewards: `(T,)` or `(T, N)`, the reward received for the action taken at t.
        values: V(sₜ), like `rewards`; or with one more step, `(T+1,)` or `(T+1, N)`, whose last entry is the value
            of the state reached after the last step.
        dones: like `rewards`; true where step t was the last of its episode, for whatever reason.
        gamma: discount γ in [0, 1], a scalar.
        gae_lambda: λ in [0, 1], a scalar.
        truncations: like `rewards`; true where the episode was cut by a time limit instead of terminating. There
            the recursion ends but the state reached keeps its value. Needs `next_values`.
        next_values: like `rewards`; at t the value of the state that step t reached, *before* any reset. Where
            given, it takes the place of both `values[t+1]` and `last_value`.
        last_value: scalar or `(N,)`, the value of the state reached after the last step, for `values` of T steps.

    Returns:
        Advantages, like `rewards`. The target for the critic is `advantages + values`.

    Raises:
        ValueError: a shape does not fit, `truncations` comes without `next_values`, or `last_value` comes with
            `values` of T+1 steps; the message names the argument.

    Warns:
        UserWarning: `values` has T steps, the last step is not done, and nothing says what the state after it is
            worth: it counts as terminal.

    Reference: Schulman et al. (2016), *High-Dimensional Continuous Control Using Generalized Advantage
    Estimation*, arXiv:1506.02438, eqs. 11 and 16; Pardo et al. (2018), *Time Limits in Reinforcement Learning*,
    arXiv:1712.00378, for truncations.
    """
    rewards, values, following, ends = _read_trajectory(
        rewards, values, dones, truncations, next_values, last_value, caller="compute_gae_advantages"
    )
    gamma = read_scalar("gamma", gamma, rewards.dtype)
    gae_lambda = read_scalar("gae_lambda", gae_lambda, rewards.dtype)
    td_errors = rewards + gamma * following - values
    return _discounted_sum(td_errors, gamma * gae_lambda, ends, jnp.zeros(rewards.shape[1:], rewards.dtype))


def normalize_advantages(
    advantages: ArrayLike, eps: ArrayLike = 1e-8, mask: ArrayLike | None = None
) -> Float[Array, "*shape"]:
    """Shift and scale to zero mean and unit variance: (A − mean) / (std + eps), over all entries.

    The standard deviation is the population's (divided by n, not n − 1). Equal entries give exactly 0, and so does
    a single one: there is nothing to prefer, and rounding noise is not amplified.

    Args:
        advantages: any shape.
        eps: small positive scalar added to the standard deviation.
        mask: like `advantages`; entries where it is false count for nothing, come back as 0, and may be NaN.

    Returns:
        Like `advantages`.

    Raises:
        ValueError: `mask` has another shape than `advantages`.
    """
    (advantages,) = read_floats(advantages=advantages)
    mask = jnp.ones(advantages.shape, bool) if mask is None else read_mask("mask", mask, advantages.shape)
    centred = _centre(advantages, mask)
    return _divide(centred, _std(centred, mask) + read_scalar("eps", eps, advantages.dtype))


def compute_group_advantages(
    rewards: ArrayLike,
    group_size: int,
    scale: str = "group",
    eps: ArrayLike = 1e-8,
    mask: ArrayLike | None = None,
) -> Float[Array, "B"]:
    """Group-relative advantages of GRPO: each reward minus the mean of its group, then scaled.

    Args:
        rewards: `(B,)`, the samples of a group one after another: the first `group_size` answer the first prompt.
        group_size: G, samples for each prompt; divides B.
        scale: "group" divides by the group's standard deviation (GRPO), "batch" by that of all rewards, "none"
            leaves the difference as it is (Dr. GRPO, which removes the bias towards groups of little variance).
        eps: small positive scalar added to the standard deviation.
        mask: `(B,)`; samples where it is false count for nothing, come back as 0, and may be NaN.

    Returns:
        `(B,)`. A group of equal rewards gets exactly 0 under every scale.

    Raises:
        ValueError: `group_size` does not divide B, `scale` is unknown, or a shape does not fit.

    Reference: Shao et al. (2024), *DeepSeekMath*, arXiv:2402.03300, section 4.1.2; Liu et al. (2025),
    *Understanding R1-Zero-Like Training*, arXiv:2503.20783, for "none". The standard deviation is the
    population's; implementations that divide by G − 1 differ by the factor √(1 − 1/G).
    """
    (rewards,) = read_floats(rewards=rewards)
    if rewards.ndim != 1:
        raise ValueError(f"rewards: got shape {rewards.shape}, needs (B,), one reward for each sample")
    if scale not in ("group", "batch", "none"):
        raise ValueError(f"scale: got {scale!r}, needs 'group', 'batch' or 'none'")
    if not isinstance(group_size, Integral) or group_size < 1 or rewards.shape[0] % group_size:
        raise ValueError(f"group_size: got {group_size}, needs a divisor of the {rewards.shape[0]} rewards")
    mask = jnp.ones(rewards.shape, bool) if mask is None else read_mask("mask", mask, rewards.shape)

    groups, members = rewards.reshape(-1, group_size), mask.reshape(-1, group_size)
    centred = jax.vmap(_centre)(groups, members)
    if scale == "none":
        return centred.reshape(-1)
    std = jax.vmap(_std)(centred, members)[:, None] if scale == "group" else _std(_centre(rewards, mask), mask)
    std = jnp.broadcast_to(std, centred.shape)
    return _divide(centred, std + read_scalar("eps", eps, rewards.dtype)).reshape(-1)


def _read_trajectory(rewards, values, dones, truncations, next_values, last_value, caller):
    """The trajectory as floats: rewards, V(sₜ), V(sₜ₊₁) with 0 after a terminal step, and where episodes end."""
    rewards, values = read_floats(rewards=rewards, values=values)
    _check_time(rewards)
    steps, streams = rewards.shape[0], rewards.shape[1:]
    check_shape("values", values, rewards.shape, (steps + 1, *streams))
    terminal = ends = read_mask("dones", dones, rewards.shape)
    has_last = values.shape[0] == steps + 1
    if has_last and last_value is not None:
        raise ValueError(
            f"last_value: given beside values of shape {values.shape}, whose last entry already is that value; "
            f"pass one of them"
        )
    last = _read_last_value(last_value, rewards)

    if truncations is not None:
        if next_values is None:
            raise ValueError(
                "next_values: got None, needs the value of the state reached at each step, because truncations is "
                "given: values[t+1] belongs to the state after the reset"
            )
        truncations = read_mask("truncations", truncations, rewards.shape)
        ends, terminal = ends | truncations, ends & ~truncations

    if next_values is not None:
        following = read_array("next_values", next_values)
        check_shape("next_values", following, rewards.shape)
    elif has_last:
        following = values[1:]
    else:
        if last_value is None:
            _warn_if_unfinished(ends, caller)
        following = jnp.concatenate([values[1:], last[None]])
    following = jnp.where(terminal, 0.0, following.astype(rewards.dtype))
    return rewards, values[:steps], following, ends


def _warn_if_unfinished(ends: jax.Array, caller: str) -> None:
    finished = ends[-1].all()
    if not isinstance(finished, jax.core.Tracer) and not finished:
        warnings.warn(
            f"{caller}: the last step is not done and values has only T entries, so the state after it counts as "
            f"terminal, worth 0. Pass last_value, or values with T+1 entries.",
            UserWarning,
            stacklevel=4,
        )


def _check_time(rewards: jax.Array) -> None:
    if rewards.ndim not in (1, 2) or rewards.shape[0] == 0:
        raise ValueError(f"rewards: got shape {rewards.shape}, needs (T,) or (T, N) with at least one step")


def _read_last_value(value: ArrayLike | None, rewards: jax.Array) -> jax.Array:
    """V(s_T) for each stream: `(N,)` for rewards of `(T, N)`, else a scalar; 0 if it was not given."""
    last = read_array("last_value", 0.0 if value is None else value)
    check_shape("last_value", last, *dict.fromkeys([(), rewards.shape[1:]]))
    return jnp.broadcast_to(last, rewards.shape[1:]).astype(rewards.dtype)


def _discounted_sum(terms: jax.Array, factor: jax.Array, ends: jax.Array, last: jax.Array) -> jax.Array:
    """yₜ = termsₜ + factor · yₜ₊₁, where yₜ₊₁ is 0 after an end and y_T is `last`.

    The cut is a `where`, not a product with 1 − done: 0 · NaN would leak one episode into another.
    """

    def step(following, now):
        term, end = now
        total = term + factor * jnp.where(end, 0.0, following)
        return total, total

    return jax.lax.scan(step, last, (terms, ends), reverse=True)[1]


def _centre(x: jax.Array, mask: jax.Array) -> jax.Array:
    """x − mean(x) over the entries under the mask, 0 elsewhere; exactly 0 for equal entries.

    An entry is subtracted before the mean is taken: the mean of n equal floats need not equal them.
    """
    lowest = jax.lax.stop_gradient(jnp.min(x, initial=jnp.inf, where=mask))
    shifted = jnp.where(mask, x - lowest, 0.0)
    return jnp.where(mask, shifted - jnp.sum(shifted) / _count(mask, x.dtype), 0.0)


def _std(centred: jax.Array, mask: jax.Array) -> jax.Array:
    """Population standard deviation of centred entries; its gradient at 0 is 0, not infinite."""
    variance = jnp.sum(centred**2) / _count(mask, centred.dtype)
    return jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1.0)), 0.0)


def _count(mask: jax.Array, dtype: jnp.dtype) -> jax.Array:
    return jnp.maximum(jnp.sum(mask, dtype=dtype), 1)


def _divide(centred: jax.Array, scale: jax.Array) -> jax.Array:
    return centred / jnp.where(scale > 0, scale, 1.0)
