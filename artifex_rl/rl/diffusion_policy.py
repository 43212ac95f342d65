"""Denoising as a decision process: the policy of a diffusion model, whose every step has a density."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from artifex_rl.diffusion import (
    PREDICTIONS,
    EDMSchedule,
    NoiseSchedule,
    denoising_levels,
    denoising_step,
    per_row,
    predict_x0,
)
from artifex_rl.rl.denoising import DenoisingPolicy, DenoisingSteps, Setting

__all__ = ["DenoisingSteps", "DiffusionPolicy", "Setting"]


class DiffusionPolicy(DenoisingPolicy):
    """Draws a sample by T steps of denoising, and scores each step: the action is the trajectory x_T, …, x₀.

    The state at a step is (x_t, t, label), and the step is drawn from N(μ_θ(x_t, t), σ_t²), see `denoising_step`. A
    final sample has no tractable density; its trajectory does: log p(x_T) + Σ log π(x_{t−1} | x_t). Rewards see
    `outcome(actions)`, the final sample.

    Args:
        denoiser: maps x_t `(B, *shape)`, times `(B,)` and labels `(B,)` to its `prediction`, `(B, *shape)`, as
            `Denoiser` does.
        schedule: the T steps, those that the denoiser was trained with or fewer of them (`schedule.respace`).
        shape: of one sample, such as (8, 8).
        eta: η in (0, 1], how noisy the steps are; 1 is DDPM. At 0 they would be certain, and have no density. It is a
            variable of the model, so that `policy.eta = 0.5` compiles nothing.
        min_std: floor of the steps' standard deviation, > 0, in the unit of the samples. The last step has no other
            noise. A lower one lets that step weigh more, and the ratio of two policies explode.
        guidance: weight of classifier-free guidance, see `guide`; 1 has none, and asks the denoiser once a step.
        critic: called as the denoiser, returns V of each state, `(B,)`, for PPO. None: no values.
        prediction: what the denoiser was trained to say: "x0", "noise", "v" or "edm".
        data_std: σ_d for "edm".

    Raises:
        ValueError: an argument is out of its range.

    Reference: Black et al. (2023), *Training Diffusion Models with Reinforcement Learning*, arXiv:2305.13301,
    section 4.2 (DDPO); Fan et al. (2023), *DPOK*, arXiv:2305.16381, section 4, for the KL of the steps.
    """

    def __init__(
        self,
        denoiser: nnx.Module,
        schedule: NoiseSchedule | EDMSchedule,
        shape: Sequence[int],
        *,
        eta: float = 1.0,
        min_std: float = 0.1,
        guidance: float = 1.0,
        critic: nnx.Module | None = None,
        prediction: str = "x0",
        data_std: float = 0.5,
    ):
        super().__init__(denoiser, shape, min_std, guidance, critic)
        if prediction not in PREDICTIONS:
            raise ValueError(f"prediction: got {prediction!r}, needs {', '.join(map(repr, PREDICTIONS))}")
        self.denoiser, self.schedule, self.prediction, self.data_std = denoiser, schedule, prediction, data_std
        self._eta = Setting(jnp.float32(_check_eta(eta)), check=_check_eta)

    @property
    def network(self) -> nnx.Module:
        """The denoiser."""
        return self.denoiser

    @property
    def eta(self) -> Float[Array, ""]:
        """η of now; a number in (0, 1] may be assigned between steps of training."""
        return self._eta[...]

    @eta.setter
    def eta(self, eta: float) -> None:
        self._eta[...] = jnp.float32(_check_eta(eta))

    def levels(self, dtype: Any = jnp.float32) -> tuple[Array, Array, Array]:
        """ᾱ before, ᾱ after, and the time before each of the T steps."""
        return denoising_levels(self.schedule, dtype)

    def transition(
        self, x: Float[Array, "B *D"], level: tuple[Array, ...], labels: Int[Array, "B"]
    ) -> tuple[Float[Array, "B *D"], Float[Array, "B ..."]]:
        """Mean and standard deviation of a step of denoising."""
        here, there, times = level
        x0 = self.denoise(x, times, labels)
        return denoising_step(x, x0, per_row(here, x), per_row(there, x), self.eta, self.min_std)

    def denoise(
        self, x: Float[Array, "B *D"], times: Float[Array, "B"], labels: Int[Array, "B"]
    ) -> Float[Array, "B *D"]:
        """x̂₀ with guidance."""
        model = self.guided_network()
        return predict_x0(model, x, times, labels, self.schedule, self.prediction, self.data_std)


def _check_eta(eta: ArrayLike) -> ArrayLike:
    if not isinstance(eta, jax.core.Tracer) and not 0 < eta <= 1:
        raise ValueError(f"eta: got {eta}, needs more than 0 and at most 1: without noise a step has no density")
    return eta
