"""Returns, TD errors and advantages: numbers by hand, explicit sums, and episodes that do not see each other."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from artifex_rl.rl.returns import compute_discounted_returns, compute_gae_advantages, compute_td_errors

STEPS, STREAMS = 6, 3
close = partial(np.testing.assert_allclose, rtol=1e-5, atol=2e-5)

# Hypothesis calls these compiled: an eager scan compiles anew in every call.
jitted_returns = jax.jit(compute_discounted_returns)
jitted_td_errors = jax.jit(compute_td_errors)
jitted_gae = jax.jit(compute_gae_advantages)


def numbers(*shape):
    return hnp.arrays(np.float32, shape, elements=st.floats(-10, 10, width=32))


def flags(*shape):
    return hnp.arrays(bool, shape)


unit = st.floats(0, 1, width=32)


def explicit_returns(rewards, gamma, dones, last_value):
    """Gₜ = Σₖ γᵏ rₜ₊ₖ to the end of t's episode, and γ^(T−t) V(s_T) if the episode has no end: a double loop."""
    steps, returns = len(rewards), []
    for t in range(steps):
        end = next((k for k in range(t, steps) if dones[k]), None)
        last = steps - 1 if end is None else end
        total = sum(gamma ** (k - t) * rewards[k] for k in range(t, last + 1))
        returns.append(total + (gamma ** (steps - t) * last_value if end is None else 0.0))
    return np.array(returns)


def explicit_advantages(rewards, values, dones, gamma, gae_lambda, truncations, next_values):
    """The forward view: Aₜ = Σₙ w(n) (Gₜ⁽ⁿ⁾ − Vₜ), w(n) = (1 − λ) λⁿ⁻¹, the longest return with all the weight left.

    Gₜ⁽ⁿ⁾ is the n-step return, bootstrapped with the value of the state it reached. No recursion, no TD error.
    """
    steps, advantages = len(rewards), []
    for t in range(steps):
        end = next((k for k in range(t, steps) if dones[k] or truncations[k]), steps - 1)
        longest, total = end - t + 1, 0.0
        for n in range(1, longest + 1):
            reached = t + n - 1
            terminal = dones[reached] and not truncations[reached]
            bootstrap = 0.0 if terminal else gamma**n * next_values[reached]
            n_step = sum(gamma**i * rewards[t + i] for i in range(n)) + bootstrap
            weight = gae_lambda ** (n - 1) * (1.0 if n == longest else 1 - gae_lambda)
            total += weight * (n_step - values[t])
        advantages.append(total)
    return np.array(advantages)


# --- numbers by hand


def test_returns_by_hand(variant):
    close(variant(compute_discounted_returns)([1.0, 2.0, 3.0], 0.5), [2.75, 3.5, 3.0])


def test_returns_bootstrap_from_the_last_value(variant):
    returns = variant(lambda r, v: compute_discounted_returns(r, 0.5, last_value=v))
    close(returns([1.0, 2.0, 3.0], 8.0), [3.75, 5.5, 7.0])


def test_returns_start_again_after_a_done(variant):
    close(variant(compute_discounted_returns)([1.0, 2.0, 3.0, 4.0], 0.5, [0, 1, 0, 1]), [2.0, 2.0, 5.0, 4.0])


def test_the_last_value_is_ignored_where_the_last_step_is_done(variant):
    returns = variant(lambda r, d, v: compute_discounted_returns(r, 0.5, d, v))
    close(returns(jnp.ones((2, 2)), [[0, 0], [1, 0]], [100.0, 8.0]), [[1.5, 3.5], [1.0, 5.0]])


def test_a_scalar_last_value_serves_every_stream():
    close(compute_discounted_returns(jnp.ones((1, 2)), 0.5, last_value=8.0), [[5.0, 5.0]])


def test_the_return_of_a_constant_reward_is_the_geometric_sum(variant):
    left = 20 - np.arange(20)
    close(variant(compute_discounted_returns)(np.ones(20), 0.9), (1 - 0.9**left) / (1 - 0.9))


def test_a_constant_reward_bootstrapped_at_its_fixed_point_is_worth_one_over_one_minus_gamma_at_every_step():
    close(compute_discounted_returns(np.ones(20), 0.9, last_value=10.0), np.full(20, 10.0))


def test_td_errors_by_hand(variant):
    # 1 + 0.5·20 − 10, 2 + 0 − 20 (terminal), 3 + 0.5·40 − 30
    errors = variant(compute_td_errors)([1.0, 2.0, 3.0], [10.0, 20.0, 30.0, 40.0], [0, 1, 0], 0.5)
    close(errors, [1.0, -18.0, -7.0])


def test_advantages_by_hand(variant):
    # TD errors as above, γλ = 0.25: 1 + 0.25·(−18); the third step starts anew.
    advantages = variant(compute_gae_advantages)([1.0, 2.0, 3.0], [10.0, 20.0, 30.0, 40.0], [0, 1, 0], 0.5, 0.5)
    close(advantages, [-3.5, -18.0, -7.0])


def test_a_truncated_step_keeps_the_value_of_the_state_it_reached(variant):
    # Step 1 is cut by the time limit in a state worth 8 and the next episode starts in one worth 30.
    advantages = variant(compute_gae_advantages)(
        [1.0, 2.0, 3.0], [10.0, 20.0, 30.0], [0, 1, 1], 0.5, 0.5, truncations=[0, 1, 0], next_values=[20.0, 8.0, 40.0]
    )
    close(advantages, [1.0 + 0.25 * -14.0, -14.0, -27.0])


def test_a_truncation_ends_an_episode_whether_or_not_dones_says_so_too():
    def advantages(dones):
        return compute_gae_advantages([1.0, 2.0], [3.0, 4.0], dones, 0.9, 0.8, [1, 0], [5.0, 6.0])

    close(advantages([1, 0]), advantages([0, 0]))


def test_next_values_take_the_place_of_values_and_of_last_value():
    errors = compute_td_errors([1.0, 1.0], [0.0, 50.0], [0, 0], 0.5, next_values=[2.0, 4.0], last_value=99.0)
    close(errors, [2.0, -47.0])


@pytest.mark.parametrize(
    ("gae_lambda", "expected"),
    [
        (1.0, [[-1.45118, -4.4557, 2.5396, 0.5249, -0.49], [3.0, 2.0, 1.0, 0.0, -4.9]]),
        (0.7, [[-0.676979, -5.248167, 2.4846, 0.6704, -0.49], [2.2899, 1.73, 1.0, 0.0, -4.9]]),
        (0.4, [[0.56731, -6.042, 2.3431, 0.815, -0.49], [1.725, 1.46, 1.0, 0.0, -4.9]]),
    ],
)
def test_advantages_are_the_published_numbers_of_rlax(variant, gae_lambda, expected):
    # rlax (DeepMind), multistep_test.py, TruncatedGeneralizedAdvantageEstimationTest; its zero discount is our done.
    gae = variant(compute_gae_advantages)
    first = gae([0.0, 0.0, 1.0, 0.0, -0.5], [1.0, 4.0, -3.0, -2.0, -1.0, -1.0], np.zeros(5), 0.99, gae_lambda)
    second = gae([0.0, 0.0, 0.0, 0.0, 1.0], [-3.0, -2.0, -1.0, 0.0, 5.0, -1.0], [0, 0, 0, 1, 0], 0.9, gae_lambda)
    np.testing.assert_allclose([first, second], expected, atol=1e-3)


# --- explicit sums


@given(numbers(STEPS), flags(STEPS), unit, st.floats(-10, 10, width=32))
def test_returns_are_the_explicit_sum(rewards, dones, gamma, last_value):
    expected = explicit_returns(rewards.astype(float), gamma, dones, last_value)
    close(jitted_returns(rewards, gamma, dones, last_value), expected, atol=1e-4)


@given(numbers(STEPS), numbers(STEPS + 1), flags(STEPS), flags(STEPS), numbers(STEPS), unit, unit)
def test_advantages_are_the_weighted_sum_of_n_step_returns(
    rewards, values, dones, truncations, reached, gamma, gae_lambda
):
    # Within an episode the state reached is the next state; at a truncation it is one that `values` never saw.
    next_values = np.where(truncations, reached, values[1:])
    expected = explicit_advantages(
        *(x.astype(float) for x in (rewards, values)),
        dones,
        gamma,
        gae_lambda,
        truncations,
        next_values.astype(float),
    )
    actual = jitted_gae(rewards, values[:-1], dones, gamma, gae_lambda, truncations, next_values)
    close(actual, expected, atol=2e-4)


# --- relations


@given(numbers(STEPS), numbers(STEPS + 1), flags(STEPS), unit)
def test_lambda_one_is_the_bootstrapped_return_minus_the_value(rewards, values, dones, gamma):
    returns = jitted_returns(rewards, gamma, dones, values[-1])
    close(jitted_gae(rewards, values, dones, gamma, 1.0), returns - values[:-1], atol=2e-4)


@given(numbers(STEPS), numbers(STEPS + 1), flags(STEPS), unit)
def test_lambda_zero_is_the_td_error(rewards, values, dones, gamma):
    close(jitted_gae(rewards, values, dones, gamma, 0.0), jitted_td_errors(rewards, values, dones, gamma))


@given(numbers(STEPS), unit, unit, flags(STEPS))
def test_a_perfect_critic_leaves_no_advantage(rewards, gamma, gae_lambda, dones):
    values = jnp.append(jitted_returns(rewards, gamma, dones, 3.0), 3.0)
    close(jitted_gae(rewards, values, dones, gamma, gae_lambda), np.zeros(STEPS), atol=1e-4)


@given(numbers(STEPS), numbers(STEPS + 1), flags(STEPS), unit, unit)
def test_the_three_ways_to_say_what_the_last_state_is_worth_agree(rewards, values, dones, gamma, gae_lambda):
    expected = jitted_gae(rewards, values, dones, gamma, gae_lambda)
    close(jitted_gae(rewards, values[:-1], dones, gamma, gae_lambda, last_value=values[-1]), expected)
    close(jitted_gae(rewards, values[:-1], dones, gamma, gae_lambda, next_values=values[1:]), expected)


@given(numbers(STEPS), numbers(STEPS), flags(STEPS), numbers(STEPS), unit, unit, st.integers(0, STEPS - 2))
def test_a_truncation_is_a_trajectory_cut_in_two(rewards, values, dones, next_values, gamma, gae_lambda, cut):
    truncations = np.arange(STEPS) == cut
    whole = jitted_gae(rewards, values, dones, gamma, gae_lambda, truncations, next_values)
    open_end = dones & ~truncations
    for part in (slice(0, cut + 1), slice(cut + 1, STEPS)):
        alone = jitted_gae(
            rewards[part], values[part], open_end[part], gamma, gae_lambda, next_values=next_values[part]
        )
        close(whole[part], alone)


@given(numbers(STEPS, STREAMS), numbers(STEPS + 1, STREAMS), flags(STEPS, STREAMS), unit, unit)
def test_streams_side_by_side_are_streams_alone(rewards, values, dones, gamma, gae_lambda):
    returns = jitted_returns(rewards, gamma, dones, values[-1])
    advantages = jitted_gae(rewards, values[:-1], dones, gamma, gae_lambda, last_value=values[-1])
    for n in range(STREAMS):
        close(returns[:, n], jitted_returns(rewards[:, n], gamma, dones[:, n], values[-1, n]))
        close(advantages[:, n], jitted_gae(rewards[:, n], values[:, n], dones[:, n], gamma, gae_lambda))


# --- nothing crosses the end of an episode


def three_episodes():
    """Rewards, values of T+1 steps, dones and next values; steps 2 and 4 end their episodes, the third goes on."""
    rng = np.random.default_rng(0)
    dones = np.array([0, 0, 1, 0, 1, 0, 0, 0], bool)
    return rng.normal(size=8), rng.normal(size=9), dones, rng.normal(size=8)


EPISODES = {"first": slice(0, 3), "second": slice(3, 5), "third": slice(5, 8)}
ESTIMATORS = {
    "returns": lambda r, v, d, nv: compute_discounted_returns(r, 0.9, d, v[-1]),
    "td errors": lambda r, v, d, nv: compute_td_errors(r, v, d, 0.9),
    "advantages": lambda r, v, d, nv: compute_gae_advantages(r, v, d, 0.9, 0.8),
    "truncated": lambda r, v, d, nv: compute_gae_advantages(r, v[:-1], d, 0.9, 0.8, d, nv),
}


@pytest.mark.parametrize("poison", [7.0, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("episode", EPISODES)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_changing_an_episode_never_changes_another(name, episode, poison):
    rewards, values, dones, next_values = three_episodes()
    before = ESTIMATORS[name](rewards, values, dones, next_values)
    inside = EPISODES[episode]
    rewards[inside], next_values[inside], values[inside] = poison, poison, poison
    if episode == "third":
        values[-1] = poison  # the last state is the third episode's too
    after = ESTIMATORS[name](rewards, values, dones, next_values)
    outside = np.ones(8, bool)
    outside[inside] = False
    np.testing.assert_array_equal(after[outside], before[outside])
    assert not np.array_equal(after[inside], before[inside])


@pytest.mark.parametrize("episode", EPISODES)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_no_gradient_crosses_an_episode_even_beside_nan(name, episode):
    rewards, values, dones, next_values = three_episodes()
    inside = EPISODES[episode]
    outside = np.ones(8, bool)
    outside[inside] = False
    rewards[outside] = np.nan

    def total(rewards):
        return ESTIMATORS[name](rewards, values, dones, next_values)[inside].sum()

    gradient = jax.grad(total)(jnp.asarray(rewards, jnp.float32))
    np.testing.assert_array_equal(gradient[outside], 0.0)
    assert np.isfinite(gradient[inside]).all() and (gradient[inside] > 0).all()


def test_an_unused_last_value_may_be_nan():
    close(compute_discounted_returns([1.0, 2.0], 0.5, [0, 1], np.nan), [2.0, 2.0])
    close(compute_gae_advantages([1.0, 2.0], [0.0, 0.0, np.nan], [0, 1], 0.5, 1.0), [2.0, 2.0])
    close(compute_gae_advantages([1.0], [0.0], [1], 0.5, 1.0, next_values=[np.nan]), [1.0])


# --- knobs and gradients


def test_knobs_may_be_vmapped():
    rewards, values, dones, _ = three_episodes()
    knobs = jnp.array([0.0, 0.5, 1.0])
    returns = jax.vmap(lambda g: compute_discounted_returns(rewards, g, dones))(knobs)
    errors = jax.vmap(lambda g: compute_td_errors(rewards, values, dones, g))(knobs)
    advantages = jax.vmap(lambda g, k: compute_gae_advantages(rewards, values, dones, g, k))(knobs, knobs[::-1])
    for i, (gamma, gae_lambda) in enumerate(zip([0.0, 0.5, 1.0], [1.0, 0.5, 0.0], strict=True)):
        close(returns[i], compute_discounted_returns(rewards, gamma, dones))
        close(errors[i], compute_td_errors(rewards, values, dones, gamma))
        close(advantages[i], compute_gae_advantages(rewards, values, dones, gamma, gae_lambda))


def test_gradients_are_those_of_finite_differences(check_gradients):
    rewards, values, dones, _ = three_episodes()
    check_gradients(lambda r, g, v: compute_discounted_returns(r, g, dones, v), rewards, 0.9, 0.3)
    check_gradients(lambda r, v, g, k: compute_gae_advantages(r, v, dones, g, k), rewards, values, 0.9, 0.8)


def test_the_gradient_of_a_return_is_the_discount_to_each_reward():
    gradient = jax.grad(lambda r: compute_discounted_returns(r, 0.5, [0, 0, 1, 0])[0])(jnp.zeros(4))
    close(gradient, [1.0, 0.5, 0.25, 0.0])
