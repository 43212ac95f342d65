"""Small networks, an actor with a critic, and a critic fitted with one of them."""

from artifex_rl.models.actor_critic import ActorCritic
from artifex_rl.models.critic import fit_critic
from artifex_rl.models.mlp import MLP

__all__ = ["MLP", "ActorCritic", "fit_critic"]
