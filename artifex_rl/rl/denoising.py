"""What the policies of diffusion, flow and energy models share: T Gaussian steps, each of which has a density."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from artifex_rl.diffusion import guided, walk
from artifex_rl.rl.distributions import DiagonalGaussian
from artifex_rl.rl.policies import Evaluation


class Setting(nnx.Variable):
    """A number of a policy that is set, not learnt: an optimizer with `wrt=nnx.Param` leaves it as it is.

    Under `check` its metadata may hold a function that raises a ValueError for what it cannot be; a panel then has a
    slider for it.
    """


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DenoisingSteps(DiagonalGaussian):
    """The Gaussians of all T steps of a trajectory; one action of this distribution is the whole trajectory.

    `mean` is `(B, T, *D)`, where each step goes from where the trajectory was. Log-probability, entropy and KL are
    `(B, T)`, summed over D.
    """

    def log_prob(self, actions: Float[Array, "B T+1 *D"]) -> Float[Array, "B T"]:
        """Log-density of each step of trajectories; where they begin is no choice of the policy, and left out."""
        return super().log_prob(actions[:, 1:])

    def check_actions(self, actions: np.ndarray) -> None:
        super().check_actions(actions[:, 1:])


class TrajectoryPolicy(nnx.Module):
    """Draws a sample by T Gaussian steps, and scores each of them: the action is the whole trajectory.

    Rewards see `outcome(actions)`, the sample in which it ends.

    Args:
        shape: of one sample, such as (8, 8).
        critic: called with samples `(B, *shape)`, the times of their steps `(B,)` and observations; returns V of each
            state, `(B,)`, for PPO. None: no values.
    """

    sequential = True

    def __init__(self, shape: Sequence[int], critic: nnx.Module | None):
        self.shape, self.critic = tuple(shape), critic

    # What a subclass writes

    @abc.abstractmethod
    def levels(self, dtype: Any = jnp.float32) -> tuple[Array, ...]:
        """What is known of each step, arrays `(T,)`; the last of them is the time that a critic is told."""

    @abc.abstractmethod
    def begin(self, observations: Array, key: Array) -> Float[Array, "B *D"]:
        """Where trajectories for a batch of observations begin."""

    @abc.abstractmethod
    def transition(
        self, x: Float[Array, "B *D"], level: tuple[Array, ...], observations: Array
    ) -> tuple[Float[Array, "B *D"], Float[Array, "B ..."]]:
        """Mean of the step from x, and its standard deviation, in as many axes; `level` has `(B,)` numbers each."""

    # What a user calls

    def outcome(self, actions: Float[Array, "B T+1 *D"]) -> Float[Array, "B *D"]:
        """What a reward sees of trajectories: the samples in which they end."""
        return actions[:, -1]

    def sample(self, observations: Array, key: Array) -> tuple[Float[Array, "B T+1 *D"], Float[Array, "B T"]]:
        """Trajectories for a batch of observations, and the log-probabilities of their steps."""
        observations = jnp.asarray(observations)
        start_key, key = jax.random.split(key)
        start = self.begin(observations, start_key)

        def transition(x, level):
            return self.transition(x, tuple(jnp.full(len(x), number) for number in level), observations)

        actions = walk(transition, start, self.levels(start.dtype), key)
        # Scored as it will be in training, in one pass over all steps, so that the first ratio is exactly 1.
        return actions, self.evaluate(observations, actions).log_probs

    def evaluate(
        self, observations: Array, actions: Float[Array, "B T+1 *D"], mask: Bool[Array, "B T"] | None = None
    ) -> Evaluation:
        """Score trajectories in one pass of the network over all their steps. None as mask: every step counts."""
        observations, actions = jnp.asarray(observations), jnp.asarray(actions)
        levels = self.levels(actions.dtype)
        rows, steps = len(observations), len(levels[0])
        needed = rows, steps + 1, *self.shape
        if actions.shape != needed:
            raise ValueError(f"actions: got shape {actions.shape}, needs {needed}: x_T, …, x_0 of each observation")
        flat, told = actions[:, :-1].reshape(rows * steps, *self.shape), jnp.repeat(observations, steps, axis=0)
        levels = tuple(jnp.tile(level, rows) for level in levels)
        mean, std = self.transition(flat, levels, told)
        values = None if self.critic is None else self.critic(flat, levels[-1], told).reshape(rows, steps)

        mean = mean.reshape(rows, steps, *self.shape)
        log_std = jnp.broadcast_to(jnp.log(std[:steps]), mean.shape[1:])  # the same in every row
        distribution = DenoisingSteps(mean, log_std, event_ndim=len(self.shape))
        log_probs, entropy = distribution.log_prob(actions), distribution.entropy()
        if mask is not None:
            log_probs, entropy = (jnp.where(mask, x, 0.0) for x in (log_probs, entropy))
        return Evaluation(log_probs, entropy, values, mask, distribution)


class DenoisingPolicy(TrajectoryPolicy):
    """A trajectory from noise to data, of a network that is told times and labels: the observations are labels.

    A final sample has no tractable density; its trajectory does: that of the noise, and of each step. The policy is
    also called as its network is, so that a trainer of diffusion or flow models trains it before a trainer of
    policies does.

    Args:
        network: called with x `(B, *shape)`, times `(B,)` and labels `(B,)` or None; answers in the shape of x.
        shape: of one sample, such as (8, 8).
        min_std: floor of the steps' standard deviation, > 0, in the unit of the samples. The last step has no other
            noise. A lower one lets that step weigh more, and the ratio of two policies explode.
        guidance: weight of classifier-free guidance, see `guide`; 1 has none, and asks the network once a step.
        critic: called as the network, returns V of each state, `(B,)`, for PPO. None: no values.

    Raises:
        ValueError: a number is out of its range.

    Reference: Black et al. (2023), *Training Diffusion Models with Reinforcement Learning*, arXiv:2305.13301,
    section 4.2 (DDPO).
    """

    def __init__(
        self,
        network: nnx.Module,
        shape: Sequence[int],
        min_std: float,
        guidance: float,
        critic: nnx.Module | None,
    ):
        if not min_std > 0 or not math.isfinite(min_std) or not math.isfinite(guidance):
            raise ValueError(f"got min_std={min_std}, guidance={guidance}; needs more than 0, and a finite number")
        super().__init__(shape, critic)
        self.num_classes = getattr(network, "num_classes", None)
        self.min_std, self.guidance = min_std, guidance

    @property
    @abc.abstractmethod
    def network(self) -> nnx.Module:
        """What is trained."""

    def __call__(
        self, x: Float[Array, "B *D"], times: Float[Array, "B"], labels: Int[Array, "B"] | None = None
    ) -> Float[Array, "B *D"]:
        """What the network says, without guidance."""
        return self.network(x, times, labels)

    def begin(self, observations: Int[Array, "B"], key: Array) -> Float[Array, "B *D"]:
        """Noise from N(0, I), one for each label."""
        return jax.random.normal(key, (len(observations), *self.shape))

    def guided_network(self) -> Any:
        """The network, guided if `guidance` is not 1."""
        return self.network if self.guidance == 1 else guided(self.network, self.guidance)
