"""Distributions over actions: what a policy's network says, as something to draw from and to score with.

Each is a JAX pytree of arrays whose leading axes are batch, so that it may be returned from compiled code, indexed by
`jax.tree.map` and vmapped. Divergences between two of a kind are exact.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from artifex_rl.rl.losses import categorical_entropy, categorical_kl


@runtime_checkable
class Distribution(Protocol):
    """What a policy may return instead of logits."""

    def sample(self, key: Array) -> Array:
        """One action for each entry of the batch."""

    def log_prob(self, actions: Array) -> Array:
        """Log-probability, or log-density, of one action for each entry of the batch."""

    def entropy(self) -> Array:
        """Entropy in nats, for each entry of the batch."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Categorical:
    """One of A actions, 0 … A − 1, with probability softmax(logits).

    Args:
        logits: `(*B, A)`, unnormalised log-probabilities; −∞ for an action that is impossible.
    """

    logits: Float[Array, "*B A"]

    @property
    def log_probs(self) -> Float[Array, "*B A"]:
        """Normalised log-probabilities of all actions."""
        return jax.nn.log_softmax(self.logits.astype(_wide(self.logits)), axis=-1)

    def sample(self, key: Array) -> Int[Array, "*B"]:
        return jax.random.categorical(key, self.logits, axis=-1)

    def log_prob(self, actions: Int[Array, "*B"]) -> Float[Array, "*B"]:
        """Actions out of range cannot be seen under `jit`; `check_actions` sees them before."""
        if not jnp.issubdtype(actions.dtype, jnp.integer):
            raise TypeError(
                f"actions: got {actions.dtype}, needs integers: one of {self.logits.shape[-1]} actions. A network "
                f"whose output is itself the action, G(z), has no density: let it return a DiagonalGaussian around it"
            )
        return jnp.take_along_axis(self.log_probs, actions[..., None], axis=-1)[..., 0]

    def entropy(self) -> Float[Array, "*B"]:
        return categorical_entropy(self.log_probs)

    def kl(self, other: Categorical) -> Float[Array, "*B"]:
        """KL(self ‖ other), exactly."""
        _check_kind(self, other)
        return categorical_kl(self.log_probs, other.log_probs)

    def check_actions(self, actions: np.ndarray) -> None:
        """ValueError if these are not actions of this distribution. Reads shapes alone of the distribution itself."""
        size, batch = self.logits.shape[-1], self.logits.shape[:-1]
        if actions.dtype.kind not in "iu":
            raise ValueError(
                f"actions: got {actions.dtype}, needs integers: the policy chooses one of {size} actions"
            )
        if actions.shape != batch:
            raise ValueError(f"actions: got shape {actions.shape}, needs {batch}, one of {size} actions each")
        # Without a sign, a negative number is a large one: one pass sees both ends.
        unsigned = actions if actions.dtype.kind == "u" else actions.view(f"u{actions.dtype.itemsize}")
        if actions.size and unsigned.max() >= size:
            raise ValueError(
                f"actions: got values from {actions.min()} to {actions.max()}, needs 0 to {size - 1}: the policy "
                f"has {size} actions"
            )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DiagonalGaussian:
    """Real numbers, independent and normal; one action is the last `event_ndim` axes together.

    An action is stored as it was drawn. An environment that clips it does so on its own side: the log-probability
    is that of what the policy did.

    Args:
        mean: `(*B, *D)`.
        log_std: log of the standard deviation, like `mean`, or of its last axes alone, such as `(D,)`.
        event_ndim: how many of the last axes make up one action; the log-probability sums over them.
    """

    mean: Float[Array, "*B *D"]
    log_std: Float[Array, "*D"]
    event_ndim: int = dataclasses.field(default=1, metadata={"static": True})

    def sample(self, key: Array) -> Float[Array, "*B *D"]:
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(self._log_std()) * noise

    def log_prob(self, actions: Float[Array, "*B *D"]) -> Float[Array, "*B"]:
        """Log-density of N(mean, std²), summed over the axes of the action."""
        log_std = self._log_std()
        distance = (actions.astype(self.mean.dtype) - self.mean) * jnp.exp(-log_std)
        return self._sum(-0.5 * distance**2 - log_std - 0.5 * math.log(2 * math.pi))

    def entropy(self) -> Float[Array, "*B"]:
        """Differential entropy: Σ log std + ½ log 2πe; below 0 for a narrow one."""
        return self._sum(self._log_std() + 0.5 * math.log(2 * math.pi * math.e))

    def kl(self, other: DiagonalGaussian) -> Float[Array, "*B"]:
        """KL(self ‖ other), exactly: Σ log(σ₂/σ₁) + (σ₁² + (μ₁ − μ₂)²) / 2σ₂² − ½."""
        _check_kind(self, other)
        mine, theirs = self._log_std(), other._log_std()
        squares = jnp.exp(2 * (mine - theirs)) + ((self.mean - other.mean) * jnp.exp(-theirs)) ** 2
        return self._sum(theirs - mine + 0.5 * (squares - 1))

    def check_actions(self, actions: np.ndarray) -> None:
        """ValueError if these are not actions of this distribution. Reads shapes alone of the distribution itself."""
        if actions.dtype.kind not in "fiu" and actions.dtype.name != "bfloat16":
            raise ValueError(f"actions: got {actions.dtype}, needs real numbers")
        if actions.shape != self.mean.shape:
            raise ValueError(
                f"actions: got shape {actions.shape}, needs {self.mean.shape}, that of the policy's mean"
            )
        if not np.isfinite(actions).all():
            raise ValueError("actions: got NaN or infinity, needs finite numbers")

    def _log_std(self) -> Array:
        missing = self.mean.ndim - self.log_std.ndim  # said aloud: JAX may be told to refuse silent broadcasts
        return jnp.broadcast_to(self.log_std.reshape((1,) * missing + self.log_std.shape), self.mean.shape)

    def _sum(self, x: Array) -> Array:
        return jnp.sum(x, axis=tuple(range(-self.event_ndim, 0)))


def _wide(x: Array) -> jnp.dtype:
    """Half precision is widened: a sum over a large vocabulary loses too much in it."""
    return jnp.float64 if x.dtype == jnp.float64 else jnp.float32


def _check_kind(mine: Distribution, other: Distribution) -> None:
    if type(other) is not type(mine):
        raise TypeError(f"kl: got {type(other).__name__}, needs {type(mine).__name__}, as the other distribution is")
