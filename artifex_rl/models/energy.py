"""An energy of small pictures: low for what is probable."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from flax import nnx
from jaxtyping import Array, Float


class EnergyNetwork(nnx.Module):
    """E(x), by an MLP with SiLU: p(x) ∝ exp(−E(x)). SiLU bends everywhere, as slopes that are trained must.

    Args:
        shape: of one sample, such as (8, 8).
        hidden_features: size of each hidden layer; at least one.
        rngs: source of the initial weights.

    Raises:
        ValueError: a size is less than 1.
    """

    def __init__(self, shape: Sequence[int], hidden_features: Sequence[int] = (256, 256), *, rngs: nnx.Rngs):
        self.shape = tuple(shape)
        sizes = (math.prod(self.shape), *hidden_features)
        if len(sizes) < 2 or min(*sizes, *self.shape) < 1:
            raise ValueError(
                f"EnergyNetwork: got shape={shape}, hidden_features={hidden_features}; needs at least one hidden "
                f"layer, and sizes of at least 1"
            )
        self.layers = nnx.List(nnx.Linear(a, b, rngs=rngs) for a, b in itertools.pairwise(sizes))
        self.head = nnx.Linear(sizes[-1], 1, rngs=rngs)

    def __call__(self, samples: Float[Array, "B *D"]) -> Float[Array, "B"]:
        hidden = samples.reshape(len(samples), -1)
        for layer in self.layers:
            hidden = nnx.silu(layer(hidden))
        return self.head(hidden)[:, 0]
