"""BoltzmannPolicy: a density but for its normaliser, a gradient that does not need it, and the tilt it leads to."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from refusals import assert_refused
from scipy.stats import kstest, norm

from artifex_rl import BoltzmannPolicy, GRPOConfig, GRPOTrainer, Policy, REINFORCEConfig, REINFORCETrainer
from artifex_rl.generative.energy import tilt_energy
from artifex_rl.models import EnergyNetwork
from artifex_rl.rl.denoising import Setting

close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
KEY = jax.random.key(0)


class Valley(nnx.Module):
    """E(x) = ½ λ (x − m)²: the law N(m, τ/λ) at the temperature τ."""

    shape = (1,)

    def __init__(self, precision=1.0, middle=0.0):
        self.precision, self.middle = nnx.Param(jnp.float32(precision)), nnx.Param(jnp.float32(middle))

    def __call__(self, x):
        return 0.5 * self.precision[...] * jnp.sum((x - self.middle[...]) ** 2, axis=1)


def make(precision=1.0, middle=0.0, num_steps=20, step_size=0.5, **settings):
    return BoltzmannPolicy(Valley(precision, middle), num_steps, step_size=step_size, **settings)


@nnx.jit
def draw(policy, observations):
    return policy.sample(observations, KEY)


# Samples and densities


@pytest.mark.parametrize("adjusted", [True, False])
def test_samples_have_the_law_of_the_energy_or_that_of_the_steps(adjusted):
    precision, step_size, temperature = 2.0, 0.5, 0.7
    policy = make(precision, 0.4, 60, step_size, temperature=temperature, adjusted=adjusted)
    samples, _ = draw(policy, np.zeros(20_000, int))
    variance = temperature / precision / (1 if adjusted else 1 - step_size * precision / 2)
    assert kstest(np.asarray(samples)[:, 0], norm(0.4, np.sqrt(variance)).cdf).pvalue > 1e-3
    assert isinstance(policy, Policy) and not policy.sequential


def test_log_probabilities_are_right_but_for_one_constant_which_is_the_entropy():
    policy = make(2.0, 0.4, 60, temperature=0.7)
    samples, log_probs = draw(policy, np.zeros(20_000, int))
    law = norm(0.4, np.sqrt(0.7 / 2))
    gap = np.asarray(log_probs) - law.logpdf(np.asarray(samples)[:, 0])
    assert np.ptp(gap) < 1e-4 and gap[0] == pytest.approx(law.entropy(), abs=0.02)
    seen = policy.evaluate(np.zeros(20_000, int), samples)
    close(seen.log_probs, log_probs)
    assert not np.any(seen.entropy) and seen.values is None and seen.distribution is None


def exact_log_prob(energy, samples, temperature):
    precision = energy.precision[...] / temperature
    return -energy(samples) / temperature + 0.5 * jnp.log(precision / (2 * jnp.pi))


def test_with_centred_advantages_the_gradient_is_that_of_the_normalised_density():
    policy, rng = make(2.0, 0.4, temperature=0.7), np.random.default_rng(0)
    samples, rewards = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((64, 1), (64,)))

    def gradient(log_probs, weights):
        grads = nnx.grad(lambda policy: jnp.sum(weights * log_probs(policy)))(policy).energy
        return np.array([grads.precision[...], grads.middle[...]])

    def centred(policy):
        return policy.evaluate(np.zeros(64), samples).log_probs

    def exact(policy):
        return exact_log_prob(policy.energy, samples, 0.7)

    def bare(policy):
        return -policy.energy(samples) / 0.7

    advantages = rewards - rewards.mean()
    close(gradient(centred, advantages), gradient(exact, advantages), rtol=1e-3)
    close(gradient(bare, advantages), gradient(exact, advantages), rtol=1e-3)
    # Not centred, the normaliser is missed: −E/τ alone is wrong by Σ A ∇log Z, and the centred one by its estimate.
    assert abs(gradient(bare, advantages + 1)[0] - gradient(exact, advantages + 1)[0]) > 10
    close(gradient(centred, advantages + 1), gradient(exact, advantages), rtol=1e-3)


def test_what_a_mask_leaves_out_does_not_count():
    policy, samples = make(), jnp.array([[0.0], [1.0], [np.nan]])
    seen = policy.evaluate(np.zeros(3), samples, jnp.array([True, True, False]))
    close(seen.log_probs, [0.25, -0.25, 0.0])  # energies 0 and ½


# Where training leads


def rewards_of(samples, conditions, curvature):
    x = np.asarray(samples)[:, 0]
    return x - 0.5 * curvature * x**2


@pytest.mark.slow
@pytest.mark.parametrize(("curvature", "temperature", "beta"), [(0.0, 1.0, 1.0), (1.5, 1.0, 2.0), (1.0, 0.5, 0.4)])
@pytest.mark.parametrize("kind", ["grpo", "reinforce"])
def test_training_ends_at_the_tilted_energy(kind, curvature, temperature, beta):
    """E − τ r/β of ½ x² and r = x − ½ κ x²: precision 1 + τκ/β, and the valley at τ/β over that."""
    policy, size = make(temperature=temperature), 2048
    reference = nnx.clone(policy)
    optimizer = nnx.Optimizer(policy, optax.adam(optax.cosine_decay_schedule(0.1, 250)), wrt=nnx.Param)
    pay = partial(rewards_of, curvature=curvature)
    if kind == "grpo":
        config = GRPOConfig(
            num_generations=size, beta=beta, kl_estimator="k2", advantage_scale="none", entropy_coeff=0.0
        )
        trainer = GRPOTrainer(policy, optimizer, config, reference_model=reference)
        rows, reward = 1, pay
    else:  # the KL as a part of the reward
        config = REINFORCEConfig(baseline="mean", normalize_returns=False, entropy_coeff=0.0)
        trainer, rows = REINFORCETrainer(policy, optimizer, config), size

        def reward(samples, conditions):
            log_ratio = (reference.energy(samples) - policy.energy(samples)) / temperature
            return pay(samples, conditions) - beta * np.asarray(log_ratio)

    trainer.fit([{"observations": np.zeros(rows, int)}], steps=250, reward_fn=reward)
    precision = 1 + temperature * curvature / beta
    close(policy.energy.precision[...], precision, rtol=0.04)
    close(policy.energy.middle[...], temperature / beta / precision, atol=0.04)
    grid = jnp.linspace(-3, 3, 61)[:, None]
    tilt = tilt_energy(reference.energy(grid), jnp.float32(pay(grid, None)), beta / temperature)
    gap = np.asarray(policy.energy(grid) - tilt)[20:41]  # energies are known but for a constant
    assert np.ptp(gap) < 0.15


# Settings and errors


def test_moving_a_number_compiles_nothing_and_the_reference_stays():
    policy = make()
    reference, observations = nnx.clone(policy), np.zeros(1, int)
    config = GRPOConfig(num_generations=8, kl_estimator="k2", advantage_scale="none", entropy_coeff=0.0)
    trainer = GRPOTrainer(
        policy, nnx.Optimizer(policy, optax.sgd(0.1), wrt=nnx.Param), config, reference_model=reference
    )
    pay = partial(rewards_of, curvature=0.0)
    metrics = trainer.train_step({"observations": observations}, pay)
    assert metrics["clip_fraction"] == 0 and metrics["kl_penalty"] < 1e-9 and metrics["entropy"] == 0
    compiled = trainer._compiled_step._cache_size(), trainer._compiled_sample._cache_size()
    policy.step_size, policy.temperature = 0.2, 0.5
    trainer.config = dataclasses.replace(config, beta=0.5)
    assert trainer.train_step({"observations": observations}, pay)["kl_penalty"] > 0
    assert (trainer._compiled_step._cache_size(), trainer._compiled_sample._cache_size()) == compiled
    assert reference.energy.middle[...] == 0 != policy.energy.middle[...]
    assert len(nnx.state(policy, Setting)) == 2
    samples, log_probs = draw(policy, np.zeros(8, int))
    good = {"observations": np.zeros(8, int), "actions": samples, "log_probs": log_probs, "rewards": np.arange(8.0)}
    assert_refused(trainer, good | {"actions": jnp.zeros((8, 2))}, "actions", (8, 2), "B")
    trainer.config = dataclasses.replace(config, kl_estimator="exact")
    assert_refused(trainer, good, "kl_estimator", "exact")


def test_no_gradient_goes_through_a_walk_and_statistics_stay():
    network = EnergyNetwork((2, 3), (4,), rngs=nnx.Rngs(0))
    policy = BoltzmannPolicy(network, 3, step_size=0.1, low=-1.0, high=1.0)
    ends = nnx.jit(nnx.grad(lambda policy: policy.sample(np.zeros(4), KEY)[0].sum()))(policy)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(ends))
    samples, _ = draw(policy, np.zeros(4, int))
    assert samples.shape == (4, 2, 3) and np.abs(samples).max() <= 1


def test_what_makes_no_policy_is_refused():
    with pytest.raises(ValueError, match="temperature: got 0, needs a number of more than 0"):
        make(temperature=0)
    with pytest.raises(ValueError, match="num_steps: got 0"):
        make(num_steps=0)
    with pytest.raises(ValueError, match=r"observations: got .*, needs floats \(B, 1\)"):
        make().sample(jnp.zeros((4, 2)), KEY)
