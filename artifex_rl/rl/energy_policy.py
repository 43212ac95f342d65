"""An energy as a decision process: a Langevin walk on it, whose every step has a density."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from artifex_rl.diffusion import per_row
from artifex_rl.generative.energy import langevin_step
from artifex_rl.rl.denoising import TrajectoryPolicy
from artifex_rl.rl.energy_walks import WalkingPolicy, frozen_energy


class EnergyPolicy(WalkingPolicy, TrajectoryPolicy):
    """Draws a sample by T steps of unadjusted Langevin dynamics, and scores each step: the action is the whole walk.

    A sample of p ∝ exp(−E/τ) has a density that nobody can normalise. A step of the walk is drawn from
    N(x − η ∇E(x), 2 η τ I), which has one. It depends on the weights through the slope of E alone, so that training
    takes second derivatives: an energy of ReLUs bends nowhere. The energy is asked in its evaluation mode, and
    nothing of it changes. Rewards see `outcome(actions)`, where the walk ends.

    Observations say where walks begin, `(B, *shape)`: in samples, say, from which they go on, and which the samples
    of a group share. Observations `(B,)`, whatever they are, have walks begin anew, see `begin_walks`.

    The bounds are the world's and not the policy's: a step is stored as it was drawn, and scored as that; what is
    beyond `low` or `high` is put back there *before* the next step, and in the outcome. So the walks are those of
    `sample_langevin`, whose own positions, with a heap on each bound, have no density.

    **What a KL penalty holds on to is the walk.** KL(walk ‖ the reference's walk) = Σₜ E η ‖∇E − ∇E_ref‖² / 4τ is
    paid for at every step, and is never less than the KL of where the walks end. An energy that is the same at every
    step is therefore not led to the tilt E − τ r/β, see `tilt_energy`: if the walk has one step it goes too far, if
    it has many not far enough. `BoltzmannPolicy` has the KL of the samples.

    Args:
        energy: maps samples `(B, *shape)` to energies `(B,)`, as a network that `EnergyTrainer` trained does.
        num_steps: T ≥ 1.
        shape: of one sample. None: the energy's `shape`.
        step_size: η > 0, as that of `sample_langevin`. A variable of the model: `policy.step_size = 0.02` compiles
            nothing.
        temperature: τ > 0, likewise. At 0 the steps would be certain, and have no density.
        low: least value of a sample. None: any.
        high: greatest value of a sample, more than `low`.
        critic: called with samples `(B, *shape)`, times from 0 to 1 `(B,)` and observations; returns V of each state,
            `(B,)`, for PPO. None: no values.

    Raises:
        ValueError: an argument is out of its range; in a call, observations have another shape.

    Reference: Roberts & Tweedie (1996), doi:10.2307/3318418, section 1.4.1, for the steps; Black et al. (2023),
    arXiv:2305.13301, section 4.2, for sampling as a decision process.
    """

    def __init__(
        self,
        energy: nnx.Module,
        num_steps: int,
        shape: Sequence[int] | None = None,
        *,
        step_size: float,
        temperature: float = 1.0,
        low: float | None = None,
        high: float | None = None,
        critic: nnx.Module | None = None,
    ):
        WalkingPolicy.__init__(self, energy, num_steps, shape, step_size, temperature, low, high)
        TrajectoryPolicy.__init__(self, self.shape, critic)

    def levels(self, dtype: Any = jnp.float32) -> tuple[Array]:
        """The time before each of the T steps, from 0 on."""
        return (jnp.arange(self.num_steps, dtype=dtype) / self.num_steps,)

    def transition(
        self, x: Float[Array, "B *D"], level: tuple[Array], observations: Array
    ) -> tuple[Float[Array, "B *D"], Float[Array, "B ..."]]:
        """Mean and standard deviation of a step of Langevin dynamics."""
        mean, std = langevin_step(frozen_energy(self.energy), self._put_back(x), self.step_size, self.temperature)
        return mean, per_row(jnp.full(len(x), std), x)

    def outcome(self, actions: Float[Array, "B T+1 *D"]) -> Float[Array, "B *D"]:
        """What a reward sees of walks: the samples in which they end, within the bounds."""
        return self._put_back(super().outcome(actions))

    def _put_back(self, x):
        return x if self.low is None and self.high is None else jnp.clip(x, self.low, self.high)
