"""Denoising as a decision process: the policy of a diffusion model, whose every step has a density."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from artifex_rl.diffusion import NoiseSchedule, denoise_trajectory, denoising_levels, denoising_step, guide
from artifex_rl.rl.distributions import DiagonalGaussian
from artifex_rl.rl.policies import Evaluation


class Setting(nnx.Variable):
    """A number of a policy that is set, not learnt: an optimizer with `wrt=nnx.Param` leaves it as it is."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DenoisingSteps(DiagonalGaussian):
    """The Gaussians of all T steps of a trajectory; one action of this distribution is the whole trajectory.

    `mean` is `(B, T, *D)`, where each step goes from where the trajectory was. Log-probability, entropy and KL are
    `(B, T)`, summed over D.
    """

    def log_prob(self, actions: Float[Array, "B T+1 *D"]) -> Float[Array, "B T"]:
        """Log-density of each step of trajectories; x_T itself is drawn from N(0, I) by every policy and left out."""
        return super().log_prob(actions[:, 1:])

    def check_actions(self, actions: np.ndarray) -> None:
        super().check_actions(actions[:, 1:])


class DiffusionPolicy(nnx.Module):
    """Draws a sample by T steps of denoising, and scores each step: the action is the trajectory x_T, …, x₀.

    The state at a step is (x_t, t, label), and the step is drawn from N(μ_θ(x_t, t), σ_t²), see `denoising_step`. A
    final sample has no tractable density; its trajectory does: log p(x_T) + Σ log π(x_{t−1} | x_t). Rewards see
    `outcome(actions)`, the final sample.

    Args:
        denoiser: maps x_t `(B, *shape)`, times `(B,)` and labels `(B,)` to x̂₀ `(B, *shape)`, as `Denoiser` does.
        schedule: the T steps, those that the denoiser was trained with or fewer of them (`schedule.respace`).
        shape: of one sample, such as (8, 8).
        eta: η in (0, 1], how noisy the steps are; 1 is DDPM. At 0 they would be certain, and have no density. It is a
            variable of the model, so that `policy.eta = 0.5` compiles nothing.
        min_std: floor of the steps' standard deviation, > 0, in the unit of the samples. The last step has no other
            noise. A lower one lets that step weigh more, and the ratio of two policies explode.
        guidance: weight of classifier-free guidance, see `guide`; 1 has none, and asks the denoiser once a step.
        critic: called as the denoiser, returns V of each state, `(B,)`, for PPO. None: no values.

    Raises:
        ValueError: a number is out of its range.

    Reference: Black et al. (2023), *Training Diffusion Models with Reinforcement Learning*, arXiv:2305.13301,
    section 4.2 (DDPO); Fan et al. (2023), *DPOK*, arXiv:2305.16381, section 4, for the KL of the steps.
    """

    sequential = True

    def __init__(
        self,
        denoiser: nnx.Module,
        schedule: NoiseSchedule,
        shape: Sequence[int],
        *,
        eta: float = 1.0,
        min_std: float = 0.1,
        guidance: float = 1.0,
        critic: nnx.Module | None = None,
    ):
        if not min_std > 0 or not math.isfinite(min_std) or not math.isfinite(guidance):
            raise ValueError(f"got min_std={min_std}, guidance={guidance}; needs more than 0, and a finite number")
        self.denoiser, self.critic, self.schedule, self.shape = denoiser, critic, schedule, tuple(shape)
        self.min_std, self.guidance = min_std, guidance
        self._eta = Setting(jnp.float32(_check_eta(eta)))

    @property
    def eta(self) -> Float[Array, ""]:
        """η of now; a number in (0, 1] may be assigned between steps of training."""
        return self._eta[...]

    @eta.setter
    def eta(self, eta: float) -> None:
        self._eta[...] = jnp.float32(_check_eta(eta))

    def outcome(self, actions: Float[Array, "B T+1 *D"]) -> Float[Array, "B *D"]:
        """What a reward sees of trajectories: the samples in which they end."""
        return actions[:, -1]

    def sample(
        self, observations: Int[Array, "B"], key: Array
    ) -> tuple[Float[Array, "B T+1 *D"], Float[Array, "B T"]]:
        """Trajectories for a batch of labels, and the log-probabilities of their steps."""
        labels = jnp.asarray(observations)
        start_key, key = jax.random.split(key)
        start = jax.random.normal(start_key, (len(labels), *self.shape))
        actions = denoise_trajectory(self.denoise, start, labels, self.schedule, key, self.eta, self.min_std)
        # Scored as it will be in training, in one pass over all steps, so that the first ratio is exactly 1.
        return actions, self.evaluate(labels, actions).log_probs

    def evaluate(
        self, observations: Int[Array, "B"], actions: Float[Array, "B T+1 *D"], mask: Bool[Array, "B T"] | None = None
    ) -> Evaluation:
        """Score trajectories in one pass of the denoiser over all their steps. None as mask: every step counts."""
        labels, actions = jnp.asarray(observations), jnp.asarray(actions)
        rows, steps = len(labels), self.schedule.num_steps
        needed = rows, steps + 1, *self.shape
        if actions.shape != needed:
            raise ValueError(f"actions: got shape {actions.shape}, needs {needed}: x_T, …, x_0 of each label")
        here, there, times = (x[None] for x in denoising_levels(self.schedule, actions.dtype))
        flat = actions[:, :-1].reshape(rows * steps, *self.shape)
        context = jnp.broadcast_to(times, (rows, steps)).reshape(-1), jnp.repeat(labels, steps)
        x0 = self.denoise(flat, *context).reshape(actions[:, :-1].shape)
        values = None if self.critic is None else self.critic(flat, *context).reshape(rows, steps)

        level = (1, steps, *[1] * len(self.shape))
        levels = here.reshape(level), there.reshape(level)
        mean, std = denoising_step(actions[:, :-1], x0, *levels, self.eta, self.min_std)
        log_std = jnp.broadcast_to(jnp.log(std[0]), mean.shape[1:])
        distribution = DenoisingSteps(mean, log_std, event_ndim=len(self.shape))
        log_probs, entropy = distribution.log_prob(actions), distribution.entropy()
        if mask is not None:
            log_probs, entropy = (jnp.where(mask, x, 0.0) for x in (log_probs, entropy))
        return Evaluation(log_probs, entropy, values, mask, distribution)

    def denoise(
        self, x: Float[Array, "B *D"], times: Float[Array, "B"], labels: Int[Array, "B"]
    ) -> Float[Array, "B *D"]:
        """x̂₀ with guidance."""
        x0 = self.denoiser(x, times, labels)
        return x0 if self.guidance == 1 else guide(x0, self.denoiser(x, times, None), self.guidance)


def _check_eta(eta: ArrayLike) -> ArrayLike:
    if not isinstance(eta, jax.core.Tracer) and not 0 < eta <= 1:
        raise ValueError(f"eta: got {eta}, needs more than 0 and at most 1: without noise a step has no density")
    return eta
