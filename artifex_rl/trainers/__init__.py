"""Trainers of generative models, one file a family; their trained models are policies for `artifex_rl.rl`."""

from artifex_rl.trainers.autoregressive import AutoregressiveConfig, AutoregressiveTrainer
from artifex_rl.trainers.diffusion import DiffusionConfig, DiffusionTrainer
from artifex_rl.trainers.energy import EnergyConfig, EnergyTrainer
from artifex_rl.trainers.flow import FlowConfig, FlowTrainer
from artifex_rl.trainers.gan import GANConfig, GANTrainer
from artifex_rl.trainers.vae import VAEConfig, VAETrainer

__all__ = [
    "AutoregressiveConfig",
    "AutoregressiveTrainer",
    "DiffusionConfig",
    "DiffusionTrainer",
    "EnergyConfig",
    "EnergyTrainer",
    "FlowConfig",
    "FlowTrainer",
    "GANConfig",
    "GANTrainer",
    "VAEConfig",
    "VAETrainer",
]
