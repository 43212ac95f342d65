"""The multilayer perceptron: linear maps with tanh between them."""

from __future__ import annotations

from collections.abc import Sequence

from flax import nnx
from jaxtyping import Array, Float


class MLP(nnx.Module):
    """`in_features` → hidden layers with tanh → `out_features`, linear at the end.

    Tanh bounds what a layer passes on, which keeps policies and critics on low-dimensional observations calm.

    Args:
        in_features: size of the input's last axis, at least 1.
        hidden_features: size of each hidden layer; empty gives a linear map.
        out_features: size of the output's last axis, at least 1.
        rngs: source of the initial weights (LeCun normal; biases are 0).

    Raises:
        ValueError: a size is less than 1.
    """

    def __init__(self, in_features: int, hidden_features: Sequence[int], out_features: int, *, rngs: nnx.Rngs):
        sizes = (in_features, *hidden_features, out_features)
        if min(sizes) < 1:
            raise ValueError(f"MLP: got layer sizes {sizes}, needs at least 1 each")
        layers = [nnx.Linear(sizes[0], sizes[1], rngs=rngs)]
        for i in range(1, len(sizes) - 1):
            layers += [nnx.tanh, nnx.Linear(sizes[i], sizes[i + 1], rngs=rngs)]
        self.layers = nnx.Sequential(*layers)

    def __call__(self, x: Float[Array, "*B in"]) -> Float[Array, "*B out"]:
        """Map the last axis; all axes before it are batch."""
        return self.layers(x)
