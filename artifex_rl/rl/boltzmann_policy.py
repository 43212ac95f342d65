"""An energy as a policy of samples: a density without its normaliser, which a centred advantage does not need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from artifex_rl.generative.energy import sample_langevin, sample_mala
from artifex_rl.rl.energy_walks import WalkingPolicy, frozen_energy
from artifex_rl.rl.policies import Evaluation
from artifex_rl.rl.trainer import masked_mean


class BoltzmannPolicy(WalkingPolicy):
    """p(x) ∝ exp(−E(x)/τ), whose action is a sample: where a walk on the energy ends that is long enough.

    log p(x) = −E(x)/τ − log Z, and log Z is not to be had. What is used in its place is an estimate of log p(x) + H,
    with H the entropy of p:

        ℓᵢ = (mean_j E(x_j) − E(xᵢ)) / τ        x_j, the samples of the batch

    A constant is in all of them alike, and where the advantages of a batch add up to 0 it adds nothing:
    Σ Aᵢ ∇ℓᵢ = −Σ Aᵢ ∇E(xᵢ)/τ = Σ Aᵢ ∇log p(xᵢ). This is REINFORCE with the mean of the batch as baseline, exactly;
    no gradient goes through the walk, and none is of second order. With a KL penalty on the samples themselves
    (`GRPOConfig(kl_estimator="k2", advantage_scale="none")`, whose gradient is that of the KL), training leads to
    E − τ r/β: `tilt_energy`.

    So keep a batch whole, and its advantages centred: REINFORCE with the baseline "mean" or "leave_one_out", or GRPO,
    on samples of the policy of now (`num_updates=1`). PPO's minibatches would each have a constant of their own. The
    entropy is not known: it is given as 0, and its coefficient weighs nothing.

    Observations say where walks begin, `(B, *shape)`, or begin them anew, `(B,)`, as those of `EnergyPolicy`. The
    energy is asked in its evaluation mode, and nothing of it changes.

    Args:
        energy: maps samples `(B, *shape)` to energies `(B,)`, as a network that `EnergyTrainer` trained does.
        num_steps: of a walk, ≥ 1. Too few, and the samples are not the energy's: they remember where they began.
        shape: of one sample. None: the energy's `shape`.
        step_size: η > 0. A variable of the model: `policy.step_size = 0.02` compiles nothing.
        temperature: τ > 0, likewise.
        adjusted: walks are those of `sample_mala`, whose law does not depend on η; else of `sample_langevin`.
        low: least value of a sample. None: any.
        high: greatest value of a sample, more than `low`.

    Raises:
        ValueError: an argument is out of its range; in a call, a shape does not fit.

    Reference: Williams (1992), *Simple statistical gradient-following algorithms*, for the baseline; Korbak et al.
    (2022), arXiv:2205.11275, eq. 4, for where it leads.
    """

    sequential = False

    def __init__(
        self,
        energy: nnx.Module,
        num_steps: int,
        shape: Sequence[int] | None = None,
        *,
        step_size: float,
        temperature: float = 1.0,
        adjusted: bool = True,
        low: float | None = None,
        high: float | None = None,
    ):
        super().__init__(energy, num_steps, shape, step_size, temperature, low, high)
        self.adjusted = bool(adjusted)

    def sample(self, observations: Array, key: Array) -> tuple[Float[Array, "B *D"], Float[Array, "B"]]:
        """Ends of walks for a batch of observations, and ℓ of each."""
        start_key, key = jax.random.split(key)
        start, draw = self.begin(observations, start_key), sample_mala if self.adjusted else sample_langevin
        ends = draw(
            frozen_energy(self.energy),
            start,
            key,
            self.num_steps,
            self.step_size,
            self.temperature,
            self.low,
            self.high,
        )
        samples = ends[0] if self.adjusted else ends
        return samples, self.evaluate(observations, samples).log_probs

    def evaluate(
        self, observations: Any, actions: Float[Array, "B *D"], mask: Bool[Array, "B"] | None = None
    ) -> Evaluation:
        """ℓ of samples, centred over those under the mask; differentiable."""
        samples = jnp.asarray(actions)
        if samples.shape[1:] != self.shape:
            raise ValueError(f"actions: got shape {samples.shape}, needs (B, {', '.join(map(str, self.shape))})")
        if mask is not None:
            samples = jnp.where(mask.reshape(-1, *[1] * len(self.shape)), samples, 0.0)
        scaled = frozen_energy(self.energy)(samples) / self.temperature
        log_probs = masked_mean(scaled, mask) - scaled
        if mask is not None:
            log_probs = jnp.where(mask, log_probs, 0.0)
        return Evaluation(log_probs, jnp.zeros_like(log_probs), None, mask)
