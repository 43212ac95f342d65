"""How a chunk of training steps is made: one call for any number of steps, from whatever the experience comes from.

Every kind has the same two methods. `begin(state)` is what a run carries along beside the trainer's state, such as
where the environments stand. `advance(state, carry, config, length)` makes `length` steps, and returns the state, the
carry and the metrics `(length or more, K)`, of which the first `length` rows count. Nothing else changes, so a chunk
that is not wanted any more is dropped, and two runs may take turns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from artifex_rl.envs.rollout import rollout
from artifex_rl.loop import prepare
from artifex_rl.metrics import pack
from artifex_rl.rl.onpolicy import collect_trajectory
from artifex_rl.rl.policies import as_policy
from artifex_rl.rl.trainer import SAMPLES
from artifex_rl.rows import EPOCHS, count_rows, take_rows
from artifex_rl.state import TrainState
from artifex_rl.trainer import Trainer

#: Most steps of a compiled chunk: the loop has room for the metrics of so many.
CAPACITY = 1024


@dataclasses.dataclass(frozen=True)
class Environment:
    """Experience from an environment: each training step begins with a trajectory of the policy of now.

    Args:
        env: has pure `reset(key)`, `step(state, action)` and `observe(state)`, as `CartPole` has.
        num_steps: T of each trajectory, at least 1.
        num_envs: N environments side by side, at least 1.
        fresh: every trajectory starts new episodes. False: it goes on where the one before stopped.

    Among the metrics is then "episode_return": the mean undiscounted return of the episodes that ended in this
    step's trajectories, NaN if none did.

    Raises:
        ValueError: a number is not a positive integer.
    """

    env: Any
    num_steps: int = 128
    num_envs: int = 4
    fresh: bool = False

    def __post_init__(self) -> None:
        for name in ("num_steps", "num_envs"):
            value = getattr(self, name)
            if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
                raise ValueError(f"{name}: got {value!r}, needs an integer of at least 1")


def make_chunks(trainer: Trainer, data: Any, batch_size: int | None = None, reward_fn: Any = None) -> Any:
    """The kind of chunks that fits the data; see `LiveTraining` for what that may be.

    Raises:
        TypeError: `data` is none of the kinds.
        ValueError: the data does not fit the trainer, or an argument does not fit the data.
    """
    if batch_size is not None and (reward_fn is not None or not isinstance(data, Mapping)):
        raise ValueError(f"batch_size: got {batch_size}, needs None: it cuts rows from a mapping of arrays")
    if reward_fn is not None and not isinstance(data, Mapping | Sequence):
        raise ValueError(f"reward_fn: got one beside {type(data).__name__}, needs a mapping with observations")
    if isinstance(data, Environment):
        return CompiledChunks(trainer, _InEnvironment(trainer, data))
    if isinstance(data, Mapping) and reward_fn is None:
        prepared = prepare(trainer, data)
        if batch_size is None:
            return CompiledChunks(trainer, _OneBatch(prepared))
        if not trainer.independent_rows:
            raise ValueError(
                f"batch_size: got {batch_size}, needs None with {type(trainer).__name__}: pass whole batches"
            )
        return CompiledChunks(trainer, _Dataset(prepared, trainer.key, batch_size))
    if isinstance(data, Mapping) or (isinstance(data, Sequence) and not isinstance(data, str)):
        batches = [data] if isinstance(data, Mapping) else list(data)
        if not batches:
            raise ValueError("data: got no batch, needs at least one")
        return HostChunks(trainer, batches, {} if reward_fn is None else {"reward_fn": reward_fn})
    if callable(data):
        return CompiledChunks(trainer, _Drawn(trainer, data))
    raise TypeError(
        f"data: got {type(data).__name__}, needs a mapping of arrays, a list of batches, an Environment, or a "
        f"function (model, key) that makes a batch"
    )


class CompiledChunks:
    """Steps in one compiled loop whose number of turns is an argument: no length compiles anew, and all agree.

    Args:
        trainer: says what a step is; it stays as it is.
        experience: has `arrays`, a pytree that is no constant of the compiled code; `begin(key, step)`; and
            `draw(arrays, carry, state, key) -> batch, carry, metrics`, pure.
    """

    capacity = CAPACITY
    sends_off = True  # `advance` does not wait for the steps

    def __init__(self, trainer: Trainer, experience: Any):
        self._trainer, self._experience = trainer, experience
        self.key = trainer.key
        self.compilations = 0  # of the loop: one, whatever is dragged
        self._step = jax.jit(self._one)
        self._loop = jax.jit(self._many)
        carry = self.begin(trainer.state)
        shapes = jax.eval_shape(
            self._step, trainer.state, carry, experience.arrays, self._key_data, jax.device_put(trainer.config)
        )
        self.names: tuple[str, ...] = shapes[2].names

    @property
    def key(self) -> jax.Array:
        """Where every step's own key follows from."""
        return self._key(self._key_data)

    @key.setter
    def key(self, key: jax.Array) -> None:
        self._key_data, self._key_impl = jax.random.key_data(key), jax.random.key_impl(key)

    def begin(self, state: TrainState) -> Any:
        return self._experience.begin(self.key, state.step)

    def place(self, config: Any) -> Any:
        """A config as `advance` takes it."""
        return jax.device_put(config)

    def warm_up(self, state: TrainState, carry: Any, config: Any) -> None:
        """Compile, by a chunk of no steps."""
        jax.block_until_ready(self.advance(state, carry, config, 0))

    def advance(self, state: TrainState, carry: Any, config: Any, length: int) -> tuple[TrainState, Any, Any]:
        """Begin a chunk: it returns before the steps are made, and whoever reads the results waits for them."""
        return self._loop(state, carry, self._experience.arrays, self._key_data, config, np.int32(length))

    def _key(self, key_data: Any) -> jax.Array:
        return jax.random.wrap_key_data(key_data, impl=self._key_impl)

    def _one(self, state, carry, arrays, key_data, config):
        key = self._key(key_data)
        batch, carry, more = self._experience.draw(arrays, carry, state, key)
        state, metrics = self._trainer.pure_step(state, batch, jax.random.fold_in(key, state.step), config)
        return state, carry, pack({**metrics, **more})

    def _many(self, state, carry, arrays, key_data, config, length):
        self.compilations += 1  # this is Python: it runs when it is traced

        def body(i, loop):
            state, carry, table = loop
            state, carry, metrics = self._step(state, carry, arrays, key_data, config)
            return state, carry, jax.lax.dynamic_update_index_in_dim(table, metrics.values, i, 0)

        row = jax.eval_shape(self._step, state, carry, arrays, key_data, config)[2].values
        table = jnp.zeros((CAPACITY, *row.shape), row.dtype)
        return jax.lax.fori_loop(jnp.int32(0), length, body, (state, carry, table))


class HostChunks:
    """Steps one by one, as `Trainer.train_step` makes them: where Python scores samples, or batches differ in shape.

    They run on a copy of the trainer's model and optimizer, so that the trainer itself is whole at any moment.
    """

    capacity = 1
    sends_off = False
    compilations = 0

    def __init__(self, trainer: Trainer, batches: list[Any], arguments: dict[str, Any]):
        self._batches, self._arguments = batches, arguments
        self._trainer = trainer.clone()
        self.names: tuple[str, ...] | None = None  # known with the first step

    @property
    def key(self) -> jax.Array:
        return self._trainer.key

    @key.setter
    def key(self, key: jax.Array) -> None:
        self._trainer.key = key

    def begin(self, state: TrainState) -> Any:
        return ()

    def place(self, config: Any) -> Any:
        return config

    def warm_up(self, state: TrainState, carry: Any, config: Any) -> None:
        """Nothing: there is no step without its reward."""

    def advance(self, state: TrainState, carry: Any, config: Any, length: int) -> tuple[TrainState, Any, Any]:
        worker = self._trainer
        worker.state = state
        if worker.config is not config:
            worker.config = config
        metrics = worker.train_step(self._batches[worker.step % len(self._batches)], **self._arguments)
        self.names = self.names or tuple(metrics)
        return worker.state, carry, np.array([[metrics[name] for name in self.names]])


class _OneBatch:
    """The same batch again and again."""

    def __init__(self, prepared: Any):
        self.arrays = prepared

    def begin(self, key, step):
        return ()

    def draw(self, arrays, carry, state, key):
        return arrays, carry, {}


class _Dataset:
    """The rows that `Trainer.fit(data, batch_size=...)` takes: every epoch a permutation of its own."""

    def __init__(self, prepared: Any, key: jax.Array, batch_size: int):
        if isinstance(batch_size, bool) or not hasattr(batch_size, "__index__") or batch_size < 1:
            raise ValueError(f"batch_size: got {batch_size!r}, needs an integer of at least 1")
        self._rows, self._batch_size = count_rows(prepared, batch_size), int(batch_size)
        self.arrays = prepared

    def begin(self, key, step):
        return jnp.int32(-1), jnp.zeros(self._rows, jnp.int32)  # of no epoch yet

    def draw(self, arrays, carry, state, key):
        per_epoch = self._rows // self._batch_size
        epoch, place = state.step // np.uint32(per_epoch), state.step % np.uint32(per_epoch)

        def shuffle():
            return jax.random.permutation(jax.random.fold_in(jax.random.fold_in(key, EPOCHS), epoch), self._rows)

        held, order = carry
        order = jax.lax.cond(held == epoch.astype(jnp.int32), lambda: order, lambda: shuffle().astype(jnp.int32))
        start = place.astype(jnp.int32) * self._batch_size
        rows = jax.lax.dynamic_slice_in_dim(order, start, self._batch_size)
        arrays = jax.tree.map(jnp.asarray, arrays)
        return take_rows(arrays, rows), (epoch.astype(jnp.int32), order), {}


class _Drawn:
    """A batch that a pure function draws from the model of now, as in `artifex_rl.sweep`."""

    arrays = ()

    def __init__(self, trainer: Trainer, data: Callable[[nnx.Module, jax.Array], Any]):
        self._trainer, self._data = trainer, data

    def begin(self, key, step):
        return ()

    def draw(self, arrays, carry, state, key):
        return self._data(self._trainer.merge(state)[0], _samples_key(key, state)), carry, {}


class _InEnvironment:
    """Trajectories of the policy of now."""

    arrays = ()

    def __init__(self, trainer: Trainer, place: Environment):
        self._trainer, self._place = trainer, place
        self._wants_values = "values" in getattr(trainer, "required", ())

    def begin(self, key, step):
        keys = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, SAMPLES), SAMPLES), self._place.num_envs)
        return jax.vmap(self._place.env.reset)(keys), jnp.zeros(self._place.num_envs)

    def draw(self, arrays, carry, state, key):
        (envs, running), place, key = carry, self._place, _samples_key(key, state)
        model = self._trainer.merge(state)[0]
        size = (place.num_steps, place.num_envs)
        if place.fresh:
            envs, running = None, jnp.zeros(place.num_envs)
        if self._wants_values:
            batch, envs = collect_trajectory(place.env, model, key, *size, envs)
        else:
            batch, envs = _act(place.env, as_policy(model), key, *size, envs)
        running, episode_return = _episode_return(running, batch["rewards"], batch["dones"])
        return batch, (envs, running), {"episode_return": episode_return}


def _act(env, policy, key, num_steps, num_envs, envs):
    """A trajectory for a trainer that asks for no values; a critic, if there is one, says what the last state is
    worth."""

    def act(observation, key):
        action, log_prob = policy.sample(observation[None], key)
        return action[0], log_prob[0]

    seen = rollout(env, act, key, num_steps, num_envs, envs)
    batch = {name: getattr(seen, name) for name in ("observations", "actions", "rewards", "dones")}
    last = policy.evaluate(seen.next_observations[-1], seen.actions[-1]).values
    return batch | ({} if last is None else {"last_value": last}), seen.final_state


def _episode_return(running, rewards, dones):
    """What the episodes under way have earned so far, `(N,)`, and the mean of those that ended; NaN if none did."""

    def step(running, now):
        reward, done = now
        total = running + reward
        return jnp.where(done, 0.0, total), jnp.where(done, total, 0.0)

    running, totals = jax.lax.scan(step, running, (rewards, dones))
    ended = jnp.sum(dones, dtype=totals.dtype)
    return running, jnp.where(ended > 0, jnp.sum(totals) / jnp.maximum(ended, 1.0), jnp.nan)


def _samples_key(key: jax.Array, state: TrainState) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(key, SAMPLES), state.step)
