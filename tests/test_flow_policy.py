"""FlowPolicy: an SDE with the flow's marginals, its step densities by hand, GRPO, and the ODE that is deployed."""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from refusals import assert_refused
from scipy.stats import norm

from artifex_rl import GRPOConfig, GRPOTrainer, Policy, PPOConfig, PPOTrainer
from artifex_rl.generative.flow import compute_flow_score, flow_step
from artifex_rl.models import Denoiser
from artifex_rl.rl.denoising import Setting
from artifex_rl.rl.flow_policy import FlowPolicy
from artifex_rl.trainers import FlowTrainer

close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
LABELS = np.array([0, 1, 2, 1])
STEPS = 5


def make(seed=0, **settings):
    velocity = Denoiser((2, 3), (16,), num_classes=3, rngs=nnx.Rngs(seed))
    return FlowPolicy(velocity, STEPS, (2, 3), **settings)


@nnx.jit
def draw_path(policy, labels):
    """Trajectories and log-probabilities, as a trainer draws them: compiled."""
    return policy.sample(labels, jax.random.key(0))


# The SDE

MEAN, STD = 0.6, 0.4


def slope(time):
    """dv/dx of the flow to N(MEAN, STD²)."""
    return (time * STD**2 - (1 - time)) / (time**2 * STD**2 + (1 - time) ** 2)


class Exact(nnx.Module):
    """The velocities of data from N(MEAN, STD²)."""

    def __call__(self, x, times, labels):
        times = times[:, None]
        return MEAN + slope(times) * (x - times * MEAN)


def moments(num_steps, noise_level, min_std=1e-6):
    """Mean and variance at the end of the Euler–Maruyama steps, which are linear in x: in float64, by hand."""
    mean, variance, duration = 0.0, 1.0, 1 / num_steps
    for k in range(num_steps):
        time = k * duration
        since = max(time, duration)
        pull = noise_level**2 / (2 * since)
        # dx = [v − pull (x − t v)] dt, with v = MEAN + slope (x − t MEAN)
        gain = 1 + duration * (slope(time) * (1 + pull * time) - pull)
        shift = duration * (1 + pull * time) * MEAN * (1 - slope(time) * time)
        std = max(noise_level * math.sqrt((1 - time) / since * duration), min_std)
        mean, variance = gain * mean + shift, gain**2 * variance + std**2
    return mean, variance


@pytest.mark.parametrize("noise_level", [0.1, 0.7, 1.0])
def test_with_many_steps_the_sde_ends_where_the_ode_does(noise_level):
    """The recursion is exact for any number of steps; it goes to the data's mean and variance."""
    for num_steps, gap in ((100, 6e-3), (10000, 5e-4)):
        mean, variance = moments(num_steps, noise_level)
        assert mean == pytest.approx(MEAN, abs=1e-6) and variance == pytest.approx(STD**2, abs=gap)


@pytest.mark.parametrize(("num_steps", "noise_level"), [(6, 0.7), (200, 0.3), (200, 1.0)])
def test_samples_of_the_policy_have_the_moments_of_the_recursion_and_those_of_the_ode(num_steps, noise_level):
    policy = FlowPolicy(Exact(), num_steps, (1,), noise_level=noise_level, min_std=1e-6)
    path, _ = draw_path(policy, np.zeros(20000, int))
    mean, variance = moments(num_steps, noise_level)
    last = np.asarray(policy.outcome(path))
    assert last.mean() == pytest.approx(mean, abs=0.015) and last.var() == pytest.approx(variance, rel=0.04)
    if num_steps == 200:
        deployed = np.asarray(policy.deploy(np.zeros(20000, int), jax.random.key(1)))
        assert last.mean() == pytest.approx(deployed.mean(), abs=0.02)
        assert last.std() == pytest.approx(deployed.std(), rel=0.03)
        times = np.arange(201) / 200  # on the way, too
        spread = np.sqrt(times**2 * STD**2 + (1 - times) ** 2)
        np.testing.assert_allclose(np.asarray(path)[20:, :, 0].mean(axis=0)[20:], times[20:] * MEAN, atol=0.03)
        np.testing.assert_allclose(np.asarray(path)[:, 20:, 0].std(axis=0), spread[20:], rtol=0.04)


@given(st.floats(0.05, 0.9), st.floats(0.1, 1.2), st.floats(0.001, 0.05))
def test_a_step_is_euler_maruyama_of_the_sde_with_the_score(time, level, duration):
    x, velocity = jnp.array([0.3, -2.0]), jnp.array([1.5, 0.2])
    g = level * math.sqrt((1 - time) / max(time, duration))
    mean, std = flow_step(x, velocity, time, duration, level)
    drift = velocity + g**2 / 2 * compute_flow_score(velocity, x, time)
    close(mean, x + duration * drift, rtol=1e-3)
    assert float(std) == pytest.approx(g * math.sqrt(duration), rel=1e-3)


def test_without_noise_a_step_is_eulers_and_the_floor_is_a_floor():
    x, velocity = jnp.array([0.3, -2.0]), jnp.array([1.5, 0.2])
    mean, std = flow_step(x, velocity, 0.3, 0.1, 0.0)
    close(mean, x + 0.1 * velocity)
    assert std == 0
    assert flow_step(x, velocity, 0.9, 0.1, 0.7, min_std=0.25)[1] == 0.25
    assert flow_step(x, velocity, 0.0, 0.1, 0.7, min_std=0.25)[1] == pytest.approx(0.7)  # a √(1/Δ · Δ)
    assert np.isfinite(flow_step(x, velocity, 0.0, 1.0, 0.7)[0]).all()


# Densities


def by_hand(policy, labels, path, noise_level, min_std, guidance=1.0):
    """Log-densities of the steps (B, T), one step after another."""
    velocity = nnx.jit(lambda network, x, t, c: network(x, t, c))
    log_probs, entropies = [], []
    for k in range(STEPS):
        x, time = path[:, k], k / STEPS
        told = jnp.asarray(x), jnp.full(len(x), time)
        v = np.asarray(velocity(policy.velocity, *told, jnp.asarray(labels)), np.float64)
        if guidance != 1:
            none = np.asarray(velocity(policy.velocity, *told, None), np.float64)
            v = none + guidance * (v - none)
        g = noise_level * np.sqrt((1 - time) / max(time, 1 / STEPS))
        score = -(x - time * v) / (1 - time)
        mean, std = x + (v + g**2 / 2 * score) / STEPS, max(g / np.sqrt(STEPS), min_std)
        log_probs.append(norm.logpdf(path[:, k + 1], mean, std).sum(axis=(1, 2)))
        entropies.append(6 * norm.entropy(scale=std))
    return np.stack(log_probs, axis=1), np.array(entropies)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{"noise_level": 0.7, "min_std": 0.1}, {"noise_level": 0.2, "min_std": 0.3, "guidance": 2.0}],
)
def test_each_step_has_the_density_of_its_gaussian(settings):
    policy = make(**settings)
    path, log_probs = draw_path(policy, LABELS)
    seen = nnx.jit(lambda policy, path: policy.evaluate(LABELS, path))(policy, path)
    expected, entropies = by_hand(policy, LABELS, np.asarray(path), **settings)
    assert path.shape == (4, STEPS + 1, 2, 3) and log_probs.shape == (4, STEPS)
    close(seen.log_probs, expected, rtol=2e-3)
    close(log_probs, seen.log_probs)
    close(seen.entropy, np.broadcast_to(entropies, (4, STEPS)), rtol=1e-3)
    np.testing.assert_array_equal(policy.outcome(path), path[:, -1])
    assert isinstance(policy, Policy) and policy.sequential


def test_gradients_reach_every_weight_and_no_setting():
    policy = make()
    path, _ = draw_path(policy, LABELS)
    grads = nnx.jit(nnx.grad(lambda policy: policy.evaluate(LABELS, path).log_probs.sum()))(policy)
    assert all((np.abs(leaf) > 0).any() for leaf in jax.tree.leaves(grads))
    assert nnx.state(policy, Setting)


# Settings


@pytest.mark.parametrize("noise_level", [0, -0.1, math.inf, math.nan])
def test_without_noise_there_is_no_density_and_so_no_policy(noise_level):
    with pytest.raises(ValueError, match=r"noise_level: got .*, needs a number of more than 0"):
        make(noise_level=noise_level)
    policy = make()
    with pytest.raises(ValueError, match="noise_level: got"):
        policy.noise_level = noise_level
    assert policy.noise_level == pytest.approx(0.7)


@pytest.mark.parametrize("num_steps", [0, 2.5, True])
def test_a_number_of_steps_that_is_none_is_refused(num_steps):
    with pytest.raises(ValueError, match="num_steps: got"):
        FlowPolicy(Exact(), num_steps, (1,))


# Trainers


def mean_of(samples, conditions):
    assert samples.shape[1:] == (2, 3), "a reward sees samples, not trajectories"
    return samples.mean(axis=(1, 2))


@pytest.mark.slow
def test_grpo_raises_a_reward_and_the_ode_is_paid_more_too():
    policy = make()
    config = GRPOConfig(num_generations=16, entropy_coeff=0.0, kl_estimator="exact")
    optimizer = nnx.Optimizer(policy, optax.adam(1e-2), wrt=nnx.Param)
    trainer = GRPOTrainer(policy, optimizer, config, reference_model=make())
    deploy = nnx.jit(lambda policy: policy.deploy(np.zeros(200, int), jax.random.key(1)))
    before = float(deploy(policy).mean())
    history = trainer.fit([{"observations": np.arange(3)}], steps=30, reward_fn=mean_of)
    assert history["clip_fraction"][0] == 0 and history["kl_penalty"][0] < 1e-9
    assert history["mean_reward"][-5:].mean() > history["mean_reward"][:5].mean() + 0.15
    assert float(deploy(policy).mean()) > before + 0.15
    compiled = trainer._compiled_step._cache_size(), trainer._compiled_sample._cache_size()
    entropy = history["entropy"][-1]
    policy.noise_level = 0.3
    assert trainer.train_step({"observations": np.arange(3)}, mean_of)["entropy"] < entropy
    assert (trainer._compiled_step._cache_size(), trainer._compiled_sample._cache_size()) == compiled
    path, log_probs = draw_path(policy, LABELS)
    good = {"observations": LABELS, "actions": path, "log_probs": log_probs, "rewards": np.arange(4.0)}
    trainer.config = dataclasses.replace(trainer.config, num_generations=2)
    assert_refused(trainer, good | {"actions": path[:, 1:]}, "actions", (4, STEPS, 2, 3), (4, STEPS + 1, 2, 3))


@pytest.mark.slow
def test_ppo_with_a_critic_raises_a_reward():
    class Critic(nnx.Module):
        def __init__(self):
            self.linear = nnx.Linear(7, 1, rngs=nnx.Rngs(0))

        def __call__(self, x, times, labels):
            return self.linear(jnp.concatenate([x.reshape(len(x), -1), times[:, None]], axis=1))[:, 0]

    policy = make(critic=Critic())
    optimizer = nnx.Optimizer(policy, optax.adam(3e-3), wrt=nnx.Param)
    trainer = PPOTrainer(policy, optimizer, PPOConfig(gamma=1.0, num_epochs=2, num_minibatches=2))
    history = trainer.fit([{"observations": np.tile(np.arange(3), 16)}], steps=30, reward_fn=mean_of)
    assert history["mean_reward"][-5:].mean() > history["mean_reward"][:5].mean() + 0.15


@pytest.mark.slow
def test_one_model_is_trained_by_data_and_then_by_reward():
    policy = make()
    optimizer = nnx.Optimizer(policy, optax.adam(1e-2), wrt=nnx.Param)
    flow, grpo = FlowTrainer(policy, optimizer), GRPOTrainer(policy, optimizer, GRPOConfig(num_generations=8))
    data = np.random.default_rng(0).normal(1.0, 0.3, (32, 2, 3)).astype(np.float32)
    history = flow.fit({"data": data, "labels": np.arange(32) % 3}, 120)
    assert history["loss"][-20:].mean() < 0.7 * history["loss"][:20].mean()
    metrics = grpo.train_step({"observations": np.arange(3)}, mean_of)
    assert metrics["mean_reward"] == pytest.approx(1.0, abs=0.3)
    assert flow.sample(100, jax.random.key(0), 1).mean() == pytest.approx(1.0, abs=0.3)
