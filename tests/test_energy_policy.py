"""EnergyPolicy: Langevin walks whose steps are Gaussians by hand, and where a KL of walks leads, in closed form."""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from refusals import assert_refused
from scipy.stats import norm

from artifex_rl import (
    EnergyPolicy,
    GRPOConfig,
    GRPOTrainer,
    Policy,
    PPOConfig,
    PPOTrainer,
    REINFORCEConfig,
    REINFORCETrainer,
)
from artifex_rl.generative.energy import begin_walks, langevin_step, sample_langevin, tilt_energy
from artifex_rl.models import EnergyNetwork
from artifex_rl.rl.denoising import Setting
from artifex_rl.trainers import EnergyConfig, EnergyTrainer

close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
KEY = jax.random.key(0)
STEPS = 5
ROWS = np.zeros(4, int)


class Valley(nnx.Module):
    """E(x) = ½ λ Σ (xᵢ − m)²: the law N(m, τ/λ) at the temperature τ. m is learnt, or λ, or both."""

    def __init__(self, precision=1.0, middle=0.0, *, size=1, learnt=("precision", "middle")):
        self.shape = (size,)
        for name, value in (("precision", precision), ("middle", middle)):
            setattr(self, name, (nnx.Param if name in learnt else Setting)(jnp.float32(value)))

    def __call__(self, x):
        return 0.5 * self.precision[...] * jnp.sum((x - self.middle[...]) ** 2, axis=1)


def make(seed=0, num_steps=STEPS, step_size=0.1, **settings):
    return EnergyPolicy(EnergyNetwork((2, 3), (8,), rngs=nnx.Rngs(seed)), num_steps, step_size=step_size, **settings)


@nnx.jit
def draw_walk(policy, observations):
    """Walks and log-probabilities, as a trainer draws them: compiled."""
    return policy.sample(observations, KEY)


@nnx.jit
def score(policy, walk):
    return policy.evaluate(ROWS, walk)


@nnx.jit
def slopes(policy, walk):
    return nnx.grad(lambda policy: policy.evaluate(ROWS, walk).log_probs.sum())(policy)


# Walks


@pytest.mark.parametrize("bounds", [(None, None), (-0.8, 1.0), (None, 0.5)])
def test_a_walk_is_that_of_sample_langevin_bounds_and_all(bounds):
    low, high = bounds
    policy = make(temperature=0.5, low=low, high=high)
    walk, _ = draw_walk(policy, ROWS)
    start_key, key = jax.random.split(KEY)
    start = begin_walks((4, 2, 3), start_key, low, high)
    np.testing.assert_array_equal(walk[:, 0], start)
    close(policy.outcome(walk), sample_langevin(policy.energy, start, key, STEPS, 0.1, 0.5, low, high))
    if low is not None:
        assert np.abs(walk[:, 1:]).max() > 1, "a step is stored as it was drawn"


def test_walks_go_on_from_observations_that_are_samples():
    starts = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, 3)), jnp.float32)
    walk, _ = draw_walk(make(), starts)
    np.testing.assert_array_equal(walk[:, 0], starts)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "step_size", "temperature"), [(2.0, 0.3, 0.5), (0.5, 1.0, 2.0)])
def test_a_long_walk_has_the_stationary_law_of_its_steps(precision, step_size, temperature):
    policy = EnergyPolicy(Valley(precision, 0.7), 60, step_size=step_size, temperature=temperature)
    walk, _ = draw_walk(policy, np.zeros(30_000, int))
    ends = np.asarray(policy.outcome(walk))
    close(ends.mean(), 0.7, atol=0.02)
    close(ends.var(), temperature / (precision * (1 - step_size * precision / 2)), rtol=0.03)


# Densities


@pytest.mark.parametrize("low", [None, -0.4])
def test_each_step_has_the_density_of_its_gaussian(low):
    precision, middle, step_size, temperature = 3.0, 0.2, 0.15, 0.6
    policy = EnergyPolicy(
        Valley(precision, middle, size=2), STEPS, step_size=step_size, temperature=temperature, low=low, high=2.0
    )
    walk, log_probs = draw_walk(policy, ROWS)
    walk = np.asarray(walk, np.float64)
    here = np.clip(walk[:, :-1], -np.inf if low is None else low, 2.0)
    std = math.sqrt(2 * step_size * temperature)
    expected = norm.logpdf(walk[:, 1:], here - step_size * precision * (here - middle), std).sum(axis=2)
    close(log_probs, expected, rtol=1e-3)
    seen = score(policy, jnp.float32(walk))
    close(seen.log_probs, log_probs)
    close(seen.entropy, np.full((4, STEPS), 2 * norm.entropy(scale=std)))
    assert isinstance(policy, Policy) and policy.sequential and walk.shape == (4, STEPS + 1, 2)


def test_what_a_mask_leaves_out_does_not_count():
    policy, mask = EnergyPolicy(Valley(), STEPS, step_size=0.1), np.arange(STEPS)[None] < [[5], [2], [0], [1]]
    walk, log_probs = draw_walk(policy, ROWS)
    seen = policy.evaluate(ROWS, walk, mask)
    close(seen.log_probs, np.where(mask, log_probs, 0))
    assert (np.asarray(seen.entropy != 0) == mask).all()


def test_the_gradient_goes_through_the_slope_of_the_energy():
    """d/dλ log N(x'; x − η λ (x − m), 2 η τ) = −(x' − mean) (x − m) / 2τ, and by m it is (x' − mean) λ / 2τ."""
    policy = EnergyPolicy(Valley(2.0, 0.5), 3, step_size=0.2, temperature=0.7)
    walk, _ = draw_walk(policy, ROWS)
    grads = slopes(policy, walk).energy
    x, y = np.asarray(walk)[:, :-1, 0], np.asarray(walk)[:, 1:, 0]
    surprise = y - (x - 0.2 * 2 * (x - 0.5))
    close(grads.precision[...], np.sum(-surprise * (x - 0.5)) / 1.4, rtol=1e-3)
    close(grads.middle[...], np.sum(surprise * 2) / 1.4, rtol=1e-3)
    assert len(jax.tree.leaves(grads)) == 2, "a setting is not learnt"


class Rich(nnx.Module):
    """Batch norm, spectral norm and dropout in an energy."""

    shape = (2, 2)

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.linear = nnx.SpectralNorm(nnx.Linear(4, 8, rngs=rngs), rngs=rngs)
        self.norm, self.dropout = nnx.BatchNorm(8, rngs=rngs), nnx.Dropout(0.3, rngs=rngs)
        self.head = nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x):
        return self.head(self.dropout(nnx.silu(self.norm(self.linear(x.reshape(len(x), -1))))))[:, 0]


def test_the_energy_is_asked_in_its_evaluation_mode_and_nothing_of_it_changes():
    policy = EnergyPolicy(Rich(), 2, step_size=0.1)
    everything = nnx.Not(nnx.RngKey)
    before = jax.tree.map(np.asarray, nnx.as_pure(nnx.state(policy, everything)))
    walk, log_probs = draw_walk(policy, ROWS)
    grads = slopes(policy, walk)
    jax.tree.map(np.testing.assert_array_equal, before, nnx.as_pure(nnx.state(policy, everything)))
    assert not policy.energy.dropout.deterministic, "its mode is what it was"
    assert np.abs(grads.energy.linear.layer_instance.kernel[...]).max() > 0
    still = nnx.clone(policy)
    still.eval()
    close(score(still, walk).log_probs, log_probs)


# Settings


@pytest.mark.parametrize("name", ["step_size", "temperature"])
@pytest.mark.parametrize("number", [0, -0.1, math.inf, math.nan])
def test_without_noise_there_is_no_density_and_so_no_policy(name, number):
    with pytest.raises(ValueError, match=rf"{name}: got .*, needs a number of more than 0: without noise"):
        EnergyPolicy(Valley(), 2, **{"step_size": 0.1, name: number})
    policy = EnergyPolicy(Valley(), 2, step_size=0.1, temperature=0.1)
    with pytest.raises(ValueError, match=f"{name}: got"):
        setattr(policy, name, number)
    assert getattr(policy, name) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"num_steps": 0}, "num_steps: got 0, needs an integer of at least 1"),
        ({"num_steps": 2.5}, "num_steps: got 2.5"),
        ({"num_steps": True}, "num_steps: got True"),
        ({"energy": nnx.Linear(2, 1, rngs=nnx.Rngs(0))}, "shape: got None, needs that of one sample, which Linear"),
        ({"low": 1.0, "high": 1.0}, "got low=1.0, high=1.0; needs numbers or None, and low less than high"),
        ({"low": math.nan}, "got low=nan"),
        ({"high": "1"}, "high=1; needs numbers"),
    ],
)
def test_what_makes_no_walk_is_refused(changed, said):
    with pytest.raises(ValueError, match=said):
        EnergyPolicy(**({"energy": Valley(), "num_steps": 2, "step_size": 0.1} | changed))


def test_observations_and_actions_of_another_shape_are_named():
    policy = make()
    for wrong in (jnp.zeros((4, 3, 2)), jnp.zeros((4, 2, 3), int)):
        with pytest.raises(ValueError, match=r"observations: got .*, needs floats \(B, 2, 3\), where walks begin"):
            policy.sample(wrong, KEY)
    with pytest.raises(ValueError, match=r"actions: got shape \(4, 5, 2, 3\), needs \(4, 6, 2, 3\)"):
        policy.evaluate(ROWS, jnp.zeros((4, 5, 2, 3)))


# Where training leads, in closed form

STEP, PAY, BETA = 0.2, 1.0, 1.0


def learnt_middle(num_steps, precision=1.0, groups=8, size=64, updates=120):
    """m after GRPO with the exact KL of the steps, on the reward PAY · x, averaged over the second half."""
    energies = [Valley(precision, learnt=("middle",)) for _ in range(2)]
    policy, reference = (EnergyPolicy(energy, num_steps, step_size=STEP) for energy in energies)
    config = GRPOConfig(
        num_generations=size, beta=BETA, kl_estimator="exact", advantage_scale="none", entropy_coeff=0.0
    )
    optimizer = nnx.Optimizer(policy, optax.adam(0.1), wrt=nnx.Param)
    trainer = GRPOTrainer(policy, optimizer, config, reference_model=reference)
    seen = []
    for _ in range(updates):
        trainer.train_step({"observations": np.zeros(groups, int)}, lambda samples, _: PAY * samples[:, 0])
        seen.append(float(policy.energy.middle[...]))
    return np.mean(seen[updates // 2 :]), policy


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [1, 4, 25])
def test_a_kl_of_walks_leads_to_the_closed_form_which_is_the_tilt_at_one_length_alone(num_steps):
    """c (1 − aᵀ) m − β T η λ² m² / 4τ, with a = 1 − η λ, is highest at m = 2 τ c (1 − aᵀ) / β T η λ²."""
    left = 1 - (1 - STEP) ** num_steps
    best = 2 * PAY * left / (BETA * num_steps * STEP)
    middle, policy = learnt_middle(num_steps)
    close(middle, best * (1 - 1 / 64), rtol=0.06)  # a group's mean holds the sample itself
    # The tilt of the law N(0, 1): its valley is at c / β.
    grid = jnp.linspace(-6, 6, 1201)
    tilted = np.exp(-np.asarray(tilt_energy(0.5 * grid**2, PAY * grid, BETA)))
    tilt = np.sum(np.asarray(grid) * tilted) / tilted.sum()
    close(tilt, PAY / BETA, rtol=1e-3)
    assert {1: middle > 1.8 * tilt, 4: tilt < middle < 1.7 * tilt, 25: middle < 0.45 * tilt}[num_steps]
    # One step from where the reference is: its own law, tilted.
    if num_steps == 1:
        mean, std = langevin_step(policy.energy, jnp.zeros((1, 1)), STEP)
        close(mean[0, 0], PAY / BETA * float(std) ** 2, rtol=0.06)


def test_the_kl_of_walks_is_that_of_the_docstring_and_never_less_than_that_of_their_ends():
    num_steps, middle, temperature = 6, 0.8, 0.5
    policy, reference = (
        EnergyPolicy(Valley(1.0, m), num_steps, step_size=STEP, temperature=temperature) for m in (middle, 0.0)
    )
    walk, _ = draw_walk(policy, ROWS)
    mine, theirs = (score(p, walk).distribution for p in (policy, reference))
    steps = np.asarray(mine.kl(theirs))
    close(steps, np.full((4, num_steps), STEP * middle**2 / (4 * temperature)))
    decay = (1 - STEP) ** np.arange(num_steps)
    variance = 2 * STEP * temperature * np.sum(decay**2)  # of the end, from a start that is known
    ends = ((1 - (1 - STEP) ** num_steps) * middle) ** 2 / (2 * variance)
    assert ends < steps.sum(axis=1).min()


# Trainers


def mean_of(samples, conditions):
    assert samples.shape[1:] == (2, 3), "a reward sees samples, not walks"
    return samples.mean(axis=(1, 2))


class Critic(nnx.Module):
    def __init__(self):
        self.linear = nnx.Linear(7, 1, rngs=nnx.Rngs(0))

    def __call__(self, x, times, observations):
        assert len(observations) == len(x) == len(times)
        return self.linear(jnp.concatenate([x.reshape(len(x), -1), times[:, None]], axis=1))[:, 0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trainer_class", "config", "rows"),
    [
        (GRPOTrainer, GRPOConfig(num_generations=16, entropy_coeff=0.0, kl_estimator="exact"), 3),
        (REINFORCETrainer, REINFORCEConfig(baseline="mean", entropy_coeff=0.0), 48),
        (PPOTrainer, PPOConfig(gamma=1.0, num_epochs=2, num_minibatches=2), 48),
    ],
)
def test_every_trainer_of_policies_raises_a_reward(trainer_class, config, rows):
    policy = make(critic=Critic() if trainer_class is PPOTrainer else None)
    optimizer = nnx.Optimizer(policy, optax.adam(2e-2), wrt=nnx.Param)
    options = {"reference_model": make()} if trainer_class is GRPOTrainer else {}
    trainer = trainer_class(policy, optimizer, config, **options)
    history = trainer.fit([{"observations": np.zeros(rows, int)}], steps=40, reward_fn=mean_of)
    assert history["mean_reward"][-5:].mean() > history["mean_reward"][:5].mean() + 0.15
    assert np.isfinite(np.concatenate(list(history.values()))).all()
    if trainer_class is not GRPOTrainer:
        return
    assert history["clip_fraction"][0] == 0 and history["kl_penalty"][0] < 1e-9
    compiled = trainer._compiled_step._cache_size(), trainer._compiled_sample._cache_size()
    policy.step_size, policy.temperature = 0.05, 0.5
    entropy = trainer.train_step({"observations": np.zeros(rows, int)}, mean_of)["entropy"]
    assert (trainer._compiled_step._cache_size(), trainer._compiled_sample._cache_size()) == compiled
    close(entropy, 6 * norm.entropy(scale=math.sqrt(2 * 0.05 * 0.5)))
    walk, log_probs = draw_walk(policy, ROWS)
    good = {"observations": ROWS, "actions": walk, "log_probs": log_probs, "rewards": np.arange(4.0)}
    trainer.config = dataclasses.replace(trainer.config, num_generations=2)
    assert_refused(trainer, good | {"actions": walk[:, 1:]}, "actions", (4, STEPS, 2, 3), (4, STEPS + 1, 2, 3))


@pytest.mark.slow
def test_one_model_is_trained_by_data_and_then_by_reward():
    policy = EnergyPolicy(Valley(3.0, 0.0), 10, step_size=0.2, temperature=1.0)
    optimizer = nnx.Optimizer(policy, optax.adam(0.05), wrt=nnx.Param)
    data = np.random.default_rng(0).normal(1.0, 0.8, (512, 1)).astype(np.float32)
    energy = EnergyTrainer(policy, optimizer, EnergyConfig("sliced"))
    energy.fit({"data": data}, 200)
    close(policy.energy.middle[...], data.mean(), atol=0.03)
    close(policy.energy.precision[...], 1 / data.var(), rtol=0.05)
    grpo = GRPOTrainer(policy, optimizer, GRPOConfig(num_generations=64))
    metrics = grpo.train_step({"observations": np.zeros(16, int)}, lambda samples, _: samples[:, 0])
    assert metrics["mean_reward"] == pytest.approx(1.0, abs=0.15)
