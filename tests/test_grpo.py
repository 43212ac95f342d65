"""GRPO: one step against a step written by hand, the claims of its docstring, bad batches, and that it learns."""

from __future__ import annotations

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from refusals import assert_refused

from artifex_rl import (
    DiagonalGaussian,
    GRPOConfig,
    GRPOTrainer,
    REINFORCEConfig,
    REINFORCETrainer,
    SequencePolicy,
)
from artifex_rl.models import MLP

PROMPTS, GROUP, TOKENS, VOCABULARY = 3, 4, 3, 5
ROWS = PROMPTS * GROUP
SGD = optax.sgd(1.0)


class Writer(nnx.Module):
    """A causal network over tokens: it sees the first token, the last one, and where it is."""

    def __init__(self, prompts, length, vocabulary, hidden, *, rngs):
        self.prompts, self.length = prompts, length
        self.mlp = MLP(2 * prompts + length, [hidden], vocabulary, rngs=rngs)

    def __call__(self, tokens):
        seen = jax.nn.one_hot(tokens, self.prompts)
        first = jnp.broadcast_to(seen[:, :1], seen.shape)
        where = jnp.broadcast_to(jnp.eye(self.length)[None, : tokens.shape[1]], (*tokens.shape, self.length))
        return self.mlp(jnp.concatenate([first, seen, where], axis=-1))


class Gaussian(nnx.Module):
    def __init__(self, *, rngs):
        self.mlp = MLP(2, [4], 3, rngs=rngs)
        self.log_std = nnx.Param(jnp.zeros(3))

    def __call__(self, x):
        return DiagonalGaussian(self.mlp(x), self.log_std[...])


def writer(seed=0):
    network = Writer(VOCABULARY, TOKENS + 1, VOCABULARY, 8, rngs=nnx.Rngs(seed))
    return SequencePolicy(network, max_length=TOKENS)


def chooser(seed=0):
    return MLP(2, [8], VOCABULARY, rngs=nnx.Rngs(seed))


def make(model, optimizer=None, reference_model=None, **settings):
    optimizer = nnx.Optimizer(model, optimizer or optax.adam(1e-2), wrt=nnx.Param)
    return GRPOTrainer(model, optimizer, GRPOConfig(**settings), reference_model=reference_model)


def start(kind=writer, reference=None, **settings):
    """A trainer in its first state. Those that differ in numbers alone are one, so that it is compiled once."""
    config = GRPOConfig(**settings)
    key = kind, reference, jax.tree.structure(config)
    if key not in TRAINERS:
        trainer = make(kind(), SGD, None if reference is None else kind(reference), **settings)
        TRAINERS[key] = trainer, jax.tree.map(jnp.copy, trainer.state)
    trainer, state = TRAINERS[key]
    trainer.state, trainer.config = state, config
    return trainer


TRAINERS = {}


def end_of(batch, trainer):
    """The parameters after a step."""
    trainer.train_step(batch)
    return parameters(trainer.model)


def without(batch, *names):
    return {name: value for name, value in batch.items() if name not in names}


def single_actions(seed=0):
    """Twelve samples for three prompts, one action each, with log-probabilities of an older policy."""
    rng = np.random.default_rng(seed)
    return {
        "observations": np.repeat(rng.normal(size=(PROMPTS, 2)), GROUP, axis=0).astype(np.float32),
        "actions": rng.integers(0, VOCABULARY, ROWS),
        "rewards": rng.normal(size=ROWS).astype(np.float32),
        "log_probs": np.log(rng.uniform(0.1, 0.4, ROWS)).astype(np.float32),
    }


def responses(seed=0):
    """Twelve responses of one to three tokens."""
    rng = np.random.default_rng(seed)
    return {
        "observations": np.repeat(rng.integers(0, VOCABULARY, (PROMPTS, 1)), GROUP, axis=0),
        "actions": rng.integers(0, VOCABULARY, (ROWS, TOKENS)),
        "rewards": rng.normal(size=ROWS).astype(np.float32),
        "log_probs": np.log(rng.uniform(0.1, 0.4, (ROWS, TOKENS))).astype(np.float32),
        "lengths": rng.integers(1, TOKENS + 1, ROWS),
        "ref_log_probs": np.log(rng.uniform(0.1, 0.4, (ROWS, TOKENS))).astype(np.float32),
    }


def on_policy(trainer, batch):
    policy = trainer.evaluate_actions(trainer.model, batch["observations"], batch["actions"])
    return {**batch, "log_probs": policy.log_probs}


def parameters(model):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))]


def assert_same(one, other, **tolerance):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


# One step, by hand


def step_by_hand(model, batch, config, reference=None):
    """DeepSeekMath's equation 3 and its variants, response by response, with NumPy for all that is constant."""
    lengths = batch.get("lengths", np.full(ROWS, TOKENS))
    rewards = np.asarray(batch["rewards"], np.float64)
    if rewards.ndim == 2:
        rewards = np.array(
            [sum(config.gamma**t * r[t] for t in range(n)) for r, n in zip(rewards, lengths, strict=True)]
        )
    advantages = np.empty(ROWS)
    for start in range(0, ROWS, GROUP):
        group = rewards[start : start + GROUP]
        scale = {"group": group.std(), "batch": rewards.std(), "none": 1.0}[config.advantage_scale]
        advantages[start : start + GROUP] = (group - group.mean()) / scale
    low, high = config.clip_param, config.clip_param_high or config.clip_param

    def tables_of(model):
        return jax.nn.log_softmax(model.network(np.concatenate([batch["observations"], batch["actions"]], axis=1)))

    held = None if reference is None else tables_of(reference)

    def loss(model):
        terms, tables = [], tables_of(model)
        for i, n in enumerate(lengths):
            table = tables[i, :n]
            new = table[jnp.arange(n), batch["actions"][i, :n]]
            ratio = jnp.exp(new - batch["log_probs"][i, :n])
            if config.ratio_level == "sequence":
                ratio = jnp.full(n, jnp.prod(ratio) ** (1 / n))
            surrogate = jnp.minimum(ratio * advantages[i], jnp.clip(ratio, 1 - low, 1 + high) * advantages[i])
            d = new - batch["ref_log_probs"][i, :n] if "ref_log_probs" in batch else 0 * new
            if config.kl_estimator == "exact":
                kl = jnp.sum(jnp.exp(table) * (table - held[i, :n]), axis=1)
            else:
                kl = {"k1": d, "k2": d**2 / 2, "k3": jnp.exp(-d) - 1 + d}[config.kl_estimator]
            entropy = -jnp.sum(jnp.exp(table) * table, axis=1)
            terms.append(-surrogate + config.beta * kl - config.entropy_coeff * entropy)
        if config.loss_aggregation == "sequence":
            return sum(term.mean() for term in terms) / ROWS
        divisor = ROWS * (config.max_length or TOKENS) if config.loss_aggregation == "constant" else sum(lengths)
        return sum(term.sum() for term in terms) / float(divisor)

    value, grads = nnx.jit(nnx.value_and_grad(loss))(model)
    optimizer = nnx.Optimizer(model, optax.sgd(1.0), wrt=nnx.Param)
    optimizer.update(model, grads)
    return value, optax.tree.norm(grads)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        *(
            pytest.param(settings, marks=pytest.mark.slow)
            for settings in (
                {"kl_estimator": "exact", "beta": 0.5, "loss_aggregation": "token"},
                {"advantage_scale": "batch", "loss_aggregation": "token", "clip_param_high": 0.5},
                {"advantage_scale": "none", "loss_aggregation": "constant", "beta": 0.3, "kl_estimator": "k1"},
                {"loss_aggregation": "constant", "max_length": 7, "kl_estimator": "k2", "beta": 0.3},
                {"ratio_level": "sequence", "clip_param": 0.05, "entropy_coeff": 0.2},
                {"gamma": 0.5, "beta": 0.0},
            )
        ),
    ],
    ids=lambda settings: "-".join(map(str, settings.values())) or "guide",
)
def test_one_step_is_the_step_written_by_hand(settings):
    batch, by_hand, seed = responses(), writer(), None
    if settings.get("kl_estimator") == "exact":
        batch, seed = without(batch, "ref_log_probs"), 1
    if "gamma" in settings:
        batch["rewards"] = np.random.default_rng(1).normal(size=(ROWS, TOKENS)).astype(np.float32)
    trainer = start(reference=seed, **settings)
    metrics = trainer.train_step(batch)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        loss, grad_norm = step_by_hand(by_hand, batch, trainer.config, seed and writer(seed))
    np.testing.assert_allclose(metrics["loss"], loss, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(metrics["grad_norm"], grad_norm, rtol=2e-4)
    assert_same(parameters(trainer.model), parameters(by_hand), rtol=1e-3, atol=2e-6)


def test_every_metric_is_its_formula():
    batch, trainer = responses(), start(beta=0.3, clip_param=0.3, clip_param_high=0.9)
    batch["rewards"][:GROUP] = 0.7  # one group of three teaches nothing
    mask = np.arange(TOKENS) < batch["lengths"][:, None]
    seen = trainer.model.evaluate(batch["observations"], batch["actions"])
    log_probs, entropy = (np.asarray(x, np.float64) for x in (seen.log_probs, seen.entropy))
    log_ratio, d = log_probs - batch["log_probs"], batch["ref_log_probs"] - log_probs
    ratio, groups = np.exp(log_ratio), batch["rewards"].reshape(PROMPTS, GROUP)
    stds = np.array([1, *groups[1:].std(axis=1)])[:, None]
    advantages = ((groups - groups.mean(axis=1, keepdims=True)) / stds).reshape(ROWS, 1)

    def mean(x):
        return np.mean([row[:n].mean() for row, n in zip(x, batch["lengths"], strict=True)])

    expected = {
        "policy_loss": -mean(np.minimum(ratio * advantages, np.clip(ratio, 0.7, 1.9) * advantages)),
        "kl_penalty": mean(np.exp(d) - 1 - d),
        "kl_k3": mean(np.exp(d) - 1 - d),
        "entropy": mean(entropy),
        "approx_kl": (ratio - 1 - log_ratio)[mask].mean(),
        "clip_fraction": ((ratio < 0.7) | (ratio > 1.9))[mask].mean(),
        "mean_reward": batch["rewards"].mean(),
        "group_advantage_std": np.sqrt(2 / 3),
        "frac_zero_std": 1 / 3,
    }
    assert (ratio < 0.7)[mask].any() and (ratio > 1.9)[mask].any() and expected["clip_fraction"] < 1
    expected["loss"] = expected["policy_loss"] + 0.3 * expected["kl_penalty"] - 0.01 * expected["entropy"]
    metrics = trainer.train_step(batch)
    assert metrics.pop("grad_norm") > 0
    assert metrics == pytest.approx(expected, rel=1e-4, abs=1e-6)


# What the docstring says


def test_on_policy_the_loss_is_0_and_its_gradient_is_reinforces_with_the_group_as_baseline():
    model = chooser()
    batch = {**single_actions(), "dones": np.ones(ROWS)}
    grpo = make(model, optax.sgd(1.0), entropy_coeff=0.0, advantage_scale="none")
    other = nnx.clone(model)
    config = REINFORCEConfig(
        baseline="leave_one_out", num_generations=GROUP, normalize_returns=False, entropy_coeff=0.0
    )
    reinforce = REINFORCETrainer(other, nnx.Optimizer(other, optax.sgd(1 - 1 / GROUP), wrt=nnx.Param), config)
    metrics = grpo.train_step(on_policy(grpo, batch))
    reinforce.train_step(batch)
    assert abs(metrics["policy_loss"]) < 1e-7 < 0.01 < metrics["grad_norm"]
    assert metrics["approx_kl"] == pytest.approx(0, abs=1e-9)
    assert metrics["clip_fraction"] == 0
    # Leave-one-out is the group's mean, times G / (G − 1).
    assert_same(parameters(model), parameters(other), atol=1e-6)


def test_equal_rewards_teach_exactly_nothing():
    trainer = start(chooser, entropy_coeff=0.0)
    before = parameters(trainer.model)
    metrics = trainer.train_step({**single_actions(), "rewards": np.full(ROWS, 0.1)})
    assert metrics["frac_zero_std"] == 1 and metrics["group_advantage_std"] == 0 and metrics["grad_norm"] == 0
    assert_same(before, parameters(trainer.model), rtol=0, atol=0)


def test_beta_0_and_no_reference_are_the_same_step():
    batch = responses()
    ends = []
    for beta, given in ((0.0, True), (0.5, False)):
        trainer = start(beta=beta)
        metrics = trainer.train_step(batch if given else without(batch, "ref_log_probs"))
        assert (metrics["kl_penalty"] > 0.01) == given  # measured, though it weighs nothing
        ends.append(parameters(trainer.model))
    assert_same(*ends, rtol=0, atol=0)


@pytest.mark.parametrize("settings", [{}, {"kl_estimator": "exact"}])
def test_a_live_reference_gives_the_penalty_of_its_log_probs(settings):
    """KL(π ‖ π_ref) is 0 while the two are the same, and grows as one moves; the reference stays what it was."""
    trainer, batch = start(reference=0, beta=0.1, **settings), without(responses(), "ref_log_probs")
    assert trainer.train_step(batch)["kl_penalty"] == pytest.approx(0, abs=1e-7)
    for _ in range(5):
        moved = trainer.train_step(batch)["kl_penalty"]
    assert moved > 1e-4
    if not settings:
        seen = writer(0).evaluate(batch["observations"], batch["actions"])
        other = start(beta=0.1)
        other.state = trainer.state
        given = other.train_step({**batch, "ref_log_probs": seen.log_probs})
        assert given["kl_penalty"] == pytest.approx(trainer.train_step(batch)["kl_penalty"], rel=1e-4)


@pytest.mark.slow
def test_the_exact_kl_is_what_k3_is_on_average():
    model, reference = chooser(0), chooser(1)
    kl = {}
    for estimator in ("k3", "exact"):
        trainer = make(model, optax.sgd(0.0), reference, num_generations=4000, kl_estimator=estimator)
        batch = trainer.collect(
            {"observations": np.ones((2, 2), np.float32)}, lambda s, c: s.astype(jnp.float32), jax.random.key(1)
        )
        kl[estimator] = trainer.train_step(batch)["kl_penalty"]
    assert kl["exact"] > 0.05
    assert kl["k3"] == pytest.approx(kl["exact"], rel=0.1)


def test_a_reference_that_is_the_model_is_an_error():
    model = writer()
    with pytest.raises(ValueError, match="reference_model"):
        make(model, reference_model=model)


def test_rewards_of_tokens_at_the_end_are_rewards_of_the_response_if_nothing_is_discounted():
    batch, ends = responses(), []
    on_tokens = np.zeros((ROWS, TOKENS), np.float32)
    on_tokens[np.arange(ROWS), batch["lengths"] - 1] = batch["rewards"]
    for gamma, rewards in ((0.3, batch["rewards"]), (1.0, on_tokens)):  # gamma does not count for the first
        ends.append(end_of({**batch, "rewards": rewards}, start(gamma=gamma)))
    assert_same(*ends, atol=1e-6)


def test_dones_end_a_response_as_lengths_do():
    batch = {**responses(), "rewards": np.random.default_rng(3).normal(size=(ROWS, TOKENS))}
    dones = np.arange(TOKENS) >= batch["lengths"][:, None] - 1
    ends = [end_of(each, start()) for each in (batch, {**without(batch, "lengths"), "dones": dones})]
    assert_same(*ends, rtol=0, atol=0)


def test_what_is_masked_counts_for_nothing_not_even_nan():
    batch, ends = responses(), []
    mask = np.arange(TOKENS) < batch.pop("lengths")[:, None]
    for junk in (0.0, np.nan):
        spoilt = {name: np.where(mask, batch[name], junk) for name in ("log_probs", "ref_log_probs")}
        actions = np.where(mask, batch["actions"], 0 if np.isnan(junk) else 1)
        ends.append(end_of({**batch, **spoilt, "actions": actions, "mask": mask}, start()))
    assert_same(*ends, rtol=0, atol=0)


def test_a_sample_whose_mask_is_false_is_not_in_its_group():
    """Without its fourth member the first group's mean is that of three."""
    batch = single_actions()
    batch["rewards"][:GROUP] = [1, 2, 3, 1000]
    mask = np.arange(ROWS) != 3
    trainer = start(chooser, advantage_scale="none")
    metrics = trainer.train_step(on_policy(trainer, {**batch, "mask": mask}))
    assert metrics["mean_reward"] == pytest.approx(batch["rewards"][mask].mean(), rel=1e-5)
    others = batch["rewards"][GROUP:].reshape(-1, GROUP)
    squares = np.sum((others - others.mean(axis=1, keepdims=True)) ** 2) + 2  # (1 − 2)² + (3 − 2)²
    assert metrics["group_advantage_std"] == pytest.approx(np.sqrt(squares / 11), rel=1e-5)


def test_observations_of_prompts_are_repeated_for_their_group():
    batch = responses()
    prompts = batch["observations"], batch["observations"][::GROUP]
    assert_same(*(end_of({**batch, "observations": each}, start()) for each in prompts), rtol=0, atol=0)


def test_group_size_of_the_batch_overrides_the_config():
    batch = single_actions()
    batch["rewards"] = np.repeat([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2)  # equal in pairs, not in fours
    trainer = start(chooser)
    assert trainer.train_step({**batch, "group_size": 2})["frac_zero_std"] == 1
    assert trainer.train_step(batch)["frac_zero_std"] == 0


def test_several_updates_are_several_steps_with_the_same_old_policy():
    batch, together, apart = responses(), start(num_updates=3), start()
    losses = [apart.train_step(batch)["loss"] for _ in range(3)]
    metrics = together.train_step(batch)
    assert together.step == 1 and metrics["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert_same(parameters(together.model), parameters(apart.model), rtol=1e-3, atol=1e-5)


def test_clipping_stops_where_it_says():
    """All ratios far above 1 + ε: only samples with negative advantages still have a gradient."""
    batch = {**single_actions(), "log_probs": np.full(ROWS, -10.0)}
    trainer = start(chooser, entropy_coeff=0.0)
    metrics = trainer.train_step(batch)
    assert metrics["clip_fraction"] == 1 and np.isfinite(metrics["loss"]) and metrics["grad_norm"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["exact", "k3"])
def test_continuous_actions_and_trajectories_with_two_axes(estimator):
    """(B, T) rewards of a policy of single actions: B trajectories, each a group's member, T actions each."""
    rng = np.random.default_rng(0)
    model, reference = Gaussian(rngs=nnx.Rngs(0)), Gaussian(rngs=nnx.Rngs(1))
    batch = {
        "observations": rng.normal(size=(8, 5, 2)).astype(np.float32),
        "actions": rng.normal(size=(8, 5, 3)).astype(np.float32),
        "rewards": rng.normal(size=(8, 5)).astype(np.float32),
        "log_probs": rng.normal(size=(8, 5)).astype(np.float32) - 4,
        "dones": rng.uniform(size=(8, 5)) < 0.2,
    }
    # An episode's first end is a trajectory's; means are over the steps of a trajectory, then over trajectories.
    lengths = [1 + np.argmax(row) if row.any() else 5 for row in batch["dones"]]
    mine, theirs = model(batch["observations"]), reference(batch["observations"])
    d = np.asarray(theirs.log_prob(batch["actions"]) - mine.log_prob(batch["actions"]), np.float64)
    kl = np.asarray(mine.kl(theirs)) if estimator == "exact" else np.exp(d) - 1 - d
    trainer = make(model, None, reference, kl_estimator=estimator)
    metrics = trainer.train_step(batch)
    expected = np.mean([row[:n].mean() for row, n in zip(kl, lengths, strict=True)])
    assert metrics["kl_penalty"] == pytest.approx(expected, rel=1e-4)
    assert metrics["grad_norm"] > 0


def test_numbers_of_the_config_never_compile_again():
    traces = []

    class Counted(GRPOTrainer):
        def compute_loss(self, *arguments):
            traces.append(1)
            return super().compute_loss(*arguments)

    model = writer()
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    trainer = Counted(model, optimizer, GRPOConfig(clip_param_high=0.3), reference_model=writer(1))
    batch = without(responses(), "ref_log_probs")
    trainer.train_step(batch)
    once = len(traces)
    for name, value in (("clip_param", 0.1), ("beta", 0.0), ("entropy_coeff", 0.0), ("gamma", 0.5)):
        trainer.config = dataclasses.replace(trainer.config, **{name: value}, clip_param_high=0.4)
        trainer.train_step(batch)
    assert len(traces) == once


# Bad batches

NAN = float("nan")
BAD = {
    "nothing": ({}, lambda b: {}, ("observations", "actions", "rewards", "log_probs", "old_log_probs")),
    "no log_probs": ({}, lambda b: without(b, "log_probs"), ("log_probs", "old_log_probs")),
    "no rewards": ({}, lambda b: without(b, "rewards"), ("rewards",)),
    "two names": ({}, lambda b: {**b, "old_log_probs": b["log_probs"]}, ("log_probs", "old_log_probs")),
    "misspelt": ({}, lambda b: {**b, "ref_logprobs": b["log_probs"]}, ("ref_logprobs",)),
    "rewards NaN": ({}, lambda b: {**b, "rewards": b["rewards"] * NAN}, ("rewards", "nan", "finite")),
    "rewards (B, 1)": ({}, lambda b: {**b, "rewards": b["rewards"][:, None]}, ("rewards", "(12, 1)", "(12,)")),
    "rewards too few": ({}, lambda b: {**b, "rewards": b["rewards"][:8]}, ("(8,",)),
    "rewards 3 axes": ({}, lambda b: {**b, "rewards": b["rewards"][:, None, None]}, ("rewards", "(12, 1, 1)")),
    "log_probs (B, 1)": (
        {},
        lambda b: {**b, "log_probs": b["log_probs"][:, None]},
        ("log_probs", "(12, 1)", "(12,)"),
    ),
    "log_probs inf": ({}, lambda b: {**b, "log_probs": b["log_probs"] - np.inf}, ("log_probs", "-inf", "finite")),
    "probabilities": ({}, lambda b: {**b, "log_probs": np.exp(b["log_probs"])}, ("log_probs", "logarithms")),
    "ref NaN": ({}, lambda b: {**b, "ref_log_probs": b["log_probs"] * NAN}, ("ref_log_probs", "nan", "finite")),
    "ref too few": ({}, lambda b: {**b, "ref_log_probs": b["log_probs"][:4]}, ("ref_log_probs", "(4,)", "(12,)")),
    "actions out of range": ({}, lambda b: {**b, "actions": b["actions"] + 5}, ("actions", "0 to 4")),
    "actions of floats": ({}, lambda b: {**b, "actions": b["actions"] / 2}, ("actions", "float32", "integers")),
    "actions too few": ({}, lambda b: {**b, "actions": b["actions"][:8]}, ("actions", "(8,)", "12")),
    "observations NaN": ({}, lambda b: {**b, "observations": b["observations"] * NAN}, ("observations", "nan")),
    "observations wide": ({}, lambda b: {**b, "observations": np.ones((ROWS, 3))}, ("observations", "(12, 3)")),
    "observations of 5": ({}, lambda b: {**b, "observations": b["observations"][:5]}, ("observations", "(5, 2)")),
    "group_size 5": ({}, lambda b: {**b, "group_size": 5}, ("group_size", "5", "divisor", "12")),
    "group_size 0": ({}, lambda b: {**b, "group_size": 0}, ("group_size", "0", "at least 1")),
    "group_size 2.5": ({}, lambda b: {**b, "group_size": 2.5}, ("group_size", "2.5", "integer")),
    "config's group": ({"num_generations": 8}, lambda b: b, ("group_size", "num_generations", "8", "12")),
    "mask of words": ({}, lambda b: {**b, "mask": np.array(["a"] * ROWS)}, ("mask", "numbers")),
    "mask of fractions": ({}, lambda b: {**b, "mask": np.full(ROWS, 0.5)}, ("mask", "0 and 1", "flags")),
    "mask of nothing": ({}, lambda b: {**b, "mask": np.zeros(ROWS)}, ("mask", "at least one")),
    "mask (B, 2)": ({}, lambda b: {**b, "mask": np.ones((ROWS, 2))}, ("mask", "(12, 2)", "(12,)")),
    "lengths of actions": ({}, lambda b: {**b, "lengths": np.ones(ROWS, int)}, ("lengths", "(12,)")),
    "exact without a model": (
        {"kl_estimator": "exact"},
        lambda b: {**b, "ref_log_probs": b["log_probs"]},
        ("ref_log_probs", "exact", "reference_model"),
    ),
    "dones of fractions": ({}, lambda b: {**b, "dones": np.full(ROWS, 0.5)}, ("dones", "flags")),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_batch_is_refused(name):
    settings, spoil, words = BAD[name]
    assert_refused(start(chooser, **settings), spoil(single_actions()), *words)


def test_bad_batches_of_responses_are_refused():
    trainer, batch = start(reference=1), without(responses(), "ref_log_probs")
    lengths = batch["lengths"]
    assert_refused(trainer, {**batch, "lengths": lengths + 3}, "lengths", "0 to 3")
    assert_refused(trainer, {**batch, "mask": np.ones((ROWS, TOKENS))}, "lengths", "mask")
    assert_refused(trainer, {**batch, "rewards": np.ones((ROWS, 2))}, "rewards", "(12, 2)", "(12, 3)")
    assert_refused(trainer, {**batch, "log_probs": np.ones(ROWS)}, "log_probs", "(12,)", "(12, 3)")
    assert_refused(trainer, {**batch, "ref_log_probs": batch["log_probs"]}, "ref_log_probs", "reference_model")
    assert_refused(trainer, {**batch, "dones": np.ones((ROWS, TOKENS))}, "dones", "(12, 3)", "(12,)")


def test_the_exact_kl_needs_two_distributions_of_one_shape():
    model, reference = chooser(), MLP(2, [8], VOCABULARY + 1, rngs=nnx.Rngs(0))
    trainer = make(model, reference_model=reference, kl_estimator="exact")
    assert_refused(trainer, single_actions(), "kl_estimator", "exact", "shape")


def test_a_reference_must_score_as_the_model_does():
    class Whole(SequencePolicy):
        """One log-probability for a response, not one for each token."""

        def evaluate(self, *arguments):
            seen = super().evaluate(*arguments)
            return seen._replace(log_probs=seen.log_probs.sum(axis=1))

    trainer = make(writer(), reference_model=Whole(writer(1).network, TOKENS))
    assert_refused(trainer, without(responses(), "ref_log_probs"), "reference_model", "(12,)", "(12, 3)")


def test_the_exact_kl_needs_distributions():
    class Closed(SequencePolicy):
        """Says how likely tokens are, and not what they were drawn from."""

        def evaluate(self, *arguments):
            return super().evaluate(*arguments)._replace(distribution=None)

    model, reference = (Closed(writer(seed).network, TOKENS) for seed in (0, 1))
    trainer = make(model, reference_model=reference, kl_estimator="exact")
    assert_refused(trainer, without(responses(), "ref_log_probs"), "kl_estimator", "exact", "kl()")


def test_without_a_reference_there_is_no_penalty_of_any_kind():
    assert start(chooser, kl_estimator="exact").train_step(single_actions())["kl_penalty"] == 0


def test_a_group_of_one_is_warned_of():
    trainer = make(chooser(), num_generations=1)
    with pytest.warns(UserWarning, match="group_size") as caught:
        trainer.train_step(single_actions())
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        trainer.train_step(single_actions())


# Learning: two digits that sum to n

SUMS = np.arange(19)[:, None]


def adds_up(samples, conditions):
    return np.asarray(samples).sum(axis=1) == np.asarray(conditions)[:, 0]


def train_to_add(seed, steps):
    """GRPO on all 19 sums; the share of right answers before and after, as sampled."""
    model = SequencePolicy(Writer(19, 3, 10, 64, rngs=nnx.Rngs(seed)), max_length=2)
    trainer = make(model, optax.adam(1e-2), num_generations=16)
    shares = [
        trainer.train_step({"observations": SUMS}, adds_up, jax.random.fold_in(jax.random.key(seed), step))[
            "mean_reward"
        ]
        for step in range(steps)
    ]
    return shares[0], np.mean(shares[-20:])


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_grpo_learns_to_emit_two_digits_that_sum_to_n(seed):
    before, after = train_to_add(seed, steps=120)
    assert before < 0.1
    assert after >= 0.89
