"""An actor and a critic side by side, for environments whose actions are real numbers."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from artifex_rl.models.mlp import MLP
from artifex_rl.rl.distributions import DiagonalGaussian


class GaussianActorCritic(nnx.Module):
    """Two MLPs that share nothing: one says around which action to act, the other what a state is worth.

    The actor's standard deviation is a weight of its own for each number of the action, the same in all states.

    Args:
        in_features: size of an observation, at least 1.
        hidden_features: size of each hidden layer, of both networks.
        action_size: A, at least 1.
        std: standard deviation of the actions at the start, > 0, in their unit.
        rngs: source of the initial weights. The actor's last layer starts a hundred times smaller than the others,
            so that training begins with actions around 0 (Andrychowicz et al., 2021, arXiv:2006.05990).

    Raises:
        ValueError: a size is less than 1, or `std` is not more than 0.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: Sequence[int],
        action_size: int,
        std: float = 1.0,
        *,
        rngs: nnx.Rngs,
    ):
        if not std > 0:
            raise ValueError(f"std: got {std}, needs more than 0")
        self.actor = MLP(in_features, hidden_features, action_size, rngs=rngs)
        self.critic = MLP(in_features, hidden_features, 1, rngs=rngs)
        self.log_std = nnx.Param(jnp.full(action_size, jnp.log(std), jnp.float32))
        last = self.actor.layers.layers[-1]
        last.kernel[...] = 0.01 * last.kernel[...]

    def __call__(self, observations: Float[Array, "*B D"]) -> tuple[DiagonalGaussian, Float[Array, "*B"]]:
        """The distribution of actions, and V(s)."""
        return DiagonalGaussian(self.actor(observations), self.log_std[...]), self.critic(observations)[..., 0]
