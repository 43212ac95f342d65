"""The clipped surrogate and the value loss: numbers by hand, and where the gradient must stop."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from artifex_rl.rl.losses import (
    MAX_EXPONENT,
    compute_clipped_surrogate,
    compute_clipped_surrogate_loss,
    compute_value_loss,
)

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


def numbers(*shape):
    return hnp.arrays(np.float32, shape, elements=st.floats(-3, 3, width=32))


# --- the clipped surrogate


@pytest.mark.parametrize(
    ("ratio", "advantage", "objective", "gradient"),
    [
        # d/d log π is ρA where the ratio is free, and exactly 0 where the clip holds it.
        (1.0, 1.0, 1.0, 1.0),
        (1.0, -3.0, -3.0, -3.0),
        (1.1, 2.0, 2.2, 2.2),
        (0.9, -2.0, -1.8, -1.8),
        (1.5, 1.0, 1.2, 0.0),  # already likelier by more than ε: no reason to go further
        (0.5, -1.0, -0.8, 0.0),  # already less likely by more than ε
        (0.5, 1.0, 0.5, 0.5),  # moved the wrong way: pulled back in full
        (1.5, -1.0, -1.5, -1.5),
        (1.5, 0.0, 0.0, 0.0),
    ],
)
def test_the_surrogate_and_its_gradient_by_hand(variant, ratio, advantage, objective, gradient):
    surrogate = variant(lambda log_prob: compute_clipped_surrogate(log_prob, -2.0, advantage, 0.2))
    log_prob = math.log(ratio) - 2.0
    close(surrogate(log_prob), objective)
    slope = jax.grad(surrogate)(log_prob)
    close(slope, gradient)
    assert (slope == 0) == (gradient == 0)


@pytest.mark.parametrize(
    ("ratio", "advantage", "objective", "gradient"),
    [(1.4, 1.0, 1.4, 1.4), (1.6, 1.0, 1.5, 0.0), (0.7, -1.0, -0.8, 0.0), (0.9, -1.0, -0.9, -0.9)],
)
def test_clip_higher_moves_the_upper_bound_alone(variant, ratio, advantage, objective, gradient):
    surrogate = variant(lambda x: compute_clipped_surrogate(x, 0.0, advantage, 0.2, clip_param_high=0.5))
    close(surrogate(math.log(ratio)), objective)
    close(jax.grad(surrogate)(math.log(ratio)), gradient)
    close(-compute_clipped_surrogate_loss(math.log(ratio), 0.0, advantage, 0.2, None, 0.5), objective)


def test_the_loss_is_the_published_number_of_rlax(variant):
    # rlax (DeepMind), policy_gradients_test.py, ClippedSurrogatePGLossTest.
    logits = jnp.array([[1.0, 1.0, 1.0], [2.0, 0.0, 0.0], [-1.0, -2.0, -3.0]])
    old_logits = logits.at[2].set(jnp.array([-3.0, -2.0, -1.0]))
    taken = (jnp.arange(3), jnp.arange(3))
    log_probs, old_log_probs = jax.nn.log_softmax(logits)[taken], jax.nn.log_softmax(old_logits)[taken]
    loss = variant(lambda advantages: compute_clipped_surrogate_loss(log_probs, old_log_probs, advantages, 0.2))
    close(loss([0.3, 0.2, 0.1]), -0.17117467, atol=1e-5)
    close(loss([-0.3, -0.2, -0.1]), 0.19333333, atol=1e-5)


@given(numbers(5), numbers(5), numbers(5))
def test_the_surrogate_never_exceeds_the_unclipped_objective(log_probs, old_log_probs, advantages):
    surrogate = compute_clipped_surrogate(log_probs, old_log_probs, advantages, 0.2)
    unclipped = np.exp(log_probs - old_log_probs) * advantages
    assert (surrogate <= unclipped + 1e-5 * np.abs(unclipped)).all()


def test_on_fresh_samples_the_gradient_is_that_of_reinforce():
    log_probs, advantages = jnp.array([-1.0, -0.2, -3.0]), jnp.array([1.0, -2.0, 0.5])
    gradient = jax.grad(compute_clipped_surrogate_loss)(log_probs, log_probs, advantages, 0.2)
    close(gradient, -advantages / 3)


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_on_the_bound_itself_the_gradient_is_still_whole(advantage):
    # With ε = 0 a fresh sample is on both bounds; half a gradient there would be neither side's.
    close(jax.grad(lambda x: compute_clipped_surrogate(x, 0.0, advantage, 0.0))(0.0), advantage)


def test_old_log_probs_and_advantages_are_constants():
    gradients = jax.grad(compute_clipped_surrogate_loss, (0, 1, 2))(jnp.zeros(2), jnp.zeros(2), jnp.ones(2), 0.2)
    assert np.all(gradients[0] != 0)
    np.testing.assert_array_equal(gradients[1], 0.0)
    np.testing.assert_array_equal(gradients[2], 0.0)
    per_sample = jax.grad(lambda *a: compute_clipped_surrogate(*a, 0.2).sum(), (1, 2))
    for gradient in per_sample(jnp.zeros(2), jnp.zeros(2), jnp.ones(2)):
        np.testing.assert_array_equal(gradient, 0.0)


def test_the_ratio_stops_at_e_to_the_twenty():
    assert MAX_EXPONENT == 20.0
    log_ratios = jnp.array([19.0, 20.0, 25.0, 1e9, jnp.inf])
    surrogate = compute_clipped_surrogate(log_ratios, jnp.zeros(5), -jnp.ones(5), 0.2)
    close(surrogate, -np.exp([19.0, 20.0, 20.0, 20.0, 20.0]))
    # Downwards it stops as well: with a positive advantage the small ratio itself is the objective.
    vanishing = compute_clipped_surrogate(-log_ratios, jnp.zeros(5), jnp.ones(5), 0.2)
    np.testing.assert_allclose(vanishing, np.exp([-19.0, -20.0, -20.0, -20.0, -20.0]), rtol=1e-4)


def test_the_loss_averages_over_every_entry_of_any_shape(variant):
    log_probs, advantages = np.zeros((2, 3)), np.arange(6.0).reshape(2, 3)
    loss = variant(lambda x: compute_clipped_surrogate_loss(x, log_probs, advantages, 0.2))
    close(loss(log_probs), -2.5)


def test_the_loss_averages_over_the_mask_alone():
    mask = np.array([[1, 1, 0], [1, 0, 0]])
    advantages = np.array([[1.0, 2.0, 50.0], [6.0, 70.0, 80.0]])
    close(compute_clipped_surrogate_loss(np.zeros((2, 3)), np.zeros((2, 3)), advantages, 0.2, mask), -3.0)


def test_the_loss_of_an_empty_mask_is_zero():
    close(compute_clipped_surrogate_loss(np.ones(2), np.ones(2), np.ones(2), 0.2, mask=[0, 0]), 0.0)
    close(compute_value_loss(np.ones(2), np.zeros(2), mask=[0, 0]), 0.0)


@pytest.mark.slow
def test_clip_params_may_be_vmapped():
    knobs = jnp.array([0.1, 0.2, 0.4])
    up, down = math.log(1.5), math.log(0.5)
    close(jax.vmap(lambda e: compute_clipped_surrogate(up, 0.0, 1.0, e))(knobs), [1.1, 1.2, 1.4])
    close(jax.vmap(lambda e: compute_clipped_surrogate(down, 0.0, -1.0, e, 0.3))(knobs), [-0.9, -0.8, -0.6])
    close(jax.vmap(lambda e: compute_clipped_surrogate(up, 0.0, 1.0, 0.2, e))(knobs), [1.1, 1.2, 1.4])
    close(jax.vmap(lambda e: compute_clipped_surrogate_loss([up], [0.0], [1.0], e))(knobs), [-1.1, -1.2, -1.4])


def test_surrogate_gradients_are_those_of_finite_differences(check_gradients):
    log_ratios = np.log([0.5, 0.9, 1.1, 1.5, 0.5, 0.9, 1.1, 1.5])
    advantages, mask = np.array([1.0, 2, 3, 4, -1, -2, -3, -4]), np.array([1, 1, 1, 1, 1, 1, 1, 0])
    check_gradients(
        lambda x, low, high: compute_clipped_surrogate_loss(x, np.zeros(8), advantages, low, mask, high),
        log_ratios,
        0.2,
        0.3,
    )


# --- the value loss


def test_value_loss_is_half_the_mean_squared_error(variant):
    close(variant(compute_value_loss)([1.0, 2.0, 3.0, 4.0], [4.0, 2.0, 2.0, 2.0]), (9 + 0 + 1 + 4) / 4 / 2)


@pytest.mark.parametrize(
    ("value", "target", "loss", "gradient"),
    [
        # The old value is 1 and ε = 0.5, so that V_clip lies in [0.5, 1.5].
        (1.2, 2.0, 0.32, -0.8),  # inside the clip: plain
        (3.0, 3.0, 1.125, 0.0),  # outside and nearer to the target: held at 1.5, no gradient
        (-1.0, -1.0, 1.125, 0.0),  # the same downwards, held at 0.5
        (3.0, 1.0, 2.0, 2.0),  # outside and farther away: pulled back in full
        (-1.0, 1.0, 2.0, -2.0),
    ],
)
def test_the_clipped_value_loss_and_its_gradient_by_hand(variant, value, target, loss, gradient):
    clipped = variant(lambda v: compute_value_loss(v, target, 1.0, 0.5))
    close(clipped(value), loss)
    close(jax.grad(clipped)(value), gradient)


def test_returns_and_old_values_are_constants():
    # The first value is within the clip, the second beyond it, held at old value + ε.
    values, returns, old_values = jnp.array([0.0, 2.0]), jnp.array([1.0, 3.0]), jnp.array([0.25, 0.0])
    gradients = jax.grad(compute_value_loss, (0, 1, 2))(values, returns, old_values, 0.5)
    close(gradients[0], [-0.5, 0.0])
    np.testing.assert_array_equal(gradients[1], 0.0)
    np.testing.assert_array_equal(gradients[2], 0.0)


@given(numbers(4), numbers(4), numbers(4))
def test_clipping_never_lowers_the_value_loss(values, returns, old_values):
    plain = compute_value_loss(values, returns)
    assert compute_value_loss(values, returns, old_values, 0.3) >= plain - 1e-6
    close(compute_value_loss(values, returns, old_values, 100.0), plain)


def test_the_value_clip_may_be_vmapped():
    losses = jax.vmap(lambda e: compute_value_loss([3.0], [3.0], [1.0], e))(jnp.array([0.0, 1.0, 2.0]))
    close(losses, [2.0, 0.5, 0.0])


def test_value_loss_averages_over_the_mask_alone():
    close(compute_value_loss([1.0, 9.0, 2.0], [3.0, 0.0, 2.0], mask=[1, 0, 1]), 1.0)
    close(compute_value_loss([1.0, 9.0, 2.0], [3.0, 0.0, 2.0], [1.0, 0.0, 2.0], 0.5, mask=[1, 0, 1]), 1.0)


def test_value_loss_gradients_are_those_of_finite_differences(check_gradients):
    values, returns, old = np.array([0.2, 1.0, -2.0]), np.array([0.0, 3.0, 1.0]), np.array([0.1, 0.0, 0.0])
    check_gradients(lambda v: compute_value_loss(v, returns, mask=[1, 1, 0]), values)
    check_gradients(lambda v, e: compute_value_loss(v, returns, old, e), values, 0.5)
