"""A denoiser: told a noisy sample, how noisy it is, and perhaps its class, it says how to make it less so."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

NUM_FREQUENCIES = 8


class Denoiser(nnx.Module):
    """An answer to x_t, t and a label, by an MLP with SiLU. Time and label enter every hidden layer by a linear map.

    Its training decides what the answer is: x̂₀, which with few steps and a small network is learnt fastest, the
    noise or v for `DiffusionTrainer`, or the velocity for `FlowTrainer`.

    Args:
        shape: of one sample, such as (8, 8).
        hidden_features: size of each hidden layer; at least one.
        num_classes: K; labels are then 0 … K − 1, and K stands for "no label". None: a model without labels.
        rngs: source of the initial weights.

    Raises:
        ValueError: a size is less than 1.
    """

    def __init__(
        self,
        shape: Sequence[int],
        hidden_features: Sequence[int] = (256, 256, 256),
        num_classes: int | None = None,
        *,
        rngs: nnx.Rngs,
    ):
        self.shape, self.num_classes = tuple(shape), num_classes
        sizes = (math.prod(self.shape), *hidden_features)
        if len(sizes) < 2 or min(*sizes, *self.shape, 1 if num_classes is None else num_classes) < 1:
            raise ValueError(
                f"Denoiser: got shape={shape}, hidden_features={hidden_features}, num_classes={num_classes}; needs "
                f"at least one hidden layer, and sizes of at least 1"
            )
        self.layers = nnx.List(nnx.Linear(a, b, rngs=rngs) for a, b in itertools.pairwise(sizes))
        context = 2 * NUM_FREQUENCIES + (0 if num_classes is None else num_classes + 1)
        self.contexts = nnx.List(nnx.Linear(context, size, use_bias=False, rngs=rngs) for size in hidden_features)
        self.head = nnx.Linear(sizes[-1], sizes[0], rngs=rngs)

    def __call__(
        self, x: Float[Array, "B *D"], times: Float[Array, "B"], labels: Int[Array, "B"] | None = None
    ) -> Float[Array, "B *D"]:
        """The answer, in the shape of x.

        Args:
            x: `(B, *shape)`.
            times: `(B,)`, in [0, 1] or near it; what they mean is up to the training.
            labels: `(B,)`. None: no label.
        """
        context = [time_features(times)]
        if self.num_classes is not None:
            known = jnp.full(len(x), self.num_classes) if labels is None else labels
            context.append(nnx.one_hot(known, self.num_classes + 1, dtype=x.dtype))
        context = jnp.concatenate(context, axis=-1)
        hidden = x.reshape(len(x), -1)
        for layer, told in zip(self.layers, self.contexts, strict=True):
            hidden = nnx.silu(layer(hidden) + told(context))
        return self.head(hidden).reshape(x.shape)


def time_features(times: Float[Array, "B"]) -> Float[Array, "B F"]:
    """sin and cos of 2ᵏ π t / 4, so that close noise levels look different to a linear map."""
    angles = times[:, None] * (math.pi / 4 * 2.0 ** jnp.arange(NUM_FREQUENCIES, dtype=times.dtype))[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
