"""REINFORCE: what was followed by a high return is made more likely."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from artifex_rl.configs import REINFORCEConfig
from artifex_rl.notices import warn_caller
from artifex_rl.rl.losses import MAX_LOG_RATIO, compute_value_loss, estimate_kl
from artifex_rl.rl.policies import FrozenPolicy
from artifex_rl.rl.references import ask_reference
from artifex_rl.rl.returns import compute_discounted_returns, compute_group_advantages, normalize_advantages
from artifex_rl.rl.trainer import RLTrainer, masked_mean
from artifex_rl.trainer import Metrics


class REINFORCETrainer(RLTrainer):
    """Policy gradient with reward-to-go and a baseline: ∇J(θ) = E[Σₜ ∇ log π_θ(aₜ|sₜ) (Gₜ − b)].

    The gradient is averaged over time steps. What the rewards are says what time is:

    - `(T,)` or `(T, N)`: experience in order of time, of one environment or of N. Gₜ = rₜ + γ Gₜ₊₁, cut where `dones`
      is true. Without `dones` it is one episode that ends with the batch.
    - `(B,)` with `dones` all true, as `one_step_batch` makes them: independent samples. Gₜ is the reward.
    - for a sequential policy, `(B,)`: a reward for a whole response, which is one action; its log-probability is the
      sum over its tokens. `(B, T)`: a reward for each token, discounted along the response.

    Batches hold "observations", "actions" and "rewards", and may hold "dones", "last_value" (V of the state after
    the last step, `()` or `(N,)`), "mask" or "lengths", "group_size" and "ref_log_probs".

    With a reference each reward is r − β (log π(a|s) − log π_ref(a|s)), with the number that log π is now: its mean
    is r less the KL. What pulls back is the score function, as for any other reward; there is no second term in the
    loss.

    Args:
        reference_model: π_ref, in place of "ref_log_probs". Without either there is no penalty.

    Metrics: "policy_loss" −mean(log π(aₜ|sₜ) (Gₜ − b)), "entropy" of the policy in nats, "loss" = policy_loss
    − entropy_coeff · entropy (+ vf_coeff · value_loss), "mean_reward", "reward_std", "grad_norm"; with the baseline
    "value" also "value_loss" ½ mean((V − G)²), with a reference "kl_penalty", the mean of log π − log π_ref, *before*
    beta. "mean_reward" is before the penalty.

    Raises:
        ValueError: `reference_model` is the model itself, or shares variables with it.

    Warns:
        UserWarning: rewards `(T,)` come without `dones`; once for each trainer.

    Reference: Williams (1992), *Simple statistical gradient-following algorithms*, Machine Learning 8; Kool et al.
    (2019), *Buy 4 REINFORCE samples, get a baseline for free!*, and Ahmadian et al. (2024), arXiv:2402.14740, for
    "leave_one_out" (RLOO); Ziegler et al. (2019), arXiv:1909.08593, eq. 2, for the penalty in the reward.
    """

    config_class = REINFORCEConfig
    optional = ("dones", "last_value", "mask", "lengths", "group_size", "ref_log_probs")

    def __init__(
        self,
        model: nnx.Module,
        optimizer: nnx.Optimizer,
        config: REINFORCEConfig | None = None,
        *,
        reference_model: nnx.Module | None = None,
        **options: Any,
    ):
        super().__init__(model, optimizer, config, **options)
        self._reference = None if reference_model is None else FrozenPolicy(reference_model, model)

    def compute_loss(self, model: nnx.Module, batch: dict[str, Any], key: Array) -> tuple[Array, Metrics]:
        config, rewards, mask = self.config, batch["rewards"], batch.get("mask")
        policy = self.evaluate_actions(model, batch["observations"], batch["actions"], mask, self.batch_axes(batch))
        entropy = masked_mean(policy.entropy, mask)
        log_probs = jnp.maximum(policy.log_probs, -MAX_LOG_RATIO)  # an impossible action is a finite penalty
        log_ratio = None
        if "ref_log_probs" in batch:  # a number of the reward, not a term of the loss
            log_ratio = estimate_kl(jax.lax.stop_gradient(log_probs), batch["ref_log_probs"], "k1", mask)
        if log_probs.ndim > rewards.ndim:  # one reward for the whole response
            log_probs, mask = jnp.sum(log_probs, axis=1), None
            log_ratio = None if log_ratio is None else jnp.sum(log_ratio, axis=1)

        paid = rewards if log_ratio is None else rewards - config.beta * log_ratio
        returns = self.compute_returns({**batch, "rewards": paid})
        advantages = self._subtract_baseline(returns, policy.values, batch, mask)
        if config.normalize_returns:
            advantages = normalize_advantages(advantages, mask=mask)
        policy_loss = -masked_mean(log_probs * jax.lax.stop_gradient(advantages), mask)

        loss = policy_loss - config.entropy_coeff * entropy
        metrics = {"policy_loss": policy_loss, "entropy": entropy, "mean_reward": masked_mean(rewards, mask)}
        metrics["reward_std"] = jnp.sqrt(masked_mean((rewards - metrics["mean_reward"]) ** 2, mask))
        if log_ratio is not None:
            metrics["kl_penalty"] = masked_mean(log_ratio, mask)
        if config.baseline == "value":
            metrics["value_loss"] = compute_value_loss(policy.values, returns, mask=mask)
            loss = loss + config.vf_coeff * metrics["value_loss"]
        return loss, metrics

    def compute_returns(self, batch: dict[str, Any]) -> Float[Array, "T *N"]:
        """Gₜ, like the rewards: discounted along time, which is the second axis for the tokens of responses."""
        rewards, gamma = jnp.asarray(batch["rewards"]), self.config.gamma
        if not self.sequential:
            return compute_discounted_returns(rewards, gamma, batch.get("dones"), batch.get("last_value"))
        if rewards.ndim == 1:
            return rewards
        rewards = rewards if "mask" not in batch else jnp.where(batch["mask"], rewards, 0.0)
        return compute_discounted_returns(rewards.T, gamma).T

    def _subtract_baseline(self, returns: Array, values: Array | None, batch: dict[str, Any], mask: Any) -> Array:
        """Gₜ − b. A baseline that does not depend on the action leaves the expected gradient as it is."""
        if self.config.baseline == "value":
            return returns - jax.lax.stop_gradient(values)
        if self.config.baseline == "mean":
            return returns - masked_mean(returns, mask)
        if self.config.baseline == "leave_one_out":
            size = self._group_size(batch)  # r − mean of the others = (r − mean of all) · G / (G − 1)
            return compute_group_advantages(returns, size, scale="none") * (size / (size - 1))
        return returns

    def prepare(self, batch: Any) -> dict[str, Any]:
        """The checks of every batch, and what the baseline needs."""
        batch = super().prepare(batch)
        rewards, baseline = batch["rewards"], self.config.baseline
        in_time = not self.sequential and not ("dones" in batch and batch["dones"].all())
        if baseline == "value" and self.specification(batch).values is None:
            raise ValueError("baseline: got 'value', needs a model that returns a pair of logits and values")
        if baseline == "leave_one_out":
            if in_time or rewards.ndim != 1 or ("mask" in batch and batch["mask"].ndim == 1):
                raise ValueError(
                    "baseline: got 'leave_one_out', needs independent samples: rewards (B,) with dones all true, as "
                    "one_step_batch makes them; later rewards of an episode are no baseline for earlier ones"
                )
            size = self._group_size(batch)
            if size < 2 or len(rewards) % size:
                raise ValueError(f"group_size: got {size}, needs a divisor of the {len(rewards)} samples, at least 2")
        if in_time and "dones" not in batch and rewards.ndim == 1 and len(rewards) > 1:
            warn_caller(
                self,
                f"dones: not given, so the {len(rewards)} rewards are those of one episode, in order of time; "
                f"independent samples need dones=True, which one_step_batch() adds",
            )
        return batch | ask_reference(batch, self._reference, self.specification, self.batch_axes(batch), "k1")

    def _place(self, batch: dict[str, Any]) -> dict[str, Any]:
        """On a mesh each device has the whole of "last_value": its axis is N, not the time that is split."""
        whole = {name: batch[name] for name in ("last_value",) if name in batch}
        return super()._place({name: value for name, value in batch.items() if name not in whole}) | whole

    def _group_size(self, batch: dict[str, Any]) -> int:
        size = int(batch.get("group_size", self.config.num_generations))
        return size if size > 1 or "group_size" in batch else len(batch["rewards"])
