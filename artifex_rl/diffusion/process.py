"""Noising and denoising, one step at a time: the Gaussians of diffusion models, as pure functions.

Noise levels are given as ᾱ in (0, 1], the share of the data's variance that is left: 1 is the data itself. They are
numbers, or arrays that broadcast against the samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from artifex_rl.diffusion.schedules import NoiseSchedule

#: x_t `(B, *D)`, times in [0, 1] `(B,)` and labels `(B,)` to the model's guess of x₀, `(B, *D)`.
Denoise = Callable[[Array, Array, Any], Array]


def add_noise(x0: Float[Array, "*B"], noise: Float[Array, "*B"], alpha_bar: ArrayLike) -> Float[Array, "*B"]:
    """A draw from q(x_t | x₀) = N(√ᾱ_t x₀, (1 − ᾱ_t) I), for noise drawn from N(0, I).

    Reference: Ho, Jain & Abbeel (2020), arXiv:2006.11239, eq. 4.
    """
    alpha_bar = jnp.asarray(alpha_bar, x0.dtype)
    return jnp.sqrt(alpha_bar) * x0 + jnp.sqrt(1 - alpha_bar) * noise


def denoising_step(
    x: Float[Array, "*B"],
    x0: Float[Array, "*B"],
    alpha_bar: ArrayLike,
    next_alpha_bar: ArrayLike,
    eta: ArrayLike = 1.0,
    min_std: ArrayLike = 0.0,
) -> tuple[Float[Array, "*B"], Float[Array, "*B"]]:
    """Mean and standard deviation of the step from x_t to a lower noise level s, N(μ, σ² I).

    With ε̂ = (x_t − √ᾱ_t x̂₀) / √(1 − ᾱ_t), the noise that is left if x̂₀ is right,

        σ = η √((1 − ᾱ_s) / (1 − ᾱ_t)) √(1 − ᾱ_t / ᾱ_s)
        μ = √ᾱ_s x̂₀ + √(1 − ᾱ_s − σ²) ε̂

    Every η leads through the same marginals q(x_s | x₀). η = 1 is DDPM's posterior q(x_s | x_t, x̂₀), η = 0 is DDIM,
    which is deterministic and has no density. The step onto the data (ᾱ_s = 1) has σ = 0 for every η.

    Args:
        x: x_t, of any shape.
        x0: x̂₀, the guess of the data, of the same shape.
        alpha_bar: ᾱ_t, in (0, 1), a number or of a shape that broadcasts against `x`.
        next_alpha_bar: ᾱ_s, in (ᾱ_t, 1], likewise.
        eta: η in [0, 1].
        min_std: floor of σ, so that every step has a density. The marginals are the same with it, as long as it is
            at most √(1 − ᾱ_s); in the step onto the data it is noise that stays.

    Returns:
        μ, of the shape of `x`, and σ, of the shape of the noise levels.

    Reference: Song, Meng & Ermon (2021), arXiv:2010.02502, eqs. 12 and 16; Ho et al. (2020), eqs. 6 and 7.
    """
    here, there, eta, min_std = (jnp.asarray(a, x.dtype) for a in (alpha_bar, next_alpha_bar, eta, min_std))
    noise = (x - jnp.sqrt(here) * x0) / jnp.sqrt(1 - here)
    std = jnp.maximum(eta * jnp.sqrt((1 - there) / (1 - here) * (1 - here / there)), min_std)
    left = jnp.sqrt(jnp.maximum(1 - there - std**2, 0.0))
    return jnp.sqrt(there) * x0 + left * noise, std


def denoise_trajectory(
    denoise: Denoise,
    noise: Float[Array, "B *D"],
    labels: Any,
    schedule: NoiseSchedule,
    key: Array,
    eta: ArrayLike = 1.0,
    min_std: ArrayLike = 0.0,
) -> Float[Array, "B T+1 *D"]:
    """The way from noise to samples, all of it: x_T, x_{T−1}, …, x₀ along the second axis.

    Args:
        denoise: the model; see `Denoise`.
        noise: x_T, drawn from N(0, I).
        labels: passed on to `denoise`.
        schedule: the T steps.
        key: a JAX random key for the noise of the steps.
        eta: η in [0, 1]; see `denoising_step`.
        min_std: floor of the steps' standard deviations.
    """

    def transition(x, level):
        alpha_bar, next_alpha_bar, time = level
        x0 = denoise(x, jnp.full(len(x), time), labels)
        return denoising_step(x, x0, alpha_bar, next_alpha_bar, eta, min_std)

    return walk(transition, noise, denoising_levels(schedule, noise.dtype), key)


def walk(
    transition: Callable[[Array, Any], tuple[Array, Array]], start: Float[Array, "B *D"], levels: Any, key: Array
) -> Float[Array, "B T+1 *D"]:
    """A trajectory of T Gaussian steps, its start included, along the second axis.

    Args:
        transition: where a trajectory is and what is known of the step, to the mean of the next and its standard
            deviation.
        start: where it begins.
        levels: arrays whose first axis is T: what is known of each step.
        key: a JAX random key.
    """

    def step(x, now):
        level, key = now
        mean, std = transition(x, level)
        x = mean + std * jax.random.normal(key, x.shape, x.dtype)
        return x, x

    keys = jax.random.split(key, len(jax.tree.leaves(levels)[0]))
    _, path = jax.lax.scan(step, start, (levels, keys))
    return jnp.moveaxis(jnp.concatenate([start[None], path]), 0, 1)


def denoising_levels(schedule: NoiseSchedule, dtype: Any = jnp.float32) -> tuple[Array, Array, Array]:
    """ᾱ before, ᾱ after, and the time before each of the T steps from noise to data, each `(T,)`."""
    alpha_bars, times = (np.array(x[::-1]) for x in (schedule.alpha_bars, schedule.times))
    return tuple(jnp.asarray(x, dtype) for x in (alpha_bars[:-1], alpha_bars[1:], times[:-1]))


def drop_labels(labels: Int[Array, "B"], none: int, rate: ArrayLike, key: Array) -> Int[Array, "B"]:
    """Each label replaced by `none` with probability `rate`: a model trained so knows how to do without.

    Reference: Ho & Salimans (2022), *Classifier-Free Diffusion Guidance*, arXiv:2207.12598, algorithm 1.
    """
    dropped = jax.random.uniform(key, labels.shape) < jnp.asarray(rate, jnp.float32)
    return jnp.where(dropped, jnp.asarray(none, labels.dtype), labels)


def guide(
    conditional: Float[Array, "*B"], unconditional: Float[Array, "*B"], weight: ArrayLike
) -> Float[Array, "*B"]:
    """u + w (c − u): 0 ignores the label, 1 is the model as trained, more than 1 exaggerates what the label changes.

    Reference: Ho & Salimans (2022), arXiv:2207.12598, eq. 6, with w here being 1 + w there.
    """
    return unconditional + jnp.asarray(weight, conditional.dtype) * (conditional - unconditional)


def guided(model: Denoise, weight: ArrayLike) -> Denoise:
    """The model, with what it says guided by the label; it is asked twice, with its label and with None."""
    return lambda x, times, labels: guide(model(x, times, labels), model(x, times, None), weight)


def per_row(numbers: Float[Array, "B"], x: Float[Array, "B *D"]) -> Float[Array, "B ..."]:
    """One number for each row of `x`, in as many axes."""
    return jnp.asarray(numbers, x.dtype).reshape(-1, *[1] * (x.ndim - 1))
