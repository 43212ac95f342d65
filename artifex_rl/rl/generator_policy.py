"""A generator as a policy: G(z) has no density of its own, and is given one, around its samples or before them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from artifex_rl.rl.diffusion_policy import Setting
from artifex_rl.rl.distributions import DiagonalGaussian
from artifex_rl.rl.policies import Evaluation

MIN_LOG_STD, MAX_LOG_STD = -5.0, 2.0


class GeneratorPolicy(nnx.Module):
    """A Gaussian around what a generator makes: the observation is noise z, the action a sample of N(G(z), σ² I).

    Calling it draws: `generator(noise)` returns samples, not means, because at its mean a Gaussian has no slope, and
    nothing would be learnt from G(z) itself. The gradient reaches all weights of the generator.

    Args:
        generator: maps noise `(B, Z)` to samples `(B, *D)`. Observations of a conditional one are a mapping of
            "noise" and "labels", which it is then called with.
        std: σ > 0, in the unit of the samples: how far it tries things out. It is a variable of the model, so that
            `policy.std = 0.05` compiles nothing.
        critic: called as the generator, returns V `(B,)`, for PPO. None: no values.
        rngs: source of the draws of `policy(noise)`.

    Raises:
        ValueError: `std` is not a positive number.
    """

    def __init__(
        self,
        generator: nnx.Module,
        std: float = 0.1,
        *,
        critic: nnx.Module | None = None,
        rngs: nnx.Rngs | None = None,
    ):
        self.generator, self.critic = generator, critic
        self._std = Setting(jnp.float32(_check_std(std)), check=_check_std)
        self.rngs = (nnx.Rngs(0) if rngs is None else rngs).fork()

    @property
    def std(self) -> Float[Array, ""]:
        """σ of now; a number above 0 may be assigned between steps of training."""
        return self._std[...]

    @std.setter
    def std(self, std: float) -> None:
        self._std[...] = jnp.float32(_check_std(std))

    def __call__(self, observations: Any) -> Float[Array, "B *D"]:
        """Samples, drawn anew at every call."""
        return self.distribution(observations).sample(self.rngs.sample())

    def sample(self, observations: Any, key: Array) -> tuple[Float[Array, "B *D"], Float[Array, "B"]]:
        """Samples for a batch of noise, and their log-densities, summed over all pixels."""
        distribution = self.distribution(observations)
        actions = distribution.sample(key)
        return actions, distribution.log_prob(actions)

    def evaluate(self, observations: Any, actions: Float[Array, "B *D"], mask: Array | None = None) -> Evaluation:
        """Log-densities of samples that were drawn; differentiable."""
        values = None if self.critic is None else self.critic(*_told(observations)).reshape(len(actions))
        return _evaluate(self.distribution(observations), actions, mask, values)

    def distribution(self, observations: Any) -> DiagonalGaussian:
        """N(G(z), σ² I)."""
        mean = self.generator(*_told(observations))
        log_std = jnp.full(mean.shape[1:], jnp.log(self.std), mean.dtype)
        return DiagonalGaussian(mean, log_std, event_ndim=mean.ndim - 1)


class Frozen(nnx.Variable):
    """A weight that is no parameter: an optimizer with `wrt=nnx.Param` does not know it."""


class LatentPolicy(nnx.Module):
    """A Gaussian over the noise of a frozen generator: the action is z, and rewards see `outcome(z)` = G(z).

    It begins as N(0, I) whatever it is told, so that its first samples are the generator's own, and learns which
    noise to ask for. It cannot leave what the generator is able to make.

    Args:
        generator: maps noise `(B, Z)` to samples; its `latent_size` is Z. It is kept as it is now, in its evaluation
            mode, and is not trained.
        num_labels: K ≥ 1, observations are then labels 0 … K − 1, `(B,)`, and every label has a Gaussian of its own.
        network: in place of labels: maps observations `(B, ...)` to `(B, 2 Z)`, the mean and log of the standard
            deviation. It begins as N(0, I) if its last layer begins at 0.
        critic: maps observations to V `(B,)`, for PPO. None: no values.

    Raises:
        TypeError: the generator has no `latent_size`.
        ValueError: `num_labels` is less than 1; in a call, the network returns another shape.
    """

    def __init__(
        self,
        generator: nnx.Module,
        num_labels: int = 1,
        *,
        network: nnx.Module | None = None,
        critic: nnx.Module | None = None,
    ):
        if not hasattr(generator, "latent_size"):
            raise TypeError(f"generator: {type(generator).__name__} has no latent_size, needs that of its noise")
        if num_labels < 1:
            raise ValueError(f"num_labels: got {num_labels}, needs at least 1")
        self.latent_size = generator.latent_size
        zeros = nnx.initializers.zeros
        table = partial(nnx.Embed, num_labels, 2 * self.latent_size, embedding_init=zeros, rngs=nnx.Rngs(0))
        self.network, self.critic = table() if network is None else network, critic
        self._graphdef, state = nnx.split(generator)
        values, self._treedef = jax.tree.flatten(nnx.as_pure(state))
        self._values = nnx.List(Frozen(value) for value in values)

    def outcome(self, actions: Float[Array, "B Z"]) -> Float[Array, "B *D"]:
        """What a reward sees: the generator's samples of the noise that was asked for."""
        return _generate(self._graphdef, self._treedef, [value[...] for value in self._values], actions)

    def sample(self, observations: Any, key: Array) -> tuple[Float[Array, "B Z"], Float[Array, "B"]]:
        """Noise for a batch of observations, and its log-densities."""
        distribution = self.distribution(observations)
        actions = distribution.sample(key)
        return actions, distribution.log_prob(actions)

    def evaluate(self, observations: Any, actions: Float[Array, "B Z"], mask: Array | None = None) -> Evaluation:
        """Log-densities of noise that was asked for; differentiable."""
        values = None if self.critic is None else self.critic(jnp.asarray(observations)).reshape(len(actions))
        return _evaluate(self.distribution(observations), actions, mask, values)

    def distribution(self, observations: Any) -> DiagonalGaussian:
        """The Gaussian over noise for each observation."""
        said = self.network(jnp.asarray(observations))
        if said.ndim != 2 or said.shape[1] != 2 * self.latent_size:
            raise ValueError(f"network: returned shape {said.shape}, needs (B, {2 * self.latent_size})")
        mean, log_std = jnp.split(said, 2, axis=-1)
        return DiagonalGaussian(mean, jnp.clip(log_std, MIN_LOG_STD, MAX_LOG_STD))


@partial(jax.jit, static_argnums=(0, 1))
def _generate(graphdef, treedef, values, noise):
    generator = nnx.merge(graphdef, jax.tree.unflatten(treedef, values))
    generator.eval()
    return generator(noise)


def _told(observations):
    """What a generator is called with: noise, and labels where there are any."""
    if isinstance(observations, Mapping):
        return tuple(jnp.asarray(observations[name]) for name in ("noise", "labels"))
    return (jnp.asarray(observations),)


def _evaluate(distribution, actions, mask, values=None):
    actions = jnp.asarray(actions)
    if actions.shape != distribution.mean.shape:
        raise ValueError(f"actions: got shape {actions.shape}, needs {distribution.mean.shape}")
    log_probs, entropy = distribution.log_prob(actions), distribution.entropy()
    if mask is not None:
        log_probs, entropy = (jnp.where(mask, x, 0.0) for x in (log_probs, entropy))
    return Evaluation(log_probs, entropy, values, mask, distribution)


def _check_std(std: ArrayLike) -> ArrayLike:
    if not isinstance(std, jax.core.Tracer) and not (std > 0 and math.isfinite(std)):
        raise ValueError(f"std: got {std}, needs more than 0: without noise a sample has no density")
    return std
