"""Noise schedules: how much of the data is left after t of T steps of noising."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

MAX_BETA = 0.999  # Nichol & Dhariwal, section 3.2: a step that kept nothing at all could not be undone


@dataclass(frozen=True)
class NoiseSchedule:
    """ᾱ₀ … ᾱ_T, from the data at t = 0 to noise at t = T: x_t = √ᾱ_t x₀ + √(1 − ᾱ_t) ε.

    Plain numbers, so that it can be hashed: a schedule is a static part of a model, known to compiled code.

    Args:
        alpha_bars: T + 1 numbers that fall from 1, all above 0.
        times: what the network is told of each step, rising from 0 to 1. None: t / T.

    Raises:
        ValueError: there is no step, or the numbers are out of range or order.
    """

    alpha_bars: tuple[float, ...]
    times: tuple[float, ...] | None = None

    def __post_init__(self):
        alpha_bars = tuple(float(a) for a in self.alpha_bars)
        steps = len(alpha_bars) - 1
        times = tuple(t / max(steps, 1) for t in range(steps + 1)) if self.times is None else self.times
        times = tuple(float(t) for t in times)
        if steps < 1 or alpha_bars[0] != 1 or alpha_bars[-1] <= 0 or not _rising([-a for a in alpha_bars]):
            raise ValueError("alpha_bars: needs at least two numbers that fall from 1 and stay above 0")
        if len(times) != steps + 1 or times[0] != 0 or times[-1] != 1 or not _rising(times):
            raise ValueError(f"times: needs {steps + 1} numbers that rise from 0 to 1")
        object.__setattr__(self, "alpha_bars", alpha_bars)
        object.__setattr__(self, "times", times)

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.alpha_bars) - 1

    def respace(self, num_steps: int) -> NoiseSchedule:
        """Fewer steps through the same noise levels, evenly spread: a model takes them without being trained again.

        Raises:
            ValueError: `num_steps` is not an integer from 1 to T.

        Reference: Song, Meng & Ermon (2021), *Denoising Diffusion Implicit Models*, arXiv:2010.02502, section 4.2.
        """
        if not isinstance(num_steps, Integral) or not 1 <= num_steps <= self.num_steps:
            raise ValueError(f"num_steps: got {num_steps!r}, needs an integer from 1 to {self.num_steps}")
        kept = [round(i * self.num_steps / num_steps) for i in range(num_steps + 1)]
        return NoiseSchedule(tuple(self.alpha_bars[i] for i in kept), tuple(self.times[i] for i in kept))

    def alpha_bar_at(self, times: ArrayLike) -> Float[Array, "*B"]:
        """ᾱ at times in [0, 1]: that of the step, and between two steps a straight line."""
        times = jnp.asarray(times)
        return jnp.interp(times, *(jnp.asarray(x, times.dtype) for x in (self.times, self.alpha_bars)))

    def draw(self, key: Array, num: int, dtype: jnp.dtype = jnp.float32) -> tuple[Array, Array]:
        """ᾱ and times to train at, each `(num,)`: of steps drawn evenly from 1 … T."""
        steps = jax.random.randint(key, (num,), 1, self.num_steps + 1)
        return tuple(jnp.asarray(x, dtype)[steps] for x in (self.alpha_bars, self.times))


def cosine_schedule(num_steps: int, offset: float = 0.008) -> NoiseSchedule:
    """ᾱ_t = f(t) / f(0), f(t) = cos²((t/T + s) / (1 + s) · π/2): no step adds much more noise than another.

    Args:
        num_steps: T ≥ 1.
        offset: s ≥ 0, which keeps the first steps from being too small to learn.

    Raises:
        ValueError: an argument is out of its range.

    Reference: Nichol & Dhariwal (2021), *Improved Denoising Diffusion Probabilistic Models*, arXiv:2102.09672,
    eq. 17; βₜ = 1 − ᾱₜ / ᾱₜ₋₁ is at most 0.999, as there.
    """
    if not offset >= 0 or math.isinf(offset):
        raise ValueError(f"offset: got {offset}, needs a number of at least 0")

    def remaining(t):
        return math.cos((t / num_steps + offset) / (1 + offset) * math.pi / 2) ** 2

    return _from_betas(num_steps, lambda t: 1 - remaining(t) / remaining(t - 1))


def linear_schedule(num_steps: int, first: float = 1e-4, last: float = 0.02) -> NoiseSchedule:
    """βₜ rises evenly, ᾱ_t = Π (1 − β). The two ends are those of 1000 steps, and are scaled by 1000 / T for others.

    Args:
        num_steps: T ≥ 1.
        first: β₁ of 1000 steps, in (0, 1).
        last: β of the last of 1000 steps, in (0, 1), no less than `first`.

    Raises:
        ValueError: an argument is out of its range.

    Reference: Ho, Jain & Abbeel (2020), *Denoising Diffusion Probabilistic Models*, arXiv:2006.11239, section 4. The
    scaling keeps ᾱ at a given t/T about the same (Nichol & Dhariwal's code does it too); βₜ is at most 0.999.
    """
    if not 0 < first <= last < 1:
        raise ValueError(f"first and last: got {first} and {last}, needs 0 < first <= last < 1")

    def beta(t):
        share = (t - 1) / (num_steps - 1) if num_steps > 1 else 1.0
        return 1000 / num_steps * (first + (last - first) * share)

    return _from_betas(num_steps, beta)


def _from_betas(num_steps: int, beta: Callable[[int], float]) -> NoiseSchedule:
    if not isinstance(num_steps, Integral) or num_steps < 1:
        raise ValueError(f"num_steps: got {num_steps!r}, needs an integer of at least 1")
    alpha_bars = [1.0]
    for t in range(1, num_steps + 1):
        alpha_bars.append(alpha_bars[-1] * (1 - min(beta(t), MAX_BETA)))
    return NoiseSchedule(tuple(alpha_bars))


def _rising(numbers) -> bool:
    return all(a < b for a, b in itertools.pairwise(numbers))
