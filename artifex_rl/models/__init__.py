"""Small networks: an actor with a critic, a critic fitted with one of them, a denoiser, a GRU that writes words."""

from artifex_rl.models.actor_critic import ActorCritic
from artifex_rl.models.critic import fit_critic
from artifex_rl.models.denoiser import Denoiser
from artifex_rl.models.gru import GRU
from artifex_rl.models.mlp import MLP

__all__ = ["GRU", "MLP", "ActorCritic", "Denoiser", "fit_critic"]
