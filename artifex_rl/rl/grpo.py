"""GRPO: what did better than the other answers to the same prompt is made more likely. No critic."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from artifex_rl.configs import GRPOConfig
from artifex_rl.notices import warn_caller
from artifex_rl.rl.losses import compute_clipped_surrogate, estimate_kl
from artifex_rl.rl.policies import FrozenPolicy
from artifex_rl.rl.references import ask_reference
from artifex_rl.rl.returns import compute_discounted_returns, compute_group_advantages
from artifex_rl.rl.trainer import RLTrainer, masked_mean
from artifex_rl.trainer import Metrics, TrainState


class GRPOTrainer(RLTrainer):
    """Group relative policy optimisation: PPO's clipped surrogate, with advantages from a group of G samples.

    1. For each prompt draw G responses oᵢ from the policy, and score them: rewards rᵢ.
    2. Aᵢ = (rᵢ − mean(r₁ … r_G)) / std(r₁ … r_G), the same for every token of oᵢ.
    3. Minimise, with ρᵢₜ = π(oᵢₜ) / π_old(oᵢₜ), averaged over tokens and responses by `loss_aggregation`,
       −min(ρᵢₜ Aᵢ, clip(ρᵢₜ, 1 − ε, 1 + ε_high) Aᵢ) + β KLᵢₜ(π ‖ π_ref) − entropy_coeff · Hᵢₜ.

    **A loss of 0 is no bug.** On samples of the current policy every ρ is 1, and the advantages of a group add up to
    0, so `policy_loss` is 0 (rounding aside, and for responses of one length if tokens are averaged). Its *gradient*
    is not: −mean(Aᵢ ∇log π(oᵢ)), REINFORCE with the group's mean as baseline. Watch `mean_reward`.

    Batches hold "observations", "actions", "rewards" and the "log_probs" of the policy that drew the actions, samples
    of a group one after another; observations of n prompts beside n · G samples are repeated. They may hold "mask" or
    "lengths", "group_size" in place of `num_generations`, "ref_log_probs", and "dones". A sample whose mask is all
    false counts for nothing. Rewards `(B,)` are terminal, without discount; `(B, T)` become the return Σₜ γᵗ rₜ of
    their response, which ends at the first of "dones" `(B, T)`.

    Args:
        reference_model: π_ref, in place of "ref_log_probs"; the exact KL needs it. Without either there is no
            penalty. With `beta` 0 the KL is measured and weighs nothing.

    Metrics (means by `loss_aggregation` unless said otherwise, and over the updates of a step):

    - loss = policy_loss + beta · kl_penalty − entropy_coeff · entropy; grad_norm is the length of its gradient.
    - policy_loss: −min(…) above. entropy: of the policy's distributions, in nats.
    - kl_penalty: KL(π ‖ π_ref) in nats, *before* beta; by default the k3 estimate exp(d) − 1 − d from samples, with
      d = log π_ref − log π. It is there again under the name of its estimator, "kl_k3", "kl_k1", "kl_k2", or
      "kl_exact": summed over all actions, at each state that was sampled.
    - approx_kl: KL(π_old ‖ π), by k3: mean of ρ − 1 − log ρ over tokens. clip_fraction: share of tokens with a ρ
      outside of [1 − ε, 1 + ε_high].
    - mean_reward: of the responses. group_advantage_std: √(mean Aᵢ²); the mean of a group is 0. frac_zero_std: share
      of groups whose rewards are all equal, and teach nothing.

    Raises:
        ValueError: `reference_model` is the model itself, or shares variables with it.

    Warns:
        UserWarning: a group of one sample, which has nothing to be compared with.

    Reference: Shao et al. (2024), *DeepSeekMath*, arXiv:2402.03300, eq. 3; Liu et al. (2025), arXiv:2503.20783 (Dr.
    GRPO: `advantage_scale="none"`, `loss_aggregation="constant"`); Yu et al. (2025), arXiv:2503.14476 (DAPO:
    `clip_param_high`, "token"); Zheng et al. (2025), arXiv:2507.18071, eq. 5 (GSPO: `ratio_level="sequence"`).
    """

    config_class = GRPOConfig
    required = ("observations", "actions", "rewards", "log_probs")
    optional = ("mask", "lengths", "group_size", "ref_log_probs", "dones")

    def __init__(
        self,
        model: nnx.Module,
        optimizer: nnx.Optimizer,
        config: GRPOConfig | None = None,
        *,
        reference_model: nnx.Module | None = None,
        **options: Any,
    ):
        super().__init__(model, optimizer, config, **options)
        self._reference = None if reference_model is None else FrozenPolicy(reference_model, model)

    def compute_loss(self, model: nnx.Module, batch: dict[str, Any], key: Array) -> tuple[Array, Metrics]:
        config, rows = self.config, len(batch["rewards"])
        policy = self.evaluate_actions(
            model, batch["observations"], batch["actions"], batch.get("mask"), self.batch_axes(batch)
        )
        # One action is a response of one token: from here on everything is (B, T).
        mask = jnp.asarray(batch.get("mask", np.ones(policy.log_probs.shape, bool))).reshape(rows, -1)
        log_probs, old, entropy = (
            jnp.where(mask, x.reshape(rows, -1), 0.0) for x in (policy.log_probs, batch["log_probs"], policy.entropy)
        )
        alive = mask.any(axis=1)

        rewards = self.compute_response_rewards(batch, mask)
        group_size = batch.get("group_size", config.num_generations)
        advantages = compute_group_advantages(rewards, group_size, config.advantage_scale, mask=alive)

        if config.ratio_level == "sequence":  # ρᵢ = (π(oᵢ) / π_old(oᵢ))^(1/|oᵢ|), the same for every token
            new, old = (_over_tokens(_token_mean(x, mask), mask) for x in (log_probs, old))
        else:
            new = log_probs
        surrogate = compute_clipped_surrogate(
            new, old, _over_tokens(advantages, mask), config.clip_param, config.clip_param_high
        )
        policy_loss = -self.aggregate(surrogate, mask)
        kl = jnp.zeros((), log_probs.dtype)
        if "reference" in batch:
            kl = self.aggregate(policy.distribution.kl(batch["reference"]).reshape(mask.shape), mask)
        elif "ref_log_probs" in batch:
            ref_log_probs = batch["ref_log_probs"].reshape(mask.shape)
            kl = self.aggregate(estimate_kl(log_probs, ref_log_probs, config.kl_estimator, mask), mask)
        entropy = self.aggregate(entropy, mask)
        loss = policy_loss + config.beta * kl - config.entropy_coeff * entropy

        high = config.clip_param if config.clip_param_high is None else config.clip_param_high
        ratio = jnp.exp(-estimate_kl(old, new, "k1"))
        outside = (ratio < 1 - config.clip_param) | (ratio > 1 + high)
        return loss, {
            "policy_loss": policy_loss,
            "approx_kl": masked_mean(estimate_kl(old, new), mask),
            "kl_penalty": kl,
            f"kl_{config.kl_estimator}": kl,
            "entropy": entropy,
            "clip_fraction": masked_mean(outside.astype(new.dtype), mask),
            "mean_reward": masked_mean(rewards, alive),
            "group_advantage_std": jnp.sqrt(masked_mean(advantages**2, alive)),
            "frac_zero_std": jnp.mean(jnp.all(advantages.reshape(-1, group_size) == 0, axis=1), dtype=new.dtype),
        }

    def compute_response_rewards(self, batch: dict[str, Any], mask: Bool[Array, "B T"]) -> Float[Array, "B"]:
        """One reward for each response: those of `(B, T)` as the discounted return from the first token."""
        rewards = jnp.asarray(batch["rewards"])
        if rewards.ndim == 1:
            return rewards
        return compute_discounted_returns(jnp.where(mask, rewards, 0.0).T, self.config.gamma)[0]

    def aggregate(self, x: Float[Array, "B T"], mask: Bool[Array, "B T"]) -> Float[Array, ""]:
        """The mean that `loss_aggregation` names. A short response weighs as much as a long one under "sequence"."""
        if self.config.loss_aggregation == "token":
            return masked_mean(x, mask)
        if self.config.loss_aggregation == "sequence":
            return masked_mean(_token_mean(x, mask), mask.any(axis=1))
        longest = self.config.max_length or mask.shape[1]
        return masked_mean(jnp.sum(jnp.where(mask, x, 0.0), axis=1), mask.any(axis=1)) / longest

    def update(self, state: TrainState, batch: Any, key: Array) -> tuple[TrainState, Metrics]:
        """`num_updates` gradient steps on the same samples: π moves, π_old and the advantages stay."""
        if self.config.num_updates == 1:
            return self.gradient_step(state, batch, key)
        keys = jax.random.split(key, self.config.num_updates)
        state, metrics = jax.lax.scan(lambda state, key: self.gradient_step(state, batch, key), state, keys)
        return state, jax.tree.map(jnp.mean, metrics)

    def prepare(self, batch: Any) -> dict[str, Any]:
        """The checks of every batch, groups that divide it, and what the reference says of it."""
        batch = super().prepare(batch)
        rewards, dones = batch["rewards"], batch.pop("dones", None)
        size = batch.get("group_size", self.config.num_generations)
        if len(rewards) % size:
            raise ValueError(
                f"group_size: got {size} (num_generations of the config), needs a divisor of the {len(rewards)} "
                f"rewards, or group_size in the batch"
            )
        if size == 1:
            warn_caller(self, "group_size: 1, so every advantage is 0: there is nothing to compare a sample with")
        if dones is not None and dones.ndim == 2:
            over = np.cumsum(dones, axis=1) > dones  # a done before this step
            batch["mask"] = batch.get("mask", True) & ~over
        more = ask_reference(
            batch, self._reference, self.specification, self.batch_axes(batch), self.config.kl_estimator
        )
        return batch | more if more else batch


def _token_mean(x: Float[Array, "B T"], mask: Bool[Array, "B T"]) -> Float[Array, "B"]:
    return jnp.sum(jnp.where(mask, x, 0.0), axis=1) / jnp.maximum(jnp.sum(mask, axis=1, dtype=x.dtype), 1)


def _over_tokens(x: Float[Array, "B"], mask: Bool[Array, "B T"]) -> Float[Array, "B T"]:
    return jnp.broadcast_to(x[:, None], mask.shape)
