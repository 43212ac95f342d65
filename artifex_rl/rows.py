"""Rows of data: which ones a step trains on, and on which devices they lie."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

#: Permutations of epochs come from a stream of their own, apart from those of the steps 0, 1, 2, …
EPOCHS = 2**32 - 1


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
