"""Entropy and KL divergence: closed forms, Schulman's table of estimators, impossible actions."""

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
    MAX_LOG_RATIO,
    categorical_entropy,
    categorical_kl,
    compute_kl_divergence,
    compute_policy_entropy,
    estimate_kl,
)

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
ESTIMATORS = ("k1", "k2", "k3")


def distributions(actions=4):
    logits = hnp.arrays(np.float32, (2, actions), elements=st.floats(-5, 5, width=32))
    return logits.map(lambda x: np.asarray(jax.nn.log_softmax(x)))


def log(*probabilities):
    with np.errstate(divide="ignore"):
        return np.log(np.array(probabilities, np.float32))


# --- entropy


@pytest.mark.parametrize("actions", [1, 2, 5, 100])
def test_the_entropy_of_the_uniform_distribution_is_log_a(variant, actions):
    close(variant(compute_policy_entropy)(np.full(actions, -math.log(actions))), math.log(actions))


def test_entropy_by_hand(variant):
    # ½ log 2 + 2 · ¼ log 4 = 1.5 log 2; an impossible action adds nothing.
    close(variant(compute_policy_entropy)(log(0.5, 0.25, 0.25, 0.0)), 1.5 * math.log(2))


def test_a_certain_action_has_no_entropy():
    close(compute_policy_entropy(log(1.0, 0.0, 0.0)), 0.0)


def test_entropy_is_averaged_over_the_batch_and_never_summed():
    batch = np.stack([[log(0.5, 0.5), log(1.0, 0.0)], [log(0.5, 0.5), log(0.5, 0.5)]])
    close(compute_policy_entropy(batch), 0.75 * math.log(2))
    close(categorical_entropy(jnp.asarray(batch)), math.log(2) * np.array([[1, 0], [1, 1]]))


@given(distributions())
def test_entropy_is_largest_when_uniform(log_probs):
    assert 0 <= compute_policy_entropy(log_probs) <= math.log(4) + 1e-6


@pytest.mark.slow
def test_an_entropy_mask_of_distributions_drops_them():
    batch = np.stack([log(0.5, 0.5), np.full(2, np.nan, np.float32), log(1.0, 0.0)])
    close(compute_policy_entropy(batch, [1, 0, 1]), math.log(2) / 2)
    close(compute_policy_entropy(batch, [1, 0, 0]), math.log(2))
    close(compute_policy_entropy(np.stack([batch, batch[::-1]]), [[1, 0, 1], [0, 0, 1]]), math.log(2) * 2 / 3)


def test_an_entropy_mask_of_actions_removes_them():
    batch = np.stack([[*log(0.5, 0.5), np.nan], log(0.5, 0.25, 0.25), np.full(3, np.nan)])
    # The third has no action left and does not count.
    close(compute_policy_entropy(batch, [[1, 1, 0], [1, 1, 1], [0, 0, 0]]), (1 + 1.5) / 2 * math.log(2))


@pytest.mark.slow
def test_an_empty_mask_gives_zero():
    close(compute_policy_entropy(np.stack([log(0.5, 0.5)]), [0]), 0.0)
    close(compute_kl_divergence(np.stack([log(0.5, 0.5)]), np.stack([log(0.2, 0.8)]), [0]), 0.0)


# --- exact KL


def test_kl_by_hand(variant):
    # ½ log(½ / ¼) + ½ log(½ / ¾) = ½ log(4/3), and the other way ¼ log ½ + ¾ log(3/2).
    half, quarter = log(0.5, 0.5), log(0.25, 0.75)
    close(variant(compute_kl_divergence)(half, quarter), 0.5 * math.log(4 / 3))
    close(variant(compute_kl_divergence)(quarter, half), 0.25 * math.log(0.5) + 0.75 * math.log(1.5))


def test_kl_to_the_uniform_distribution_is_the_missing_entropy():
    log_probs = log(0.7, 0.2, 0.1)
    close(compute_kl_divergence(log_probs, log(*[1 / 3] * 3)), math.log(3) - compute_policy_entropy(log_probs))


@given(distributions(), distributions())
def test_kl_is_never_negative_and_zero_for_equals(p, q):
    assert compute_kl_divergence(p, q) >= -1e-6  # the rounding of float32
    close(compute_kl_divergence(p, p), 0.0)


def test_kl_is_averaged_over_the_batch_and_over_the_mask_alone():
    p = np.stack([log(0.5, 0.5), log(0.5, 0.5), log(0.5, 0.5)])
    q = np.stack([log(0.25, 0.75), log(0.5, 0.5), np.full(2, np.nan, np.float32)])
    each = 0.5 * math.log(4 / 3)
    close(compute_kl_divergence(p[:2], q[:2]), each / 2)
    close(compute_kl_divergence(p, q, [1, 0, 0]), each)
    close(compute_kl_divergence(p, q, [[1, 1], [1, 1], [0, 0]]), each / 2)
    close(compute_kl_divergence(p, q, [[1, 0], [0, 0], [0, 0]]), 0.5 * math.log(2))
    close(categorical_kl(jnp.asarray(p[:2]), jnp.asarray(q[:2])), [each, 0.0])


def test_an_action_that_the_policy_never_takes_adds_nothing_to_the_kl():
    close(compute_kl_divergence(log(0.5, 0.5, 0.0), log(0.25, 0.25, 0.5)), math.log(2))
    close(compute_kl_divergence(log(0.5, 0.5, 0.0), log(0.5, 0.5, 0.0)), 0.0)


def test_an_action_that_only_the_policy_takes_costs_a_large_finite_amount():
    close(compute_kl_divergence(log(0.5, 0.5), log(1.0, 0.0)), 0.5 * math.log(0.5) + 0.5 * MAX_LOG_RATIO)
    assert MAX_LOG_RATIO == 1e6


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_through_impossible_actions_are_finite_and_right(masked):
    logits, ref_logits = jnp.array([0.3, -jnp.inf, 1.0]), jnp.array([0.0, 2.0, -jnp.inf])
    mask = [1, 0, 1] if masked else None

    def entropy(logits):
        return compute_policy_entropy(jax.nn.log_softmax(logits), mask)

    def divergence(logits):
        return compute_kl_divergence(jax.nn.log_softmax(logits), jax.nn.log_softmax(ref_logits), mask)

    p = np.array(jax.nn.softmax(logits))
    log_p = np.log(np.where(p > 0, p, 1.0))
    close(jax.grad(entropy)(logits), -p * (log_p - (p * log_p).sum()), atol=1e-5)
    slope = jax.grad(divergence)(logits)
    assert np.isfinite(slope).all() and slope[1] == 0 and slope[2] > 0


@pytest.mark.slow
def test_gradients_are_those_of_finite_differences(check_gradients):
    p, q = np.log([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]), np.log([[0.5, 0.1, 0.4], [0.2, 0.2, 0.6]])
    check_gradients(compute_policy_entropy, p)
    check_gradients(lambda p, q: compute_kl_divergence(p, q, [[1, 1, 0], [1, 1, 1]]), p, q)
    for estimator in ESTIMATORS:
        check_gradients(lambda p, q, e=estimator: estimate_kl(p, q, e).sum(), p, q)


# --- estimates from samples


@pytest.mark.parametrize(("estimator", "expected"), [("k1", 0.5), ("k2", 0.125), ("k3", math.exp(-0.5) - 0.5)])
def test_estimates_by_hand(variant, estimator, expected):
    estimates = variant(lambda p, q: estimate_kl(p, q, estimator))([-1.0, -2.0], [-1.5, -2.0])
    close(estimates, [expected, 0.0])


def test_the_default_estimator_is_k3():
    close(estimate_kl([-1.0], [-1.5]), [math.exp(-0.5) - 0.5])


@given(distributions(), distributions())
def test_k1_and_k3_are_unbiased_by_enumeration(p, q):
    exact = categorical_kl(jnp.asarray(p), jnp.asarray(q))
    for estimator in ("k1", "k3"):
        expectation = (np.exp(p) * estimate_kl(p, q, estimator)).sum(axis=-1)
        np.testing.assert_allclose(expectation, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("shift", "estimator", "bias", "spread"),
    [
        (0.1, "k1", 0.0, 20.0),
        (0.1, "k2", 0.002, 1.42),
        (0.1, "k3", 0.0, 1.42),
        (1.0, "k1", 0.0, 2.0),
        (1.0, "k2", 0.25, 1.73),
        (1.0, "k3", 0.0, 1.7),
    ],
)
def test_bias_and_spread_are_those_of_schulmans_table(shift, estimator, bias, spread):
    # Schulman (2020), "Approximating KL Divergence": π = N(shift, 1) against N(0, 1), both over the true KL, there by
    # ten million samples, here by Gauss-Hermite quadrature.
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights, samples = weights / weights.sum(), nodes + shift
    estimates = np.asarray(estimate_kl(-((samples - shift) ** 2) / 2, -(samples**2) / 2, estimator), float)
    true_kl, mean = shift**2 / 2, weights @ estimates
    np.testing.assert_allclose((mean - true_kl) / true_kl, bias, atol=2e-3)
    np.testing.assert_allclose(np.sqrt(weights @ (estimates - mean) ** 2) / true_kl, spread, rtol=0.03)


@pytest.mark.slow
@given(hnp.arrays(np.float32, 8, elements=st.floats(-1e6, 1e6, width=32)))
def test_k3_and_k2_are_never_negative_and_k1_changes_its_sign(log_ratios):
    zeros = np.zeros(8)
    assert (estimate_kl(log_ratios, zeros, "k2") >= 0).all()
    assert (estimate_kl(log_ratios, zeros, "k3") >= 0).all()
    close(estimate_kl(log_ratios, zeros, "k1"), -estimate_kl(zeros, log_ratios, "k1"))


def test_k3_of_a_tiny_log_ratio_keeps_its_digits():
    # d²/2 to first order; exp(d) − 1 in float32 would round to a multiple of 1.2e-7.
    np.testing.assert_allclose(estimate_kl([1e-3], [0.0], "k3"), [5e-7], rtol=0.05)


@pytest.mark.parametrize(
    ("estimator", "likelier", "unlikelier"),
    [
        ("k1", MAX_LOG_RATIO, -MAX_LOG_RATIO),
        ("k2", MAX_LOG_RATIO**2 / 2, MAX_LOG_RATIO**2 / 2),
        ("k3", MAX_LOG_RATIO - 1, math.exp(MAX_EXPONENT) - 1 - MAX_EXPONENT),
    ],
)
@pytest.mark.parametrize("huge", [1e9, np.inf])
def test_huge_log_ratios_stop_at_a_finite_estimate(estimator, likelier, unlikelier, huge):
    close(estimate_kl([0.0, -huge, -huge], [-huge, 0.0, -huge], estimator), [likelier, unlikelier, 0.0])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_masked_estimates_are_zero(estimator):
    estimates = estimate_kl([-1.0, np.nan, -3.0], [-2.0, 0.0, np.inf], estimator, mask=[1, 0, 0])
    close(estimates, [estimate_kl([-1.0], [-2.0], estimator)[0], 0.0, 0.0])
