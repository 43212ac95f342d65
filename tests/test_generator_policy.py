"""Generators as policies, a discriminator as a reward: densities by scipy, the guide's example, rewards that rise."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from refusals import assert_refused, snapshot
from scipy.stats import norm

from artifex_rl import (
    GRPOConfig,
    GRPOTrainer,
    Policy,
    PPOConfig,
    PPOTrainer,
    REINFORCEConfig,
    REINFORCETrainer,
)
from artifex_rl.models import MLP, Discriminator, Generator
from artifex_rl.rl.discriminator_reward import DiscriminatorReward
from artifex_rl.rl.generator_policy import GeneratorPolicy, LatentPolicy
from artifex_rl.rl.scoring import score_samples

close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
NOISE = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)


def new_generator(classes=None):
    return Generator(3, (2, 2), (16,), classes, rngs=nnx.Rngs(0))


def trainer_for(policy, kind=REINFORCETrainer, config=None, rate=1e-2, **options):
    return kind(policy, nnx.Optimizer(policy, optax.adam(rate), wrt=nnx.Param), config, **options)


def brightness(samples, conditions=None):
    return np.asarray(samples).mean(axis=(1, 2))


# Around the samples


def test_a_sample_has_the_density_of_a_normal_around_what_the_generator_makes():
    policy = GeneratorPolicy(new_generator(), 0.3)
    samples, log_probs = policy.sample(NOISE, jax.random.key(0))
    made = np.asarray(policy.generator(jnp.asarray(NOISE)))
    expected = norm.logpdf(np.asarray(samples), made, 0.3).sum(axis=(1, 2))
    seen = policy.evaluate(NOISE, samples)
    close(log_probs, expected)
    close(seen.log_probs, expected)
    close(seen.entropy, np.full(16, 4 * norm.entropy(scale=0.3)))
    assert isinstance(policy, Policy) and samples.shape == (16, 2, 2)


def test_calling_it_draws_anew_with_its_own_standard_deviation():
    policy = GeneratorPolicy(new_generator(), 0.2, rngs=nnx.Rngs(3))
    noise = np.tile(NOISE[:1], (4000, 1))
    first, second = np.asarray(policy(noise)), np.asarray(policy(noise))
    made = np.asarray(policy.generator(jnp.asarray(NOISE[:1])))
    assert (first != second).all()
    close(first.mean(axis=0), made[0], atol=0.02)
    close(first.std(axis=0), np.full((2, 2), 0.2), atol=0.01)


@pytest.mark.slow
def test_the_gradient_reaches_every_weight_and_is_that_of_the_density(check_gradients):
    policy = GeneratorPolicy(new_generator(), 0.3)
    graphdef, weights, rest = nnx.split(policy, nnx.Param, ...)
    samples = policy(NOISE)
    slopes = jax.grad(lambda w: nnx.merge(graphdef, w, rest).evaluate(NOISE, samples).log_probs.sum())(weights)
    assert all(np.abs(x).max() > 1e-3 for x in jax.tree.leaves(slopes))
    # ∂ log N / ∂ μ = (a − μ) / σ²: the last bias moves μ by tanh's slope.
    made = np.asarray(policy.generator(jnp.asarray(NOISE)))
    expected = ((np.asarray(samples) - made) / 0.09 * (1 - made**2)).sum(axis=0).reshape(-1)
    close(nnx.as_pure(slopes)["generator"]["layers"][1]["bias"], expected, rtol=1e-3)


def test_its_standard_deviation_may_be_set_without_a_compilation():
    policy = GeneratorPolicy(new_generator(), 0.3)
    trainer = trainer_for(policy)
    batch = {"observations": NOISE, "actions": policy(NOISE), "rewards": np.ones(16), "dones": np.ones(16, bool)}
    entropies = []
    for std in (0.3, 0.1):
        policy.std = std
        entropies.append(trainer.train_step(batch)["entropy"])
        assert float(policy.std) == pytest.approx(std)  # it is set, not learnt
    close(entropies, [4 * norm.entropy(scale=std) for std in (0.3, 0.1)])
    assert trainer._compiled_step._cache_size() == 1


def test_a_conditional_generator_is_told_labels():
    policy = GeneratorPolicy(new_generator(3), 0.1)
    labels = np.arange(16, dtype=np.int32) % 3
    trainer = trainer_for(policy, config=REINFORCEConfig(normalize_returns=False))
    observations = {"noise": NOISE, "labels": labels}
    assert np.isfinite(trainer.train_step({"observations": observations}, lambda s, c: np.ones(len(s)))["loss"])
    made = np.asarray(policy.generator(jnp.asarray(NOISE), jnp.asarray(labels)))
    close(policy.distribution(observations).mean, made)


def test_errors_say_what_is_needed():
    policy = GeneratorPolicy(new_generator())
    for std in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="std: got"):
            GeneratorPolicy(new_generator(), std)
    with pytest.raises(ValueError, match="std: got 0"):
        policy.std = 0.0
    with pytest.raises(ValueError, match=r"actions: got shape \(16, 4\), needs \(16, 2, 2\)"):
        policy.evaluate(NOISE, np.zeros((16, 4), np.float32))


def test_a_bare_generator_is_told_that_it_has_no_density():
    generator = new_generator()
    trainer = trainer_for(generator)
    batch = {"observations": NOISE, "actions": generator(jnp.asarray(NOISE)), "rewards": np.ones(16, np.float32)}
    assert_refused(trainer, batch, "G(z), has no density", "DiagonalGaussian")


# Before the samples


def test_a_latent_policy_begins_as_the_prior():
    policy = LatentPolicy(new_generator(), num_labels=4)
    labels = np.repeat(np.arange(4), 4)
    noise, log_probs = policy.sample(labels, jax.random.key(0))
    expected = norm.logpdf(np.asarray(noise)).sum(axis=1)
    close(log_probs, expected)
    close(policy.evaluate(labels, noise).log_probs, expected)
    close(policy.evaluate(labels, noise).entropy, np.full(16, 3 * norm.entropy()))
    close(policy.outcome(noise), new_generator()(noise))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (REINFORCETrainer, REINFORCEConfig(entropy_coeff=0.0)),
        (GRPOTrainer, GRPOConfig(num_generations=8, beta=0.0, entropy_coeff=0.0)),
        (PPOTrainer, PPOConfig(entropy_coeff=0.0)),
    ],
    ids=["REINFORCE", "GRPO", "PPO"],
)
def test_a_latent_policy_learns_what_to_ask_for_and_its_generator_stays(kind, config):
    class Critic(nnx.Module):
        def __init__(self):
            self.value = nnx.Embed(2, 1, rngs=nnx.Rngs(0))

        def __call__(self, labels):
            return self.value(labels)

    policy = LatentPolicy(new_generator(), 2, critic=Critic() if kind is PPOTrainer else None)
    trainer = trainer_for(policy, kind, config, rate=3e-2)
    labels = np.arange(64, dtype=np.int32) % 2

    def reward(samples, conditions):  # bright for one label, dark for the other
        assert samples.shape[1:] == (2, 2)
        return brightness(samples) * np.where(np.asarray(conditions) == 1, 1.0, -1.0)

    def mean_reward():
        noise, _ = policy.sample(np.arange(512) % 2, jax.random.key(9))
        return reward(policy.outcome(noise), np.arange(512) % 2).mean()

    before = mean_reward()
    for _ in range(40):
        trainer.train_step({"observations": labels}, reward)
    assert mean_reward() > before + 0.15
    noise = jnp.asarray(NOISE)
    np.testing.assert_array_equal(policy.outcome(noise), LatentPolicy(new_generator()).outcome(noise))


@pytest.mark.slow
def test_a_network_may_stand_in_place_of_labels():
    policy = LatentPolicy(new_generator(), network=MLP(5, (8,), 6, rngs=nnx.Rngs(1)))
    observations = np.random.default_rng(1).normal(size=(7, 5)).astype(np.float32)
    noise, log_probs = policy.sample(observations, jax.random.key(0))
    mean, log_std = np.split(np.asarray(policy.network(jnp.asarray(observations))), 2, axis=1)
    close(log_probs, norm.logpdf(np.asarray(noise), mean, np.exp(log_std)).sum(axis=1))
    with pytest.raises(ValueError, match=r"network: returned shape \(7, 5\), needs \(B, 6\)"):
        LatentPolicy(new_generator(), network=MLP(5, (8,), 5, rngs=nnx.Rngs(1))).sample(
            observations, jax.random.key(0)
        )
    with pytest.raises(TypeError, match="generator: MLP has no latent_size"):
        LatentPolicy(MLP(5, (), 2, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="num_labels: got 0"):
        LatentPolicy(new_generator(), 0)


def test_the_generator_of_a_latent_policy_is_no_parameter_and_is_its_own():
    generator = new_generator()
    policy = LatentPolicy(generator)
    assert {path[0] for path, _ in nnx.to_flat_state(nnx.state(policy, nnx.Param))} == {"network"}
    before = policy.outcome(NOISE)
    generator.layers[0].kernel[...] = jnp.zeros_like(generator.layers[0].kernel[...])
    np.testing.assert_array_equal(policy.outcome(NOISE), before)
    np.testing.assert_array_equal(nnx.clone(policy).outcome(NOISE), before)


# The guide, and learning from a discriminator

GUIDE = """
from artifex.generative_models.training import REINFORCEConfig, REINFORCETrainer

reinforce_config = REINFORCEConfig(entropy_coeff=0.01)
reinforce_trainer = REINFORCETrainer(generator, optimizer, reinforce_config)

# Use discriminator output as reward
for batch in dataloader:
    # Generate samples
    generated = generator(batch["noise"])

    # Discriminator provides reward signal
    rewards = discriminator(generated)  # Higher = more realistic

    rl_batch = {
        "observations": batch["noise"],
        "actions": generated,
        "rewards": rewards,
    }
    metrics = reinforce_trainer.train_step(rl_batch)
"""


@pytest.mark.slow
def test_the_guide_s_example_raises_what_the_discriminator_says():
    generator = GeneratorPolicy(new_generator(), 0.2)
    discriminator = Discriminator((2, 2), (16,), rngs=nnx.Rngs(1))
    rng = np.random.default_rng(0)
    names = {
        "generator": generator,
        "optimizer": nnx.Optimizer(generator, optax.adam(1e-2), wrt=nnx.Param),
        "discriminator": discriminator,
        "dataloader": [{"noise": rng.normal(size=(64, 3)).astype(np.float32)} for _ in range(60)],
    }

    def score():
        return float(discriminator(generator.generator(jnp.asarray(NOISE))).mean())

    before = score()
    with pytest.warns(UserWarning, match="dones"):
        exec(compile(GUIDE.replace("artifex.generative_models.training", "artifex_rl"), "guide", "exec"), names)
    assert {"policy_loss", "loss", "entropy"} <= names["metrics"].keys()
    assert names["reinforce_trainer"].step == 60
    assert score() > before + 0.02


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (REINFORCETrainer, REINFORCEConfig(entropy_coeff=0.0)),
        (GRPOTrainer, GRPOConfig(num_generations=8, beta=0.0)),
        (PPOTrainer, PPOConfig(max_grad_norm=None)),
    ],
    ids=["REINFORCE", "GRPO", "PPO"],
)
def test_every_trainer_raises_a_reward_of_the_samples(kind, config):
    critic = MLP(3, (8,), 1, rngs=nnx.Rngs(1)) if kind is PPOTrainer else None
    policy = GeneratorPolicy(new_generator(), 0.2, critic=critic)
    trainer = trainer_for(policy, kind, config, rate=1e-2)

    def mean():
        return brightness(policy.generator(jnp.asarray(NOISE))).mean()

    before = mean()
    for _ in range(40):
        trainer.train_step({"observations": NOISE}, brightness)
    assert mean() > before + 0.1


@pytest.mark.slow
def test_a_discriminator_reward_is_its_score_of_when_it_was_made():
    discriminator = Discriminator((2, 2), (8,), dropout=0.5, spectral_norm=True, rngs=nnx.Rngs(0))
    samples = np.random.default_rng(0).uniform(-1, 1, (9, 2, 2)).astype(np.float32)
    rewards = {name: DiscriminatorReward(discriminator, name) for name in ("raw", "sigmoid", "log_sigmoid")}
    still = nnx.clone(discriminator)
    still.eval()
    raw = np.asarray(still(jnp.asarray(samples)))
    for _ in range(3):  # a discriminator in training has moved on, and its dropout draws
        discriminator(jnp.asarray(samples))
    discriminator.head.layer_instance.bias[...] += 5.0
    assert discriminator.dropout.deterministic is False
    close(rewards["raw"](samples, None), raw)
    close(rewards["sigmoid"](samples), 1 / (1 + np.exp(-raw)))
    close(rewards["log_sigmoid"](samples, conditions=None), -np.log1p(np.exp(-raw)))
    close(score_samples("reward_fn", rewards["raw"], samples), raw)


def test_a_discriminator_reward_is_pure_and_differentiable():
    reward = DiscriminatorReward(Discriminator((2, 2), (8,), rngs=nnx.Rngs(0)))
    samples = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (4, 2, 2)), jnp.float32)
    close(jax.jit(reward)(samples), reward(samples))
    slopes = jax.grad(lambda x: reward(x).sum())(samples)
    step = 1e-3 * slopes / jnp.linalg.norm(slopes)
    close((reward(samples + step).sum() - reward(samples - step).sum()) / 2e-3, jnp.linalg.norm(slopes), rtol=1e-2)


def test_a_conditional_discriminator_is_told_the_conditions():
    discriminator = Discriminator((2, 2), (8,), 3, rngs=nnx.Rngs(0))
    samples, labels = jnp.ones((6, 2, 2)), jnp.arange(6) % 3
    reward = DiscriminatorReward(discriminator, conditional=True)
    close(reward(samples, np.asarray(labels)), discriminator(samples, labels))
    close(reward(samples, {"noise": NOISE[:6], "labels": labels}), discriminator(samples, labels))
    with pytest.raises(ValueError, match="conditions: got None"):
        reward(samples)


def test_a_discriminator_reward_that_cannot_be_says_so():
    discriminator = Discriminator((2, 2), (8,), rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match="discriminator: got function"):
        DiscriminatorReward(lambda x: x)
    with pytest.raises(ValueError, match="output: got 'softmax', needs 'raw' or 'sigmoid' or 'log_sigmoid'"):
        DiscriminatorReward(discriminator, "softmax")
    with pytest.raises(ValueError, match=re.escape("samples: got shape (4, 3, 3)")):
        DiscriminatorReward(discriminator)(np.zeros((4, 3, 3), np.float32))
    with pytest.raises(ValueError, match=re.escape("discriminator: returned shape (4, 1), needs (4,)")):
        DiscriminatorReward(MLP(2, (), 1, rngs=nnx.Rngs(0)))(np.zeros((4, 2), np.float32))


def test_a_reward_that_fails_changes_nothing():
    policy = GeneratorPolicy(new_generator())
    trainer, before = trainer_for(policy), None
    before = snapshot(trainer)
    wrong = DiscriminatorReward(Discriminator((3, 3), (8,), rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="which the discriminator cannot read"):
        trainer.train_step({"observations": NOISE}, wrong)
    assert snapshot(trainer) == before


@pytest.mark.slow
def test_a_generator_of_digits_is_asked_for_each_class():
    from artifex_rl.data import digit_judge, digit_scorer, load_digits
    from artifex_rl.trainers import GANConfig, GANTrainer

    generator, discriminator = Generator(32, (8, 8), rngs=nnx.Rngs(0)), Discriminator((8, 8), rngs=nnx.Rngs(1))
    optimizers = [
        nnx.Optimizer(m, optax.adam(5e-4, b1=0.5, b2=0.99), wrt=nnx.Param) for m in (generator, discriminator)
    ]
    gan = GANTrainer(
        generator,
        optimizers[0],
        GANConfig(r1_weight=0.3),
        discriminator=discriminator,
        discriminator_optimizer=optimizers[1],
    )
    gan.fit({"data": load_digits().train.images}, 2000, batch_size=128)

    policy, labels = LatentPolicy(gan.average, 10), np.arange(10, dtype=np.int32)
    trainer = trainer_for(policy, GRPOTrainer, GRPOConfig(num_generations=32, beta=0.01), rate=2e-2)

    def right():
        wanted = np.repeat(labels, 50)
        noise, _ = policy.sample(wanted, jax.random.key(5))
        return np.mean(np.asarray(digit_judge().classify(policy.outcome(noise))) == wanted)

    before = right()
    for _ in range(150):
        trainer.train_step({"observations": labels}, digit_scorer())
    assert before < 0.2 and right() > 0.9
