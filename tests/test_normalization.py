"""Normalised and group-relative advantages: numbers by hand, exact zeros, and groups that do not see each other."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from artifex_rl.rl.returns import compute_group_advantages, normalize_advantages

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
SCALES = ("group", "batch", "none")
jitted_normalize = jax.jit(normalize_advantages)
jitted_group = jax.jit(compute_group_advantages, static_argnums=(1, 2))
awkward = st.sampled_from([0.0, 0.1, -0.1, 1 / 3, 1e-8, 1e-30, 0.7, 123.456, 1e8, -1e8, 3e18]) | st.floats(
    -(2.0**60), 2.0**60, width=32
)


# --- normalize_advantages


def test_the_standard_deviation_is_the_populations(variant):
    # Mean 2.5, variance (2.25 + 0.25 + 0.25 + 2.25) / 4 = 1.25; divided by n − 1 the first would be −1.1619.
    expected = np.array([-1.5, -0.5, 0.5, 1.5]) / np.sqrt(1.25)
    close(variant(normalize_advantages)([1.0, 2.0, 3.0, 4.0]), expected)


def test_eps_is_added_to_the_standard_deviation_and_not_to_the_variance(variant):
    # Standard deviation 1: (−1, 1) / (1 + 0.5), where the square root of 1 + 0.5 would be 1.2247.
    close(variant(normalize_advantages)([1.0, 3.0], 0.5), np.array([-1.0, 1.0]) / 1.5)


def test_eps_is_by_default_one_in_a_hundred_million():
    # A standard deviation as small as the default: half of ±1 is left.
    close(normalize_advantages([-1e-8, 1e-8]), [-0.5, 0.5])


def test_eps_may_be_zero_even_for_equal_entries():
    close(normalize_advantages([1.0, 3.0], 0.0), [-1.0, 1.0])
    np.testing.assert_array_equal(normalize_advantages([2.0, 2.0], 0.0), 0.0)


@given(hnp.arrays(np.float32, (3, 4), elements=st.floats(-1e3, 1e3, width=32)))
def test_mean_zero_and_variance_one_whatever_the_shape(advantages):
    normal = np.asarray(jitted_normalize(advantages), float)
    assert normal.shape == (3, 4)
    assert abs(normal.mean()) < 1e-5
    if np.std(advantages.astype(float)) > 1e-3:
        np.testing.assert_allclose(normal.std(), 1.0, rtol=1e-3)


@given(hnp.arrays(np.float32, 5, elements=st.floats(-10, 10, width=32)), st.floats(0.5, 8), st.floats(-8, 8))
def test_shift_and_positive_scale_do_not_matter(advantages, scale, shift):
    if np.std(advantages.astype(float)) > 0.01:
        np.testing.assert_allclose(
            jitted_normalize(advantages * np.float32(scale) + np.float32(shift)),
            jitted_normalize(advantages),
            atol=5e-3,
        )


def test_a_large_mean_costs_no_digits():
    # float32 holds 1e6 ± 1 exactly; a mean of squares minus a squared mean would not.
    close(normalize_advantages([1e6 - 1, 1e6 + 1]), [-1.0, 1.0])


@pytest.mark.parametrize("length", [1, 2, 3, 5, 7, 10, 31, 100])
@given(value=awkward)
@example(value=0.1)
def test_equal_entries_give_exactly_zero(length, value):
    constant = np.full(length, value, np.float32)
    np.testing.assert_array_equal(jitted_normalize(constant), 0.0)


def test_equal_entries_give_exactly_zero_when_not_compiled():
    for value in (0.1, 1 / 3, 1e-8, 1e8):
        np.testing.assert_array_equal(normalize_advantages(np.full(7, value)), 0.0)


def test_the_gradient_at_equal_entries_is_finite():
    def gradient(eps):
        with jax.debug_nans(True):
            return jax.grad(lambda a: normalize_advantages(a, eps)[0])(jnp.full(3, 0.1))

    assert np.isfinite(gradient(1e-8)).all()
    # Where there is no spread only the centring is left, 1 − 1/n and −1/n, and eps = 0 divides by 1.
    for eps in (1.0, 0.0):
        close(gradient(eps), [2 / 3, -1 / 3, -1 / 3])


def test_the_gradient_of_a_single_entry_is_zero():
    np.testing.assert_array_equal(jax.grad(lambda a: normalize_advantages(a)[0])(jnp.ones(1)), 0.0)


def test_gradients_are_those_of_finite_differences(check_gradients):
    advantages, weights = np.array([1.0, -0.5, 2.0, 0.3]), np.array([0.3, 1.0, -2.0, 0.5])
    check_gradients(lambda a, e: normalize_advantages(a, e, [1, 1, 1, 0]) @ weights, advantages, 0.1)
    for scale in SCALES:
        check_gradients(lambda r, e, scale=scale: compute_group_advantages(r, 2, scale, e) @ weights, advantages, 0.1)


@pytest.mark.parametrize("hidden", [0.0, 1e6, -1e6, np.nan, np.inf, -np.inf])
def test_masked_entries_come_back_as_zero_and_count_for_nothing(variant, hidden):
    advantages, mask = np.array([1.0, hidden, 2.0, 4.0, hidden]), np.array([1, 0, 1, 1, 0])
    normal = variant(lambda a, m: normalize_advantages(a, mask=m))(advantages, mask)
    np.testing.assert_array_equal(normal[mask == 0], 0.0)
    close(normal[mask == 1], normalize_advantages(advantages[mask == 1]))


def test_an_empty_mask_gives_zeros():
    # Not even an intermediate result is NaN.
    with jax.debug_nans(True):
        np.testing.assert_array_equal(normalize_advantages([1.0, 2.0], mask=[0, 0]), 0.0)
        for scale in SCALES:
            half_empty = compute_group_advantages([1.0, 2.0, 3.0, 5.0], 2, scale, mask=[0, 0, 1, 1])
            np.testing.assert_array_equal(half_empty[:2], 0.0)
            close(half_empty[2:], [-1.0, 1.0])


def test_eps_may_be_vmapped():
    knobs = jnp.array([0.0, 0.5, 2.0])
    many = jax.vmap(lambda e: normalize_advantages([1.0, 3.0], e))(knobs)
    close(many, [[-1.0, 1.0], [-1 / 1.5, 1 / 1.5], [-1 / 3, 1 / 3]])
    many = jax.vmap(lambda e: compute_group_advantages([1.0, 3.0], 2, eps=e))(knobs)
    close(many, [[-1.0, 1.0], [-1 / 1.5, 1 / 1.5], [-1 / 3, 1 / 3]])


# --- compute_group_advantages


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        ("none", [-1.0, 1.0, -3.0, 3.0]),
        ("group", [-1.0, 1.0, -1.0, 1.0]),
        # Rewards 0, 2, 4, 10: mean 4, variance (16 + 4 + 0 + 36) / 4 = 14.
        ("batch", np.array([-1.0, 1.0, -3.0, 3.0]) / np.sqrt(14)),
    ],
)
def test_group_advantages_by_hand(variant, scale, expected):
    close(variant(lambda r: compute_group_advantages(r, 2, scale))([0.0, 2.0, 4.0, 10.0]), expected)


def test_the_default_scale_is_the_groups():
    close(compute_group_advantages([0.0, 2.0, 4.0, 10.0], 2), [-1.0, 1.0, -1.0, 1.0])


def test_one_right_answer_among_four():
    # Rewards 1, 0, 0, 0: mean 1/4, standard deviation √3/4, so √3 for the one and −1/√3 for the others.
    close(compute_group_advantages([1.0, 0.0, 0.0, 0.0], 4), [3**0.5, -(3**-0.5), -(3**-0.5), -(3**-0.5)])


@pytest.mark.parametrize("scale", SCALES)
def test_eps_belongs_to_the_scale(scale):
    deviations = np.array([-1.0, 1.0, -3.0, 3.0])
    divisor = {"none": 1.0, "group": np.array([1.5, 1.5, 3.5, 3.5]), "batch": np.sqrt(14) + 0.5}[scale]
    close(compute_group_advantages([0.0, 2.0, 4.0, 10.0], 2, scale, eps=0.5), deviations / divisor)


@given(hnp.arrays(np.float32, 6, elements=st.floats(-10, 10, width=32)))
def test_one_group_of_everything_is_normalisation(rewards):
    for scale in ("group", "batch"):
        close(jitted_group(rewards, 6, scale), jitted_normalize(rewards), atol=1e-5)


@pytest.mark.parametrize("scale", ["group", "none"])
@pytest.mark.parametrize("poison", [5.0, np.nan, np.inf])
def test_groups_are_independent(scale, poison):
    rewards = np.array([1.0, 2.0, 4.0, 0.5, 0.0, 3.0])
    before = compute_group_advantages(rewards, 3, scale)
    rewards[1] = poison
    after = compute_group_advantages(rewards, 3, scale)
    np.testing.assert_array_equal(after[3:], before[3:])
    assert not np.array_equal(after[:3], before[:3])


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("group_size", [1, 3, 10])
@given(value=awkward)
def test_a_group_of_equal_rewards_gets_exactly_zero(scale, group_size, value):
    rewards = np.concatenate([np.full(group_size, value), np.arange(group_size)]).astype(np.float32)
    np.testing.assert_array_equal(jitted_group(rewards, group_size, scale)[:group_size], 0.0)


@pytest.mark.parametrize("scale", SCALES)
def test_a_sample_alone_in_its_group_has_no_advantage(scale):
    np.testing.assert_array_equal(compute_group_advantages([1.0, 5.0, 9.0], 1, scale), 0.0)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("hidden", [100.0, np.nan, np.inf])
def test_a_masked_sample_counts_for_nothing(variant, scale, hidden):
    rewards, mask = np.array([0.0, 2.0, hidden, hidden, 4.0, 10.0]), np.array([1, 1, 0, 0, 1, 1])
    advantages = variant(lambda r, m: compute_group_advantages(r, 3, scale, mask=m))(rewards, mask)
    np.testing.assert_array_equal(advantages[2:4], 0.0)
    kept = compute_group_advantages([0.0, 2.0, 4.0, 10.0], 2, scale)
    close(advantages[np.array([0, 1, 4, 5])], kept)


@pytest.mark.parametrize("scale", SCALES)
def test_the_gradient_of_a_masked_sample_is_zero_and_no_nan_gets_out(scale):
    rewards, mask = jnp.array([0.0, 2.0, jnp.nan, 4.0, 10.0, 1.0]), np.array([1, 1, 0, 1, 1, 1])
    weights = jnp.arange(6.0)
    gradient = jax.grad(lambda r: weights @ compute_group_advantages(r, 3, scale, mask=mask))(rewards)
    assert gradient[2] == 0 and np.isfinite(gradient).all() and np.any(gradient != 0)
    assert np.isfinite(jax.grad(lambda r: weights @ normalize_advantages(r, mask=mask))(rewards)).all()
