"""Many small runs at once: seeds and settings side by side in one compiled call, for bands instead of lines."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from artifex_rl.loop import prepare
from artifex_rl.rows import choose_rows, count_rows, take_rows
from artifex_rl.trainer import Trainer, TrainState

#: The stream of keys for drawing samples; `RLTrainer.collect` takes the same.
SAMPLES = 2**32 - 2


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What `sweep` returns. S seeds, or C configs × S seeds, are the leading axes of all arrays."""

    metrics: dict[str, np.ndarray]  # (S, steps) or (C, S, steps)
    states: TrainState  # where the runs ended: arrays (S, ...) or (C, S, ...)
    trainer: Trainer  # of the first seed, as it was made; it knows what a state is made of

    def state(self, *run: int) -> TrainState:
        """The final state of one run, `state(seed)` or `state(config, seed)` by position; assign it to a trainer."""
        axes = np.ndim(self.states.step)
        if len(run) != axes:
            raise ValueError(f"run: got {run}, needs {axes} positions, as the metrics have")
        return jax.tree.map(lambda leaf: _take(leaf, run), self.states)

    def model(self, *run: int) -> nnx.Module:
        """The trained model of one run, a new object."""
        return self.trainer.merge(self.state(*run))[0]


def sweep(
    make_trainer: Callable[[Any], Trainer],
    *,
    seeds: Iterable[Any],
    configs: Iterable[Any] | None = None,
    data: Any,
    steps: int,
    batch_size: int | None = None,
    at_once: int | None = None,
) -> Sweep:
    """Train one run for each seed, or for each pair of a config and a seed, all in one compiled call.

    Each run is what `make_trainer(seed).fit(data, steps, batch_size=batch_size)` would be, up to rounding. A run
    that diverges goes on as NaN and leaves the others alone.

    Args:
        make_trainer: makes a new trainer from a seed. Trainers may differ in their arrays and their key; all else
            (learning rate, dropout rate, compute_loss) is taken from the first. To let the learning rate differ,
            make it an array: `optax.inject_hyperparams(optax.adam)(learning_rate=...)`.
        seeds: S of them, such as `range(8)`.
        configs: C configs in place of the trainers' own. Numbers may differ. Integers, strings, flags and which
            numbers are None are part of the compiled code, and must be equal.
        data: a mapping, as for `Trainer.fit`; or a pure function `data(model, key)` that makes the batch of each
            step, of arrays as `prepare` returns them, by drawing from the run's own model, for instance.
        steps: of each run, at least 1.
        batch_size: rows of a batch, with a dataset.
        at_once: how many runs share a compiled call, at least 1; there are as many calls at a time as processors.
            None: all runs in one call, where many small networks cost hardly more than one. On a CPU those whose
            products take most of the time, from some hundred units on, are faster one by one, each on a processor.

    Returns:
        A `Sweep`: metrics `(S, steps)`, or `(C, S, steps)` if there are configs, and the final states and models.

    Raises:
        TypeError: an argument, or what `make_trainer` returns, is of the wrong kind.
        ValueError: static fields of the configs or shapes of the trainers differ, or the data does not fit.
    """
    seeds, configs = _listed("seeds", seeds), None if configs is None else _listed("configs", configs)
    if isinstance(steps, bool) or not hasattr(steps, "__index__") or steps < 1:
        raise ValueError(f"steps: got {steps!r}, needs an integer of at least 1")
    if at_once is not None and (isinstance(at_once, bool) or not hasattr(at_once, "__index__") or at_once < 1):
        raise ValueError(f"at_once: got {at_once!r}, needs an integer of at least 1, or None")
    trainers = [make_trainer(seed) for seed in seeds]
    _check_trainers(trainers)
    states, keys, prepared, rows, used = [], [], [], [], []
    for config in configs or [None]:
        for trainer in trainers:
            own = trainer.config
            trainer.config = own if config is None else config
            states.append(trainer.state)
            keys.append(trainer.key)
            used.append(trainer.config)
            prepared.append({} if callable(data) else prepare(trainer, data))
            trainer.config = own
            if batch_size is not None:
                rows.append(_rows_of_run(trainer, prepared[-1], steps, batch_size))
    _check_configs(used)
    treedef, batches, shared = _stack_batches(prepared)
    first = trainers[0]

    def run(state, key, config, rows, batch):
        def one(state, chosen):
            now = batch if chosen is None else take_rows(batch, chosen)
            if callable(data):
                now = data(first.merge(state)[0], jax.random.fold_in(jax.random.fold_in(key, SAMPLES), state.step))
            return first.pure_step(state, now, jax.random.fold_in(key, state.step), config)

        return jax.lax.scan(one, state, rows, length=steps)

    @jax.jit
    def some(begun, batches, runs):
        def one_run(i):
            batch = [leaf if once else leaf[i] for leaf, once in zip(batches, shared, strict=True)]
            return run(*jax.tree.map(lambda leaf: leaf[i], begun), treedef.unflatten(batch))

        return jax.vmap(one_run)(runs) if runs.ndim else one_run(runs)

    begun = _stack(states), jnp.stack(keys), _stack(used), np.stack(rows) if rows else None
    ended, metrics = _in_threads(some, begun, batches, len(states), at_once)
    lead = (len(seeds),) if configs is None else (len(configs), len(seeds))
    ended, metrics = jax.tree.map(lambda leaf: leaf.reshape(*lead, *leaf.shape[1:]), (ended, metrics))
    return Sweep(jax.tree.map(np.asarray, metrics), ended, first)


def _in_threads(train: Any, begun: Any, batches: Any, num_runs: int, at_once: int | None) -> Any:
    """What the compiled `train(begun, batches, runs)` returns for all runs, `at_once` in each call.

    As many calls are under way as there are processors: JAX computes those of one thread one after the other.
    """
    if at_once is None:
        return train(begun, batches, np.arange(num_runs))
    calls = np.arange(0, num_runs, at_once)
    if at_once > 1:  # the last call has as many as the others, so that nothing is compiled for it
        calls = np.minimum(calls[:, None] + np.arange(at_once), num_runs - 1)
    compiled = train.lower(begun, batches, calls[0]).compile()
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        parts = list(threads.map(lambda runs: jax.block_until_ready(compiled(begun, batches, runs)), calls))
    return jax.tree.map(lambda *leaves: _join(leaves, at_once)[:num_runs], *parts)


def _listed(name: str, values: Any) -> list[Any]:
    if not hasattr(values, "__iter__"):
        raise TypeError(f"{name}: got {values!r}, needs several, such as a list")
    values = list(values)
    if not values:
        raise ValueError(f"{name}: got none, needs at least one")
    return values


def _check_trainers(trainers: list[Any]) -> None:
    """New objects of one class, without a mesh, with states of one shape."""
    for i, trainer in enumerate(trainers):
        if not isinstance(trainer, Trainer) or type(trainer) is not type(trainers[0]):
            needed = type(trainers[0]).__name__ if isinstance(trainers[0], Trainer) else "Trainer"
            raise TypeError(f"make_trainer: returned {type(trainer).__name__}, needs a {needed}")
        if trainer.mesh is not None:
            raise ValueError("make_trainer: returned a trainer with a mesh, needs none: runs are an axis already")
        shapes, wanted = (jax.tree.map(np.shape, t.state) for t in (trainer, trainers[0]))
        if shapes != wanted:
            raise ValueError(
                f"make_trainer: seed {i} has a state of shapes {shapes}, needs those of seed 0: {wanted}"
            )
    if len({id(trainer) for trainer in trainers}) < len(trainers):
        raise ValueError("make_trainer: returned the same trainer twice, needs a new one for each seed")


def _check_configs(configs: list[Any]) -> None:
    """ValueError that names a field, unless the configs differ in their numbers alone."""
    traced = [{path[0] for path, _ in jax.tree.leaves_with_path(config)} for config in configs]
    for config, numbers in zip(configs, traced, strict=True):
        for field in dataclasses.fields(config) if dataclasses.is_dataclass(config) else ():
            here, there = getattr(config, field.name), getattr(configs[0], field.name)
            key = jax.tree_util.GetAttrKey(field.name)
            if (key in numbers) != (key in traced[0]) or (key not in numbers and here != there):
                raise ValueError(
                    f"configs: {field.name}: got {there!r} and {here!r}, needs one for all runs: it is "
                    f"part of the compiled code; sweep once for each"
                )


def _rows_of_run(trainer: Trainer, data: Any, steps: int, batch_size: int) -> np.ndarray:
    """The rows `(steps, batch_size)` that `fit` would take."""
    if not trainer.independent_rows or not data:
        raise ValueError(
            f"batch_size: got {batch_size}, needs None with {type(trainer).__name__}: pass whole batches"
        )
    return choose_rows(trainer.key, trainer.step, steps, count_rows(data, batch_size), batch_size)


def _stack_batches(batches: list[Any]) -> tuple[Any, list[Any], list[bool]]:
    """The structure of a batch; its arrays, of all runs; and which of them are the same in all, and kept once."""
    treedef = jax.tree.structure(batches[0])
    if any(jax.tree.structure(batch) != treedef for batch in batches):
        raise ValueError("data: the trainers prepare batches of different structure, needs one for all runs")
    columns = list(zip(*map(jax.tree.leaves, batches), strict=True))
    same = [all(leaf is column[0] or np.array_equal(leaf, column[0]) for leaf in column) for column in columns]
    kept = [column[0] if once else np.stack(column) for column, once in zip(columns, same, strict=True)]
    return treedef, kept, same


def _join(leaves: tuple[jax.Array, ...], at_once: int) -> Any:
    joined = jnp if _is_key(leaves[0]) else np
    return joined.stack(leaves) if at_once == 1 else joined.concatenate(leaves)


def _stack(trees: list[Any]) -> Any:
    def stack(*leaves):
        leaves = [jnp.asarray(leaf) for leaf in leaves]
        return jnp.stack(leaves) if _is_key(leaves[0]) else np.stack([np.asarray(leaf) for leaf in leaves])

    return jax.tree.map(stack, *trees)


def _take(leaf: jax.Array, run: tuple[int, ...]) -> jax.Array:
    return leaf[run] if _is_key(leaf) else jnp.asarray(np.asarray(leaf)[run])


def _is_key(leaf: jax.Array) -> bool:
    """NumPy knows no keys. All else it stacks and takes without compiling a program for each shape."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
