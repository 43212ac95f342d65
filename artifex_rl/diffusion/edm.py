"""EDM: noise levels, preconditioning and weights, as Karras et al. chose them after asking what each is for.

Noise is given as σ here, in the unit of the data: y = x₀ + σ ε. It is what diffusion calls ᾱ = 1 / (1 + σ²), with
x_t = y / √(1 + σ²) = √ᾱ x₀ + √(1 − ᾱ) ε; so its levels are a schedule as any other.

Reference: Karras, Aittala, Aila & Laine (2022), *Elucidating the Design Space of Diffusion-Based Generative Models*,
arXiv:2206.00364, table 1 and section 5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from numbers import Integral
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float


@dataclass(frozen=True)
class EDMSchedule:
    """σ falls from `sigma_max` to `sigma_min`, evenly in σ^(1/ρ), and then to 0; training draws log σ from a normal.

    Used where a `NoiseSchedule` is. Times are log σ, 0 at `sigma_min` and 1 at `sigma_max`. Networks with
    `prediction="edm"` are told c_noise in their place, see `preconditioning`.

    Args:
        num_steps: T ≥ 1 steps of sampling; training knows no steps, so that any number may follow it.
        sigma_min: the last level before the data, > 0, in the unit of the data.
        sigma_max: the first, more than `sigma_min`, and many times the data's spread.
        rho: ρ > 0; a larger one spends more steps on little noise.
        log_mean: mean of log σ in training.
        log_std: standard deviation of log σ in training, > 0.

    Raises:
        ValueError: an argument is out of its range.

    Reference: eq. 5, and table 1 for the defaults.
    """

    num_steps: int = 18
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    log_mean: float = -1.2
    log_std: float = 1.2

    def __post_init__(self):
        if isinstance(self.num_steps, bool) or not isinstance(self.num_steps, Integral) or self.num_steps < 1:
            raise ValueError(f"num_steps: got {self.num_steps!r}, needs an integer of at least 1")
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(
                f"sigma_min and sigma_max: got {self.sigma_min} and {self.sigma_max}, needs 0 < sigma_min < sigma_max"
            )
        if not 0 < self.rho < math.inf or not 0 < self.log_std < math.inf or not math.isfinite(self.log_mean):
            raise ValueError(
                f"rho, log_mean and log_std: got {self.rho}, {self.log_mean} and {self.log_std}, needs finite "
                f"numbers, rho and log_std of more than 0"
            )

    @property
    def sigmas(self) -> tuple[float, ...]:
        """σ from the data's 0 to `sigma_max`, T + 1 of them."""
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        shares = [i / max(self.num_steps - 1, 1) for i in range(self.num_steps)]
        return 0.0, *((high + share * (low - high)) ** self.rho for share in reversed(shares))

    @property
    def alpha_bars(self) -> tuple[float, ...]:
        """ᾱ₀ = 1 … ᾱ_T."""
        return tuple(1 / (1 + sigma**2) for sigma in self.sigmas)

    @property
    def times(self) -> tuple[float, ...]:
        """Times of those levels; that of the data, which no network is asked about, is 0."""
        return 0.0, *(math.log(sigma / self.sigma_min) / self._log_range for sigma in self.sigmas[1:])

    def respace(self, num_steps: int) -> EDMSchedule:
        """Another number of steps, through levels of their own."""
        return replace(self, num_steps=num_steps)

    def alpha_bar_at(self, times: ArrayLike) -> Float[Array, "*B"]:
        """ᾱ at times in [0, 1]."""
        return 1 / (1 + jnp.exp(2 * (math.log(self.sigma_min) + self._log_range * jnp.asarray(times))))

    def draw(self, key: Array, num: int, dtype: jnp.dtype = jnp.float32) -> tuple[Array, Array]:
        """ᾱ and times to train at, each `(num,)`: log σ ~ N(log_mean, log_std²)."""
        log_sigma = self.log_mean + self.log_std * jax.random.normal(key, (num,), dtype)
        return 1 / (1 + jnp.exp(2 * log_sigma)), (log_sigma - math.log(self.sigma_min)) / self._log_range

    @property
    def _log_range(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)


class Preconditioning(NamedTuple):
    """D(y; σ) = c_skip y + c_out F(c_in y; c_noise), where F is the network."""

    c_skip: Array
    c_out: Array
    c_in: Array
    c_noise: Array


def preconditioning(sigma: ArrayLike, data_std: ArrayLike = 0.5) -> Preconditioning:
    """How a network F becomes a denoiser D: what goes in and what is to come out have variance 1 at every σ.

        c_skip = σ_d² / (σ² + σ_d²)      c_out = σ σ_d / √(σ² + σ_d²)
        c_in = 1 / √(σ² + σ_d²)          c_noise = ¼ log σ

    Args:
        sigma: σ > 0.
        data_std: σ_d > 0, the data's standard deviation.

    Reference: table 1, and appendix B.6 for why.
    """
    sigma = jnp.asarray(sigma)
    data_std = jnp.asarray(data_std, sigma.dtype)
    length = jnp.sqrt(sigma**2 + data_std**2)
    return Preconditioning(data_std**2 / length**2, sigma * data_std / length, 1 / length, jnp.log(sigma) / 4)


def edm_weight(sigma: ArrayLike, data_std: ArrayLike = 0.5) -> Float[Array, "*B"]:
    """λ(σ) = (σ² + σ_d²) / (σ σ_d)² = 1 / c_out²: with it on ‖D − x₀‖², every σ weighs 1 on the network's own error.

    Reference: table 1.
    """
    return 1 / preconditioning(sigma, data_std).c_out ** 2
