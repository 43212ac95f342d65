"""From noise to samples without chance on the way: the probability-flow ODE of a diffusion model."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from artifex_rl.diffusion.edm import EDMSchedule
from artifex_rl.diffusion.process import Denoise
from artifex_rl.diffusion.schedules import NoiseSchedule
from artifex_rl.generative.ode import integrate


def follow_probability_flow(
    denoise: Denoise,
    noise: Float[Array, "B *D"],
    labels: Any,
    schedule: NoiseSchedule | EDMSchedule,
    method: str = "heun",
) -> Float[Array, "B *D"]:
    """The ODE whose marginals are those of the diffusion, in y = x/√ᾱ and σ = √(1 − ᾱ)/√ᾱ: dy/dσ = (y − x̂₀)/σ.

    Euler's method is DDIM with η = 0. Heun's is EDM's sampler: of second order, at two calls of the model a step. The
    step onto the data goes to x̂₀ by either.

    Args:
        denoise: the model; see `Denoise`.
        noise: x_T, drawn from N(0, I).
        labels: passed on to `denoise`.
        schedule: the T steps.
        method: "heun" or "euler".

    Raises:
        ValueError: `method` has no such name.

    Reference: Karras et al. (2022), arXiv:2206.00364, algorithm 1; Song, Meng & Ermon (2021), arXiv:2010.02502,
    eq. 14.
    """
    levels, clock = (np.array(x[1:]) for x in (schedule.alpha_bars, schedule.times))
    sigmas, clock = (jnp.asarray(x, noise.dtype) for x in (np.sqrt((1 - levels) / levels), clock))

    def guess(y, sigma):
        time = jnp.interp(sigma, sigmas, clock)
        return denoise(y / jnp.sqrt(1 + sigma**2), jnp.full(len(y), time), labels)

    start = noise * jnp.sqrt(1 + sigmas[-1] ** 2)
    y = integrate(lambda y, sigma: (y - guess(y, sigma)) / sigma, start, sigmas[::-1], method)
    return guess(y, sigmas[0])
