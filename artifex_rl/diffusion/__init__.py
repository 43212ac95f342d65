"""The mathematics of diffusion models: noise schedules, and steps of noising and denoising; no network, no state."""

from artifex_rl.diffusion.process import (
    add_noise,
    compute_x0_loss,
    denoise_trajectory,
    denoising_levels,
    denoising_step,
    drop_labels,
    guide,
)
from artifex_rl.diffusion.schedules import NoiseSchedule, cosine_schedule, linear_schedule

__all__ = [
    "NoiseSchedule",
    "add_noise",
    "compute_x0_loss",
    "cosine_schedule",
    "denoise_trajectory",
    "denoising_levels",
    "denoising_step",
    "drop_labels",
    "guide",
    "linear_schedule",
]
