"""DiffusionTrainer: losses, averages, labels, samplers with exact networks, the guide's example, and digits."""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from refusals import _data, assert_refused

from artifex_rl import DiffusionPolicy
from artifex_rl.data import digit_judge, image_diversity, load_digits
from artifex_rl.diffusion import (
    PREDICTIONS,
    EDMSchedule,
    convert_prediction,
    cosine_schedule,
    preconditioning,
)
from artifex_rl.models import Denoiser
from artifex_rl.trainers import DiffusionConfig, DiffusionTrainer

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(12, 2, 3)).astype(np.float32)
BATCH = {"data": DATA, "labels": np.arange(12, dtype=np.int32) % 3}
SCHEDULE = cosine_schedule(5)


def small(seed=0, num_classes=3):
    return Denoiser((2, 3), (16,), num_classes=num_classes, rngs=nnx.Rngs(seed))


def trainer_of(model, learning_rate=1e-2, schedule=SCHEDULE, key=0, **config):
    optimizer = nnx.Optimizer(model, optax.adam(learning_rate), wrt=nnx.Param)
    return DiffusionTrainer(model, optimizer, DiffusionConfig(**config), schedule=schedule, key=key)


def values(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.to_pure_dict(nnx.state(tree, nnx.Param)))]


def bits(trainer):
    return [np.asarray(_data(leaf)).tobytes() for leaf in jax.tree.leaves(trainer.state)]


class Constant(nnx.Module):
    """Always says the same."""

    shape = (2, 3)

    def __init__(self, value):
        self.value = nnx.Param(jnp.float32(value))

    def __call__(self, x, times, labels):
        return jnp.full_like(x, 1.0) * self.value


class Everything(nnx.Module):
    """A network with dropout, batch norm and a class."""

    shape, num_classes = (2, 3), 3

    def __init__(self, rngs):
        self.first, self.last = nnx.Linear(6 + 4, 8, rngs=rngs), nnx.Linear(8, 6, rngs=rngs)
        self.norm, self.dropout = nnx.BatchNorm(8, rngs=rngs), nnx.Dropout(0.3, rngs=rngs)

    def __call__(self, x, times, labels):
        label = jnp.full(len(x), 3) if labels is None else labels
        told = jnp.concatenate([x.reshape(len(x), -1) + times[:, None], nnx.one_hot(label, 4)], axis=1)
        return self.last(self.dropout(nnx.relu(self.norm(self.first(told))))).reshape(x.shape)


@pytest.fixture(scope="module")
def compiled():
    return trainer_of(small())


@pytest.fixture
def trainer(compiled):
    """One trainer for several tests, compiled once, and put back to its first state after each."""
    state, config = compiled.state, compiled.config
    yield compiled
    compiled.state, compiled.config = state, config


# The loss


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [("x0", 0.25), ("noise", 1.0), ("v", np.mean([0.75 * a + 0.25 for a in SCHEDULE.alpha_bars[1:]]))],
)
def test_a_network_that_says_nothing_errs_by_the_variance_of_its_target(prediction, expected):
    """Data of variance ¼ around 0: E x₀² = ¼, E ε² = 1, E v² = ᾱ + (1 − ᾱ)/4 averaged over the steps."""
    data = 0.5 * RNG.normal(size=(30000, 2, 3)).astype(np.float32)
    metrics = trainer_of(Constant(0.0), prediction=prediction).evaluate({"data": data})
    assert metrics["loss"] == pytest.approx(expected, rel=0.02)


@pytest.mark.slow
def test_training_lowers_the_loss_and_reports_it(trainer):
    history = trainer.fit(BATCH, 60)
    assert set(history) == {"loss", "x0_error", "grad_norm"}
    close(history["loss"], history["x0_error"])  # the same thing for x₀
    assert history["loss"][-10:].mean() < 0.8 * history["loss"][:10].mean()


@pytest.mark.slow
def test_labels_count_only_as_far_as_they_are_not_dropped(trainer):
    other = BATCH | {"labels": (BATCH["labels"] + 1) % 3}
    loss = lambda batch: float(trainer.compute_loss(trainer.model, batch, jax.random.key(3))[0])  # noqa: E731
    trainer.config = dataclasses.replace(trainer.config, label_dropout=1.0)
    assert loss(BATCH) == loss(other) == loss({"data": DATA})
    trainer.config = dataclasses.replace(trainer.config, label_dropout=0.0)
    assert loss(BATCH) != loss(other)


@pytest.mark.slow
def test_evaluation_tells_all_labels_to_the_average_and_changes_nothing(trainer):
    trainer.config = dataclasses.replace(trainer.config, label_dropout=1.0)
    trainer.fit(BATCH, 3)
    before = bits(trainer)
    seen = trainer.evaluate(BATCH)
    assert bits(trainer) == before
    assert seen != trainer.evaluate(BATCH | {"labels": (BATCH["labels"] + 1) % 3})
    trainer.model.head.bias[...] += 1.0
    assert trainer.evaluate(BATCH) == seen
    trainer.average.head.bias[...] += 1.0
    assert trainer.evaluate(BATCH)["loss"] > seen["loss"]


# The average


@pytest.mark.slow
def test_the_average_warms_up_and_shares_no_variable(trainer):
    mine = {id(v) for v in jax.tree.leaves(nnx.state(trainer.model), is_leaf=lambda x: isinstance(x, nnx.Variable))}
    theirs = {
        id(v) for v in jax.tree.leaves(nnx.state(trainer.average), is_leaf=lambda x: isinstance(x, nnx.Variable))
    }
    assert not mine & theirs
    expected = values(trainer.model)
    for n in range(4):
        trainer.train_step(BATCH)
        decay = min(0.999, (1 + n) / (10 + n))
        expected = [decay * old + (1 - decay) * new for old, new in zip(expected, values(trainer.model), strict=True)]
        jax.tree.map(close, values(trainer.average), expected)
    frozen = values(trainer.average)
    trainer.model.head.bias[...] += 1.0
    jax.tree.map(np.testing.assert_array_equal, values(trainer.average), frozen)


@pytest.mark.slow
def test_the_average_of_a_model_that_stands_still_is_the_model_and_without_decay_it_is_too():
    still = trainer_of(small(), learning_rate=0.0)
    still.fit(BATCH, 5)
    jax.tree.map(np.testing.assert_array_equal, values(still.average), values(still.model))
    follower = trainer_of(small(), ema_decay=0.0)
    follower.fit(BATCH, 5)
    jax.tree.map(np.testing.assert_array_equal, values(follower.average), values(follower.model))
    assert any((a != b).any() for a, b in zip(values(follower.model), values(small()), strict=True))


# A trainer as all others


@pytest.mark.slow
def test_numbers_of_the_config_and_of_sampling_compile_nothing():
    trainer = trainer_of(small(), min_snr_gamma=5.0)
    labels = np.arange(4) % 3
    for change in ({}, {"min_snr_gamma": 2.0}, {"ema_decay": 0.5}, {"label_dropout": 0.4}, {"data_std": 2.0}):
        trainer.config = dataclasses.replace(trainer.config, **change)
        trainer.train_step(BATCH)
        trainer.evaluate(BATCH)
    assert trainer._compiled_step._cache_size() == trainer._compiled_evaluate._cache_size() == 1
    drawn = [
        trainer.sample(4, jax.random.key(0), labels, sampler="ddim", eta=eta, guidance=guidance, clip=clip)
        for eta, guidance, clip in ((0, 2, 1), (0.5, 3.0, 1.5), (1.0, 0.5, 9))
    ]
    trainer.sample(4, jax.random.key(0), labels, guidance=1.5)
    assert trainer._compiled_draw._cache_size() == 1
    assert len({np.asarray(x).tobytes() for x in drawn}) == 3


@pytest.mark.slow
def test_it_goes_on_from_disk_to_the_bit_and_a_clone_goes_its_own_way(tmp_path):
    trainer = trainer_of(Everything(nnx.Rngs(0)))
    trainer.fit(BATCH, 3)
    trainer.save(tmp_path / "x")
    twin, before = trainer.clone(), bits(trainer)
    twin.fit(BATCH, 2)
    assert bits(trainer) == before and twin.average is not trainer.average
    other = trainer_of(Everything(nnx.Rngs(1)), key=7, ema_decay=0.5)
    other.restore(tmp_path / "x")
    other.fit(BATCH, 2)
    assert bits(other) == bits(twin)
    np.testing.assert_array_equal(*(t.sample(3, jax.random.key(0), 1) for t in (other, twin)))


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, pytest.param(7, marks=pytest.mark.slow)])
def test_odd_batches_dropout_and_batch_norm(rows):
    trainer = trainer_of(Everything(nnx.Rngs(0)))
    mean = np.asarray(trainer.model.norm.mean[...])
    batch = {name: value[:rows] for name, value in BATCH.items()}
    assert np.isfinite(list(trainer.train_step(batch).values())).all()
    assert (np.asarray(trainer.model.norm.mean[...]) != mean).any()
    np.testing.assert_array_equal(trainer.average.norm.mean[...], trainer.model.norm.mean[...])
    one, two = (trainer.sample(3, jax.random.key(0), 1) for _ in range(2))  # without dropout, and with no new draws
    np.testing.assert_array_equal(one, two)
    assert trainer.evaluate(batch) == trainer.evaluate(batch)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": None}, ("data", "images")),
        ({"data": DATA[:, :1]}, ("data", (12, 1, 3), "(B, 2, 3)")),
        ({"data": DATA.reshape(12, 6)}, ("data", (12, 6))),
        ({"data": np.where(DATA > 1, np.nan, DATA)}, ("data", "nan")),
        ({"data": DATA.astype(np.int32)}, ("data", "int32")),
        ({"data": DATA[:0]}, ("data", (0, 2, 3))),
        ({"labels": np.arange(12) % 4}, ("labels", "0 to 3", "0 to 2")),
        ({"labels": np.arange(12) % 3 - 1}, ("labels", "0 to 2")),
        ({"labels": np.zeros(12, np.float32)}, ("labels", "float32")),
        ({"labels": np.zeros(11, int)}, ("labels", (11,), "(12,)")),
    ],
)
def test_bad_batches_are_refused_and_nothing_changes(trainer, change, words):
    before = bits(trainer)
    assert_refused(trainer, {k: v for k, v in (BATCH | change).items() if v is not None}, *words)
    assert bits(trainer) == before


def test_a_model_that_knows_no_class_is_told_none_and_one_that_answers_in_another_shape_is_refused():
    plain = trainer_of(small(num_classes=None))
    assert_refused(plain, BATCH, "labels", "num_classes")
    assert plain.sample(2, jax.random.key(0)).shape == (2, 2, 3)
    with pytest.raises(ValueError, match="labels: needs None: Denoiser has no num_classes"):
        plain.sample(2, jax.random.key(0), 1)

    class Flat(Constant):
        def __call__(self, x, times, labels):
            return super().__call__(x, times, labels).reshape(len(x), -1)

    assert_refused(trainer_of(Flat(0.0)), {"data": DATA}, "model", (12, 6), (12, 2, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampler": "euler"}, "sampler: got 'euler', needs 'ddpm', 'ddim', 'heun'"),
        ({"eta": 0.5}, "eta: got 0.5 for 'ddpm'"),
        ({"sampler": "ddim", "eta": 1.5}, "eta: got 1.5"),
        ({"num_steps": 6}, "num_steps: got 6, needs an integer from 1 to 5"),
        ({"guidance": math.nan}, "guidance: got nan"),
        ({"clip": 0}, "clip: got 0"),
        ({"labels": 3}, "labels: got 3 to 3, needs 0 to 2"),
        ({"labels": np.zeros(4, int)}, r"labels: got int\d+ of shape \(4,\)"),
    ],
)
def test_samples_that_cannot_be_are_refused(trainer, arguments, message):
    with pytest.raises(ValueError, match=message):
        trainer.sample(3, jax.random.key(0), **arguments)


# Samplers, with networks that are exact

MEAN, STD = 0.4, 0.5


class Exact(nnx.Module):
    """E[x₀ | x_t] for data from N(MEAN, STD²), or from N(−MEAN, STD²) for label 1, in the words of `prediction`."""

    shape, num_classes = (1,), 2

    def __init__(self, prediction, schedule):
        self.prediction, self.schedule, self.unused = prediction, schedule, nnx.Param(jnp.zeros(1))

    def __call__(self, x, times, labels):
        if self.prediction == "edm":
            sigma = jnp.exp(4 * times)[:, None]
            alpha_bar = 1 / (1 + sigma**2)
            x = x / preconditioning(sigma, STD).c_in * jnp.sqrt(alpha_bar)
        else:
            alpha_bar = self.schedule.alpha_bar_at(times)[:, None]
        mean = MEAN if labels is None else jnp.where(labels == 1, -MEAN, MEAN)[:, None]
        gain = jnp.sqrt(alpha_bar) * STD**2 / (alpha_bar * STD**2 + 1 - alpha_bar)
        x0 = mean + gain * (x - jnp.sqrt(alpha_bar) * mean)
        return convert_prediction(x0, x, alpha_bar, "x0", self.prediction, STD)


@pytest.mark.parametrize(
    ("prediction", "sampler"),
    [
        ("noise", "ddim"),
        ("edm", "heun"),
        *(pytest.param(*pair, marks=pytest.mark.slow) for pair in (("x0", "ddpm"), ("v", "heun"), ("edm", "ddpm"))),
    ],
)
def test_gaussian_data_is_drawn_in_mean_and_spread(prediction, sampler):
    schedule = EDMSchedule(250) if prediction == "edm" else cosine_schedule(150)
    trainer = trainer_of(Exact(prediction, schedule), schedule=schedule, prediction=prediction, data_std=STD)
    samples = np.asarray(trainer.sample(20000, jax.random.key(0), np.arange(20000) % 2, sampler=sampler))
    for label, mean in ((0, MEAN), (1, -MEAN)):
        part = samples[label::2]
        assert part.mean() == pytest.approx(mean, abs=0.025)
        assert part.std() == pytest.approx(STD, rel=0.04)


@pytest.mark.slow
def test_samplers_agree_where_they_are_the_same_and_guidance_0_forgets_the_label(trainer):
    trainer.fit(BATCH, 20)
    draw = partial(trainer.sample, 4, jax.random.key(0))
    np.testing.assert_array_equal(draw(1), draw(np.ones(4, int), sampler="ddpm"))
    close(draw(1, sampler="ddim", eta=1.0), draw(1), atol=1e-5)
    close(draw(1, guidance=0.0), draw(), atol=1e-5)
    assert np.abs(draw(1) - draw()).max() > 1e-3
    assert np.abs(draw(1, clip=0.1, sampler="ddim")).max() <= 0.1 + 1e-6, "the last step goes to the guess"
    assert np.abs(draw(1, num_steps=2) - draw(1)).max() > 1e-3


def test_samples_come_from_the_average(trainer):
    before = trainer.sample(4, jax.random.key(0), 1)
    trainer.model.head.bias[...] += 1.0
    np.testing.assert_array_equal(trainer.sample(4, jax.random.key(0), 1), before)
    trainer.average.head.bias[...] += 1.0
    assert np.abs(trainer.sample(4, jax.random.key(0), 1) - before).max() > 0.1


# Policies


class Translated(nnx.Module):
    """A denoiser that guesses x₀, in the words of another prediction."""

    num_classes = 3

    def __init__(self, denoiser, prediction):
        self.denoiser, self.prediction = denoiser, prediction

    def __call__(self, x, times, labels):
        alpha_bar = SCHEDULE.alpha_bar_at(times)[:, None, None]
        if self.prediction == "edm":
            sigma = jnp.exp(4 * times)[:, None, None]
            alpha_bar = 1 / (1 + sigma**2)
            x = x / preconditioning(sigma).c_in * jnp.sqrt(alpha_bar)
            times = jnp.interp(-alpha_bar[:, 0, 0], -jnp.array(SCHEDULE.alpha_bars), jnp.array(SCHEDULE.times))
        return convert_prediction(self.denoiser(x, times, labels), x, alpha_bar, "x0", self.prediction)


@pytest.mark.slow
@pytest.mark.parametrize("prediction", PREDICTIONS[1:])
def test_a_policy_of_any_prediction_is_that_of_the_same_guess(prediction):
    plain = DiffusionPolicy(small(), SCHEDULE, (2, 3))
    other = DiffusionPolicy(Translated(small(), prediction), SCHEDULE, (2, 3), prediction=prediction)
    labels = np.array([0, 2])
    path, log_probs = jax.jit(lambda: plain.sample(labels, jax.random.key(0)))()
    theirs = jax.jit(lambda: other.evaluate(labels, path).log_probs)()
    np.testing.assert_allclose(theirs, log_probs, rtol=1e-2, atol=2e-2)
    with pytest.raises(ValueError, match="prediction: got 'epsilon'"):
        DiffusionPolicy(small(), SCHEDULE, (2, 3), prediction="epsilon")


def test_a_policy_is_trained_with_the_levels_and_the_prediction_that_it_has():
    policy = DiffusionPolicy(small(), SCHEDULE, (2, 3), prediction="v")
    optimizer = nnx.Optimizer(policy, optax.adam(1e-3), wrt=nnx.Param)
    with pytest.raises(ValueError, match="prediction: got 'x0', needs the model's, 'v'"):
        DiffusionTrainer(policy, optimizer)
    edm = DiffusionPolicy(small(), SCHEDULE, (2, 3), prediction="edm", data_std=0.3)
    with pytest.raises(ValueError, match=r"data_std: got 0\.5, needs the model's, 0\.3"):
        DiffusionTrainer(edm, nnx.Optimizer(edm, optax.adam(1e-3), wrt=nnx.Param), DiffusionConfig(prediction="edm"))
    trainer = DiffusionTrainer(policy, optimizer, DiffusionConfig(prediction="v"))
    assert trainer.schedule == SCHEDULE and trainer.shape == (2, 3) and trainer.num_classes == 3


GUIDE = """
from artifex.generative_models.training import GRPOConfig, GRPOTrainer
from artifex.generative_models.training.trainers import DiffusionTrainer

# Standard diffusion trainer for pre-training
diffusion_trainer = DiffusionTrainer(model, optimizer, diffusion_config)

# Fine-tune with GRPO
grpo_config = GRPOConfig(num_generations=4, beta=0.01)
grpo_trainer = GRPOTrainer(model, optimizer, grpo_config)

# Generate samples and compute rewards
for batch in dataloader:
    # Generate multiple samples per condition
    samples = generate_samples(model, batch["conditions"], num_samples=4)
    rewards = reward_fn(samples, batch["conditions"])

    # GRPO training step
    rl_batch = {
        "observations": batch["conditions"],
        "actions": samples,
        "rewards": rewards,
        "log_probs": compute_log_probs(model, samples, batch["conditions"]),
    }
    metrics = grpo_trainer.train_step(rl_batch)
"""


@pytest.mark.slow
def test_the_guides_example_trains_one_model_twice():
    model = DiffusionPolicy(small(), SCHEDULE, (2, 3))
    rewards = []

    def reward_fn(samples, conditions):
        rewards.append(np.asarray(model.outcome(samples).mean(axis=(1, 2))))
        return rewards[-1]

    names = {
        "model": model,
        "optimizer": nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param),
        "diffusion_config": DiffusionConfig(label_dropout=0.2),
        "dataloader": [{"conditions": np.arange(3).repeat(4)}] * 25,
        "reward_fn": reward_fn,
        "generate_samples": lambda policy, conditions, num_samples: draw(policy, np.repeat(conditions, num_samples)),
        "compute_log_probs": lambda policy, samples, conditions: score(policy, samples, np.repeat(conditions, 4)),
    }
    keys = iter(jax.random.split(jax.random.key(0), 25))
    sample = nnx.jit(lambda policy, labels, key: policy.sample(labels, key)[0])
    draw = lambda policy, labels: sample(policy, labels, next(keys))  # noqa: E731
    score = nnx.jit(lambda policy, samples, labels: policy.evaluate(labels, samples).log_probs)
    source = GUIDE.replace("artifex.generative_models.training", "artifex_rl")
    exec(compile(source, "guide", "exec"), names)
    assert np.mean(rewards[-3:]) > np.mean(rewards[:3]) + 0.1
    before = values(model)
    history = names["diffusion_trainer"].fit(BATCH, 60)  # and it still learns from data, where the rewards left it
    assert history["loss"][-10:].mean() < history["loss"][:10].mean()
    assert any((a != b).any() for a, b in zip(values(model), before, strict=True))


# Digits

LABELS = np.arange(10).repeat(20)


def train_digits(steps, batch_size, hidden=(256, 256, 256), learning_rate=1e-3, **config):
    model = Denoiser((8, 8), hidden, num_classes=10, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(optax.cosine_decay_schedule(learning_rate, steps)), wrt=nnx.Param)
    trainer = DiffusionTrainer(model, optimizer, DiffusionConfig(ema_decay=0.99, **config))
    images, labels = load_digits().train
    trainer.fit({"images": images, "labels": labels}, steps, batch_size=batch_size)
    return trainer


def judge(trainer, **options):
    """The share that the judge takes for what was asked for, and the mean difference of two pictures of a class."""
    samples = trainer.sample(len(LABELS), jax.random.key(0), LABELS, **options)
    variety = np.mean([image_diversity(samples[np.equal(LABELS, digit)]) for digit in range(10)])
    return float((digit_judge().classify(samples) == LABELS).mean()), float(variety)


def test_a_short_training_draws_digits():
    assert judge(train_digits(100, 64, (128, 128), 5e-3))[0] > 0.7  # by chance 0.1


@pytest.mark.slow
def test_digits_are_recognised_by_the_judge_from_every_sampler():
    trainer = train_digits(1500, 128)
    for options in ({}, {"sampler": "ddim"}, {"sampler": "heun"}, {"num_steps": 5, "guidance": 1.5}):
        right, variety = judge(trainer, **options)
        assert right >= 0.97 and variety > 0.13, options  # real digits have 0.29


@pytest.mark.slow
@pytest.mark.parametrize(("prediction", "gamma"), [("v", None), ("v", 5.0), ("noise", None)])
def test_other_predictions_draw_digits_too(prediction, gamma):
    trainer = train_digits(1500, 128, prediction=prediction, min_snr_gamma=gamma)
    right, variety = judge(trainer, guidance=2.0, clip=1.0)
    assert right >= 0.9 and variety > 0.13
