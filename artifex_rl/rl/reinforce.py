"""REINFORCE: make what was followed by a high return more likely."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from artifex_rl.configs import REINFORCEConfig
from artifex_rl.rl.returns import compute_discounted_returns, normalize_advantages
from artifex_rl.rl.trainer import RLTrainer
from artifex_rl.trainer import Metrics


class REINFORCETrainer(RLTrainer):
    """∇J(θ) = E[Σₜ ∇ log π_θ(aₜ|sₜ) (Gₜ − b)]: the policy gradient, with reward-to-go Gₜ and a baseline b."""

    config_class = REINFORCEConfig

    def compute_loss(self, model: nnx.Module, batch: dict[str, Any], key: Array) -> tuple[Array, Metrics]:
        rewards, mask = batch["rewards"], batch.get("mask")
        policy = self.evaluate_actions(
            model, batch["observations"], batch["actions"], mask, batch_axes=self.batch_axes(batch)
        )
        if rewards.ndim < policy.log_probs.ndim:
            returns = jnp.broadcast_to(rewards[:, None], policy.log_probs.shape)
        else:
            returns = compute_discounted_returns(rewards, self.config.gamma, batch.get("dones"))
        advantages = returns
        if self.config.normalize_returns:
            advantages = normalize_advantages(advantages, mask=mask)
        policy_loss = -jnp.mean(policy.log_probs * jax.lax.stop_gradient(advantages))
        entropy = jnp.mean(policy.entropy)
        loss = policy_loss - self.config.entropy_coeff * entropy
        return loss, {
            "policy_loss": policy_loss,
            "entropy": entropy,
            "mean_reward": jnp.mean(rewards),
            "reward_std": jnp.std(rewards),
        }
