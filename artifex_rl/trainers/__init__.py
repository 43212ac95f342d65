"""Trainers of generative models, one file a family; their trained models are policies for `artifex_rl.rl`."""

from artifex_rl.trainers.vae import VAEConfig, VAETrainer

__all__ = ["VAEConfig", "VAETrainer"]
