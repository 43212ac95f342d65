"""Collecting experience: one policy, one environment or many side by side, a fixed number of steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Rollout(NamedTuple):
    """Experience in order of time. The first axes are `(T,)` for one environment and `(T, N)` for N of them.

    The flags follow `artifex_rl.rl.returns.compute_gae_advantages`: with a critic,
    `compute_gae_advantages(r.rewards, critic(r.observations), r.dones, gamma, gae_lambda,
    truncations=r.truncations, next_values=critic(r.next_observations))`.
    """

    observations: Float[Array, "T *N D"]  # what the policy saw at t
    actions: Array  # (T, *N, ...), what it did
    log_probs: Float[Array, "T *N"]  # how likely that was, as the policy said
    rewards: Float[Array, "T *N"]  # received for the action at t
    dones: Bool[Array, "T *N"]  # the episode ended at t, for whatever reason
    truncations: Bool[Array, "T *N"]  # it ended by the time limit alone, so that the state reached has a value
    next_observations: Float[Array, "T *N D"]  # of the state that step t reached, before any reset
    final_state: Any  # where the environments stand now, without a time axis: `state=` of the next rollout


def rollout(
    env: Any,
    policy: Callable[[Array, Array], tuple[Array, Array]],
    key: Array,
    num_steps: int,
    num_envs: int | None = None,
    state: Any = None,
) -> Rollout:
    """Act for `num_steps` steps; where an episode ends, the next one starts by itself.

    The same arguments give the same experience. Streams are independent: stream n is the rollout of one
    environment under `jax.random.split(key, num_envs)[n]`. It is one `lax.scan`; in a loop, compile it once:
    `collect = jax.jit(lambda key: rollout(env, policy, key, 128, 8))`.

    Args:
        env: has pure `reset(key)`, `step(state, action)` and `observe(state)`, as `CartPole` has.
        policy: pure function of *one* observation `(D,)` and a key, returning an action and its log-probability
            (a scalar). Parameters may be closed over, traced ones too.
        key: a JAX random key.
        num_steps: T, at least 1.
        num_envs: N, at least 1. None: one environment, and no axis for it.
        state: where to go on from: `final_state` of an earlier rollout with the same `num_envs`. Pass a new `key`
            with it. None: fresh episodes.

    Returns:
        A `Rollout`. To flatten its arrays, drop the state first: `r._replace(final_state=None)`.

    Raises:
        ValueError: `num_steps` or `num_envs` is not a positive integer, `state` does not fit `num_envs`, or the
            policy's log-probability is not a scalar.
    """
    _check_count("num_steps", num_steps)
    if num_envs is not None:
        _check_count("num_envs", num_envs)
    if state is not None:
        _check_state(env, key, num_envs, state)

    def collect(key, state):
        return _collect(env, policy, key, num_steps, state)

    if num_envs is None:
        return collect(key, state)
    time_first = Rollout(*[1] * (len(Rollout._fields) - 1), final_state=0)
    return jax.vmap(collect, out_axes=time_first)(jax.random.split(key, num_envs), state)


def _collect(env: Any, policy: Callable, key: Array, num_steps: int, state: Any) -> Rollout:
    """The rollout of one environment."""
    key, reset_key = jax.random.split(key)
    state = env.reset(reset_key) if state is None else jax.tree.map(jnp.asarray, state)

    def step(carry, _):
        state, key = carry
        key, action_key, reset_key = jax.random.split(key, 3)
        observation = env.observe(state)
        action, log_prob = policy(observation, action_key)
        if jnp.shape(log_prob) != ():
            raise ValueError(
                f"policy: returned log_prob of shape {jnp.shape(log_prob)}, needs () for one observation"
            )
        reached, reward, terminated, truncated = env.step(state, action)
        done = terminated | truncated
        # A traced program cannot branch: both futures are computed, one is kept.
        state = jax.tree.map(lambda new, old: jnp.where(done, new, old), env.reset(reset_key), reached)
        seen = (observation, action, log_prob, reward, done, truncated & ~terminated, env.observe(reached))
        return (state, key), seen

    (state, _), seen = jax.lax.scan(step, (state, key), length=num_steps)
    return Rollout(*seen, final_state=state)


def _check_count(name: str, count: int) -> None:
    if isinstance(count, bool) or not hasattr(count, "__index__") or count < 1:
        raise ValueError(f"{name}: got {count!r}, needs an integer of at least 1")


def _check_state(env: Any, key: Array, num_envs: int | None, state: Any) -> None:
    streams = () if num_envs is None else (num_envs,)
    needed = jax.tree.map(lambda leaf: (*streams, *leaf.shape), jax.eval_shape(env.reset, key))
    got = jax.tree.map(jnp.shape, state)
    if got != needed:
        raise ValueError(f"state: got shapes {got}, needs {needed} for num_envs={num_envs}")
