"""Distributions: closed forms, samples that follow them, exact divergences, actions that are refused."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifex_rl import Categorical, DiagonalGaussian
from artifex_rl.rl.distributions import Distribution

LOGITS = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.0, 0.9]]))


def test_categorical_in_numbers(variant):
    log_prob, entropy = variant(lambda d, a: (d.log_prob(a), d.entropy()))(Categorical(LOGITS), jnp.array([1, 2]))
    np.testing.assert_allclose(log_prob, np.log([0.25, 0.9]), rtol=1e-6)
    np.testing.assert_allclose(entropy, [1.5 * math.log(2), -0.1 * math.log(0.1) - 0.9 * math.log(0.9)], rtol=1e-6)


def test_logits_may_be_shifted():
    actions = jnp.array([0, 2])
    shifted = Categorical(LOGITS + jnp.array([[5.0], [-7.0]]))
    np.testing.assert_allclose(shifted.log_prob(actions), Categorical(LOGITS).log_prob(actions), rtol=1e-5)


def test_categorical_draws_as_often_as_it_says_and_never_the_impossible():
    draws = jax.vmap(Categorical(LOGITS).sample)(jax.random.split(jax.random.key(0), 4000))
    shares = jax.nn.one_hot(draws, 3).mean(axis=0)
    np.testing.assert_allclose(shares, jnp.exp(LOGITS), atol=0.03)
    assert not (draws[:, 1] == 1).any()


def test_an_impossible_action_leaves_gradients_finite():
    def loss(logits):
        distribution = Categorical(logits)
        return jnp.sum(distribution.entropy()) + jnp.sum(distribution.log_prob(jnp.array([0, 2])))

    assert jnp.isfinite(jax.grad(loss)(LOGITS)).all()


def test_half_precision_logits_are_widened():
    assert Categorical(LOGITS.astype(jnp.bfloat16)).log_prob(jnp.array([0, 2])).dtype == jnp.float32


def test_gaussian_in_numbers(variant):
    gaussian = DiagonalGaussian(jnp.array([[0.0, 1.0]]), jnp.log(jnp.array([1.0, 2.0])))
    log_prob, entropy = variant(lambda d, a: (d.log_prob(a), d.entropy()))(gaussian, jnp.array([[1.0, 1.0]]))
    np.testing.assert_allclose(log_prob, [-0.5 - math.log(2 * math.pi) - math.log(2)], rtol=1e-6)
    np.testing.assert_allclose(entropy, [math.log(2 * math.pi * math.e) + math.log(2)], rtol=1e-6)


def test_gaussian_density_integrates_to_one():
    x = jnp.linspace(-20, 20, 4001)[:, None]
    gaussian = DiagonalGaussian(jnp.full((4001, 1), 0.3), jnp.array([0.7]))
    np.testing.assert_allclose(jnp.exp(gaussian.log_prob(x)).sum() * 0.01, 1.0, rtol=1e-4)


def test_gaussian_samples_have_its_mean_and_spread():
    gaussian = DiagonalGaussian(jnp.full((20000, 2), 3.0), jnp.log(jnp.array([0.5, 2.0])))
    draws = gaussian.sample(jax.random.key(1))
    np.testing.assert_allclose(draws.mean(0), [3, 3], atol=0.05)
    np.testing.assert_allclose(draws.std(0), [0.5, 2], rtol=0.05)


def test_the_event_axes_are_one_action():
    images = DiagonalGaussian(jnp.zeros((5, 4, 3)), jnp.zeros((4, 3)), event_ndim=2)
    flat = DiagonalGaussian(jnp.zeros((5, 12)), jnp.zeros(12))
    actions = jax.random.normal(jax.random.key(0), (5, 4, 3))
    np.testing.assert_allclose(images.log_prob(actions), flat.log_prob(actions.reshape(5, 12)), rtol=1e-6)
    assert images.entropy().shape == (5,)


PAIRS = [
    (Categorical(LOGITS), Categorical(jnp.zeros((2, 3)))),
    (
        DiagonalGaussian(jnp.array([[0.0, 1.0]] * 2), jnp.array([0.0, 0.5])),
        DiagonalGaussian(jnp.array([[0.5, 0.5]] * 2), jnp.array([[0.3, -0.2]] * 2)),
    ),
]


@pytest.mark.parametrize(("p", "q"), PAIRS)
def test_kl_is_the_mean_log_ratio_of_samples_and_0_to_itself(p, q):
    draws = jax.vmap(p.sample)(jax.random.split(jax.random.key(2), 20000))
    estimate = jax.vmap(lambda x: p.log_prob(x) - q.log_prob(x))(draws).mean(axis=0)
    np.testing.assert_allclose(p.kl(q), estimate, atol=0.03)
    np.testing.assert_allclose(p.kl(p), 0, atol=1e-6)


def test_kl_of_gaussians_in_numbers():
    p = DiagonalGaussian(jnp.zeros((1, 1)), jnp.zeros(1))
    q = DiagonalGaussian(jnp.ones((1, 1)), jnp.log(jnp.array([2.0])))
    np.testing.assert_allclose(p.kl(q), [math.log(2) + 2 / 8 - 0.5], rtol=1e-6)


def test_kl_takes_two_of_a_kind():
    with pytest.raises(TypeError, match="got DiagonalGaussian, needs Categorical"):
        PAIRS[0][0].kl(PAIRS[1][0])


@pytest.mark.parametrize("distribution", [p for p, _ in PAIRS])
def test_a_distribution_is_a_pytree_and_satisfies_the_protocol(distribution):
    assert isinstance(distribution, Distribution)
    first = jax.tree.map(lambda x: x[:1], distribution)
    assert first.entropy().shape == (1,)


@pytest.mark.parametrize(
    ("distribution", "actions", "words"),
    [
        (Categorical(LOGITS), np.array([0, 3]), ["0 to 3", "0 to 2"]),
        (Categorical(LOGITS), np.array([-1, 1]), ["-1 to 1"]),
        (Categorical(LOGITS), np.array([0.0, 1.0]), ["float64", "integers"]),
        (Categorical(LOGITS), np.array([True, False]), ["bool", "integers"]),
        (Categorical(LOGITS), np.array([[0], [1]]), ["(2, 1)", "(2,)"]),
        (PAIRS[1][0], np.zeros(2), ["(2,)", "(2, 2)"]),
        (PAIRS[1][0], np.array([[0.0, np.nan], [0, 0]]), ["NaN"]),
        (PAIRS[1][0], np.zeros((2, 2), bool), ["bool"]),
    ],
)
def test_what_is_not_an_action_is_refused(distribution, actions, words):
    with pytest.raises(ValueError) as caught:
        distribution.check_actions(actions)
    for word in ("actions", *words):
        assert word in str(caught.value)
