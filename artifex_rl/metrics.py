"""Metrics on their way from compiled code to the host."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Metrics = dict[str, Any]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PackedMetrics:
    """Metrics as one array: it comes to the host in one piece, which many scalars would not."""

    values: Float[Array, "*steps K"]
    names: tuple[str, ...] = dataclasses.field(metadata={"static": True})

    def unpack(self) -> list[dict[str, float]]:
        """One dictionary of floats for each step."""
        rows = np.asarray(self.values).reshape(-1, len(self.names)).tolist()  # JAX reshapes 20 times slower
        return [dict(zip(self.names, row, strict=True)) for row in rows]


def pack(metrics: Metrics) -> PackedMetrics:
    """Scalars by name, "loss" among them, as one array; a ValueError if one is no scalar."""
    shapes = {name: jnp.shape(value) for name, value in metrics.items() if jnp.shape(value)}
    if shapes:
        raise ValueError(f"metrics: got shapes {shapes}, needs scalars")
    dtype = jnp.float64 if jnp.asarray(metrics["loss"]).dtype == jnp.float64 else jnp.float32
    return PackedMetrics(jnp.stack([jnp.asarray(value).astype(dtype) for value in metrics.values()]), tuple(metrics))
