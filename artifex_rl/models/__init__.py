"""Small networks, and a critic fitted with one of them."""

from artifex_rl.models.critic import fit_critic
from artifex_rl.models.mlp import MLP

__all__ = ["MLP", "fit_critic"]
