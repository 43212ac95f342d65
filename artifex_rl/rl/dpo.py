"""DPO: learn from which of two responses was preferred. No reward model, no sampling."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from artifex_rl.configs import DPOConfig
from artifex_rl.notices import warn_caller
from artifex_rl.rl.distributions import Categorical
from artifex_rl.rl.experience import MAX_LOG_PROB
from artifex_rl.rl.forms import KnownForms
from artifex_rl.rl.losses import MAX_LOG_RATIO, compute_dpo_loss, compute_simpo_loss
from artifex_rl.rl.policies import Evaluation, FrozenPolicy, as_policy
from artifex_rl.rl.preferences import REFERENCES, SIDES, check_preference_numbers, check_preferences
from artifex_rl.rl.specification import Specification, all_finite, plausible_actions
from artifex_rl.trainer import Metrics, Trainer, TrainState


class DPOTrainer(Trainer):
    """Direct preference optimisation: −log σ(β [log π/π_ref (y_w|x) − log π/π_ref (y_l|x)]), averaged over pairs.

    β log π/π_ref is the reward for which π is the optimal KL-regularised policy, so raising it for the chosen
    response y_w over the rejected y_l fits a Bradley-Terry model of the preferences. A *lower* β is a weaker pull to
    the reference. Log-probabilities are summed over the tokens of a response.

    With `reference_free=True` it is SimPO: no reference, log-probabilities averaged over the length of a response,
    and a margin: −log σ(β [log π(y_w|x)/|y_w| − log π(y_l|x)/|y_l| − gamma_beta_ratio]).

    Batches hold "observations" x, and "chosen" and "rejected", `(B, ...)` actions or `(B, T)` tokens of the policy,
    with "chosen_mask" `(B, T)` or "chosen_lengths" `(B,)`, and likewise for rejected, where responses are padded. The
    reference is either `reference_model` or comes with the batch, as "ref_chosen_log_probs" and
    "ref_rejected_log_probs", `(B,)` sums or `(B, T)`.

    A batch of "chosen_log_probs" and "rejected_log_probs" alone is measured, and trains nothing: they are numbers,
    without a way back to the weights. `(B,)` are sums; for SimPO averages, unless lengths are given. Beside "chosen"
    and "rejected" they are not read.

    Args:
        reference_model: π_ref, frozen as it is now. Not read if `reference_free`.

    Metrics, means over the pairs, with r = β log π/π_ref of a response, for SimPO β log π(y|x)/|y|:

    - loss = dpo_loss: the loss of `loss_type`, see `compute_preference_loss`. grad_norm: length of the gradient.
    - chosen_reward: r of the chosen; rejected_reward: r of the rejected; reward_margin: the difference.
    - reward_accuracy: share of pairs in which the chosen response has the higher r; a tie is not higher.

    Raises:
        ValueError: `reference_model` is the model itself, or shares variables with it.

    Warns:
        UserWarning: a batch has log-probabilities alone; once for each trainer.

    Reference: Rafailov et al. (2023), arXiv:2305.18290, eq. 7; Meng et al. (2024), *SimPO*, arXiv:2405.14734, eq. 6.
    """

    config_class = DPOConfig

    def __init__(
        self,
        model: nnx.Module,
        optimizer: nnx.Optimizer,
        config: DPOConfig | None = None,
        *,
        reference_model: nnx.Module | None = None,
        **options: Any,
    ):
        as_policy(model)
        super().__init__(model, optimizer, config, **options)
        self._reference = None if reference_model is None else FrozenPolicy(reference_model, model)
        self._forms = KnownForms()
        self._specification = Specification(
            lambda state, observations, responses, axes: as_policy(self.merge(state)[0]).evaluate(
                observations, responses
            )
        )

    def compute_loss(self, model: nnx.Module, batch: dict[str, Any], key: Array) -> tuple[Array, Metrics]:
        config = self.config
        chosen, rejected = (self._response_log_probs(model, batch, side) for side in SIDES)
        if config.reference_free:
            lengths = [batch[f"{side}_lengths"] for side in SIDES]
            loss = compute_simpo_loss(
                chosen,
                rejected,
                *lengths,
                config.beta,
                config.gamma_beta_ratio,
                config.loss_type,
                config.label_smoothing,
            )
            chosen, rejected = chosen / lengths[0], rejected / lengths[1]
        else:
            references = [batch[name] for name in REFERENCES]
            loss = compute_dpo_loss(
                chosen, rejected, *references, config.beta, config.loss_type, config.label_smoothing
            )
            chosen, rejected = chosen - references[0], rejected - references[1]
        return loss, {
            "dpo_loss": loss,
            "chosen_reward": config.beta * jnp.mean(chosen),
            "rejected_reward": config.beta * jnp.mean(rejected),
            "reward_margin": config.beta * jnp.mean(chosen - rejected),
            "reward_accuracy": jnp.mean(chosen > rejected, dtype=loss.dtype),
        }

    def update(self, state: TrainState, batch: Any, key: Array) -> tuple[TrainState, Metrics]:
        """A gradient step on responses; log-probabilities alone are measured."""
        if "chosen" in batch:
            return self.gradient_step(state, batch, key)
        loss, metrics = self.compute_loss(self.merge(state)[0], batch, key)
        return state, {**metrics, "loss": loss, "grad_norm": jnp.zeros_like(loss)}

    def prepare(self, batch: Any) -> dict[str, Any]:
        """The batch checked and with the reference's log-probabilities; see `check_preferences`."""
        reference, free = None if self._reference is None else self._reference.log_probs, self.config.reference_free
        known = self._forms.read(batch, free)
        if known is not None and "chosen" in known:
            return known
        checked = check_preferences(batch, self._specify, reference, free)
        self._forms.learn(batch, checked, free)
        batch = checked
        if "chosen" not in batch:
            warn_caller(
                self,
                "chosen_log_probs and rejected_log_probs are constants, so nothing is trained; to train, add "
                "'observations', 'chosen' and 'rejected'",
            )
        return batch

    def validate(self, batch: dict[str, Any]) -> None:
        """The numbers of a prepared batch checked; see `check_preference_numbers`."""
        check_preference_numbers(batch, self._specify)

    def plausible(self, batch: dict[str, Any]) -> Array | None:
        """Whether `validate` would raise nothing, as a traced flag."""
        if "chosen" not in batch:
            return None
        seen = [self._specification.known(batch["observations"], batch[side]) for side in SIDES]
        right = [plausible_actions(batch[side], each) for side, each in zip(SIDES, seen, strict=True)]
        if any(each is None for each in right):
            return None
        if isinstance(seen[0].distribution, Categorical):
            right += [jnp.all(batch[name] <= MAX_LOG_PROB) for name in REFERENCES if name in batch]
        return jnp.all(jnp.stack([*right, all_finite(batch)]))

    def _specify(self, observations: Any, responses: Any, name: str) -> Evaluation:
        return self._specification(lambda: self.state, observations, responses, name=name)

    def _response_log_probs(self, model: nnx.Module, batch: dict[str, Any], side: str) -> Float[Array, "B"]:
        """log π(y|x) of each response, summed over its tokens."""
        if side not in batch:
            return batch[f"{side}_log_probs"]
        mask = batch.get(f"{side}_mask")
        log_probs = as_policy(model).evaluate(batch["observations"], batch[side], mask).log_probs
        log_probs = jnp.maximum(log_probs, -MAX_LOG_RATIO)  # an impossible token is a finite penalty
        log_probs = log_probs if mask is None else jnp.where(mask, log_probs, 0.0)
        return jnp.sum(log_probs.reshape(len(log_probs), -1), axis=1)
