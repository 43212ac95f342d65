"""Environments in pure JAX, rollouts collected in them, and pictures of their states."""

from artifex_rl.envs.cartpole import CartPole, CartPoleState
from artifex_rl.envs.latent_walk import LatentWalk, LatentWalkState, filmstrip
from artifex_rl.envs.render import render_cartpole
from artifex_rl.envs.rollout import Rollout, rollout

__all__ = [
    "CartPole",
    "CartPoleState",
    "LatentWalk",
    "LatentWalkState",
    "Rollout",
    "filmstrip",
    "render_cartpole",
    "rollout",
]
