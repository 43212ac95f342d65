"""The four runs of notebook 03's diagnosis lab. What is wrong with which stands in here: look at the curves first."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from artifex_rl.configs import PPOConfig, config, number
from artifex_rl.metrics import Metrics
from artifex_rl.rl.ppo import PPOTrainer


@config
class _Faults(PPOConfig):
    """PPO's settings, and two bugs; as numbers, so that one compiled run serves for both."""

    forgetful: float = number(0.0, low=0, high=1)
    flipped: float = number(0.0, low=0, high=1)


class _Faulty(PPOTrainer):
    """Forgetful: it takes the old log-probabilities from the policy in training. Flipped: good actions look bad."""

    def compute_loss(self, model: nnx.Module, batch: dict[str, Any], key: Array) -> tuple[Array, Metrics]:
        rows, metrics = (batch, {}) if "advantages" in batch else self.estimate_advantages(batch)
        now = self.evaluate_actions(model, rows["observations"], rows["actions"], rows["mask"]).log_probs
        old = jnp.where(self.config.forgetful > 0, jax.lax.stop_gradient(now), rows["log_probs"])
        advantages = jnp.where(self.config.flipped > 0, -rows["advantages"], rows["advantages"])
        loss, seen = super().compute_loss(model, rows | {"log_probs": old, "advantages": advantages}, key)
        return loss, metrics | seen


#: Trainer and settings of each.
SUSPECTS = {
    "Red": (PPOTrainer, PPOConfig(num_epochs=1, num_minibatches=1)),
    "Blue": (_Faulty, _Faults(forgetful=1.0)),
    "Grey": (PPOTrainer, PPOConfig()),
    "Green": (_Faulty, _Faults(flipped=1.0)),
}
