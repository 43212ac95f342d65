"""Energies: walks with known laws, losses with known minima, walks that no gradient goes through, digits."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from recognisable import judge_digits
from refusals import assert_refused
from scipy.integrate import cumulative_trapezoid
from scipy.optimize import minimize
from scipy.stats import kstest, norm

from artifex_rl.generative.energy import (
    compute_contrastive_loss,
    compute_denoising_score_loss,
    compute_sliced_score_loss,
    sample_langevin,
    sample_mala,
    tilt_energy,
)
from artifex_rl.models import MLP, EnergyNetwork
from artifex_rl.trainers import EnergyConfig, EnergyTrainer

close = np.testing.assert_allclose
KEY = jax.random.key(0)


def quadratic(precision):
    return lambda x: 0.5 * precision * jnp.sum(x**2, axis=1)


class Quadratic(nnx.Module):
    """E(x) = ½ Σ λᵢ xᵢ²: a normal law of learnable precisions."""

    def __init__(self, *precisions):
        self.precisions, self.shape = nnx.Param(jnp.array(precisions, jnp.float32)), (len(precisions),)

    def __call__(self, x):
        return 0.5 * jnp.sum(self.precisions[...][None] * x**2, axis=1)


def trainer_for(model, config=None, make=None, **options):
    return EnergyTrainer(model, nnx.Optimizer(model, make or optax.adam(1e-2), wrt=nnx.Param), config, **options)


def small(config=None, seed=0, **options):
    network = EnergyNetwork((2, 2), (8,), rngs=nnx.Rngs(seed))
    return trainer_for(network, config, optax.sgd(1e-2), buffer_size=16, **options)  # it compiles faster than Adam


def batch_of(rows=6, shape=(2, 2), seed=0):
    return {"data": np.random.default_rng(seed).uniform(-1, 1, (rows, *shape)).astype(np.float32)}


def bits(trainer):
    leaves = jax.tree.leaves(nnx.as_pure(trainer.state.variables))
    return [np.asarray(x).tobytes() for x in leaves if not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)]


# Walks


def test_a_step_of_langevin_has_its_mean_and_variance():
    start = jnp.full((100_000, 1), 2.0)
    ends = np.asarray(sample_langevin(quadratic(3.0), start, KEY, 1, 0.1, 0.5))
    close(ends.mean(), (1 - 0.1 * 3) * 2, atol=0.005)
    close(ends.var(), 2 * 0.1 * 0.5, rtol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "step_size", "temperature"), [(2.0, 0.3, 0.5), (0.5, 1.0, 2.0), (1.0, 1.6, 1.0)]
)
def test_langevin_has_the_stationary_variance_of_its_steps_and_mala_that_of_the_law(
    precision, step_size, temperature
):
    start = jnp.zeros((50_000, 1))
    arguments = (quadratic(precision), start, KEY, 60, step_size, temperature)
    ends = np.asarray(sample_langevin(*arguments))
    close(ends.var(), temperature / (precision * (1 - step_size * precision / 2)), rtol=0.03)
    ends, acceptance = sample_mala(*arguments)
    close(np.var(ends), temperature / precision, rtol=0.03)
    assert kstest(np.asarray(ends)[:, 0], norm(scale=np.sqrt(temperature / precision)).cdf).pvalue > 1e-3
    assert 0.3 < float(acceptance) < 1


@pytest.mark.slow
def test_mala_takes_the_share_of_steps_that_it_must():
    precision, step_size, temperature = 2.0, 0.6, 0.5
    rng = np.random.default_rng(0)
    x = rng.normal(0, np.sqrt(temperature / precision), 200_000)
    y = x - step_size * precision * x + np.sqrt(2 * step_size * temperature) * rng.normal(size=x.size)
    # For a quadratic energy the ratio is exp(−η λ² (y² − x²) / 4T).
    chance = np.minimum(1, np.exp(-step_size * precision**2 * (y**2 - x**2) / (4 * temperature)))
    _, acceptance = sample_mala(quadratic(precision), jnp.float32(x)[:, None], KEY, 1, step_size, temperature)
    close(acceptance, chance.mean(), atol=0.004)


@pytest.mark.slow
def test_mala_draws_from_two_valleys_and_from_within_bounds():
    grid = np.linspace(-3, 3, 6001)

    def law(energy):
        cumulated = cumulative_trapezoid(np.exp(-energy(grid)), grid, initial=0)
        return lambda x: np.interp(x, grid, cumulated / cumulated[-1])

    start = jax.random.uniform(KEY, (10_000, 1), minval=-2.0, maxval=2.0)
    ends, _ = sample_mala(lambda x: 2 * (x[:, 0] ** 2 - 1) ** 2, start, KEY, 200, 0.08, 0.8)
    assert kstest(np.asarray(ends)[:, 0], law(lambda x: 2 * (x**2 - 1) ** 2 / 0.8)).pvalue > 1e-3
    start = jax.random.uniform(KEY, (10_000, 1))
    ends, _ = sample_mala(lambda x: 2 * x[:, 0], start, KEY, 200, 0.05, 1.0, 0.0, 1.0)
    ends = np.asarray(ends)[:, 0]
    assert ends.min() >= 0 and ends.max() <= 1
    assert kstest(ends, lambda x: (1 - np.exp(-2 * x)) / (1 - np.exp(-2))).pvalue > 1e-3


@pytest.mark.slow
def test_at_temperature_0_a_walk_is_gradient_descent():
    start = jnp.array([[1.0], [-3.0]])
    ends = sample_langevin(quadratic(2.0), start, KEY, 5, 0.1, 0.0)
    close(ends, 0.8**5 * start, rtol=1e-5)
    ends, acceptance = sample_mala(quadratic(2.0), start, KEY, 5, 0.1, 0.0)
    close(ends, 0.8**5 * start, rtol=1e-5)
    assert float(acceptance) == 1
    # A step that overshoots the valley by more than it came from is refused.
    ends, acceptance = sample_mala(quadratic(2.0), start, KEY, 5, 1.5, 0.0)
    close(ends, start)
    assert float(acceptance) == 0


@pytest.mark.slow
def test_langevin_stays_within_bounds_and_without_steps_nothing_moves():
    start = jnp.zeros((500, 3))
    ends = np.asarray(sample_langevin(quadratic(0.0), start, KEY, 20, 0.5, 1.0, -0.5, 1.0))
    assert ends.min() == -0.5 and ends.max() == 1.0
    one_sided = np.asarray(sample_langevin(quadratic(0.0), start, KEY, 20, 0.5, 1.0, low=0.0))
    assert one_sided.min() == 0 and one_sided.max() > 1
    close(sample_langevin(quadratic(1.0), start + 1, KEY, 0, 0.1), start + 1)
    ends, acceptance = sample_mala(quadratic(1.0), start + 1, KEY, 0, 0.1)
    close(ends, start + 1)
    assert float(acceptance) == 1


@pytest.mark.slow
@pytest.mark.parametrize("sample", [sample_langevin, lambda *x: sample_mala(*x)[0]])
def test_no_gradient_goes_back_through_a_walk(sample):
    def end(precision, start):
        return jnp.sum(sample(quadratic(precision), start, KEY, 3, 0.1))

    slopes = jax.grad(end, argnums=(0, 1))(2.0, jnp.ones((4, 2)))
    assert float(slopes[0]) == 0 and not np.any(slopes[1])


# Losses


def test_contrastive_loss_by_hand():
    data, negatives = jnp.array([1.0, 3.0]), jnp.array([2.0, 4.0, 6.0])
    assert float(compute_contrastive_loss(data, negatives)) == pytest.approx(2 - 4)
    assert float(compute_contrastive_loss(data, negatives, 0.1)) == pytest.approx(-2 + 0.1 * (5 + 56 / 3))


@pytest.mark.slow
def test_the_sliced_loss_is_that_of_hyvarinen():
    data = jnp.asarray(batch_of(50, (3,))["data"])
    precisions = jnp.array([1.0, 2.0, 0.5])
    loss = compute_sliced_score_loss(lambda x: 0.5 * jnp.sum(precisions[None] * x**2, axis=1), data, KEY)
    expected = 0.5 * np.mean(np.sum((np.asarray(precisions) * np.asarray(data)) ** 2, axis=1)) - 3.5
    close(loss, expected, rtol=1e-5)  # a diagonal Hessian is seen exactly along signs

    def bent(x):  # no diagonal Hessian: its mean over signs is its trace
        return jnp.sum(jnp.tanh(x @ jnp.arange(9.0).reshape(3, 3) / 5), axis=1)

    slopes = jax.jit(jax.vmap(jax.grad(lambda x: bent(x[None])[0])))(data)
    traces = jax.jit(jax.vmap(lambda x: jnp.trace(jax.hessian(lambda x: bent(x[None])[0])(x))))(data)
    expected = np.mean(0.5 * np.sum(np.square(slopes), axis=1) - traces)
    keys = jax.random.split(KEY, 200)
    seen = jax.jit(jax.vmap(lambda key: compute_sliced_score_loss(bent, data, key)))(keys)
    close(np.mean(seen), expected, atol=4 * np.std(seen) / np.sqrt(200))


@pytest.mark.slow
def test_the_denoising_loss_is_least_at_the_precision_of_noisy_data():
    data = 2.0 * jax.random.normal(KEY, (100_000, 1))
    slope = jax.grad(lambda p: compute_denoising_score_loss(quadratic(p), data, jax.random.key(1), 0.5))
    exact = 1 / (4 + 0.25)
    assert abs(float(slope(exact))) < 0.01
    assert float(slope(0.8 * exact)) < -0.03 and float(slope(1.2 * exact)) > 0.03
    # ½ E (σ λ (x + σ ε) − ε)² at the minimum: ½ (1 − λ σ²).
    loss = compute_denoising_score_loss(quadratic(exact), data, jax.random.key(1), 0.5)
    close(loss, 0.5 * (1 - 0.25 * exact), rtol=0.02)


def test_a_tilted_energy_is_the_optimum_of_reward_with_a_kl():
    grid = np.linspace(-2, 2, 9)
    energy, reward, beta = (grid**2 - 1) ** 2, np.sin(3 * grid), 0.4
    reference = np.exp(-energy) / np.exp(-energy).sum()

    def objective(logits):  # what REINFORCE with a KL penalty climbs, exactly
        log_policy = logits - np.log(np.exp(logits).sum())
        policy = np.exp(log_policy)
        return -(policy @ reward - beta * policy @ (log_policy - np.log(reference)))

    found = minimize(objective, np.zeros(9), tol=1e-12).x
    tilted = np.asarray(tilt_energy(jnp.float32(energy), jnp.float32(reward), beta))
    best = np.exp(-tilted) / np.exp(-tilted).sum()
    close(best, np.exp(found) / np.exp(found).sum(), atol=1e-4)
    close(best, reference * np.exp(reward / beta) / (reference * np.exp(reward / beta)).sum(), rtol=1e-5)
    close(-objective(-tilted), beta * np.log(reference @ np.exp(reward / beta)), rtol=1e-5)


# The trainer, on an energy whose answers are known

VARIANCES = np.array([0.25, 1.0])
NORMAL = {"data": (np.random.default_rng(0).normal(size=(512, 2)) * np.sqrt(VARIANCES)).astype(np.float32)}
SECOND_MOMENTS = np.mean(NORMAL["data"] ** 2, axis=0)


def learnt(config, calls=12):
    """Precisions, averaged over the last half of a training: walks are noisy."""
    trainer, seen = trainer_for(Quadratic(1.0, 3.0), config, optax.adam(0.05), buffer_size=512), []
    for _ in range(calls):
        trainer.fit(NORMAL, 30)
        seen.append(np.asarray(trainer.model.precisions[...]))
    return np.mean(seen[calls // 2 :], axis=0)


#: Langevin's walks are a little wide, and the energy makes up for it: λ (1 − η λ / 2) = 1 / variance.
ETA = 0.07
WIDE = (1 - np.sqrt(1 - 2 * ETA / SECOND_MOMENTS)) / ETA


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (EnergyConfig("pcd", 5, "mala", 0.15), 1 / SECOND_MOMENTS),
        (EnergyConfig("sliced"), 1 / SECOND_MOMENTS),
        pytest.param(EnergyConfig("pcd", 10, step_size=ETA), WIDE, marks=pytest.mark.slow),
        pytest.param(EnergyConfig("cd", 10, step_size=ETA), WIDE, marks=pytest.mark.slow),
        pytest.param(EnergyConfig("cd", 10, "mala", 0.15), 1 / SECOND_MOMENTS, marks=pytest.mark.slow),
        pytest.param(
            EnergyConfig("pcd", 5, "mala", 0.3, temperature=0.5), 0.5 / SECOND_MOMENTS, marks=pytest.mark.slow
        ),
        pytest.param(EnergyConfig("denoising"), 1 / (SECOND_MOMENTS + 0.09), marks=pytest.mark.slow),
    ],
    ids=["pcd", "sliced", "pcd-langevin", "cd-langevin", "cd", "half temperature", "denoising"],
)
def test_the_precision_of_normal_data_is_recovered(config, expected):
    assert WIDE[0] > 1.15 / SECOND_MOMENTS[0]
    close(learnt(config), expected, rtol=0.06)


@pytest.mark.parametrize("objective", ["pcd", "cd"])
@pytest.mark.parametrize("sampler", ["langevin", "mala"])
def test_a_step_goes_along_the_contrast_of_data_and_negatives_alone(objective, sampler):
    config = EnergyConfig(objective, 5, sampler, 0.1, reinit_share=0.0, energy_penalty=0.0)
    trainer = trainer_for(Quadratic(1.0, 3.0), config, optax.sgd(0.1), buffer_size=512)
    buffer = np.asarray(trainer.buffer[...])
    metrics = trainer.train_step(NORMAL)
    if objective == "cd":  # where the walks ended is told by the metrics, for the buffer is not used
        np.testing.assert_array_equal(trainer.buffer[...], buffer)
        moved = (np.array([1.0, 3.0]) - np.asarray(trainer.model.precisions[...])) / 0.1
        negatives = SECOND_MOMENTS - 2 * moved
        close(metrics["energy_negatives"], 0.5 * np.array([1.0, 3.0]) @ negatives, rtol=1e-4)
    else:
        negatives = np.mean(np.asarray(trainer.buffer[...]) ** 2, axis=0)
        gradient = 0.5 * (SECOND_MOMENTS - negatives)  # ∂E/∂λ = ½ x²
        close(trainer.model.precisions[...], np.array([1.0, 3.0]) - 0.1 * gradient, rtol=1e-4)
        close(metrics["grad_norm"], np.linalg.norm(gradient), rtol=1e-3)
        close(metrics["energy_negatives"], 0.5 * np.array([1.0, 3.0]) @ negatives, rtol=1e-4)
    close(metrics["energy_data"], 0.5 * np.array([1.0, 3.0]) @ SECOND_MOMENTS, rtol=1e-4)
    close(metrics["gap"], metrics["energy_negatives"] - metrics["energy_data"], rtol=1e-4, atol=1e-5)
    close(metrics["loss"], -metrics["gap"], rtol=1e-4, atol=1e-5)
    assert metrics["acceptance"] == 1 if sampler == "langevin" else 0.5 < metrics["acceptance"] < 1


@pytest.mark.slow
def test_compute_loss_takes_the_negatives_that_it_is_given():
    trainer = small(EnergyConfig("cd", 3, energy_penalty=0.2))
    negatives = jnp.asarray(batch_of(4, seed=1)["data"])
    batch = batch_of() | {"negatives": (negatives, jnp.float32(1))}
    loss, metrics = trainer.compute_loss(trainer.model, batch, KEY)
    data_energies, negative_energies = trainer.model(jnp.asarray(batch["data"])), trainer.model(negatives)
    close(loss, compute_contrastive_loss(data_energies, negative_energies, 0.2), rtol=1e-5)
    close(metrics["energy_negatives"], negative_energies.mean(), rtol=1e-5)


# The buffer


@pytest.mark.slow
def test_a_share_of_the_walks_begins_anew_and_the_others_go_on():
    config = EnergyConfig("pcd", 1, step_size=1e-9, temperature=0.0, low=-1.0, high=1.0)
    trainer = trainer_for(EnergyNetwork((2, 2), (4,), rngs=nnx.Rngs(0)), config, buffer_size=2000)
    for share in (0.0, 0.25, 1.0):
        trainer.config = dataclasses.replace(config, reinit_share=share)
        before = np.asarray(trainer.buffer[...])
        trainer.train_step(batch_of(1500))
        anew = np.any(np.abs(np.asarray(trainer.buffer[...]) - before) > 1e-6, axis=(1, 2))
        assert anew.mean() == pytest.approx(0.75 * share, abs=0.03)  # 1500 rows of 2000 were walked on, once each
        assert kstest(np.asarray(trainer.buffer[...]).ravel(), lambda x: (x + 1) / 2).pvalue > 1e-3


@pytest.mark.slow
def test_negatives_are_what_a_step_would_draw_and_change_nothing():
    for objective in ("cd", "pcd"):
        config = EnergyConfig(objective, 2, step_size=1e-9, temperature=0.0, reinit_share=0.0)
        trainer, data = small(config), batch_of()["data"]
        before = bits(trainer)
        negatives, acceptance = trainer.sample_negatives(data, KEY)
        assert bits(trainer) == before and float(acceptance) == 1
        starts = data if objective == "cd" else np.asarray(trainer.buffer[...])
        distances = np.abs(np.asarray(negatives)[:, None] - starts[None]).max(axis=(2, 3))
        assert (distances.min(axis=1) < 1e-6).all() and len(set(distances.argmin(axis=1))) == 6


# Samples


@pytest.mark.slow
def test_samples_are_ends_of_walks_from_noise_or_from_the_buffer():
    trainer = trainer_for(Quadratic(4.0, 4.0), EnergyConfig(sampler="mala", step_size=0.1), buffer_size=3000)
    samples = np.asarray(trainer.sample(3000, KEY, num_steps=100))
    assert kstest(samples.ravel(), norm(scale=0.5).cdf).pvalue > 1e-3
    cold = np.asarray(trainer.sample(3000, KEY, num_steps=100, temperature=0.25))
    close(cold.std(), 0.25, rtol=0.05)
    kept = np.asarray(trainer.sample(100, KEY, num_steps=0, start="buffer"))
    assert np.isin(kept, np.asarray(trainer.buffer[...])).all()
    close(trainer.sample(3000, KEY, num_steps=0).std(), 1, atol=0.05)
    compiled = trainer._compiled_draw._cache_size()
    trainer.sample(3000, jax.random.key(1), num_steps=100, temperature=0.5)
    assert trainer._compiled_draw._cache_size() == compiled


def test_denoising_ends_at_the_expected_sample_without_noise():
    variance, std = 2.0, 0.5
    model = Quadratic(1 / (variance + std**2))
    trainer = trainer_for(model, EnergyConfig("denoising", noise_std=std))
    noisy, clean = (np.asarray(trainer.sample(50, KEY, num_steps=5, denoise=denoise)) for denoise in (False, True))
    close(clean, noisy * variance / (variance + std**2), rtol=1e-4)  # the mean of x given x + σ ε


def test_what_cannot_be_sampled_is_named():
    trainer = small()
    for options in ({"labels": 1}, {"start": "data"}):
        with pytest.raises(ValueError, match="needs no labels, 'noise' or 'buffer'"):
            trainer.sample(2, KEY, **options)
    with pytest.raises(ValueError, match="from the buffer at most 16"):
        trainer.sample(17, KEY, start="buffer")


# Everything that a trainer must be able to do


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "config"),
    [
        (1, EnergyConfig("pcd", 2)),
        pytest.param(7, EnergyConfig("cd", 2, "mala"), marks=pytest.mark.slow),
        (7, EnergyConfig("sliced")),
    ],
)
def test_networks_of_every_kind_and_odd_batches(rows, config):
    trainer = trainer_for(Rich(), config, optax.sgd(1e-2), buffer_size=16)
    metrics = trainer.train_step(batch_of(rows))
    assert all(np.isfinite(value) for value in metrics.values()) and metrics["grad_norm"] > 0
    draws = nnx.as_pure(nnx.state(trainer.model, nnx.RngCount))
    assert max(int(np.max(x)) for x in jax.tree.leaves(draws)) == 1  # one pass of the network in training, no walks
    before = bits(trainer)
    assert trainer.evaluate(batch_of(rows)) == trainer.evaluate(batch_of(rows)) and bits(trainer) == before
    assert {*metrics} - {*trainer.evaluate(batch_of(rows))} == {"grad_norm"}


@pytest.mark.slow
def test_walks_are_on_the_network_in_its_evaluation_mode():
    config = EnergyConfig("pcd", 3, step_size=0.5, temperature=0.0, reinit_share=0.0)
    trainer = trainer_for(Rich(), config, optax.sgd(1e-2), buffer_size=6)
    still, start = nnx.clone(trainer.model), trainer.buffer[...]
    still.eval()
    trainer.train_step(batch_of())
    expected = sample_langevin(lambda x: nnx.clone(still)(x), start, KEY, 3, 0.5, 0.0)
    assert np.abs(expected - start).max() > 0.01
    close(trainer.buffer[...], expected, atol=1e-5)


def test_statistics_are_of_data_and_negatives_together():
    class Normed(EnergyNetwork):
        def __init__(self):
            super().__init__((2, 2), (4,), rngs=nnx.Rngs(0))
            self.norm = nnx.BatchNorm(4, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return super().__call__(self.norm(x.reshape(len(x), -1)))

    trainer = trainer_for(Normed(), EnergyConfig("pcd", 1), buffer_size=6)
    data = batch_of(6)["data"]
    trainer.train_step({"data": data})
    both = np.concatenate([data, np.asarray(trainer.buffer[...])]).reshape(12, 4)
    close(trainer.model.norm.mean[...], 0.01 * both.mean(axis=0), rtol=1e-4, atol=1e-6)


def test_moving_a_number_compiles_nothing():
    trainer = small(EnergyConfig("pcd", 2, low=-1.0, high=1.0))
    trainer.train_step(batch_of())
    moved = {"step_size": 0.2, "temperature": 0.0, "low": -2.0, "high": 3.0, "reinit_share": 0.5}
    for name, value in (moved | {"energy_penalty": 0.1, "noise_std": 1.0}).items():
        trainer.config = dataclasses.replace(trainer.config, **{name: value})
        trainer.train_step(batch_of())
    assert trainer._compiled_step._cache_size() == 1


@pytest.mark.slow
def test_many_steps_in_one_call_are_those_one_by_one_and_a_clone_goes_its_own_way():
    trainer = small(EnergyConfig("pcd", 2, "mala"))
    twin = trainer.clone()
    history = trainer.fit(batch_of(), 4)
    one_by_one = [twin.train_step(batch_of()) for _ in range(4)]
    for name, values in history.items():
        close(values, [now[name] for now in one_by_one], rtol=1e-4, atol=1e-5)
    before = bits(trainer)
    twin.train_step(batch_of())
    assert bits(trainer) == before and (np.asarray(twin.buffer[...]) != np.asarray(trainer.buffer[...])).any()


@pytest.mark.slow
def test_a_checkpoint_holds_the_walks_and_goes_on_to_the_bit(tmp_path):
    trainer, other = small(EnergyConfig("pcd", 2)), small(EnergyConfig("pcd", 2), seed=1, key=5)
    trainer.train_step(batch_of())
    trainer.save(tmp_path / "energy")
    other.restore(tmp_path / "energy")
    assert bits(other) == bits(trainer)
    np.testing.assert_array_equal(other.buffer[...], trainer.buffer[...])
    assert trainer.train_step(batch_of()) == other.train_step(batch_of()) and bits(other) == bits(trainer)


def refuse(trainer, batch, *words):
    before = bits(trainer)
    assert_refused(trainer, batch, *words)
    assert bits(trainer) == before


@pytest.mark.slow
def test_bad_batches_are_refused_and_change_nothing():
    trainer = small(EnergyConfig("pcd", 2, low=-1.0, high=1.0))
    trainer.train_step(batch_of())
    refuse(trainer, {"pictures": batch_of()["data"]}, "data", "images")
    refuse(trainer, batch_of(4, (3, 3)), "data", "3", "2")
    refuse(trainer, {"data": np.zeros((4, 2, 2), np.int32)}, "data", "int32", "floats")
    refuse(trainer, {"data": np.zeros((0, 2, 2), np.float32)}, "data", "0")
    refuse(trainer, {"data": np.full((4, 2, 2), np.inf, np.float32)}, "data", "inf")
    refuse(trainer, {"data": np.full((4, 2, 2), 1.5, np.float32)}, "data", "1.5", "-1.0", "1.0")
    refuse(trainer, batch_of(17), "data", "17", "16", "buffer_size")
    assert np.isfinite(trainer.evaluate(batch_of(17))["loss"])  # against the 16 that there are
    trainer.config = dataclasses.replace(trainer.config, low=2.0)
    refuse(trainer, batch_of(), "EnergyConfig.low", "2.0", "1.0")


def test_wrong_parts_are_named():
    with pytest.raises(ValueError, match="needs the shape of one sample, which MLP does not say"):
        trainer_for(MLP(2, (), 1, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="buffer_size=0"):
        trainer_for(Quadratic(1.0), buffer_size=0)
    column = trainer_for(MLP(2, (), 1, rngs=nnx.Rngs(0)), EnergyConfig("cd", 1), shape=(2,))
    refuse(column, batch_of(4, (2,)), "model", "returned", "an energy a sample")
    with pytest.raises(ValueError, match=r"EnergyConfig\.objective: got 'sm'"):
        EnergyConfig("sm")
    with pytest.raises(ValueError, match="at least one hidden layer"):
        EnergyNetwork((2, 2), (), rngs=nnx.Rngs(0))


# Digits


@functools.cache
def digits():
    from artifex_rl.data import load_digits

    return load_digits().train.images


@pytest.mark.slow
def test_recognisable_tells_digits_from_what_is_none():
    rng = np.random.default_rng(0)
    assert judge_digits(digits()[:500])[0] > 0.94
    assert judge_digits(rng.uniform(-1, 1, (500, 8, 8)))[0] < 0.1
    assert judge_digits(rng.permuted(digits(), axis=0)[:500])[0] < 0.4


DENOISING = EnergyConfig("denoising", noise_std=0.4, step_size=0.02)


def digits_trainer(config, rate, **options):
    return trainer_for(EnergyNetwork((8, 8), rngs=nnx.Rngs(0)), config, optax.adam(rate), **options)


@pytest.mark.slow
def test_digits_begin_to_show():
    trainer = digits_trainer(DENOISING, 2e-3)
    before, _ = judge_digits(trainer.sample(200, KEY, denoise=True))
    trainer.fit({"data": digits()}, 500, batch_size=64)
    after, _ = judge_digits(trainer.sample(200, KEY, denoise=True))
    assert before < 0.1 and after > 0.35


@pytest.mark.slow
def test_digits_of_denoising_score_matching_are_recognisable_and_of_all_classes():
    trainer = digits_trainer(DENOISING, 2e-3)
    trainer.fit({"data": digits()}, 3000, batch_size=128)
    share, classes = judge_digits(trainer.sample(500, KEY, num_steps=300, denoise=True))
    assert share >= 0.7 and classes.min() >= 0.02


@pytest.mark.slow
def test_digits_of_persistent_contrastive_divergence_are_recognisable_and_of_all_classes():
    # Colder than the model itself, as is common for pictures: its walks then go from digit to digit in some 20 steps.
    config = EnergyConfig("pcd", 20, "langevin", 0.1, 0.0125, low=-1.0, high=1.0, energy_penalty=0.05)
    trainer = digits_trainer(config, optax.cosine_decay_schedule(5e-4, 1500))
    trainer.fit({"data": digits()}, 1500, batch_size=128)
    share, classes = judge_digits(trainer.sample(500, KEY, num_steps=300))
    assert share >= 0.7 and classes.min() >= 0.02
    share, classes = judge_digits(trainer.buffer[...])
    assert share >= 0.6 and classes.min() >= 0.02
