"""What PPO does with trajectories: they are collected, checked on the host, written as responses, cut in parts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from artifex_rl.envs.rollout import rollout
from artifex_rl.rl.batches import as_floats, check_finite, check_shape
from artifex_rl.rl.policies import as_policy
from artifex_rl.rl.trainer import masked_mean


def collect_trajectory(
    env: Any, model: nnx.Module, key: Array, num_steps: int, num_envs: int | None = None, state: Any = None
) -> tuple[dict[str, Array], Any]:
    """Act with the model, and ask its critic about every state, also about those that a step reached.

    Pure: inside `jax.jit`, with `PPOTrainer.pure_step`, a whole training run is one compiled loop.

    Args:
        env: has pure `reset(key)`, `step(state, action)` and `observe(state)`, as `CartPole` has.
        model: a policy with a critic, such as a module that returns logits and values.
        key: a JAX random key.
        num_steps: T ≥ 1.
        num_envs: N ≥ 1 environments side by side. None: one, without an axis for it.
        state: where to go on from, the second result of the call before. None: fresh episodes.

    Returns:
        A batch for `PPOTrainer`, arrays of `(T,)` or `(T, N)`, and where the environments stand now. "next_values"
        are those of the states reached *before* any reset, so that a time limit costs nothing (Pardo et al., 2018).

    Raises:
        ValueError: the model has no critic, or an argument does not fit; see `rollout`.
    """
    policy = as_policy(model)

    def act(observation, key):
        action, log_prob = policy.sample(observation[None], key)
        return action[0], log_prob[0]

    seen = rollout(env, act, key, num_steps, num_envs, state)

    def criticise(observations):
        axes = seen.rewards.ndim
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[axes:]), (observations, seen.actions))
        values = policy.evaluate(*flat).values
        if values is None:
            raise ValueError(f"model: {type(model).__name__} has no critic, needs to return logits and values")
        return values.reshape(seen.rewards.shape)

    batch = {name: getattr(seen, name) for name in ("observations", "actions", "rewards", "log_probs")}
    batch |= {"values": criticise(seen.observations), "next_values": criticise(seen.next_observations)}
    batch |= {"dones": seen.dones, "truncations": seen.truncations}
    return batch, seen.final_state


def train_in_environment(
    trainer: Any,
    state: Any,
    env: Any,
    key: Array,
    config: Any,
    *,
    num_updates: int,
    num_steps: int,
    num_envs: int,
    env_state: Any = None,
) -> tuple[Any, Any, dict[str, Array]]:
    """Collect and update by turns: a run of PPO as a pure function, for `jit` and `vmap`.

    Args:
        trainer: a `PPOTrainer`; it says how to update, and stays as it is.
        state: where to start, `trainer.state`.
        env: see `collect_trajectory`.
        key: a JAX random key.
        config: the trainer's, or another; its numbers may be traced.
        num_updates: U ≥ 1, how often.
        num_steps: T of each trajectory.
        num_envs: N environments side by side.
        env_state: where they stand, the second result of the call before. None: fresh episodes.

    Returns:
        The state afterwards, to be assigned to `trainer.state`; where the environments stand now; and what was seen:
        each metric `(U,)`, and "rewards" and "dones" of the run, `(U·T, N)`, for `episode_returns`.
    """

    def turn(carry, key):
        state, envs = carry
        collect_key, update_key = jax.random.split(key)
        batch, envs = collect_trajectory(env, trainer.merge(state)[0], collect_key, num_steps, num_envs, envs)
        state, metrics = trainer.pure_step(state, batch, update_key, config)
        return (state, envs), metrics | {"rewards": batch["rewards"], "dones": batch["dones"]}

    reset_key, key = jax.random.split(key)
    if env_state is None:
        env_state = jax.vmap(env.reset)(jax.random.split(reset_key, num_envs))
    (state, env_state), seen = jax.lax.scan(turn, (state, env_state), jax.random.split(key, num_updates))
    return state, env_state, seen | {name: seen[name].reshape(-1, num_envs) for name in ("rewards", "dones")}


def episode_returns(rewards: ArrayLike, dones: ArrayLike) -> Float[np.ndarray, "E"]:
    """Undiscounted return of every episode that ended, in the order in which they did; not for compiled code.

    Args:
        rewards: `(T,)` or `(T, N)`, from the first step of an episode on.
        dones: like `rewards`; true where step t was the last of its episode.
    """
    rewards, dones = np.asarray(rewards, np.float64), np.asarray(dones, bool)
    streams = rewards.reshape(len(rewards), -1), dones.reshape(len(dones), -1)
    ended = []
    for reward, done in zip(streams[0].T, streams[1].T, strict=True):
        ends = np.flatnonzero(done)
        ended += zip(ends, np.diff(np.cumsum(reward)[ends], prepend=0.0), strict=True)
    return np.array([total for _, total in sorted(ended, key=lambda pair: pair[0])])


def response_as_episode(
    rewards: Float[Array, "B *T"], mask: Bool[Array, "B T"]
) -> tuple[Float[Array, "B T"], Bool[Array, "B T"]]:
    """Rewards and dones of responses as of episodes of tokens: each is over, and is paid if `(B,)`, with its last."""
    to_come = jnp.cumsum(mask[:, ::-1], axis=1)[:, ::-1]  # tokens from here on
    paid = jnp.where(mask & (to_come == 1), rewards[:, None], 0.0) if rewards.ndim == 1 else rewards
    return paid, to_come <= 1


def cut_evenly(num_rows: int, num_parts: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions `(parts, size)` of parts that differ by at most one in length, and which of them are no padding."""
    parts = np.array_split(np.arange(num_rows), min(num_parts, num_rows))
    size = len(parts[0])
    return np.stack([np.resize(part, size) for part in parts]), np.arange(size) < [[len(part)] for part in parts]


def explained_variance(
    values: Float[Array, "*B"], returns: Float[Array, "*B"], mask: Bool[Array, "*B"] | None = None
) -> Float[Array, ""]:
    """How much of what states were worth the critic foresaw: 1 − Var(R − V) / Var(R); 0 where R does not vary."""

    def variance(x):
        return masked_mean((x - masked_mean(x, mask)) ** 2, mask)

    total = variance(returns)
    return jnp.where(total > 0, 1 - variance(returns - values) / jnp.where(total > 0, total, 1.0), 0.0)


#: What is said of a batch that `is_unfinished`.
UNFINISHED = (
    "dones: the last step is not done and values has no entry for the state after it, so that state counts as "
    "terminal, worth 0; pass last_value, or dones=1 for independent samples"
)


def is_unfinished(batch: dict[str, Any]) -> bool:
    """Whether a checked batch ends within an episode and does not say what the state after it is worth."""
    known = "last_value" in batch or "next_values" in batch or len(batch["values"]) > len(batch["rewards"])
    return not (known or batch["dones"][-1].all())


def complete_values(batch: dict[str, Any]) -> dict[str, Any]:
    """A checked batch of experience with "values" and "next_values" like its rewards, in whatever way it had them."""
    batch, steps = dict(batch), len(batch["rewards"])
    values, last = batch["values"], batch.pop("last_value", np.float32(0))
    if len(values) == steps:
        last = np.broadcast_to(np.asarray(last, values.dtype), values.shape[1:])
        values = np.concatenate([values, last[None]])
    return batch | {"values": values[:steps], "next_values": batch.get("next_values", values[1:])}


def check_values(batch: dict[str, Any], sequential: bool) -> dict[str, Any]:
    """What `check_experience` has checked, with "values" and "next_values" as floats of the right shape.

    What the mask leaves out becomes 0: nothing there, be it NaN, reaches compiled code.

    Raises:
        ValueError: something does not fit; the message names the key, what it got, and what it needs.
    """
    batch, shape, mask = dict(batch), batch["rewards"].shape, batch.get("mask")
    if sequential:
        for name in {"truncations", "next_values", "last_value"} & batch.keys():
            raise ValueError(f"{name}: got one, needs none: a response is an episode that ends with its last token")
        shape = batch["log_probs"].shape
        check_shape("values", batch["values"], shape)
    else:
        check_shape("values", batch["values"], shape, (shape[0] + 1, *shape[1:]))
    if "truncations" in batch and "next_values" not in batch:
        raise ValueError(
            "next_values: got none, needs the value of the state that each step reached, because truncations is given"
        )
    if "last_value" in batch:
        check_finite("last_value", batch["last_value"])  # here, as it is about to become the last of next_values
    elif batch["values"].shape != shape:
        check_finite("values", batch["values"])
    if "last_value" in batch and batch["values"].shape != shape:
        raise ValueError(f"last_value: got one beside values of shape {batch['values'].shape}, needs one of them")
    if "next_values" in batch:
        check_shape("next_values", batch["next_values"], shape)
    for name in ("rewards", "values", "next_values"):
        if name in batch:
            array = as_floats(batch[name])
            counts = mask is not None and mask.shape == array.shape
            batch[name] = np.where(mask, array, np.zeros((), array.dtype)) if counts else array
    return batch
