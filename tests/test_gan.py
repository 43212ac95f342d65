"""GAN: games with known values, dynamics with a closed form, networks of every kind, modes counted, digits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from recognisable import judge_digits
from refusals import assert_refused
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance

from artifex_rl.data.ring import count_modes, sample_ring
from artifex_rl.generative.adversarial import (
    compute_discriminator_accuracy,
    compute_discriminator_loss,
    compute_generator_loss,
    compute_gradient_penalty,
    compute_r1_penalty,
    interpolate,
)
from artifex_rl.models import Discriminator, Generator
from artifex_rl.trainers import GANConfig, GANTrainer

LOSSES = ["non_saturating", "minimax", "wasserstein", "hinge", "least_squares"]
close = np.testing.assert_allclose


def trainer_for(generator, discriminator, config=None, rate=1e-3, make=optax.adam, **options):
    return GANTrainer(
        generator,
        nnx.Optimizer(generator, make(rate), wrt=nnx.Param),
        config,
        discriminator=discriminator,
        discriminator_optimizer=nnx.Optimizer(discriminator, make(rate), wrt=nnx.Param),
        **options,
    )


def small(config=None, classes=None, seed=0, **of_discriminator):
    rngs = nnx.Rngs(seed)
    generator = Generator(3, (2, 2), (8,), classes, rngs=rngs)
    discriminator = Discriminator((2, 2), (8,), classes, rngs=rngs, **of_discriminator)
    return trainer_for(generator, discriminator, config, 1e-2, optax.sgd)  # it compiles faster than Adam


def batch_of(rows=6, shape=(2, 2), classes=None, seed=0):
    rng = np.random.default_rng(seed)
    batch = {"data": rng.uniform(-1, 1, (rows, *shape)).astype(np.float32)}
    return batch | ({} if classes is None else {"labels": rng.integers(0, classes, rows).astype(np.int32)})


def bits(trainer):
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(nnx.as_pure(trainer.state.variables)) if not is_key(x)]


def is_key(x):
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def params(module):
    return [np.asarray(x) for x in jax.tree.leaves(nnx.as_pure(nnx.state(module, nnx.Param)))]


# The games. Data and fakes are drawn from two histograms p and q, and a discriminator has a score for each bin.

histograms = st.tuples(*[st.permutations([1, 2, 4, 5])] * 2)


def play(p, q, scores, loss_type):
    """The loss where bin i holds p[i] data and q[i] fakes."""
    scores = np.asarray(scores, np.float32)
    return compute_discriminator_loss(jnp.asarray(np.repeat(scores, p)), jnp.asarray(np.repeat(scores, q)), loss_type)


@given(histograms)
def test_the_best_discriminator_measures_a_distance(histograms):
    p, q = (np.array(h) for h in histograms)
    a, b = p / p.sum(), q / q.sum()
    divergence = jensenshannon(a, b) ** 2
    for name in ("non_saturating", "minimax"):
        close(play(p, q, np.log(a / b), name), np.log(4) - 2 * divergence, rtol=1e-5)
    total_variation = np.abs(a - b).sum() / 2
    close(play(p, q, np.sign(a - b), "hinge"), 2 * (1 - total_variation), rtol=1e-5, atol=1e-6)
    close(play(p, q, a / (a + b), "least_squares"), 0.5 * np.sum(a * b / (a + b)), rtol=1e-5)


@pytest.mark.parametrize("loss_type", ["non_saturating", "least_squares", "hinge"])
def test_no_discriminator_does_better_than_the_best(loss_type):
    p, q = np.array([1, 6, 3]), np.array([4, 2, 4])
    best = {"non_saturating": np.log(p / q), "least_squares": p / (p + q), "hinge": np.sign(p - q)}[loss_type]
    least = float(play(p, q, best, loss_type))
    for seed in range(50):
        other = best + np.random.default_rng(seed).normal(0, 0.5, 3)
        assert float(play(p, q, other, loss_type)) > least - 1e-6


def test_a_critic_of_slope_1_measures_the_wasserstein_distance():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(3, 1, 200), rng.normal(0, 1, 200) - 2  # real lies to the right of fake throughout
    loss = compute_discriminator_loss(jnp.float32(real), jnp.float32(fake), "wasserstein")  # the critic D(x) = x
    close(-loss, wasserstein_distance(real, fake), rtol=2e-3)


def test_the_slope_of_each_generator_loss():
    scores = np.array([-6.0, -1.0, 0.0, 2.0, 6.0], np.float32)
    sigmoid = 1 / (1 + np.exp(-scores))
    slopes = {
        "non_saturating": -(1 - sigmoid),  # of a fake that is seen through: −1
        "minimax": -sigmoid,  # 0: it saturates
        "wasserstein": -np.ones(5),
        "hinge": -np.ones(5),
        "least_squares": scores - 1,
    }
    for name, expected in slopes.items():
        close(jax.grad(compute_generator_loss)(scores, name), expected / 5, rtol=1e-4, atol=1e-6)


def test_hinge_asks_nothing_more_of_scores_beyond_its_margin():
    def loss(real, fake):
        return compute_discriminator_loss(real, fake, "hinge")

    real, fake = jnp.array([1.5, 3.0, 0.0]), jnp.array([-1.5, -9.0, 0.5])
    close(loss(real, fake), (1.0 + 1.5) / 3, rtol=1e-6)
    slopes = jax.grad(loss, argnums=(0, 1))(real, fake)
    close(slopes[0], [0, 0, -1 / 3], rtol=1e-6)
    close(slopes[1], [0, 0, 1 / 3], rtol=1e-6)
    assert float(loss(real[:2], fake[:2])) == 0


def test_scores_beyond_what_a_float_can_exponentiate_cost_a_finite_loss():
    scores = jnp.array([-1e4, 1e4])
    for name in LOSSES:
        slopes = jax.grad(lambda s, name=name: compute_discriminator_loss(s, s, name))(scores)
        assert np.isfinite(slopes).all() and np.isfinite(jax.grad(compute_generator_loss)(scores, name)).all()


def test_accuracy_counts_from_the_boundary_of_each_game():
    real, fake = jnp.array([0.6, 0.4, 3.0, -1.0]), jnp.array([0.4, -2.0, 0.2, -0.1])
    assert float(compute_discriminator_accuracy(real, fake, "hinge")) == pytest.approx((3 + 2) / 8)
    assert float(compute_discriminator_accuracy(real, fake, "least_squares")) == pytest.approx((2 + 4) / 8)
    # A critic knows differences alone: the same answer wherever its zero is.
    for shift in (0.0, 100.0):
        accuracy = compute_discriminator_accuracy(real + shift, fake + shift, "wasserstein")
        assert float(accuracy) == pytest.approx((3 + 2) / 8)


def test_an_unknown_game_is_named():
    for compute in (compute_discriminator_loss, compute_discriminator_accuracy):
        with pytest.raises(ValueError, match="loss_type: got 'wgan', needs 'non_saturating' or"):
            compute(jnp.zeros(2), jnp.zeros(2), "wgan")
    with pytest.raises(ValueError, match="loss_type"):
        compute_generator_loss(jnp.zeros(2), "wgan")


# Penalties


@pytest.mark.slow
@given(st.lists(st.floats(-3, 3, width=32), min_size=4, max_size=4))
def test_what_a_linear_critic_pays_for_its_slope(w):
    w, points = np.array(w, np.float32).reshape(2, 2), jnp.asarray(batch_of(5)["data"])

    def critic(x):
        return jnp.einsum("bij,ij->b", x, w)

    length = np.linalg.norm(w)
    close(compute_gradient_penalty(critic, points), (length - 1) ** 2, rtol=1e-4, atol=1e-5)
    close(compute_r1_penalty(critic, points), 0.5 * length**2, rtol=1e-5, atol=1e-12)


def test_the_slope_is_each_sample_s_own():
    points = jnp.array([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]])  # D(x) = ½‖x‖² has slope ‖x‖: 1, 2, 5
    penalty = compute_gradient_penalty(lambda x: 0.5 * jnp.sum(x**2, axis=1), points)
    close(penalty, (0 + 1 + 16) / 3, rtol=1e-6)
    close(compute_r1_penalty(lambda x: 0.5 * jnp.sum(x**2, axis=1), points), (1 + 4 + 25) / 6, rtol=1e-6)


def test_penalties_are_differentiable_by_the_weights(check_gradients):
    points = np.random.default_rng(0).normal(size=(4, 3))

    def network(w):
        return lambda x: jnp.tanh(x @ w.reshape(3, 3)).sum(axis=1)

    w = np.random.default_rng(1).normal(size=9)
    check_gradients(lambda w: compute_gradient_penalty(network(w), jnp.asarray(points)), w)
    check_gradients(lambda w: compute_r1_penalty(network(w), jnp.asarray(points)), w)


def test_a_flat_critic_has_a_penalty_of_1_and_a_finite_gradient():
    points = jnp.ones((4, 2))
    value, slope = jax.value_and_grad(lambda w: compute_gradient_penalty(lambda x: x @ w, points))(jnp.zeros(2))
    assert float(value) == 1 and np.isfinite(slope).all()


def test_interpolated_points_lie_between_evenly():
    real, fake = np.zeros((4000, 1, 2), np.float32), np.tile(np.array([1, -2], np.float32), (4000, 1, 1))
    points = np.asarray(interpolate(jnp.asarray(real), jnp.asarray(fake), jax.random.key(0)))
    close(points[..., 1], -2 * points[..., 0], rtol=1e-6)  # one share for a whole sample
    assert points[..., 0].min() >= 0 and points[..., 0].max() < 1
    close([points[..., 0].mean(), points[..., 0].var()], [1 / 2, 1 / 12], atol=0.01)


# The dynamics of a linear critic w·x against a generator whose samples are b: Mescheder's Dirac GAN


class Point(nnx.Module):
    """G(z) = b."""

    latent_size = 2

    def __init__(self, b):
        self.b = nnx.Param(jnp.asarray(b, jnp.float32))

    def __call__(self, noise):
        return jnp.broadcast_to(self.b[...][None], (len(noise), 2)) + 0 * noise


class Critic(nnx.Module):
    """D(x) = w·x."""

    def __init__(self, w):
        self.w = nnx.Param(jnp.asarray(w, jnp.float32))

    def __call__(self, samples):
        return samples @ self.w[...]


RATE, B, W = 0.1, np.array([1.0, -1.0]), np.array([3.0, 4.0])


@pytest.mark.parametrize(("n_critic", "penalty", "r1"), [(1, 0.0, 0.0), (3, 0.0, 0.0), (3, 0.5, 0.0), (2, 0.0, 0.25)])
def test_alternating_steps_follow_the_closed_form(n_critic, penalty, r1):
    config = GANConfig("wasserstein", n_critic, penalty, r1, ema_decay=0.0)
    trainer = trainer_for(Point(B), Critic(W), config, RATE, optax.sgd)
    data = batch_of(7, (2,))
    metrics = trainer.train_step(data)
    mean, w = data["data"].mean(axis=0), W.copy()
    for _ in range(n_critic):
        before, length = w, np.linalg.norm(w)
        w = w + RATE * ((mean - B) - 2 * penalty * (length - 1) * w / length - r1 * w)
    close(trainer.discriminator.w[...], w, rtol=1e-5)
    close(trainer.model.b[...], B + RATE * w, rtol=1e-5)  # after the critic's last step, with its new weights

    length = np.linalg.norm(before)
    costs = (length - 1) ** 2, 0.5 * length**2
    gap = before @ (mean - B)
    expected = {
        "real_score": before @ mean,
        "fake_score": before @ B,
        "gradient_penalty": costs[0] if penalty else 0,
        "r1_penalty": costs[1] if r1 else 0,
        "discriminator_loss": -gap + penalty * costs[0] + r1 * costs[1],
        "generator_loss": -w @ B,
        "loss": -w @ B,
        "grad_norm": np.linalg.norm(w),
    }
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    assert int(trainer.discriminator_optimizer.step[...]) == n_critic and int(trainer.optimizer.step[...]) == 1


@pytest.mark.slow
def test_every_critic_step_has_fakes_of_fresh_noise():
    class Noise(Point):
        def __call__(self, noise):
            return noise + self.b[...][None]

    config = GANConfig("wasserstein", 2, 0.0)
    trainer = trainer_for(Noise([0.0, 0.0]), Critic([0.0, 0.0]), config, RATE, optax.sgd)
    metrics = trainer.train_step({"data": np.array([[1.0, 0.0]] * 4, np.float32)})
    # Along the first axis w₁ = η (1 − z̄₁) and w₂ = w₁ + η (1 − z̄₂).
    first = 1 - metrics["real_score"] / RATE
    second = 2 - first - float(trainer.discriminator.w[...][0]) / RATE
    assert abs(first - second) > 1e-3


def test_r1_makes_the_dirac_gan_converge_which_circles_without():
    trainer = trainer_for(Point([1.0, 0.0]), Critic([0.0, 0.0]), GANConfig("wasserstein"), 0.3, optax.sgd)
    start = trainer.state

    def distance(r1):
        trainer.state = start
        trainer.config = GANConfig("wasserstein", gradient_penalty_weight=0.0, r1_weight=r1)
        trainer.fit({"data": np.zeros((2, 2), np.float32)}, 300)
        return np.linalg.norm([trainer.model.b[...], trainer.discriminator.w[...]])

    assert distance(0.0) > 0.9 and distance(1.0) < 0.01


# Networks that have more than weights


class Normed(nnx.Module):
    """A network with batch norm and dropout, to be either player."""

    latent_size = 2

    def __init__(self, features, shift=0.0, rate=0.0):
        rngs = nnx.Rngs(0)
        self.norm, self.dropout = nnx.BatchNorm(2, rngs=rngs), nnx.Dropout(rate, rngs=rngs)
        self.linear, self.shift = nnx.Linear(2, features, rngs=rngs), shift

    def __call__(self, x):
        y = self.linear(self.dropout(self.norm(x + self.shift)))
        return y if y.shape[1] > 1 else y[:, 0]


@pytest.mark.slow
@pytest.mark.parametrize("loss_type", [pytest.param("non_saturating", marks=pytest.mark.slow), "wasserstein"])
def test_statistics_of_the_discriminator_come_from_its_own_steps_alone(loss_type):
    trainer = trainer_for(Point(B), Normed(1), GANConfig(loss_type, r1_weight=1.0), 1e-2, optax.sgd)
    data = batch_of(7, (2,))
    trainer.train_step(data)
    seen = 0.01 * data["data"].mean(axis=0)  # the momentum is .99; it starts at 0
    close(trainer.discriminator.norm.mean[...], 0.99 * seen + 0.01 * B, rtol=1e-5)  # data, then fakes, and no more


@pytest.mark.slow
def test_statistics_of_the_generator_come_from_its_own_steps_alone():
    trainer = trainer_for(Normed(2, shift=100.0), Critic(W), GANConfig(n_critic=3), 1e-3, optax.sgd)
    trainer.train_step(batch_of(50, (2,)))
    close(trainer.model.norm.mean[...], [1, 1], atol=0.02)  # .01 · 100, once
    close(trainer.average.norm.mean[...], trainer.model.norm.mean[...])


@pytest.mark.slow
def test_no_dropout_is_drawn_twice():
    trainer = trainer_for(
        Normed(2, rate=0.5), Normed(1, rate=0.5), GANConfig(n_critic=2, r1_weight=1.0), make=optax.sgd
    )
    trainer.train_step(batch_of(5, (2,)))
    count = nnx.state(trainer.discriminator, nnx.RngCount), nnx.state(trainer.model, nnx.RngCount)
    drawn = [int(max(np.max(x) for x in jax.tree.leaves(nnx.as_pure(state)))) for state in count]
    assert drawn == [2 * 2 + 1, 2 + 1]  # data and fakes of each own step, and the generator's; fakes of three steps


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "config"), [(7, GANConfig("hinge", 2, r1_weight=1.0)), (1, GANConfig("wasserstein"))]
)
def test_dropout_spectral_norm_and_odd_batches(rows, config):
    trainer = small(config, spectral_norm=True, dropout=0.3)
    metrics = trainer.train_step(batch_of(rows))
    assert all(np.isfinite(value) for value in metrics.values())
    assert metrics["r1_penalty"] > 0 if config.r1_weight else metrics["gradient_penalty"] > 0
    assert metrics["grad_norm"] > 0 and metrics["discriminator_grad_norm"] > 0
    before = bits(trainer)
    again, once_more = trainer.evaluate(batch_of(rows)), trainer.evaluate(batch_of(rows))
    assert again == once_more and bits(trainer) == before  # and no dropout in evaluation
    assert {*metrics} - {*again} == {"grad_norm", "discriminator_grad_norm"}


@pytest.mark.slow
def test_spectral_norm_holds_the_slope_of_every_layer():
    trainer = small(GANConfig("hinge"), spectral_norm=True)
    trainer.fit(batch_of(20), 100)
    for layer in (*trainer.discriminator.layers, trainer.discriminator.head):
        largest = np.linalg.svd(layer.layer_instance.kernel[...], compute_uv=False)[0]
        assert largest == pytest.approx(1, abs=0.1)


# The average


@pytest.mark.slow
def test_the_average_follows_and_is_what_samples_are_drawn_from():
    trainer = small(GANConfig(ema_decay=0.9))
    start = params(trainer.model)
    trainer.train_step(batch_of())
    for mean, first, now in zip(params(trainer.average), start, params(trainer.model), strict=True):
        close(mean, 0.1 * first + 0.9 * now, rtol=1e-5, atol=1e-7)  # warm-up: the decay of the first step is .1
    noise_key = jax.random.key(3)
    drawn = trainer.sample(4, noise_key)
    expected = trainer.average(jax.random.normal(noise_key, (4, 3)))
    close(drawn, expected, atol=1e-6)
    assert np.abs(drawn - trainer.model(jax.random.normal(noise_key, (4, 3)))).max() > 1e-5
    assert drawn.shape == (4, 2, 2) and np.abs(drawn).max() < 1


@pytest.mark.slow
def test_without_decay_the_average_is_the_generator():
    trainer = small(GANConfig(ema_decay=0.0))
    trainer.train_step(batch_of())
    for mean, now in zip(params(trainer.average), params(trainer.model), strict=True):
        np.testing.assert_array_equal(mean, now)
    kept = params(trainer.average)
    trainer.config = GANConfig(ema_decay=0.999)
    trainer.train_step(batch_of())
    assert any((a != b).any() for a, b in zip(params(trainer.average), params(trainer.model), strict=True))
    assert any((a != b).any() for a, b in zip(params(trainer.average), kept, strict=True))


# The trainer


@pytest.mark.slow
def test_moving_a_number_compiles_nothing():
    trainer = small(GANConfig("wasserstein"))
    trainer.train_step(batch_of())
    for name, value in {"gradient_penalty_weight": 0.0, "r1_weight": 2.0, "ema_decay": 0.5}.items():
        trainer.config = dataclasses.replace(trainer.config, **{name: value})
        trainer.train_step(batch_of())
    assert trainer._compiled_step._cache_size() == 1


@pytest.mark.slow
def test_many_steps_in_one_call_are_those_one_by_one_and_a_clone_goes_its_own_way():
    trainer = small(GANConfig("hinge", 2), dropout=0.2)
    twin = trainer.clone()
    history = trainer.fit(batch_of(), 4)
    one_by_one = [twin.train_step(batch_of()) for _ in range(4)]
    for name, values in history.items():
        close(values, [now[name] for now in one_by_one], rtol=1e-4, atol=1e-5)
    assert twin.discriminator is not trainer.discriminator and twin.step == trainer.step == 4
    before = bits(trainer)
    twin.train_step(batch_of())
    assert bits(trainer) == before != bits(twin)


@pytest.mark.slow
def test_a_checkpoint_holds_both_players_and_the_average(tmp_path):
    trainer = small(GANConfig("wasserstein", 2), dropout=0.2)
    trainer.fit(batch_of(), 2, steps_per_call=1)
    trainer.save(tmp_path / "gan")
    other = small(GANConfig("wasserstein", 2), seed=1, dropout=0.2)
    other.restore(tmp_path / "gan")
    assert bits(other) == bits(trainer)
    assert trainer.train_step(batch_of()) == other.train_step(batch_of())
    assert bits(other) == bits(trainer)


@pytest.mark.parametrize("loss_type", LOSSES)
def test_the_losses_are_those_of_the_games_on_fakes_of_fresh_noise(loss_type):
    trainer, key, data = small(GANConfig(loss_type, 1, 0.5, 0.25)), jax.random.key(0), batch_of()
    loss, metrics = trainer.compute_loss(trainer.model, data, key, trainer.discriminator)
    scores = trainer.discriminator(trainer.model(jax.random.normal(key, (6, 3))))
    close(loss, compute_generator_loss(scores, loss_type), rtol=1e-5)
    assert metrics.keys() == {"generator_loss"}
    loss, metrics = trainer.compute_discriminator_loss(trainer.discriminator, data, key, trainer.model)
    fakes = trainer.model(jax.random.normal(jax.random.split(key)[0], (6, 3)))
    scores = trainer.discriminator(jnp.asarray(data["data"])), trainer.discriminator(fakes)
    r1 = compute_r1_penalty(trainer.discriminator, jnp.asarray(data["data"]))
    rest = 0.25 * r1 + 0.5 * metrics["gradient_penalty"]
    close(loss, compute_discriminator_loss(*scores, loss_type) + rest, rtol=1e-5)
    close(metrics["r1_penalty"], r1, rtol=1e-5)
    points = interpolate(jnp.asarray(data["data"]), fakes, jax.random.split(key)[1])
    slope = compute_gradient_penalty(trainer.discriminator, points) if loss_type == "wasserstein" else 0
    close(metrics["gradient_penalty"], slope, rtol=1e-4)


@pytest.mark.slow
def test_a_conditional_game_is_played_with_the_labels_of_the_batch():
    rngs = nnx.Rngs(0)
    generator, discriminator = Generator(4, (1,), (32,), 2, rngs=rngs), Discriminator((1,), (32,), 2, rngs=rngs)
    trainer = trainer_for(generator, discriminator, GANConfig(r1_weight=0.1), 3e-3)
    labels = np.arange(64) % 2
    data = np.where(labels == 1, 0.6, -0.6)[:, None] + np.random.default_rng(0).normal(0, 0.05, (64, 1))
    trainer.fit({"data": data.astype(np.float32), "labels": labels.astype(np.int32)}, 400)
    for label, centre in ((0, -0.6), (1, 0.6)):
        samples = np.asarray(trainer.sample(200, jax.random.key(0), label))
        assert abs(np.median(samples) - centre) < 0.3


def refuse(trainer, batch, *words):
    before = bits(trainer)
    assert_refused(trainer, batch, *words)
    assert bits(trainer) == before


@pytest.mark.slow
def test_bad_batches_are_refused_and_change_nothing():
    trainer, told = small(), small(classes=3)
    good = batch_of(classes=3)
    trainer.train_step(batch_of())
    refuse(trainer, {"pictures": good["data"]}, "data", "images")
    refuse(trainer, {"data": np.zeros((4, 3, 3), np.float32)}, "data", "3")
    refuse(trainer, {"data": np.zeros((4, 4), np.float32)}, "data", "needs", "2")
    refuse(trainer, {"data": np.zeros((4, 2, 2), np.int32)}, "data", "int32", "floats")
    refuse(trainer, {"data": np.zeros((0, 2, 2), np.float32)}, "data", "0")
    refuse(trainer, {"data": np.full((4, 2, 2), np.nan, np.float32)}, "data", "nan")
    refuse(trainer, good, "labels", "none")
    refuse(told, {"data": good["data"]}, "labels", "class")
    refuse(told, good | {"labels": good["labels"].astype(np.float32)}, "labels", "float32", "integers")
    refuse(told, good | {"labels": good["labels"][:-1]}, "labels", "5", "6")
    refuse(told, good | {"labels": np.full(6, 3, np.int32)}, "labels", "3", "2")
    refuse(told, good | {"labels": np.full(6, -1, np.int32)}, "labels", "-1", "2")
    with pytest.raises(ValueError, match="labels: got classes 3 to 3, needs 0 to 2"):
        told.sample(2, jax.random.key(0), 3)


@pytest.mark.slow
def test_wrong_parts_are_named():
    generator, discriminator = Generator(3, (2, 2), (4,), rngs=nnx.Rngs(0)), Discriminator((2, 2), rngs=nnx.Rngs(0))
    optimizer, its = (nnx.Optimizer(m, optax.adam(1e-3), wrt=nnx.Param) for m in (generator, discriminator))

    def make(generator=generator, optimizer=optimizer, discriminator=discriminator, its=its):
        return GANTrainer(generator, optimizer, discriminator=discriminator, discriminator_optimizer=its)

    with pytest.raises(TypeError, match="discriminator: got function"):
        make(discriminator=lambda x: x)
    with pytest.raises(TypeError, match="discriminator_optimizer: got GradientTransformationExtraArgs"):
        make(its=optax.adam(1e-3))
    with pytest.raises(ValueError, match="discriminator_optimizer: was made for another model"):
        make(its=optimizer)
    with pytest.raises(ValueError, match="discriminator: got the generator"):
        make(discriminator=generator, its=optimizer)
    with pytest.raises(TypeError, match="generator: Discriminator has no latent_size"):
        make(generator=discriminator, optimizer=its, discriminator=generator, its=optimizer)
    with pytest.raises(ValueError, match=r"GANConfig\.n_critic: got 0"):
        GANConfig(n_critic=0)
    with pytest.raises(ValueError, match="at least one hidden layer"):
        Generator(3, (2, 2), (), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="sizes of at least 1"):
        Discriminator((2, 2), (4,), 0, rngs=nnx.Rngs(0))


def test_a_discriminator_with_a_column_of_scores_is_refused():
    class Column(Critic):
        def __call__(self, samples):
            return super().__call__(samples)[:, None]

    refuse(trainer_for(Point(B), Column(W)), batch_of(4, (2,)), "discriminator", "4", "1")


# What it learns


def ring_trainer(config, seed=0):
    rngs = nnx.Rngs(seed)
    generator = Generator(16, (2,), (128, 128), bounded=False, rngs=rngs)
    make = lambda rate: optax.adam(rate, b1=0.0, b2=0.99)  # noqa: E731
    return trainer_for(generator, Discriminator((2,), (128, 128), rngs=rngs), config, 1e-3, make, key=seed)


WASSERSTEIN = GANConfig("wasserstein", 5, gradient_penalty_weight=1.0, ema_decay=0.99)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_wasserstein_critic_covers_all_modes_of_the_ring_evenly(seed):
    trainer = ring_trainer(WASSERSTEIN, seed)
    assert count_modes(trainer.sample(2500, jax.random.key(1))).covered <= 3
    trainer.fit({"data": np.asarray(sample_ring(8192, jax.random.key(5)))}, 2000, batch_size=256)
    found = count_modes(trainer.sample(2500, jax.random.key(1)))
    assert found.covered == 8 and found.high_quality > 0.1 and found.counts.min() > 10


def digits_trainer(config, seed=0, **of_discriminator):
    rngs = nnx.Rngs(seed)
    generator, discriminator = Generator(32, (8, 8), rngs=rngs), Discriminator((8, 8), rngs=rngs, **of_discriminator)
    make = lambda rate: optax.adam(rate, b1=0.5, b2=0.99)  # noqa: E731
    return trainer_for(generator, discriminator, config, 5e-4, make, key=seed)


@pytest.mark.slow
def test_digits_begin_to_show():
    from artifex_rl.data import load_digits

    trainer = digits_trainer(GANConfig(r1_weight=0.3, ema_decay=0.99))
    _, classes = judge_digits(trainer.sample(300, jax.random.key(1)))
    assert np.sum(classes > 0.02) <= 3  # noise is one and the same to the judge
    trainer.fit({"data": load_digits().train.images}, 400, batch_size=64)
    share, classes = judge_digits(trainer.sample(300, jax.random.key(1)))
    assert share > 0.15 and np.sum(classes > 0.02) >= 7


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "of_discriminator"),
    [
        (GANConfig("hinge"), {"spectral_norm": True}),
        (GANConfig("wasserstein"), {}),
        (GANConfig(r1_weight=0.3), {"dropout": 0.2}),
    ],
    ids=["hinge", "wasserstein", "non-saturating"],
)
def test_all_ten_digits_are_made(config, of_discriminator):
    from artifex_rl.data import load_digits

    trainer = digits_trainer(config, **of_discriminator)
    trainer.fit({"data": load_digits().train.images}, 3000, batch_size=128)
    share, classes = judge_digits(trainer.sample(1000, jax.random.key(1)))
    assert share >= 0.5 and classes.min() >= 0.04 and classes.max() <= 0.2
