"""A flow as a decision process: the SDE with the flow's marginals, whose every step has a density."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from artifex_rl.diffusion import per_row
from artifex_rl.generative.flow import flow_step
from artifex_rl.generative.ode import integrate
from artifex_rl.rl.denoising import DenoisingPolicy, Setting


class FlowPolicy(DenoisingPolicy):
    """Draws a sample by T steps of an SDE, and scores each step: the action is the trajectory from noise to data.

    A flow's own steps are certain, and have no density. The SDE has the same marginals, see `flow_step`: with many
    steps its samples are spread as the ODE's, and what it learns serves the ODE, which `deploy` follows. Rewards see
    `outcome(actions)`, the final sample.

    Args:
        velocity: maps x_t `(B, *shape)`, times `(B,)` from 0, noise, to 1, data, and labels `(B,)` to velocities
            `(B, *shape)`, as a network that `FlowTrainer` trained does.
        num_steps: T ≥ 1.
        shape: of one sample, such as (8, 8).
        noise_level: a > 0, how noisy the steps are; Flow-GRPO has 0.7. Above 1, few steps are too coarse for it. It
            is a variable of the model, so that `policy.noise_level = 0.5` compiles nothing.
        min_std: floor of the steps' standard deviation, > 0, in the unit of the samples. The last steps have little
            other noise. A lower one lets them weigh more, and the ratio of two policies explode.
        guidance: weight of classifier-free guidance, see `guide`; 1 has none, and asks the network once a step.
        critic: called as the network, returns V of each state, `(B,)`, for PPO. None: no values.

    Raises:
        ValueError: an argument is out of its range.

    Reference: Liu et al. (2025), *Flow-GRPO*, arXiv:2505.05470, section 4.
    """

    def __init__(
        self,
        velocity: nnx.Module,
        num_steps: int,
        shape: Sequence[int],
        *,
        noise_level: float = 0.7,
        min_std: float = 0.1,
        guidance: float = 1.0,
        critic: nnx.Module | None = None,
    ):
        super().__init__(velocity, shape, min_std, guidance, critic)
        if isinstance(num_steps, bool) or not isinstance(num_steps, Integral) or num_steps < 1:
            raise ValueError(f"num_steps: got {num_steps!r}, needs an integer of at least 1")
        self.velocity, self.num_steps = velocity, int(num_steps)
        self._noise_level = Setting(jnp.float32(_check_noise_level(noise_level)), check=_check_noise_level)

    @property
    def network(self) -> nnx.Module:
        """The network of velocities."""
        return self.velocity

    @property
    def noise_level(self) -> Float[Array, ""]:
        """a of now; a number of more than 0 may be assigned between steps of training."""
        return self._noise_level[...]

    @noise_level.setter
    def noise_level(self, noise_level: float) -> None:
        self._noise_level[...] = jnp.float32(_check_noise_level(noise_level))

    def levels(self, dtype: Any = jnp.float32) -> tuple[Array]:
        """The time before each of the T steps."""
        return (jnp.arange(self.num_steps, dtype=dtype) / self.num_steps,)

    def transition(
        self, x: Float[Array, "B *D"], level: tuple[Array], labels: Int[Array, "B"]
    ) -> tuple[Float[Array, "B *D"], Float[Array, "B ..."]]:
        """Mean and standard deviation of a step of the SDE."""
        (times,) = level
        velocity = self.guided_network()(x, times, labels)
        return flow_step(x, velocity, per_row(times, x), 1 / self.num_steps, self.noise_level, self.min_std)

    def deploy(
        self, observations: Int[Array, "B"], key: Array, num_steps: int | None = None, method: str = "heun"
    ) -> Float[Array, "B *D"]:
        """Samples by the ODE: no noise but that of the start.

        Args:
            observations: labels.
            key: a JAX random key.
            num_steps: None: T.
            method: "heun" or "euler".
        """
        labels = jnp.asarray(observations)
        start = jax.random.normal(key, (len(labels), *self.shape))
        model, times = self.guided_network(), jnp.linspace(0.0, 1.0, (num_steps or self.num_steps) + 1)
        return integrate(lambda x, time: model(x, jnp.full(len(x), time), labels), start, times, method)


def _check_noise_level(noise_level: ArrayLike) -> ArrayLike:
    if not isinstance(noise_level, jax.core.Tracer) and not 0 < noise_level < math.inf:
        raise ValueError(
            f"noise_level: got {noise_level}, needs a number of more than 0: without noise a step has no density"
        )
    return noise_level
