"""Networks whose weights ship with the package: arrays by name, in half precision, in one file for each."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

Network = TypeVar("Network")


def load_weights(make: Callable[[nnx.Rngs], Network], file_name: str, prefix: str = "") -> Network:
    """What `make(rngs)` would return, with the weights of a file of this package, whose names begin with `prefix`.

    Random weights would only be written over, and none are made, which spares the compiler a second. Nor is
    anything else that takes a computation, such as the key of a dropout: whoever calls this sets it.
    """
    network = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    with (files("artifex_rl.data") / file_name).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        for path, variable in nnx.to_flat_state(nnx.state(network, nnx.Param)):
            variable.set_value(jnp.asarray(arrays[prefix + path_name(path)], jnp.float32))
    return network


def save_weights(network: nnx.Module, path: Path) -> None:
    """Write the weights of a network where `load_weights` finds them."""
    flat = nnx.to_flat_state(nnx.state(network, nnx.Param))
    np.savez_compressed(path, **{path_name(name): np.asarray(value[...], np.float16) for name, value in flat})


def path_name(path: tuple) -> str:
    """Where a weight stands, as the files have it, such as "layers.0.kernel"."""
    return ".".join(map(str, path))
