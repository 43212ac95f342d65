"""The loop of `Trainer.fit`, and how it cuts data into steps: one batch, rows of a dataset, or any iterable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

#: Permutations of epochs come from a stream of their own, apart from those of the steps 0, 1, 2, …
EPOCHS = 2**32 - 1


def run(trainer: Any, calls: Iterator[list[dict[str, float]]], callbacks: Sequence[Any]) -> dict[str, np.ndarray]:
    """Train as `calls` are read, and call the hooks; see `Trainer.fit`."""
    history: list[dict[str, float]] = []
    trainer.should_stop = False
    _call(callbacks, "on_train_begin", trainer)
    try:
        for metrics in calls:
            for step, now in enumerate(metrics, start=trainer.step - len(metrics)):
                _call(callbacks, "on_train_batch_end", trainer, now, step)
            history += metrics
            if trainer.should_stop:
                break
    finally:  # files are closed and bars are taken down after an error, too
        _call(callbacks, "on_train_end", trainer)
    return {name: np.array([now[name] for now in history]) for name in (history[0] if history else ())}


def _call(callbacks: Sequence[Any], hook: str, *arguments: Any) -> None:
    for callback in callbacks:
        getattr(callback, hook, _nothing)(*arguments)


def _nothing(*arguments: Any) -> None: ...


def train_calls(
    trainer: Any,
    data: Any,
    steps: int | None,
    batch_size: int | None,
    steps_per_call: int,
    step_arguments: dict[str, Any],
) -> Iterator[list[dict[str, float]]]:
    """An iterator that trains as it is read: each item is the metrics of the steps of one call.

    The arguments are checked before it is returned. They and the errors are those of `Trainer.fit`.
    """
    for name, value in (("steps", steps), ("batch_size", batch_size), ("steps_per_call", steps_per_call)):
        if value is not None and (isinstance(value, bool) or not hasattr(value, "__index__") or value < 1):
            raise ValueError(f"{name}: got {value!r}, needs an integer of at least 1")
    if not isinstance(data, Mapping):
        if not hasattr(data, "__iter__"):
            raise ValueError(f"data: got {type(data).__name__}, needs a mapping of arrays or an iterable of batches")
        if batch_size is not None:
            raise ValueError(f"batch_size: got {batch_size}, needs None: an iterable gives batches of its own")
        return _from_iterable(trainer, data, steps, step_arguments)
    if steps is None:
        raise ValueError("steps: got None, needs how many: a mapping of arrays has no end")
    if batch_size is None:
        if step_arguments:
            return _from_iterable(trainer, [data], steps, step_arguments)
        prepared = prepare(trainer, data)
        return _from_arrays(trainer, trainer._place(prepared), None, steps, None, steps_per_call)
    if step_arguments or not trainer.independent_rows:
        what = next(iter(step_arguments), type(trainer).__name__)
        raise ValueError(f"batch_size: got {batch_size}, needs None with {what}: pass whole batches")
    prepared = prepare(trainer, data)
    return _from_arrays(trainer, prepared, count_rows(prepared, batch_size), steps, batch_size, steps_per_call)


def prepare(trainer: Any, data: Any) -> Any:
    """A batch or dataset in the form that compiled code reads, its shapes and numbers checked."""
    prepared = trainer.prepare(data)
    trainer.validate(prepared)
    return prepared


def _from_iterable(trainer, batches, steps, step_arguments):
    done = 0
    while steps is None or done < steps:
        before = done
        for batch in batches:
            yield [trainer.train_step(batch, **step_arguments)]
            done += 1
            if done == steps:
                return
        if steps is None or done == before:  # one pass was asked for, or a generator has nothing more
            return


def _from_arrays(trainer, data, size, steps, batch_size, steps_per_call):
    done = 0
    while done < steps:
        length = min(steps_per_call, steps - done)
        rows = None if size is None else choose_rows(trainer.key, trainer.step, length, size, batch_size)
        if length > 1:
            yield trainer._train_many(data, rows, length)
        else:  # not as a scan of one: a convolution within a scan is far slower on CPU
            batch = data if rows is None else trainer._place(take_rows(data, rows[0]))
            yield trainer._keep(*trainer._start(batch))
        done += length


def choose_rows(key: jax.Array, first: int, length: int, size: int, batch_size: int) -> np.ndarray:
    """Which rows steps first … first + length − 1 train on, `(length, batch_size)`: a function of key and step alone.

    Every epoch is a permutation of its own; rows that would not fill a last batch wait for another epoch.
    """
    per_epoch = size // batch_size
    epochs = {step // per_epoch for step in range(first, first + length)}
    stream = jax.random.fold_in(key, EPOCHS)
    orders = {epoch: np.asarray(jax.random.permutation(jax.random.fold_in(stream, epoch), size)) for epoch in epochs}
    starts = [(step // per_epoch, step % per_epoch * batch_size) for step in range(first, first + length)]
    return np.stack([orders[epoch][start : start + batch_size] for epoch, start in starts])


def count_rows(data: Any, batch_size: int) -> int:
    """How many rows a dataset has: at least `batch_size`, as many in every array, or a ValueError."""
    sizes = {np.shape(leaf)[0] for leaf in jax.tree.leaves(data) if np.ndim(leaf)}
    if len(sizes) != 1:
        raise ValueError(f"data: got arrays of {sorted(sizes)} rows, needs as many in each to cut batches from it")
    (size,) = sizes
    if size < batch_size:
        raise ValueError(f"batch_size: got {batch_size}, needs at most the {size} rows of the data")
    return size


def take_rows(data: Any, rows: Any) -> Any:
    """Those rows of every array; scalars as they are."""
    return jax.tree.map(lambda leaf: leaf[rows] if np.ndim(leaf) else leaf, data)


def shard_rows(batch: Any, mesh: Mesh) -> Any:
    """The batch with the leading axis of every array split over all devices of the mesh; scalars on each.

    Raises:
        ValueError: a leading axis does not divide by the number of devices.
    """
    split, everywhere = NamedSharding(mesh, PartitionSpec(mesh.axis_names)), NamedSharding(mesh, PartitionSpec())

    def place(path, leaf):
        if np.ndim(leaf) == 0:
            return jax.device_put(leaf, everywhere)
        if np.shape(leaf)[0] % mesh.size:
            name = jax.tree_util.keystr(path, simple=True, separator=".") or "batch"
            raise ValueError(
                f"{name}: got {np.shape(leaf)[0]} rows, needs a multiple of the mesh's {mesh.size} devices"
            )
        return jax.device_put(leaf, split)

    return jax.tree.map_with_path(place, batch)
