"""Flows: couplings against SciPy, straightness, FlowTrainer, reflow, and digits."""

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
from refusals import _data, assert_refused
from scipy.optimize import linear_sum_assignment
from scipy.stats import multivariate_normal

from artifex_rl.data import digit_judge, image_diversity, load_digits
from artifex_rl.generative.coupling import (
    compute_costs,
    compute_sinkhorn_plan,
    couple,
    find_optimal_order,
)
from artifex_rl.generative.flow import compute_flow_loss, compute_flow_score, compute_straightness, interpolate
from artifex_rl.models import Denoiser
from artifex_rl.trainers import FlowConfig, FlowTrainer

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(12, 2, 3)).astype(np.float32)
BATCH = {"data": DATA, "labels": np.arange(12, dtype=np.int32) % 3}


def small(seed=0, num_classes=3):
    return Denoiser((2, 3), (16,), num_classes=num_classes, rngs=nnx.Rngs(seed))


def trainer_of(model, learning_rate=1e-2, key=0, **config):
    optimizer = nnx.Optimizer(model, optax.adam(learning_rate), wrt=nnx.Param)
    return FlowTrainer(model, optimizer, FlowConfig(**config), key=key)


def bits(trainer):
    return [np.asarray(_data(leaf)).tobytes() for leaf in jax.tree.leaves(trainer.state)]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# Couplings


@pytest.mark.slow
@given(st.integers(1, 12), st.integers(0, 1000))
def test_the_optimal_order_costs_what_scipy_s_does(rows, seed):
    noise, data = normal(12, 3, seed=seed)[:rows], normal(12, 3, seed=seed + 1)[:rows]
    costs = np.asarray(compute_costs(noise, data))
    np.testing.assert_allclose(costs, ((noise[:, None] - data[None]) ** 2).sum(axis=2), atol=1e-4)
    padded = np.full((12, 12), 1e4, np.float32)  # one shape compiles once
    padded[:rows, :rows] = costs
    order = np.asarray(find_order(padded))[:rows]
    assert sorted(order) == list(range(rows))
    assert costs[order, np.arange(rows)].sum() == pytest.approx(costs[linear_sum_assignment(costs)].sum(), rel=1e-4)


find_order = jax.jit(find_optimal_order)


@pytest.mark.parametrize("regularization", [0.02, 0.2, 2.0])
def test_sinkhorn_s_plan_has_its_marginals_and_the_form_of_a_minimum(regularization):
    costs = compute_costs(normal(9, 4), normal(7, 4, seed=1))
    plan = np.asarray(compute_sinkhorn_plan(costs, regularization, 500), np.float64)
    np.testing.assert_allclose(plan.sum(axis=0), 1 / 7, rtol=1e-4)
    np.testing.assert_allclose(plan.sum(axis=1), 1 / 9, rtol=5e-2)
    # P = u exp(−C/ε) v: what is left beside the costs is a sum of a row's and a column's number.
    kernel = np.log(np.maximum(plan, 1e-300)) + np.asarray(costs) / (regularization * float(costs.mean()))
    seen = plan > 1e-30
    rest = kernel - kernel[:1] - kernel[:, :1] + kernel[:1, :1]
    trusted = seen & seen[:1] & seen[:, :1] & seen[0, 0]
    np.testing.assert_allclose(rest[trusted], 0, atol=5e-3)


@pytest.mark.slow
def test_sinkhorn_goes_from_the_best_assignment_to_none():
    costs = compute_costs(normal(8, 3), normal(8, 3, seed=1))
    best = np.asarray(costs)[linear_sum_assignment(costs)].sum() / 8
    transport = [float((compute_sinkhorn_plan(costs, r, 2000) * costs).sum()) for r in (0.005, 0.1, 1.0, 1000.0)]
    assert transport[0] == pytest.approx(best, rel=0.02)
    assert transport == sorted(transport)
    assert transport[-1] == pytest.approx(float(costs.mean()), rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("coupling", ["hungarian", "sinkhorn"])
def test_coupled_noise_is_the_same_noise_nearer_and_of_the_same_class(coupling):
    noise, data, labels = normal(30, 4), normal(30, 4, seed=1), jnp.arange(30) % 3
    free = couple(noise, data, jax.random.key(0), coupling)
    classes = couple(noise, data, jax.random.key(0), coupling, labels, iterations=200)
    cost = lambda some: float(((some - data) ** 2).sum())  # noqa: E731
    assert cost(free) < cost(classes) < 0.95 * cost(noise)
    origin = [int(np.abs(noise - row).sum(axis=1).argmin()) for row in np.asarray(classes)]
    np.testing.assert_array_equal(np.asarray(labels)[origin], labels)
    if coupling == "hungarian":
        assert sorted(origin) == list(range(30))
        blocks = [np.asarray(compute_costs(noise[i::3], data[i::3])) for i in range(3)]
        assert cost(classes) == pytest.approx(sum(b[linear_sum_assignment(b)].sum() for b in blocks), rel=1e-4)


def test_independent_noise_is_left_as_it_is_and_an_unknown_coupling_is_refused():
    noise, data = normal(5, 4), normal(5, 4, seed=1)
    assert couple(noise, data, jax.random.key(0)) is noise
    with pytest.raises(ValueError, match="coupling: got 'ot', needs 'independent', 'hungarian', 'sinkhorn'"):
        couple(noise, data, jax.random.key(0), "ot")


# The maths


def test_the_velocity_is_the_slope_of_the_line_and_the_loss_of_the_truth_is_0():
    noise, data = normal(6, 2), normal(6, 2, seed=1)
    np.testing.assert_array_equal(interpolate(noise, data, 0.0), noise)
    np.testing.assert_array_equal(interpolate(noise, data, 1.0), data)
    close(interpolate(noise, data, 0.75) - interpolate(noise, data, 0.25), (data - noise) / 2)
    truth = lambda x, times, labels: data - noise  # noqa: E731
    assert compute_flow_loss(truth, noise, data, None, jax.random.key(0)) == 0
    off = lambda x, times, labels: data - noise + 0.5  # noqa: E731
    assert compute_flow_loss(off, noise, data, None, jax.random.key(0)) == pytest.approx(0.25, rel=1e-5)


def test_the_times_of_the_loss_are_even_over_0_to_1_and_fit_their_x():
    noise, data = np.zeros((20000, 1), np.float32), np.ones((20000, 1), np.float32)  # x_t is t
    seen = []

    def model(x, times, labels):
        seen.append((np.asarray(x), np.asarray(times)))
        return jnp.zeros_like(x)

    compute_flow_loss(model, noise, data, None, jax.random.key(0))
    close(seen[0][0][:, 0], seen[0][1])
    np.testing.assert_allclose(np.quantile(seen[0][1], [0, 0.25, 0.5, 0.75, 1]), [0, 0.25, 0.5, 0.75, 1], atol=0.01)


def gaussian_velocity(x, time, mean, std):
    """E[data − noise | x_t] for data from N(mean, std²)."""
    variance = time**2 * std**2 + (1 - time) ** 2
    return mean + (time * std**2 - (1 - time)) / variance * (x - time * mean)


@given(st.floats(0.0, 0.95), st.floats(-2, 2))
def test_the_score_of_a_gaussian_flow_is_the_slope_of_its_log_density(time, x):
    mean, std = 0.7, 0.4
    velocity = gaussian_velocity(x, time, mean, std)
    expected = -(x - time * mean) / (time**2 * std**2 + (1 - time) ** 2)
    score = compute_flow_score(jnp.float32(velocity), jnp.float32(x), time)
    assert float(score) == pytest.approx(expected, rel=2e-3, abs=2e-3)
    density = lambda y: multivariate_normal.logpdf(  # noqa: E731
        y, time * mean, time**2 * std**2 + (1 - time) ** 2
    )
    assert expected == pytest.approx((density(x + 1e-5) - density(x - 1e-5)) / 2e-5, rel=1e-4, abs=1e-4)


def test_straightness_is_0_for_lines_and_known_for_parabolas():
    times = np.linspace(0, 1, 201)
    lines = normal(5, 1, 3) + times[None, :, None] * normal(5, 1, 3, seed=1)
    assert compute_straightness(jnp.asarray(lines, jnp.float32)) < 1e-5
    # x = c t²: x' − (x₁ − x₀) = c (2t − 1), whose square has the mean c²/3.
    slopes = np.array([1.0, 2.0, 3.0])
    parabolas = np.broadcast_to(times[None, :, None] ** 2 * slopes[None, None], (4, 201, 3))
    assert compute_straightness(jnp.asarray(parabolas, jnp.float32)) == pytest.approx(14 / 3, rel=1e-3)


# The trainer


@pytest.fixture(scope="module")
def compiled():
    return trainer_of(small())


@pytest.fixture
def trainer(compiled):
    """One trainer for several tests, compiled once, and put back to its first state after each."""
    state, config = compiled.state, compiled.config
    yield compiled
    compiled.state, compiled.config = state, config


class Exact(nnx.Module):
    """The velocities of data from N(mean, std²), −mean for label 1."""

    shape, num_classes, mean, std = (1,), 2, 0.6, 0.4

    def __init__(self):
        self.unused = nnx.Param(jnp.zeros(1))

    def __call__(self, x, times, labels):
        mean = self.mean if labels is None else jnp.where(labels == 1, -self.mean, self.mean)[:, None]
        return gaussian_velocity(x, times[:, None], mean, self.std)


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("heun", 2)])
def test_the_flow_of_a_gaussian_is_followed_with_its_order(sampler, order):
    """x_t is normal at all times, so that x₁ = mean + std x₀."""
    trainer, errors = trainer_of(Exact()), []
    pairs = trainer.reflow_pairs(50, jax.random.key(0), 1, num_steps=400)
    for num_steps in (10, 20, 40):
        samples = trainer.sample(50, jax.random.key(0), 1, sampler=sampler, num_steps=num_steps)
        errors.append(float(np.abs(samples - (-0.6 + 0.4 * pairs["noise"])).max()))
    np.testing.assert_allclose(np.log2(np.array(errors[:-1]) / errors[1:]), order, atol=0.4)
    np.testing.assert_allclose(pairs["data"], -0.6 + 0.4 * pairs["noise"], atol=1e-3)
    np.testing.assert_array_equal(pairs["labels"], np.ones(50))


@pytest.mark.slow
def test_training_lowers_the_loss_and_transport_lowers_the_cost(trainer):
    history = trainer.fit(BATCH, 60)
    assert set(history) == {"loss", "transport_cost", "grad_norm"}
    assert history["loss"][-10:].mean() < history["loss"][:10].mean()
    costs = {
        coupling: trainer_of(small(), learning_rate=0.0, coupling=coupling).fit(BATCH, 20)["transport_cost"].mean()
        for coupling in ("independent", "sinkhorn", "hungarian")
    }
    assert costs["independent"] == pytest.approx((DATA**2).sum() / 12 + 6, rel=0.1)
    assert costs["hungarian"] < 0.9 * costs["independent"] and costs["sinkhorn"] < 0.9 * costs["independent"]


@pytest.mark.slow
def test_given_pairs_are_trained_on_as_they_are():
    noise = normal(12, 2, 3, seed=5)
    trainer = trainer_of(small(), coupling="hungarian")
    metrics = trainer.train_step(BATCH | {"noise": noise})
    assert metrics["transport_cost"] == pytest.approx(float(((DATA - noise) ** 2).sum() / 12), rel=1e-5)


@pytest.mark.slow
def test_numbers_of_the_config_and_of_sampling_compile_nothing():
    trainer = trainer_of(small(), coupling="sinkhorn")
    for change in ({}, {"sinkhorn_regularization": 0.5}, {"ema_decay": 0.5}, {"label_dropout": 0.4}):
        trainer.config = dataclasses.replace(trainer.config, **change)
        trainer.train_step(BATCH)
    assert trainer._compiled_step._cache_size() == 1
    drawn = [trainer.sample(4, jax.random.key(0), 1, guidance=g) for g in (2, 3.0, 0.5)]
    assert trainer._compiled_draw._cache_size() == 1
    assert len({np.asarray(x).tobytes() for x in drawn}) == 3


@pytest.mark.slow
def test_samples_begin_as_paths_do_come_from_the_average_and_are_guided(trainer):
    trainer.fit(BATCH, 20)
    key, labels = jax.random.key(0), np.array([0, 1, 2, 0])
    path = trainer.sample(4, key, labels, path=True)
    assert path.shape == (4, 21, 2, 3)
    close(path[:, -1], trainer.sample(4, key, labels))
    close(path[:, 0], trainer.reflow_pairs(4, key, labels)["noise"])
    close(trainer.sample(4, key, labels, guidance=0.0), trainer.sample(4, key))
    trainer.model.head.bias[...] += 1.0
    close(path[:, -1], trainer.sample(4, key, labels))
    trainer.average.head.bias[...] += 1.0
    assert np.abs(path[:, -1] - trainer.sample(4, key, labels)).max() > 0.1


@pytest.mark.slow
def test_it_goes_on_from_disk_to_the_bit(tmp_path):
    trainer, other = trainer_of(small()), trainer_of(small(1), key=7)
    trainer.fit(BATCH, 3)
    trainer.save(tmp_path / "x")
    other.restore(tmp_path / "x")
    assert bits(other) == bits(trainer)
    twin = trainer.clone()
    twin.fit(BATCH, 2), other.fit(BATCH, 2)
    assert bits(other) == bits(twin) != bits(trainer)


@pytest.mark.slow
@pytest.mark.parametrize("coupling", ["independent", "hungarian", "sinkhorn"])
def test_a_batch_of_one_is_a_batch(coupling):
    trainer = trainer_of(small(), coupling=coupling)
    metrics = trainer.train_step({name: value[:1] for name, value in BATCH.items()})
    assert np.isfinite(list(metrics.values())).all()


class Everything(nnx.Module):
    """A network with dropout and batch norm."""

    shape = (2, 3)

    def __init__(self, rngs):
        self.first, self.last = nnx.Linear(6, 8, rngs=rngs), nnx.Linear(8, 6, rngs=rngs)
        self.norm, self.dropout = nnx.BatchNorm(8, rngs=rngs), nnx.Dropout(0.3, rngs=rngs)

    def __call__(self, x, times, labels):
        hidden = self.first(x.reshape(len(x), -1) + times[:, None])
        return self.last(self.dropout(nnx.relu(self.norm(hidden)))).reshape(x.shape)


@pytest.mark.slow
def test_dropout_and_batch_norm_learn_in_training_and_stand_still_else():
    trainer = trainer_of(Everything(nnx.Rngs(0)))
    mean = np.asarray(trainer.model.norm.mean[...])
    trainer.train_step({"data": DATA[:7]})
    assert (np.asarray(trainer.model.norm.mean[...]) != mean).any()
    before = bits(trainer)
    np.testing.assert_array_equal(*(trainer.sample(3, jax.random.key(0)) for _ in range(2)))
    assert trainer.evaluate({"data": DATA}) == trainer.evaluate({"data": DATA})
    assert bits(trainer) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": None}, ("data", "images")),
        ({"data": DATA[:, :1]}, ("data", (12, 1, 3), "(B, 2, 3)")),
        ({"data": np.where(DATA > 1, np.inf, DATA)}, ("data", "inf")),
        ({"labels": np.full(12, 3)}, ("labels", "3 to 3", "0 to 2")),
        ({"labels": np.zeros(12, np.float32)}, ("labels", "float32")),
        ({"noise": DATA[:6]}, ("noise", (6, 2, 3), (12, 2, 3))),
        ({"noise": np.zeros((12, 2, 3), np.int32)}, ("noise", "int32", "float32")),
        ({"noise": np.full_like(DATA, np.nan)}, ("noise", "nan")),
    ],
)
def test_bad_batches_are_refused_and_nothing_changes(trainer, change, words):
    before = bits(trainer)
    assert_refused(trainer, {k: v for k, v in (BATCH | change).items() if v is not None}, *words)
    assert bits(trainer) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampler": "ddim"}, "sampler: got 'ddim', needs 'euler' or 'heun'"),
        ({"num_steps": 0}, "num_steps: got 0"),
        ({"num_steps": 2.0}, "num_steps: got 2.0"),
        ({"guidance": math.inf}, "guidance: got inf"),
        ({"labels": -1}, "labels: got -1"),
    ],
)
def test_samples_that_cannot_be_are_refused(trainer, arguments, message):
    with pytest.raises(ValueError, match=message):
        trainer.sample(3, jax.random.key(0), **arguments)


# Two points: straighter by transport, and straighter by reflow


def cross(rows, seed=0):
    """Points near (±2, 0): paths from the noise must bend where they are drawn to both."""
    rng = np.random.default_rng(seed)
    return (rng.choice([-2.0, 2.0], (rows, 1)) * [[1.0, 0.0]] + 0.2 * rng.normal(size=(rows, 2))).astype(np.float32)


def train_cross(data, coupling="independent", model=None, steps=600):
    model = Denoiser((2,), (32, 32), rngs=nnx.Rngs(0)) if model is None else model
    trainer = trainer_of(model, 5e-3, coupling=coupling, ema_decay=0.98)
    trainer.fit(data, steps, batch_size=64)
    return trainer


@pytest.fixture(scope="module")
def flow():
    return train_cross({"data": cross(2000)})


@pytest.mark.slow
def test_reflow_makes_a_flow_straighter_and_one_step_better(flow):
    pairs = flow.reflow_pairs(2000, jax.random.key(1))
    again = train_cross(pairs, model=nnx.clone(flow.average))
    assert again.straightness(500, jax.random.key(2)) < 0.5 * flow.straightness(500, jax.random.key(2))

    def miss(trainer):
        """Mean distance to the nearer of the two points after one step."""
        one = np.asarray(trainer.sample(500, jax.random.key(3), sampler="euler", num_steps=1))
        return np.minimum(*(np.linalg.norm(one - np.array([[x, 0.0]]), axis=1) for x in (-2.0, 2.0))).mean()

    assert miss(again) < 0.6 * miss(flow)


@pytest.mark.slow
def test_optimal_transport_makes_a_flow_straighter(flow):
    coupled = train_cross({"data": cross(2000)}, "hungarian")
    assert coupled.straightness(500, jax.random.key(2)) < 0.5 * flow.straightness(500, jax.random.key(2))
    samples = np.asarray(coupled.sample(2000, jax.random.key(3)))
    right = samples[:, 0] > 0
    assert right.mean() == pytest.approx(0.5, abs=0.06)
    np.testing.assert_allclose(samples[right].mean(axis=0), [2, 0], atol=0.15)


# Digits

LABELS = np.arange(10).repeat(20)


def train_digits(steps, batch_size, hidden, learning_rate):
    model = Denoiser((8, 8), hidden, num_classes=10, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(optax.cosine_decay_schedule(learning_rate, steps)), wrt=nnx.Param)
    trainer = FlowTrainer(model, optimizer, FlowConfig(ema_decay=0.99))
    images, labels = load_digits().train
    trainer.fit({"images": images, "labels": labels}, steps, batch_size=batch_size)
    return trainer


def judge(trainer, **options):
    """The share that the judge takes for what was asked for, and the mean difference of two pictures of a class."""
    samples = trainer.sample(len(LABELS), jax.random.key(0), LABELS, **options)
    variety = np.mean([image_diversity(samples[np.equal(LABELS, digit)]) for digit in range(10)])
    return float((digit_judge().classify(samples) == LABELS).mean()), float(variety)


def test_a_short_training_draws_digits():
    assert judge(train_digits(150, 64, (128, 128), 5e-3), guidance=1.5)[0] > 0.6  # by chance 0.1


@pytest.mark.slow
def test_digits_are_recognised_by_the_judge_in_twenty_steps_and_in_four():
    trainer = train_digits(4000, 128, (256, 256, 256), 2e-3)
    for options, needed in (
        ({}, 0.95),
        ({"guidance": 1.5}, 0.97),
        ({"guidance": 1.5, "sampler": "euler", "num_steps": 4}, 0.97),
    ):
        right, variety = judge(trainer, **options)
        assert right >= needed and variety > 0.15, options  # real digits have 0.29
