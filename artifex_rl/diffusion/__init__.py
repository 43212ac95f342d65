"""The mathematics of diffusion models: noise levels, steps of noising and denoising, losses; no network, no state."""

from artifex_rl.diffusion.edm import EDMSchedule, Preconditioning, edm_weight, preconditioning
from artifex_rl.diffusion.predictions import (
    PREDICTIONS,
    compute_diffusion_loss,
    compute_x0_loss,
    convert_prediction,
    min_snr_weight,
    predict_x0,
    prediction_coefficients,
)
from artifex_rl.diffusion.process import (
    add_noise,
    denoise_trajectory,
    denoising_levels,
    denoising_step,
    drop_labels,
    guide,
    guided,
    per_row,
    walk,
)
from artifex_rl.diffusion.samplers import follow_probability_flow
from artifex_rl.diffusion.schedules import NoiseSchedule, cosine_schedule, linear_schedule

__all__ = [
    "PREDICTIONS",
    "EDMSchedule",
    "NoiseSchedule",
    "Preconditioning",
    "add_noise",
    "compute_diffusion_loss",
    "compute_x0_loss",
    "convert_prediction",
    "cosine_schedule",
    "denoise_trajectory",
    "denoising_levels",
    "denoising_step",
    "drop_labels",
    "edm_weight",
    "follow_probability_flow",
    "guide",
    "guided",
    "linear_schedule",
    "min_snr_weight",
    "per_row",
    "preconditioning",
    "predict_x0",
    "prediction_coefficients",
    "walk",
]
