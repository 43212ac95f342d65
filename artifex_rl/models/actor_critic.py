"""An actor and a critic side by side, for environments with few actions."""

from __future__ import annotations

from collections.abc import Sequence

from flax import nnx
from jaxtyping import Array, Float

from artifex_rl.models.mlp import MLP


class ActorCritic(nnx.Module):
    """Two MLPs that share nothing: one says how to act, the other what a state is worth.

    Args:
        in_features: size of an observation, at least 1.
        hidden_features: size of each hidden layer, of both networks.
        num_actions: A, at least 1.
        rngs: source of the initial weights. The actor's last layer starts a hundred times smaller than the others,
            so that training begins with a nearly uniform policy (Andrychowicz et al., 2021, arXiv:2006.05990).

    Raises:
        ValueError: a size is less than 1.
    """

    def __init__(self, in_features: int, hidden_features: Sequence[int], num_actions: int, *, rngs: nnx.Rngs):
        self.actor = MLP(in_features, hidden_features, num_actions, rngs=rngs)
        self.critic = MLP(in_features, hidden_features, 1, rngs=rngs)
        last = self.actor.layers.layers[-1]
        last.kernel[...] = 0.01 * last.kernel[...]

    def __call__(self, observations: Float[Array, "*B D"]) -> tuple[Float[Array, "*B A"], Float[Array, "*B"]]:
        """Logits of the actions, and V(s)."""
        return self.actor(observations), self.critic(observations)[..., 0]
