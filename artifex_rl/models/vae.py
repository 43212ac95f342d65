"""A variational autoencoder of small pictures: an encoder that is unsure, and a decoder."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from artifex_rl.models.mlp import MLP
from artifex_rl.rl.distributions import DiagonalGaussian

MIN_LOG_STD, MAX_LOG_STD = -7.0, 2.0  # exp(−7) is a thousandth: beyond, the KL of one picture drowns the others'


class Encoder(nnx.Module):
    """q(z | x) = N(μ(x), σ(x)²): a distribution over latents, and so a policy whose action is z.

    Args:
        shape: of one sample, such as (8, 8).
        latent_size: Z ≥ 1.
        hidden_features: size of each hidden layer.
        rngs: source of the initial weights, and of the draws of `encoder(x, return_log_prob=True)`.

    Raises:
        ValueError: a size is less than 1.
    """

    def __init__(
        self, shape: Sequence[int], latent_size: int, hidden_features: Sequence[int] = (256,), *, rngs: nnx.Rngs
    ):
        self.network = MLP(math.prod(shape), hidden_features, 2 * latent_size, rngs=rngs)
        self.rngs = rngs.fork()

    def __call__(
        self, data: Float[Array, "B *D"], return_log_prob: bool = False
    ) -> DiagonalGaussian | tuple[Float[Array, "B Z"], Float[Array, "B"]]:
        """The distribution, or latents drawn from it and their log-densities."""
        mean, log_std = jnp.split(self.network(data.reshape(len(data), -1)), 2, axis=-1)
        posterior = DiagonalGaussian(mean, jnp.clip(log_std, MIN_LOG_STD, MAX_LOG_STD))
        if not return_log_prob:
            return posterior
        latents = posterior.sample(self.rngs.sample())
        return latents, posterior.log_prob(latents)


class Decoder(nnx.Module):
    """From latents to samples: logits of a Bernoulli, or means of a Gaussian.

    Args:
        latent_size: Z ≥ 1.
        shape: of one sample.
        hidden_features: size of each hidden layer.
        rngs: source of the initial weights.
    """

    def __init__(
        self, latent_size: int, shape: Sequence[int], hidden_features: Sequence[int] = (256,), *, rngs: nnx.Rngs
    ):
        self.shape = tuple(shape)
        self.network = MLP(latent_size, hidden_features, math.prod(shape), rngs=rngs)

    def __call__(self, latents: Float[Array, "B Z"]) -> Float[Array, "B *D"]:
        return self.network(latents).reshape(len(latents), *self.shape)


class VAE(nnx.Module):
    """An encoder and a decoder: what `VAETrainer` trains.

    Args:
        shape: of one sample, such as (8, 8).
        latent_size: Z ≥ 1.
        hidden_features: size of each hidden layer of the encoder; the decoder has them the other way round.
        rngs: source of the initial weights.

    Raises:
        ValueError: a size is less than 1.
    """

    def __init__(
        self, shape: Sequence[int], latent_size: int, hidden_features: Sequence[int] = (256,), *, rngs: nnx.Rngs
    ):
        self.latent_size = latent_size
        self.encoder = Encoder(shape, latent_size, hidden_features, rngs=rngs)
        self.decoder = Decoder(latent_size, shape, tuple(reversed(hidden_features)), rngs=rngs)

    def __call__(self, data: Float[Array, "B *D"]) -> Float[Array, "B *D"]:
        """Encode and decode the mean."""
        return self.decoder(self.encoder(data).mean)
