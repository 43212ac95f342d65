"""The two players of a generative adversarial network of small pictures: a generator and a discriminator."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int


class Generator(nnx.Module):
    """G(z): from noise, and perhaps a class, to samples in (−1, 1), by an MLP with ReLU and tanh at its end.

    Args:
        latent_size: Z ≥ 1, size of the noise, which is drawn from N(0, I).
        shape: of one sample, such as (8, 8).
        hidden_features: size of each hidden layer; at least one.
        num_classes: K; a label 0 … K − 1 is then told beside the noise. None: a generator without labels.
        bounded: whether tanh holds samples in (−1, 1); False lets them be any numbers.
        rngs: source of the initial weights.

    Raises:
        ValueError: a size is less than 1; in a call, labels are missing, or there is nobody to tell them to.
    """

    def __init__(
        self,
        latent_size: int,
        shape: Sequence[int],
        hidden_features: Sequence[int] = (256, 256),
        num_classes: int | None = None,
        *,
        bounded: bool = True,
        rngs: nnx.Rngs,
    ):
        self.latent_size, self.shape, self.num_classes = latent_size, tuple(shape), num_classes
        sizes = (latent_size + (num_classes or 0), *hidden_features, math.prod(self.shape))
        _check_sizes("Generator", (latent_size, *sizes), hidden_features, num_classes)
        self.bounded = bounded
        self.layers = nnx.List(nnx.Linear(a, b, rngs=rngs) for a, b in itertools.pairwise(sizes))

    def __call__(self, noise: Float[Array, "B Z"], labels: Int[Array, "B"] | None = None) -> Float[Array, "B *D"]:
        _check_labels("Generator", labels, self.num_classes)
        hidden = noise
        if labels is not None:
            hidden = jnp.concatenate([noise, nnx.one_hot(labels, self.num_classes, dtype=noise.dtype)], axis=-1)
        for layer in self.layers[:-1]:
            hidden = nnx.relu(layer(hidden))
        samples = self.layers[-1](hidden).reshape(len(noise), *self.shape)
        return jnp.tanh(samples) if self.bounded else samples


class Discriminator(nnx.Module):
    """D(x): one score a sample, higher for what looks real, by an MLP with leaky ReLU; without a sigmoid.

    Told a class, it adds the product of the class's own vector with the last hidden layer (a *projection*).

    Args:
        shape: of one sample, such as (8, 8).
        hidden_features: size of each hidden layer; at least one.
        num_classes: K; the label 0 … K − 1 of each sample is then told. None: a discriminator without labels.
        spectral_norm: divides every weight matrix by its largest singular value, so that no layer is steeper than 1
            (Miyato et al., 2018, arXiv:1802.05957).
        dropout: share of hidden units that are silent in training, in [0, 1).
        rngs: source of the initial weights, and of the dropout.

    Raises:
        ValueError: a size is less than 1; in a call, labels are missing, or there is nobody to tell them to.

    Reference: Miyato & Koyama (2018), *cGANs with Projection Discriminator*, arXiv:1802.05637.
    """

    def __init__(
        self,
        shape: Sequence[int],
        hidden_features: Sequence[int] = (256, 256),
        num_classes: int | None = None,
        *,
        spectral_norm: bool = False,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        self.num_classes = num_classes
        sizes = (math.prod(shape), *hidden_features)
        _check_sizes("Discriminator", sizes, hidden_features, num_classes)

        def normed(layer: nnx.Module) -> nnx.Module:
            return nnx.SpectralNorm(layer, rngs=rngs) if spectral_norm else layer

        self.layers = nnx.List(normed(nnx.Linear(a, b, rngs=rngs)) for a, b in itertools.pairwise(sizes))
        self.head = normed(nnx.Linear(sizes[-1], 1, rngs=rngs))
        self.embed = None if num_classes is None else normed(nnx.Embed(num_classes, sizes[-1], rngs=rngs))
        self.dropout = nnx.Dropout(dropout, rngs=rngs)

    def __call__(self, samples: Float[Array, "B *D"], labels: Int[Array, "B"] | None = None) -> Float[Array, "B"]:
        _check_labels("Discriminator", labels, self.num_classes)
        hidden = samples.reshape(len(samples), -1)
        for layer in self.layers:
            hidden = self.dropout(nnx.leaky_relu(layer(hidden), 0.2))
        score = self.head(hidden)[:, 0]
        return score if labels is None else score + jnp.sum(self.embed(labels) * hidden, axis=-1)


def _check_sizes(name: str, sizes: Sequence[int], hidden_features: Sequence[int], num_classes: int | None) -> None:
    if len(hidden_features) < 1 or min(*sizes, 1 if num_classes is None else num_classes) < 1:
        raise ValueError(
            f"{name}: got layer sizes {tuple(sizes)}, num_classes={num_classes}; needs at least one hidden layer, "
            f"and sizes of at least 1"
        )


def _check_labels(name: str, labels: Array | None, num_classes: int | None) -> None:
    if (labels is None) != (num_classes is None):
        needed = "none: it was made without num_classes" if num_classes is None else "the class of each sample"
        raise ValueError(f"labels: {name} got {'none' if labels is None else labels.shape}, needs {needed}")
