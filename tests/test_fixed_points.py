"""Where training ends, by enumeration: the policies that the losses have as their only resting points.

A policy over four actions is a table of logits. Every sample that it could draw is in the sum, each with its
probability, so that nothing here is left to chance.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from artifex_rl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, REINFORCEConfig, REINFORCETrainer

ACTIONS = 4
REFERENCE = np.array([0.4, 0.3, 0.2, 0.1], np.float32)
REWARDS = np.array([0.0, 1.0, 0.5, -0.5], np.float32)
BETA = 0.5


class Table(nnx.Module):
    """Logits for each of a few contexts."""

    def __init__(self, logits):
        self.logits = nnx.Param(jnp.asarray(logits, jnp.float32))

    def __call__(self, contexts):
        return self.logits[contexts]

    @property
    def probabilities(self):
        return np.asarray(jax.nn.softmax(self.logits[...]))


def trained_table(trainer_class, config, optimizer=None, logits=None, **options):
    model = Table(np.log(REFERENCE)[None] if logits is None else logits)
    optimizer = nnx.Optimizer(model, optimizer or optax.sgd(1.0), wrt=nnx.Param)
    return trainer_class(model, optimizer, config, **options)


def tilted(reference, rewards, beta):
    """π* ∝ π_ref · exp(r / β), the policy of highest E[r] − β KL(π ‖ π_ref)."""
    weights = reference * np.exp(rewards / beta)
    return weights / weights.sum(axis=-1, keepdims=True)


def forward_tilted(reference, rewards, beta):
    """π ∝ β π_ref / (λ − r): the policy of highest E[r] − β KL(π_ref ‖ π), λ such that it sums to 1."""
    low, high = rewards.max() + 1e-9, rewards.max() + 2 * beta + np.ptp(rewards)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (beta * reference / (middle - rewards)).sum() > 1 else (low, middle)
    return beta * reference / (low - rewards)


# The exact KL, through the trainer as it is

#: Without clip, scale and entropy: the surrogate of a uniform sample of all actions is Σ π(a) (r(a) − r̄), exactly.
PLAIN = {"clip_param": 1e6, "advantage_scale": "none", "entropy_coeff": 0.0}


def every_action_once(rewards=REWARDS):
    """A batch drawn by the uniform policy; its importance weights make a sum over actions of the surrogate."""
    return {
        "observations": np.zeros(ACTIONS, int),
        "actions": np.arange(ACTIONS),
        "rewards": rewards,
        "log_probs": np.full(ACTIONS, -np.log(ACTIONS)),
    }


@pytest.mark.parametrize("beta", [0.2, 2.0])
def test_policy_gradient_with_the_exact_kl_ends_at_the_tilted_reference(beta):
    reference = Table(np.log(REFERENCE)[None])
    config = GRPOConfig(num_generations=ACTIONS, beta=beta, kl_estimator="exact", **PLAIN)
    optimizer = optax.sgd(1.6 / beta)
    trainer = trained_table(GRPOTrainer, config, optimizer, np.zeros((1, ACTIONS)), reference_model=reference)
    trainer.fit(every_action_once(), steps=1000)
    np.testing.assert_allclose(trainer.model.probabilities[0], tilted(REFERENCE, REWARDS, beta), atol=5e-4)


@pytest.mark.slow
def test_a_high_beta_is_a_strong_pull_and_beta_0_none():
    reference = Table(np.log(REFERENCE)[None])
    ends = {}
    for beta in (0.0, 100.0):
        config = GRPOConfig(num_generations=ACTIONS, beta=beta, kl_estimator="exact", **PLAIN)
        trainer = trained_table(GRPOTrainer, config, optax.sgd(1.0 / (1 + beta)), reference_model=reference)
        trainer.fit(every_action_once(), steps=2000)
        ends[beta] = trainer.model.probabilities[0]
    assert ends[0.0][1] > 0.99
    np.testing.assert_allclose(ends[100.0], REFERENCE, atol=0.01)


# Estimates of the KL from samples, each with a resting point of its own


@functools.cache
def where_groups_of_two_end(estimator):
    """Follow the expected gradient of GRPO's loss: over all pairs (a, b) with the probability π(a) π(b)."""
    config = GRPOConfig(num_generations=2, beta=BETA, kl_estimator=estimator, **PLAIN)
    options = {"reference_model": Table(np.log(REFERENCE)[None])} if estimator == "exact" else {}
    trainer = trained_table(GRPOTrainer, config, **options)

    def batch_of(pair, log_probs):
        batch = {"observations": jnp.zeros(2, int), "actions": pair, "rewards": jnp.asarray(REWARDS)[pair]}
        batch["log_probs"] = log_probs
        if estimator == "exact":
            return batch | {"reference": trainer._reference(batch["observations"], pair).distribution}
        return batch | {"ref_log_probs": jnp.log(REFERENCE)[pair]}

    return follow_pairs(trainer, batch_of)


def follow_pairs(trainer, batch_of):
    """Where the expected gradient leads: over batches of all pairs, each with its probability under the policy."""
    pairs = np.stack(np.meshgrid(*[np.arange(ACTIONS)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)

    def loss(logits, pair):
        batch = batch_of(pair, jax.lax.stop_gradient(jax.nn.log_softmax(logits[0])[pair]))
        return trainer.compute_loss(Table(logits), batch, jax.random.key(0))[0]

    def step(logits, _):
        gradients = jax.vmap(jax.grad(loss), in_axes=(None, 0))(logits, pairs)
        weights = jax.nn.softmax(logits[0])[pairs].prod(axis=1)
        return logits - 1.0 * jnp.tensordot(weights, gradients, axes=1), None

    start = jnp.asarray([[0.3, -0.2, 0.1, 0.0]])  # not the reference: an end that keeps nothing of it is visible
    logits, _ = jax.lax.scan(step, start, length=3000)
    return np.asarray(jax.nn.softmax(logits[0]))


#: A group's mean holds the sample itself, which scales the gradient of the reward by 1 − 1/G and not that of the KL.
SHARE = 1 - 1 / 2


@pytest.mark.parametrize("estimator", ["exact", "k2"])
def test_the_gradient_of_k2_is_that_of_the_kl(estimator):
    end = tilted(REFERENCE, REWARDS * SHARE, BETA)
    np.testing.assert_allclose(where_groups_of_two_end(estimator), end, atol=1e-4)


def test_the_gradient_of_k3_is_that_of_the_kl_the_other_way_round():
    end = forward_tilted(REFERENCE, REWARDS * SHARE, BETA)
    np.testing.assert_allclose(where_groups_of_two_end("k3"), end, atol=1e-4)
    assert np.abs(end - tilted(REFERENCE, REWARDS * SHARE, BETA)).max() > 0.02


def test_k1_in_the_loss_does_not_regularise():
    """E[∇(log π − log π_ref)] = E[∇ log π] = 0: an unbiased estimate of the KL, and of its gradient nothing."""
    assert where_groups_of_two_end("k1")[1] > 0.99  # the best action, as without a penalty
    assert where_groups_of_two_end("k2")[1] < 0.6


def test_rloo_with_the_kl_in_its_rewards_ends_at_the_tilted_reference():
    """r − β log(π/π_ref), which on average is r less the exact KL. The others are a baseline that keeps all of r."""
    config = REINFORCEConfig(
        baseline="leave_one_out", num_generations=2, normalize_returns=False, entropy_coeff=0.0, beta=BETA
    )
    trainer = trained_table(REINFORCETrainer, config)

    def batch_of(pair, log_probs):
        seen = {"ref_log_probs": jnp.log(REFERENCE)[pair], "dones": jnp.ones(2, bool)}
        rewards = jnp.asarray(REWARDS)[pair]
        return {"observations": jnp.zeros(2, int), "actions": pair, "rewards": rewards, **seen}

    np.testing.assert_allclose(follow_pairs(trainer, batch_of), tilted(REFERENCE, REWARDS, BETA), atol=1e-4)


# A sample in exact proportion, through train_step

RESTING = np.array([0.5, 0.25, 0.125, 0.125])
RESTING_REWARDS = {
    "k2": BETA * np.log(RESTING / REFERENCE),
    "exact": BETA * np.log(RESTING / REFERENCE),
    "k3": -BETA * REFERENCE / RESTING,
    "k1": np.zeros(ACTIONS),
}


@pytest.mark.parametrize("estimator", RESTING_REWARDS)
def test_each_estimator_rests_at_its_own_point_and_at_no_other(estimator):
    """Eight samples stand for ½, ¼, ⅛, ⅛; the rewards are those for which one estimator has no gradient there."""
    actions = np.repeat(np.arange(ACTIONS), (RESTING * 8).astype(int))
    config = GRPOConfig(num_generations=8, beta=BETA, kl_estimator=estimator, **PLAIN)
    reference = Table(np.log(REFERENCE)[None])
    still = optax.sgd(0.0)
    trainer = trained_table(GRPOTrainer, config, still, np.log(RESTING)[None], reference_model=reference)
    batch = {"observations": np.zeros(8, int), "actions": actions, "log_probs": np.log(RESTING)[actions]}
    for rewards in RESTING_REWARDS.values():
        grad_norm = trainer.train_step({**batch, "rewards": rewards[actions]})["grad_norm"]
        if np.allclose(rewards, RESTING_REWARDS[estimator]):
            assert grad_norm < 1e-6
        else:
            assert grad_norm > 5e-3


# Preferences

WEIGHTS = np.array([[1, 2, 4, 2], [4, 4, 1, 2]])  # exp(r), for two contexts
CONTEXT_REFERENCE = np.array([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]], np.float32)


def all_preferences(flipped=0.0):
    """Every pair as often as the Bradley-Terry model prefers it: P(a over b) = w_a / (w_a + w_b)."""
    rows = []
    for context, weights in enumerate(WEIGHTS):
        for a in range(ACTIONS):
            for b in range(ACTIONS):
                if a != b:
                    share = weights[a] / (weights[a] + weights[b])
                    share = (1 - flipped) * share + flipped * (1 - share)
                    count = round(share * 300)  # all shares are multiples of 1/15, and of 1/300 with 5 % flipped
                    assert abs(count - share * 300) < 1e-9
                    rows += [(context, a, b)] * count
    contexts, chosen, rejected = np.array(rows).T
    return {"observations": contexts, "chosen": chosen, "rejected": rejected}


@pytest.mark.parametrize(("loss_type", "reference"), [("sigmoid", "live"), ("robust", "precomputed")])
def test_tabular_dpo_ends_at_the_tilted_reference(loss_type, reference):
    """Preferences that follow exp(r) / (exp(r) + exp(r')) lead to π_ref exp(r/β), though no reward is ever seen."""
    flipped = 0.05 if loss_type == "robust" else 0.0
    batch, options = all_preferences(flipped), {}
    if reference == "live":
        options = {"reference_model": Table(np.log(CONTEXT_REFERENCE))}
    else:
        log_probs = np.log(CONTEXT_REFERENCE)
        for side in ("chosen", "rejected"):
            batch[f"ref_{side}_log_probs"] = log_probs[batch["observations"], batch[side]]
    config = DPOConfig(beta=BETA, loss_type=loss_type, label_smoothing=flipped)
    trainer = trained_table(DPOTrainer, config, optax.sgd(10.0), np.log(CONTEXT_REFERENCE), **options)
    trainer.fit(batch, steps=1000)
    expected = tilted(CONTEXT_REFERENCE, np.log(WEIGHTS), BETA)
    np.testing.assert_allclose(trainer.model.probabilities, expected, atol=1e-4)


@pytest.mark.slow
def test_ipo_ends_at_a_margin_and_dpo_runs_away_from_unanimous_labels():
    """One pair, always preferred the same way: IPO's margin is 1 / (2β); the sigmoid's has no end."""
    batch = {"observations": np.zeros(1, int), "chosen": np.array([1]), "rejected": np.array([0])}
    margins = {}
    for loss_type in ("ipo", "sigmoid"):
        config = DPOConfig(beta=BETA, loss_type=loss_type)
        reference = Table(np.log(REFERENCE)[None])
        trainer = trained_table(DPOTrainer, config, optax.sgd(0.2), reference_model=reference)
        history = trainer.fit(batch, steps=2000)
        margins[loss_type] = history["reward_margin"] / BETA
    np.testing.assert_allclose(margins["ipo"][-1], 1 / (2 * BETA), atol=1e-4)
    assert margins["sigmoid"][-1] > margins["sigmoid"][1000] + 0.5 > 5


def test_label_smoothing_gives_dpo_an_end():
    """cDPO stops where σ(βh) is 1 − s."""
    batch = {"observations": np.zeros(1, int), "chosen": np.array([1]), "rejected": np.array([0])}
    config = DPOConfig(beta=BETA, label_smoothing=0.1)
    trainer = trained_table(DPOTrainer, config, optax.sgd(2.0), reference_model=Table(np.log(REFERENCE)[None]))
    history = trainer.fit(batch, steps=1000)
    np.testing.assert_allclose(history["reward_margin"][-1], np.log(0.9 / 0.1), atol=1e-3)


@pytest.mark.slow
def test_simpo_holds_on_to_no_reference():
    """Two starts, one end: where the average log-probabilities differ by the target that smoothing allows."""
    batch = {"observations": np.zeros(1, int), "chosen": np.array([1]), "rejected": np.array([0])}
    config = DPOConfig(beta=2.0, reference_free=True, gamma_beta_ratio=0.25, label_smoothing=0.1)
    for logits in (np.log(REFERENCE)[None], np.array([[1.0, -1.0, 0.0, 2.0]])):
        trainer = trained_table(DPOTrainer, config, optax.sgd(0.5), logits=logits)
        history = trainer.fit(batch, steps=1000)
        np.testing.assert_allclose(history["reward_margin"][-1] / 2.0 - 0.25, np.log(9) / 2.0, atol=1e-3)
