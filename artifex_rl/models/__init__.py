"""Small networks: actors and critics, a denoiser, a GRU that writes words, towers for pictures and names, others."""

from artifex_rl.models.actor_critic import ActorCritic
from artifex_rl.models.critic import fit_critic
from artifex_rl.models.denoiser import Denoiser
from artifex_rl.models.dual_encoder import DualEncoder
from artifex_rl.models.energy import EnergyNetwork
from artifex_rl.models.gan import Discriminator, Generator
from artifex_rl.models.gaussian_actor_critic import GaussianActorCritic
from artifex_rl.models.gru import GRU
from artifex_rl.models.mlp import MLP
from artifex_rl.models.vae import VAE, Decoder, Encoder

__all__ = [
    "GRU",
    "MLP",
    "VAE",
    "ActorCritic",
    "Decoder",
    "Denoiser",
    "Discriminator",
    "DualEncoder",
    "Encoder",
    "EnergyNetwork",
    "GaussianActorCritic",
    "Generator",
    "fit_critic",
]
