"""Preference losses: numbers by hand, unbiasedness and minima, and the policy that DPO must reach."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifex_rl.rl.losses import PREFERENCE_LOSSES, compute_dpo_loss, compute_preference_loss, compute_simpo_loss

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
TYPES = ("sigmoid", "ipo", "hinge", "robust")


def softplus(x):
    """−log σ(−x)."""
    return math.log1p(math.exp(x))


def test_the_losses_are_these_four():
    assert tuple(PREFERENCE_LOSSES) == TYPES


# --- one margin


@pytest.mark.parametrize(
    ("loss_type", "agreeing", "disagreeing"),
    [
        # β = 0.5, h = 1.5 and h = −1.5
        ("sigmoid", softplus(-0.75), softplus(0.75)),
        ("ipo", (1.5 - 1) ** 2, (-1.5 - 1) ** 2),
        ("hinge", 0.25, 1.75),
        ("robust", softplus(-0.75), softplus(0.75)),
    ],
)
def test_losses_by_hand_without_and_with_label_smoothing(variant, loss_type, agreeing, disagreeing):
    def loss(smoothing):
        return variant(lambda h: compute_preference_loss(h, 0.5, loss_type, smoothing))([1.5])

    close(loss(0.0), agreeing)
    if loss_type == "robust":
        close(loss(0.2), (0.8 * agreeing - 0.2 * disagreeing) / 0.6)
    else:
        close(loss(0.2), 0.8 * agreeing + 0.2 * disagreeing)
    close(variant(lambda h: compute_preference_loss(h, 0.5, loss_type))([-1.5]), disagreeing)


@pytest.mark.parametrize("function", [compute_preference_loss, compute_dpo_loss, compute_simpo_loss])
def test_the_default_is_the_sigmoid_without_smoothing(function):
    if function is compute_preference_loss:
        close(function([2.0], 0.5), softplus(-1.0))
        close(function([2.0], 0.5, label_smoothing=0.1), 0.9 * softplus(-1.0) + 0.1 * softplus(1.0))
    elif function is compute_dpo_loss:
        close(function([2.0], [0.0], [0.0], [0.0]), softplus(-0.2))
        smoothed = 0.9 * softplus(-0.2) + 0.1 * softplus(0.2)
        close(function([2.0], [0.0], [0.0], [0.0], label_smoothing=0.1), smoothed)
    else:
        close(function([4.0], [0.0], [2], [2]), softplus(-0.175))
        smoothed = 0.9 * softplus(-0.175) + 0.1 * softplus(0.175)
        close(function([4.0], [0.0], [2], [2], label_smoothing=0.1), smoothed)


def test_the_loss_is_the_mean_over_pairs_and_over_the_mask_alone():
    margins = np.array([[1.0, 3.0], [0.0, np.nan]])
    close(compute_preference_loss(margins[0], 1.0, "ipo"), (0.25 + 6.25) / 2)
    close(compute_preference_loss(margins, 1.0, "ipo", mask=[[1, 1], [1, 0]]), (0.25 + 6.25 + 0.25) / 3)
    close(compute_preference_loss([1.0], 1.0, mask=[0]), 0.0)


@given(st.floats(-20, 20), st.floats(0.01, 0.49), st.floats(0.05, 2))
def test_robust_is_unbiased_when_labels_are_flipped(margin, flip, beta):
    robust, clean = (partial(compute_preference_loss, beta=beta, loss_type=kind) for kind in ("robust", "sigmoid"))
    noisy = (1 - flip) * robust(margin, label_smoothing=flip) + flip * robust(-margin, label_smoothing=flip)
    np.testing.assert_allclose(noisy, clean(margin), rtol=2e-4, atol=1e-4)


@pytest.mark.parametrize("beta", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_ipo_is_least_at_half_over_beta(beta, smoothing):
    # Smoothed, h(1 − s) − hs balances at (1 − 2s) / (2β).
    best = (1 - 2 * smoothing) / (2 * beta)
    slope = jax.grad(compute_preference_loss)
    close(slope(best, beta, "ipo", smoothing), 0.0, atol=1e-5)
    assert slope(best + 0.1, beta, "ipo", smoothing) > 0 > slope(best - 0.1, beta, "ipo", smoothing)
    if smoothing == 0:
        close(compute_preference_loss(best, beta, "ipo"), 0.0)


def test_a_smoothed_sigmoid_is_least_where_its_confidence_equals_the_labels():
    # σ(βh) = 1 − s
    beta, smoothing = 0.5, 0.2
    best = math.log(0.8 / 0.2) / beta
    close(jax.grad(compute_preference_loss)(best, beta, "sigmoid", smoothing), 0.0)


def test_the_hinge_is_flat_beyond_one_over_beta():
    losses = [compute_preference_loss(h, 0.5, "hinge") for h in (0.0, 1.0, 2.0, 3.0)]
    close(losses, [1.0, 0.5, 0.0, 0.0])
    close(jax.grad(compute_preference_loss)(3.0, 0.5, "hinge"), 0.0)
    close(jax.grad(compute_preference_loss)(1.0, 0.5, "hinge"), -0.5)


@pytest.mark.parametrize("loss_type", TYPES)
def test_margins_stop_at_a_million(loss_type):
    for sign in (1, -1):
        expected = compute_preference_loss(sign * 1e6, 0.1, loss_type)
        for huge in (1e9, np.inf):
            close(compute_preference_loss(sign * huge, 0.1, loss_type), expected)


def test_knobs_may_be_vmapped():
    betas, rates = jnp.array([0.1, 0.5, 2.0]), jnp.array([0.0, 0.1, 0.3])
    many = jax.vmap(lambda b, s: compute_preference_loss([1.0], b, "sigmoid", s))(betas, rates)
    close(many, [(1 - s) * softplus(-b) + s * softplus(b) for b, s in [(0.1, 0.0), (0.5, 0.1), (2.0, 0.3)]])
    dpo = jax.vmap(lambda b: compute_dpo_loss([1.0], [0.0], [0.0], [0.0], b))(betas)
    close(dpo, [softplus(-0.1), softplus(-0.5), softplus(-2.0)])
    simpo = jax.vmap(lambda g: compute_simpo_loss([2.0], [0.0], [2], [2], 1.0, g))(betas)
    close(simpo, [softplus(-0.9), softplus(-0.5), softplus(1.0)])


@pytest.mark.parametrize("loss_type", TYPES)
def test_gradients_are_those_of_finite_differences(check_gradients, loss_type):
    check_gradients(
        lambda h, b, s: compute_preference_loss(h, b, loss_type, s, [1, 1, 0]), [0.3, -1.2, 2.0], 0.4, 0.1
    )
    pair, reference = ([-1.0, -2.0], [-1.5, -1.1]), ([-1.2, -0.5], [-1.0, -1.0])
    check_gradients(lambda c, r: compute_dpo_loss(c, r, *reference, 0.4, loss_type, 0.1), *pair)
    check_gradients(lambda c, r: compute_simpo_loss(c, r, [2, 3], [4, 1], 0.4, 0.3, loss_type, 0.1), *pair)


# --- DPO


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_dpo_is_log_two_at_the_reference(variant, beta):
    chosen, rejected = np.array([-1.0, -7.0]), np.array([-3.0, -2.0])
    close(variant(compute_dpo_loss)(chosen, rejected, chosen, rejected, beta), math.log(2))


def test_dpo_by_hand(variant):
    # h = (−1 + 3) − (−4 + 2.5) = 3.5 and (−2 + 2) − (−1 + 2) = −1
    arguments = ([-1.0, -2.0], [-4.0, -1.0], [-3.0, -2.0], [-2.5, -2.0])
    close(variant(compute_dpo_loss)(*arguments, 0.5), (softplus(-1.75) + softplus(0.5)) / 2)
    smoothed = 0.9 * (softplus(-1.75) + softplus(0.5)) / 2 + 0.1 * (softplus(1.75) + softplus(-0.5)) / 2
    close(compute_dpo_loss(*arguments, 0.5, "sigmoid", 0.1), smoothed)
    close(compute_dpo_loss(*arguments, 0.5, "ipo"), (2.5**2 + 2.0**2) / 2)
    close(compute_dpo_loss(*arguments, 0.5, mask=[0, 1]), softplus(0.5))


def test_the_gradient_of_dpo_is_weighted_by_how_wrong_the_implicit_reward_is():
    # Rafailov et al. (2023), section 4: −β σ(−βh) for the chosen, its opposite for the rejected, over the pairs.
    h, beta = np.array([3.5, -1.0]), 0.5
    weight = beta / (1 + np.exp(beta * h)) / 2
    gradients = jax.grad(compute_dpo_loss, (0, 1, 2, 3))(
        jnp.asarray(h), jnp.zeros(2), jnp.zeros(2), jnp.zeros(2), beta
    )
    close(gradients[0], -weight)
    close(gradients[1], weight)
    np.testing.assert_array_equal(gradients[2], 0.0)
    np.testing.assert_array_equal(gradients[3], 0.0)


@pytest.mark.parametrize("beta", [0.3, 1.0])
@pytest.mark.parametrize("loss_type", ["sigmoid", "robust"])
def test_the_fixed_point_of_dpo_is_the_reference_tilted_by_the_reward(beta, loss_type):
    """Under Bradley-Terry labels of a reward r the expected loss is least at π* ∝ π_ref · exp(r/β), by enumeration.

    "robust" sees labels of which one in five is flipped, and has the same fixed point.
    """
    flip = 0.2 if loss_type == "robust" else 0.0
    reward, ref = jnp.array([1.0, 0.0, -0.5, 2.0]), jax.nn.log_softmax(jnp.array([0.5, 1.0, -1.0, -2.0]))
    i, j = np.nonzero(~np.eye(4, dtype=bool))
    preferred = jax.nn.sigmoid(reward[i] - reward[j])
    labelled = (1 - flip) * preferred + flip * (1 - preferred)

    def expected_loss(logits):
        log_probs = jax.nn.log_softmax(logits)
        pair = jax.vmap(lambda *logs: compute_dpo_loss(*logs, beta, loss_type, flip))
        return labelled @ pair(log_probs[i], log_probs[j], ref[i], ref[j])

    best = ref + reward / beta
    close(jax.grad(expected_loss)(best), np.zeros(4), atol=1e-6)
    assert np.abs(jax.grad(expected_loss)(ref)).max() > 0.01
    assert expected_loss(best) < expected_loss(ref)


# --- SimPO


def test_simpo_by_hand(variant):
    # h = −6/3 + 8/2 − 0.5 = 1.5 and −2/1 + 5/5 − 0.5 = −1.5
    simpo = variant(lambda *a: compute_simpo_loss(*a, 2.0, 0.5))
    close(simpo([-6.0, -2.0], [-8.0, -5.0], [3, 1], [2, 5]), (softplus(-3.0) + softplus(3.0)) / 2)


def test_simpo_with_other_losses_smoothing_and_mask():
    arguments = ([-6.0, -2.0], [-8.0, -5.0], [3, 1], [2, 5], 2.0, 0.5)
    close(compute_simpo_loss(*arguments, "hinge"), (0.0 + 4.0) / 2)
    close(compute_simpo_loss(*arguments, "hinge", 0.1), ((0.1 * 4.0) + (0.9 * 4.0)) / 2)
    close(compute_simpo_loss(*arguments, mask=[1, 0]), softplus(-3.0))


def test_simpo_does_not_reward_length():
    # Twice the tokens at the same log-prob a token is the same response to SimPO.
    short = compute_simpo_loss([-6.0], [-8.0], [3], [2])
    close(compute_simpo_loss([-12.0], [-8.0], [6], [2]), short)
    close(compute_simpo_loss([-6.0], [-16.0], [3], [4]), short)


def test_an_empty_response_counts_as_one_token():
    for lengths in ([[0], [0]], [[0], [1]], [[1], [0]], [[1], [1]]):
        close(compute_simpo_loss([-6.0], [-8.0], *lengths, 1.0, 0.0), softplus(-2.0))


def test_gradients_of_simpo_are_those_of_the_average():
    gradients = jax.grad(compute_simpo_loss, (0, 1))(
        jnp.zeros(1), jnp.zeros(1), jnp.array([4.0]), jnp.array([2.0]), 1.0, 0.0
    )
    close(gradients[0], [-0.5 / 4])
    close(gradients[1], [0.5 / 2])
