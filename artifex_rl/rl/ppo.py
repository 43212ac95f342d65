"""PPO: improve the policy on the data that it collected, in many small steps, but never far from where it was."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from artifex_rl.configs import PPOConfig
from artifex_rl.notices import warn_caller
from artifex_rl.rl import onpolicy
from artifex_rl.rl.losses import compute_clipped_surrogate_loss, compute_value_loss, estimate_kl
from artifex_rl.rl.returns import compute_gae_advantages, normalize_advantages
from artifex_rl.rl.trainer import RLTrainer, masked_mean
from artifex_rl.rows import take_rows
from artifex_rl.trainer import Metrics, TrainState


class PPOTrainer(RLTrainer):
    """Proximal policy optimisation: the clipped surrogate, a critic, and several epochs on the same data.

    With ρ = π(a|s) / π_old(a|s), advantages A from GAE and returns R = A + V_old it minimises

        L = −E[min(ρA, clip(ρ, 1 − ε, 1 + ε) A)] + vf_coeff · ½ E[(V − R)²] − entropy_coeff · E[H(π)]

    A `train_step` is one compiled call: `num_epochs` times a new permutation of all steps in `num_minibatches` parts
    of equal length, give or take one, and on each part one gradient step, cut to `max_grad_norm`.

    Batches hold "observations", "actions", "rewards", "values" V_old(s), "log_probs" log π_old(a|s) and "dones", in
    order of time, `(T,)` or `(T, N)`. "values" may have one more step; or "last_value", `()` or `(N,)`, says what the
    state after the last step is worth; or "next_values", like the rewards, says it for each state reached, which
    "truncations" needs. A sequential policy takes responses: rewards `(B,)` or `(B, T)`, log-probs and values
    `(B, T)`, "mask" or "lengths"; the tokens of a response are an episode, and a reward `(B,)` is paid at its end.

    Metrics, of the batch: "mean_reward"; "advantage_mean", before it is normalised; "explained_variance"
    1 − Var(R − V_old) / Var(R), at most 1, and 0 where R does not vary. Averaged over the updates of the call: "loss"
    L; "policy_loss" −E[min(…)]; "value_loss" ½ E[(V − R)²]; "entropy" E[H(π)], in nats; "kl_divergence"
    E[log π_old − log π] and "approx_kl" E[ρ − 1 − log ρ] (k3), two estimates of KL(π_old ‖ π), of which the second is
    never negative; "clip_fraction", how often ρ is outside of the clip; "grad_norm", before it is cut.

    Warns:
        UserWarning: the last step is not done and nothing says what the state after it is worth, so it counts as
            terminal; or the model has no critic, so the values given are all there is and V is not trained.

    Reference: Schulman et al. (2017), *Proximal Policy Optimization Algorithms*, arXiv:1707.06347, eqs. 7, 9 and 11
    and algorithm 1.
    """

    config_class = PPOConfig
    required = ("observations", "actions", "rewards", "values", "log_probs", "dones")
    optional = ("truncations", "next_values", "last_value", "mask", "lengths")

    def compute_loss(self, model: nnx.Module, batch: dict[str, Any], key: Array) -> tuple[Array, Metrics]:
        """L on a minibatch that `estimate_advantages` has prepared, or on a whole trajectory."""
        config, metrics = self.config, {}
        if "advantages" not in batch:
            batch, metrics = self.estimate_advantages(batch)
        mask, old_log_probs, advantages = batch["mask"], batch["log_probs"], batch["advantages"]
        policy = self.evaluate_actions(model, batch["observations"], batch["actions"], mask)
        values = batch["values"] if policy.values is None else policy.values
        old_values = None if config.clip_value is None else batch["values"]
        if config.normalize_advantages:
            advantages = normalize_advantages(advantages, mask=mask)

        policy_loss = compute_clipped_surrogate_loss(
            policy.log_probs, old_log_probs, advantages, config.clip_param, mask, config.clip_param_high
        )
        value_loss = compute_value_loss(values, batch["returns"], old_values, config.clip_value, mask)
        entropy = masked_mean(policy.entropy, mask)
        loss = policy_loss + config.vf_coeff * value_loss - config.entropy_coeff * entropy

        log_ratio = -estimate_kl(old_log_probs, policy.log_probs, "k1", mask)
        high = config.clip_param if config.clip_param_high is None else config.clip_param_high
        clipped = (jnp.exp(log_ratio) < 1 - config.clip_param) | (jnp.exp(log_ratio) > 1 + high)
        return loss, metrics | {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "kl_divergence": -masked_mean(log_ratio, mask),
            "approx_kl": masked_mean(estimate_kl(old_log_probs, policy.log_probs, "k3", mask), mask),
            "clip_fraction": masked_mean(clipped.astype(log_ratio.dtype), mask),
        }

    def update(self, state: TrainState, batch: dict[str, Any], key: Array) -> tuple[TrainState, Metrics]:
        """Algorithm 1's inner loop: K epochs of minibatches on the advantages of one batch."""
        config, (rows, metrics) = self.config, self.estimate_advantages(batch)
        num_rows = len(rows["advantages"])
        slots, is_real = onpolicy.cut_evenly(num_rows, config.num_minibatches)
        order_key, key = jax.random.split(key)

        def minibatch(carry, now):
            (state, stopped), (chosen, real, key) = carry, now
            part = rows
            if len(slots) > 1:  # all rows are all rows, in whatever order
                part = take_rows(rows, chosen)
                part["mask"] = part["mask"] & real.reshape(-1, *[1] * (part["mask"].ndim - 1))
            moved, metrics = self.gradient_step(state, part, key, config.max_grad_norm)
            stop = stopped
            if config.target_kl is not None:  # this update and those after it are left out
                stop = stopped | (metrics["approx_kl"] > config.target_kl)
                moved = jax.tree.map(lambda new, old: jnp.where(stop, old, new), moved, state)
            return (moved, stop), (metrics, ~stopped)

        def epoch(i, carry):
            loop, totals, looks = carry
            order = jax.random.permutation(jax.random.fold_in(order_key, i), num_rows)
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, i * len(slots) + jnp.arange(len(slots)))
            loop, (seen, looked_at) = jax.lax.scan(minibatch, loop, (order[slots], is_real, keys))
            add = lambda total, each: total + jnp.sum(jnp.where(looked_at, each, 0.0))  # noqa: E731
            return loop, jax.tree.map(add, totals, seen), looks + jnp.sum(looked_at, dtype=looks.dtype)

        begin = (state, jnp.asarray(False))
        _, (seen, _) = jax.eval_shape(minibatch, begin, (slots[0], is_real[0], key))
        zeros = jax.tree.map(lambda each: jnp.zeros(each.shape, each.dtype), seen)
        # The number of epochs is where a loop ends, and no shape: a slider moves it, and nothing is compiled.
        loop = (begin, zeros, jnp.float32(0))
        (state, _), totals, looks = jax.lax.fori_loop(jnp.int32(0), config.num_epochs, epoch, loop)
        return state, metrics | {name: total / looks.astype(total.dtype) for name, total in totals.items()}

    def estimate_advantages(self, batch: dict[str, Any]) -> tuple[dict[str, Any], Metrics]:
        """The batch as rows, `(T·N, ...)` or `(B, T)` for responses, with "advantages", "returns" and a "mask"."""
        rewards, values, dones = (jnp.asarray(batch[name]) for name in ("rewards", "values", "dones"))
        mask = jnp.asarray(batch.get("mask", np.ones(np.shape(batch["log_probs"]), bool)))
        metrics = {"mean_reward": masked_mean(rewards, mask if mask.shape == rewards.shape else None)}
        discounts = self.config.gamma, self.config.gae_lambda
        if self.sequential:
            rewards, dones = onpolicy.response_as_episode(rewards, mask)
            advantages = compute_gae_advantages(rewards.T, values.T, dones.T, *discounts).T
        else:
            reached = batch.get("truncations"), batch["next_values"]
            advantages = compute_gae_advantages(rewards, values, dones, *discounts, *reached)
        rows = {name: batch[name] for name in ("observations", "actions", "log_probs")}
        rows |= {"values": values, "advantages": advantages, "returns": advantages + values, "mask": mask}
        metrics["advantage_mean"] = masked_mean(advantages, mask)
        metrics["explained_variance"] = onpolicy.explained_variance(values, rows["returns"], mask)
        axes = self.batch_axes(batch)
        return jax.tree.map(lambda x: jnp.asarray(x).reshape(-1, *x.shape[axes:]), rows), metrics

    def prepare(self, batch: Any) -> dict[str, Any]:
        """The checks of every batch, those of the values, and the warnings."""
        known = self._forms.read(batch, "responses")  # which these checks leave as they are
        if known is not None:
            return known
        given, batch = batch, onpolicy.check_values(super().prepare(batch), self.sequential)
        if self.specification(batch).values is None:
            warn_caller(self, "the model has no critic: the values given stay as they are, and none is trained")
        if self.sequential:
            self._forms.learn(given, batch, "responses")
            return batch
        if onpolicy.is_unfinished(batch):
            warn_caller(self, onpolicy.UNFINISHED)
        return onpolicy.complete_values(batch)
