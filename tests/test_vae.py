"""The VAE: its bound term by term, what annealing and free bits do to it, and digits that are told again."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from refusals import assert_refused, snapshot
from scipy import stats
from test_guide import run

from artifex_rl import GRPOConfig, GRPOTrainer, PPOConfig, PPOTrainer, REINFORCETrainer
from artifex_rl.data.digits import digit_judge, load_digits
from artifex_rl.generative.elbo import (
    apply_free_bits,
    compute_bernoulli_log_likelihood,
    compute_gaussian_kl,
    compute_gaussian_log_likelihood,
    compute_kl_weight,
    count_active_units,
)
from artifex_rl.models import VAE, Decoder, Encoder
from artifex_rl.rl.distributions import DiagonalGaussian
from artifex_rl.trainers import VAEConfig, VAETrainer

SHAPE, SIZE = (3, 2), 2


class Restless(nnx.Module):
    """A VAE with dropout and batch statistics in both parts."""

    def __init__(self, seed=0):
        rngs = nnx.Rngs(seed)
        self.latent_size, self.dropout = SIZE, nnx.Dropout(0.3, rngs=rngs)
        self.read, self.norm = nnx.Linear(6, 2 * SIZE, rngs=rngs), nnx.BatchNorm(2 * SIZE, rngs=rngs)
        self.write = nnx.Linear(SIZE, 6, rngs=rngs)

    def encoder(self, data):
        told = self.norm(self.read(self.dropout(data.reshape(len(data), -1))))
        return DiagonalGaussian(*jnp.split(told, 2, axis=-1))

    def decoder(self, latents):
        return self.write(self.dropout(latents)).reshape(-1, *SHAPE)


def make(model=None, learning_rate=1e-2, key=0, **settings):
    model = VAE(SHAPE, SIZE, (8,), rngs=nnx.Rngs(0)) if model is None else model
    optimizer = nnx.Optimizer(model, optax.adam(learning_rate), wrt=nnx.Param)
    return VAETrainer(model, optimizer, VAEConfig(**settings), key=key)


def batch(rows=6, seed=0):
    return {"images": np.random.default_rng(seed).uniform(size=(rows, *SHAPE)).astype(np.float32)}


@pytest.fixture(scope="module")
def trainer():
    """One that nobody trains."""
    return make()


# The terms


@given(st.floats(-4, 4), st.floats(-3, 1.5))
def test_the_kl_is_the_integral(mean, log_std):
    """∫ q log(q/p), by the trapezoidal rule over ± 12 standard deviations."""
    q, p = stats.norm(mean, np.exp(log_std)), stats.norm(0, 1)
    z = np.linspace(mean - 12 * np.exp(log_std), mean + 12 * np.exp(log_std), 4001)
    wanted = np.trapezoid(q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), z)
    np.testing.assert_allclose(
        compute_gaussian_kl(np.float32(mean), np.float32(log_std)), wanted, rtol=1e-4, atol=1e-5
    )


def test_the_kl_is_zero_for_the_prior_alone_and_that_of_two_gaussians():
    assert compute_gaussian_kl(0.0, 0.0) == 0
    rng = np.random.default_rng(0)
    mean, log_std = rng.normal(size=(2, 5, 3)).astype(np.float32)
    prior = DiagonalGaussian(jnp.zeros((5, 3)), jnp.zeros((5, 3)))
    exact = DiagonalGaussian(jnp.asarray(mean), jnp.asarray(log_std)).kl(prior)
    np.testing.assert_allclose(compute_gaussian_kl(mean, log_std).sum(axis=1), exact, rtol=1e-5)
    assert (compute_gaussian_kl(mean, log_std) > 0).all()


def test_likelihoods_are_scipy_s():
    rng = np.random.default_rng(0)
    decoded, data = rng.normal(size=(2, 4, *SHAPE)).astype(np.float32)
    for std in (0.1, 1.0, 3.0):
        wanted = stats.norm(decoded, std).logpdf(data).sum(axis=(1, 2))
        np.testing.assert_allclose(compute_gaussian_log_likelihood(decoded, data, std), wanted, rtol=1e-4)
    ink = (data > 0).astype(np.float32)
    wanted = stats.bernoulli(1 / (1 + np.exp(-np.float64(decoded)))).logpmf(ink).sum(axis=(1, 2))
    np.testing.assert_allclose(compute_bernoulli_log_likelihood(decoded, ink), wanted, rtol=1e-5)


def test_the_likelihood_of_grey_is_best_where_the_probability_is_the_grey():
    grey = jnp.array([[0.2, 0.5, 0.9]])
    gradient = jax.grad(lambda x: compute_bernoulli_log_likelihood(x, grey)[0])
    np.testing.assert_allclose(gradient(jnp.log(grey / (1 - grey))), 0, atol=1e-6)
    assert np.isfinite(gradient(jnp.full((1, 3), 1e4))).all()  # and it is not lost where logits are large
    extreme = compute_bernoulli_log_likelihood(jnp.array([[1e4, -1e4]]), jnp.array([[1.0, 1.0]]))
    np.testing.assert_allclose(extreme, [-1e4])


def test_what_was_decoded_has_the_shape_of_the_data():
    for function in (compute_bernoulli_log_likelihood, compute_gaussian_log_likelihood):
        with pytest.raises(ValueError, match=r"got shape \(4, 1\), needs \(4, 6\)"):
            function(jnp.zeros((4, 1)), jnp.zeros((4, 6)))


def test_free_bits_are_of_each_dimension_and_of_the_mean_over_the_batch():
    """Dimension 0: 0 and 2, mean 1, above ½ though one of them is not. Dimension 1: mean .2, raised to ½."""
    kl = jnp.array([[0.0, 0.1], [2.0, 0.3]])
    np.testing.assert_allclose(apply_free_bits(kl, 0.5), 1.5, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(apply_free_bits)(kl, 0.5), [[0.5, 0], [0.5, 0]])
    np.testing.assert_allclose(apply_free_bits(kl, 0.0), 1.2, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(apply_free_bits)(kl, 0.0), np.full((2, 2), 0.5))


def test_annealings_at_named_points():
    def at(annealing, *steps):
        return [float(compute_kl_weight(step, annealing, 100.0)) for step in steps]

    assert at("none", 0, 7) == [1, 1]
    np.testing.assert_allclose(at("linear", 0, 25, 100, 300), [0, 0.25, 1, 1])
    np.testing.assert_allclose(at("sigmoid", 0, 50, 100), [1 / (1 + np.exp(6)), 0.5, 1 / (1 + np.exp(-6))], rtol=1e-5)
    np.testing.assert_allclose(at("cyclical", 0, 25, 50, 99, 100, 125, 175), [0, 0.5, 1, 1, 0, 0.5, 1], atol=1e-6)
    with pytest.raises(ValueError, match="annealing: got 'cosine', needs 'none', 'linear', 'sigmoid' or 'cyclical'"):
        compute_kl_weight(0, "cosine")


def test_a_unit_is_active_where_its_mean_varies():
    means = np.zeros((100, 3), np.float32)
    means[:50] = [0.1, 0.3, 5.0]  # variances 0.0025, 0.0225, 6.25
    assert count_active_units(jnp.asarray(means)) == 2
    assert count_active_units(jnp.asarray(means), 0.03) == 1
    assert count_active_units(jnp.full((100, 3), 7.0)) == 0  # far from the prior, and it says nothing


# The trainer


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_bound_is_log_p_less_the_gap_in_a_model_where_both_are_known(likelihood):
    """x | z ~ N(z w, s²): p(x) and p(z|x) are Gaussian. With the true posterior the bound is log p(x) itself.

    For Bernoulli with a decoder that does not look at z, the bound is the likelihood less the KL.
    """
    w, s, x = np.array([0.8, -1.3, 0.5]), 0.7, np.random.default_rng(0).normal(size=(2000, 3))

    class Known(nnx.Module):
        latent_size = 1

        def __init__(self):
            self.weight = nnx.Param(jnp.asarray(w[None], jnp.float32))

        def encoder(self, data):
            precision = 1 + (w @ w) / s**2
            mean = jnp.asarray(data @ jnp.asarray(w / s**2 / precision, jnp.float32))[:, None]
            return DiagonalGaussian(mean, jnp.full(mean.shape, -0.5 * np.log(precision), jnp.float32))

        def decoder(self, latents):
            return (latents if likelihood == "gaussian" else 0 * latents) @ self.weight[...]

    data = x if likelihood == "gaussian" else (x > 0)
    metrics = make(Known(), likelihood=likelihood, likelihood_std=s).evaluate({"x": data.astype(np.float32)})
    if likelihood == "gaussian":
        log_p = stats.multivariate_normal(np.zeros(3), np.outer(w, w) + s**2 * np.eye(3)).logpdf(x)
        np.testing.assert_allclose(metrics["elbo"], log_p.mean(), atol=0.05)  # of one draw of z for each x
    else:
        np.testing.assert_allclose(metrics["elbo"], -3 * np.log(2) - metrics["kl"], rtol=1e-5)


@pytest.mark.slow
def test_metrics_by_hand():
    trainer = make(beta=0.5, free_bits=0.7, kl_annealing="linear", annealing_steps=4.0)
    given, key = batch()["images"], jax.random.key(0)
    posterior = trainer.model.encoder(given)
    kls = np.asarray(compute_gaussian_kl(posterior.mean, posterior.log_std))
    objective = np.maximum(kls.mean(axis=0), 0.7).sum()
    logits = trainer.model.decoder(posterior.sample(key))
    reconstruction = -float(compute_bernoulli_log_likelihood(logits, given).mean())
    loss, metrics = trainer.compute_loss(trainer.model, {"data": given, "step": 1}, key)
    np.testing.assert_allclose(metrics["kl"], kls.sum(axis=1).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["kl_objective"], objective, rtol=1e-5)
    assert metrics["kl_objective"] > metrics["kl"] * 1.01  # the true one is told, though another is minimised
    np.testing.assert_allclose(metrics["reconstruction"], reconstruction, rtol=1e-5)
    np.testing.assert_allclose(metrics["elbo"], -reconstruction - kls.sum(axis=1).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["kl_weight"], 0.5 * 0.25, rtol=1e-6)
    np.testing.assert_allclose(loss, reconstruction + 0.125 * objective, rtol=1e-5)


@pytest.mark.slow
def test_the_weight_is_annealed_from_step_to_step_and_evaluation_takes_beta():
    trainer = make(beta=2.0, kl_annealing="linear", annealing_steps=4.0)
    weights = trainer.fit(batch(), steps=6)["kl_weight"]
    np.testing.assert_allclose(weights, [0, 0.5, 1, 1.5, 2, 2])
    assert trainer.evaluate(batch())["kl_weight"] == 2


@pytest.mark.slow
def test_settings_are_changed_without_compiling():
    trainer = make(kl_annealing="sigmoid", likelihood="gaussian")
    trainer.train_step(batch())
    for changes in ({"beta": 3.0}, {"free_bits": 0.5}, {"annealing_steps": 1e-3}, {"likelihood_std": 0.1}):
        trainer.config = dataclasses.replace(trainer.config, **changes)
        metrics = trainer.train_step(batch())
    assert metrics["kl_weight"] == pytest.approx(3.0) and metrics["kl_objective"] >= 0.5 * SIZE
    assert trainer._compiled_step._cache_size() == 1


@pytest.mark.slow
def test_free_bits_keep_a_latent_from_collapse():
    """Noise has nothing to tell: the KL goes to 0, and with free bits to what costs nothing."""
    noise = {"x": np.random.default_rng(0).normal(size=(256, *SHAPE)).astype(np.float32)}
    trainer = make(likelihood="gaussian", beta=4.0)
    free = VAETrainer(trainer.model, trainer.optimizer, dataclasses.replace(trainer.config, free_bits=0.5)).clone()
    assert trainer.fit(noise, steps=300)["kl"][-1] < 0.05
    kept = free.fit(noise, steps=300)
    assert 0.8 < kept["kl"][-1] < 1.5 and kept["kl_objective"][-1] >= 1.0


@pytest.mark.slow
def test_encode_reconstruct_decode_and_sample_are_the_model_and_compile_once(trainer):
    given, before = batch()["images"], snapshot(trainer)
    for _ in range(2):
        mean, std = trainer.encode(given)
        decoded, drawn = trainer.decode(mean), trainer.sample(4, jax.random.key(0))
        np.testing.assert_array_equal(trainer.reconstruct(given), decoded)
    posterior = trainer.model.encoder(given)
    np.testing.assert_allclose(mean, posterior.mean, rtol=1e-5)
    np.testing.assert_allclose(std, np.exp(posterior.log_std), rtol=1e-5)
    np.testing.assert_allclose(decoded, jax.nn.sigmoid(trainer.model.decoder(posterior.mean)), rtol=1e-5)
    prior = jax.random.normal(jax.random.key(0), (4, SIZE))
    np.testing.assert_allclose(drawn, jax.nn.sigmoid(trainer.model.decoder(prior)), rtol=1e-5)
    assert trainer._compiled_call._cache_size() == 3 and trainer._compiled_draw._cache_size() == 1
    assert snapshot(trainer) == before


def test_a_gaussian_decodes_to_means_of_any_size():
    trainer = make(likelihood="gaussian")
    latents = jnp.full((2, SIZE), 30.0)
    np.testing.assert_allclose(trainer.decode(latents), trainer.model.decoder(latents), rtol=1e-5)
    assert jax.jit(trainer.decode)(latents).shape == (2, *SHAPE)


@pytest.mark.slow
def test_dropout_batch_statistics_and_odd_batches():
    trainer = make(Restless())
    for rows in (1, 7):
        mean = np.asarray(trainer.model.norm.mean[...])
        assert np.isfinite(trainer.train_step(batch(rows))["loss"])
        assert (trainer.model.norm.mean[...] != mean).any()
    before = snapshot(trainer)
    assert trainer.evaluate(batch(7)) == trainer.evaluate(batch(7))
    np.testing.assert_array_equal(trainer.reconstruct(batch(7)["images"]), trainer.reconstruct(batch(7)["images"]))
    assert snapshot(trainer) == before


@pytest.mark.slow
def test_a_resumed_run_is_the_run_to_the_bit(tmp_path):
    trainer = make(Restless(), key=5, kl_annealing="linear", annealing_steps=5.0)
    twin = trainer.clone()
    trainer.fit(batch(12), steps=3, batch_size=4, steps_per_call=1)
    trainer.save(tmp_path / "run")
    saved = snapshot(trainer)
    trainer.fit(batch(12), steps=3, batch_size=4, steps_per_call=1)
    assert snapshot(twin) != saved != snapshot(trainer)
    twin.restore(tmp_path / "run")
    assert snapshot(twin) == saved
    twin.fit(batch(12), steps=3, batch_size=4, steps_per_call=1)
    assert snapshot(twin) == snapshot(trainer)


ONES = np.ones((4, *SHAPE), np.float32)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({}, ("data", "images", "x")),
        ({"labels": ONES}, ("data",)),
        ({"data": ONES[0, 0]}, ("data", "(2,)", "floats")),
        ({"data": ONES.astype(np.int32)}, ("data", "int32", "floats")),
        ({"data": ONES[:0]}, ("data", "(0, 3, 2)")),
        ({"data": np.ones((4, 3, 3), np.float32)}, ("data", "(4, 3, 3)", "model")),
        ({"data": ONES * np.nan}, ("data", "nan")),
        ({"data": 1.5 * ONES}, ("data", "1.5", "0 to 1", "gaussian")),
        ({"data": -0.5 * ONES}, ("data", "-0.5", "Bernoulli")),
    ],
)
def test_bad_batches_are_refused_and_nothing_changes(trainer, bad, words):
    assert_refused(trainer, bad, *words)


def test_numbers_are_looked_at_in_every_batch_of_a_form():
    trainer = make()
    trainer.train_step({"data": ONES})
    assert_refused(trainer, {"data": 2 * ONES}, "data", "0 to 1")
    assert_refused(trainer, {"data": ONES * np.inf}, "data", "inf")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.encode(ONES * np.nan), "data: got nan"),
        (lambda t: t.reconstruct(3 * ONES), "data: got values from 3 to 3"),
        (lambda t: t.decode(np.ones((4, 3), np.float32)), r"latents: got float32 of shape \(4, 3\), needs floats"),
        (lambda t: t.decode(np.ones(SIZE, np.float32)), r"latents: got float32 of shape \(2,\)"),
        (lambda t: t.decode(np.ones((4, SIZE), np.int32)), "latents: got int32"),
        (lambda t: t.sample(0, jax.random.key(0)), "num_samples: got 0"),
        (lambda t: t.sample(2, jax.random.key(0), labels=[1, 2]), "labels: got some, needs none"),
        (lambda t: VAEConfig(likelihood_std=0.0), "likelihood_std: got 0.0, needs a number of more than 0"),
        (lambda t: VAE((8, 0), 2, rngs=nnx.Rngs(0)), "got layer sizes"),
    ],
)
def test_arguments_are_refused_by_name(trainer, call, message):
    with pytest.raises(ValueError, match=message):
        call(trainer)


def test_a_model_that_is_no_vae_is_refused():
    linear = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match="model: got Linear without encoder, decoder, latent_size"):
        VAETrainer(linear, nnx.Optimizer(linear, optax.adam(1e-3), wrt=nnx.Param))


# The encoder as a policy

GUIDE = """
from artifex.generative_models.training import PPOConfig, PPOTrainer

# Use encoder as policy, decoder as environment
ppo_config = PPOConfig(gamma=0.99, gae_lambda=0.95)
ppo_trainer = PPOTrainer(encoder, optimizer, ppo_config)

# Train encoder to produce latents that decode well
for batch in dataloader:
    # Encoder produces latent "actions"
    latents, log_probs = encoder(batch["images"], return_log_prob=True)

    # Decoder reconstructs, computing "rewards"
    reconstructions = decoder(latents)
    rewards = compute_reconstruction_reward(batch["images"], reconstructions)

    trajectory = {
        "observations": batch["images"],
        "actions": latents,
        "rewards": rewards,
        "values": value_estimates,
        "log_probs": log_probs,
        "dones": jnp.zeros(batch_size),
    }
    metrics = ppo_trainer.train_step(trajectory)
"""


def closeness(images, reconstructions):
    return -jnp.sum((images - reconstructions) ** 2, axis=(1, 2))


@pytest.fixture
def parts():
    """An encoder that knows nothing, and a decoder."""
    return Encoder(SHAPE, SIZE, (16,), rngs=nnx.Rngs(1)), Decoder(SIZE, SHAPE, (16,), rngs=nnx.Rngs(2))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:PPOTrainer")  # of no critic, and of dones that are all 0
def test_the_guide_s_example_trains_the_encoder(parts):
    encoder, decoder = parts
    batches = [batch(32, seed) for seed in range(4)]
    before = np.asarray(encoder.network.layers.layers[0].kernel[...])
    names = {"encoder": encoder, "decoder": decoder, "dataloader": batches, "batch_size": 32, "jnp": jnp}
    names |= {"compute_reconstruction_reward": closeness, "value_estimates": jnp.zeros(32)}
    done = run(GUIDE, optimizer=nnx.Optimizer(encoder, optax.adam(1e-3), wrt=nnx.Param), **names)
    assert np.isfinite([*done["metrics"].values()]).all() and done["ppo_trainer"].step == 4
    assert (encoder.network.layers.layers[0].kernel[...] != before).any()


@pytest.mark.slow
def test_the_encoder_s_log_probs_are_scipy_s_and_each_call_draws_anew(parts):
    encoder, images = parts[0], batch()["images"]
    posterior = encoder(images)
    (first, log_probs), (second, _) = (encoder(images, return_log_prob=True) for _ in range(2))
    wanted = stats.norm(posterior.mean, np.exp(posterior.log_std)).logpdf(first).sum(axis=1)
    np.testing.assert_allclose(log_probs, wanted, rtol=1e-4)
    assert (first != second).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:PPOTrainer")  # of no critic
@pytest.mark.parametrize(
    ("kind", "config"),
    [(REINFORCETrainer, None), (GRPOTrainer, GRPOConfig(num_generations=8)), (PPOTrainer, PPOConfig(num_epochs=2))],
)
def test_rl_makes_an_encoder_that_knew_nothing_one_whose_latents_decode_well(parts, kind, config):
    """Pictures that the decoder can make: the reward's upper bound is 0."""
    encoder, decoder = parts
    wanted = np.asarray(decoder(jax.random.normal(jax.random.key(0), (64, SIZE))))
    tuner = kind(encoder, nnx.Optimizer(encoder, optax.adam(1e-2), wrt=nnx.Param), config)
    decode = jax.jit(lambda latents: decoder(latents))

    def reward(latents, images):
        return closeness(images, decode(latents))

    def step(key):
        if kind is not PPOTrainer:
            return tuner.train_step({"observations": wanted}, reward, key)["mean_reward"]
        seen = tuner.collect({"observations": wanted}, reward, key)
        return tuner.train_step(seen | {"values": np.zeros(64, np.float32)})["mean_reward"]

    rewards = [step(jax.random.key(i)) for i in range(100)]
    assert np.mean(rewards[-5:]) > 0.4 * np.mean(rewards[:2])


# Digits


@pytest.fixture(scope="module")
def digits():
    return load_digits()


def tell_digits(digits, steps, **settings):
    """How many held-out digits the judge recognises after they went through 12 latents, before and after training."""
    settings |= {"likelihood": "gaussian", "likelihood_std": 0.4}
    trainer = make(
        VAE((8, 8), 12, (256, 256), rngs=nnx.Rngs(0)), optax.cosine_decay_schedule(3e-3, steps), **settings
    )
    judge, heldout = digit_judge(), digits.heldout

    def recognised():
        return float(np.mean(judge.classify(trainer.reconstruct(heldout.images)) == heldout.labels))

    untrained = recognised()
    history = trainer.fit({"data": digits.train.images}, steps, batch_size=128)
    return trainer, untrained, recognised(), history


@pytest.mark.slow
def test_digits_are_told_again_after_a_few_seconds(digits):
    _, untrained, told, history = tell_digits(digits, 300)
    assert untrained < 0.25 and told > 0.85
    assert history["elbo"][-10:].mean() > history["elbo"][:10].mean() + 50


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_judge_recognises_95_of_100_held_out_digits(digits, seed):
    trainer, _, told, _ = tell_digits(digits, 2000, key=seed)
    assert told >= 0.95
    assert trainer.evaluate({"data": digits.heldout.images})["active_units"] >= 10
    drawn = trainer.sample(500, jax.random.key(seed))
    assert jnp.mean(jnp.abs(drawn[:, :, 0] + 1)) < 0.1  # no digit has ink in the first column
    probabilities = digit_judge().probabilities(drawn)
    assert np.mean(np.max(probabilities, axis=1)) > 0.8  # what the prior decodes to is mostly a digit
    assert len({*np.argmax(probabilities, axis=1).tolist()}) == 10
