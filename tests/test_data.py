"""The built-in rollout, the policy behind it, and the critic that judged it."""

import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from artifex_rl.data import CartPoleRollout, demonstration_policy, load_cartpole_rollout
from artifex_rl.data.make_cartpole_rollout import GAMMA, fit_demonstration_critic, make_cartpole_rollout
from artifex_rl.envs import CartPole, CartPoleState, rollout
from artifex_rl.models import MLP, fit_critic
from artifex_rl.rl.returns import compute_discounted_returns, compute_gae_advantages, compute_td_errors

env = CartPole()


def explained_variance(predictions, targets):
    return 1 - np.var(targets - predictions) / np.var(targets)


def episode_lengths(dones):
    return np.diff(np.flatnonzero(dones), prepend=-1)


@pytest.fixture(scope="module")
def held_out():
    """Episodes that no critic saw: observations, and the returns of steps whose episode came to its end."""
    steps = rollout(env, demonstration_policy, jax.random.key(1234), 600, 32)
    returns = compute_discounted_returns(steps.rewards, GAMMA, steps.dones)
    complete = np.cumsum(np.asarray(steps.dones)[::-1], axis=0)[::-1] > 0
    return np.asarray(steps.observations)[complete], np.asarray(returns)[complete], np.asarray(steps.dones)


# --- The file


def test_it_holds_what_the_docstring_says():
    r = load_cartpole_rollout()
    assert {name: (array.shape, array.dtype.name) for name, array in r._asdict().items()} == {
        "observations": ((200, 4), "float32"),
        "actions": ((200,), "int32"),
        "rewards": ((200,), "float32"),
        "values": ((200,), "float32"),
        "next_values": ((200,), "float32"),
        "dones": ((200,), "bool"),
        "truncations": ((200,), "bool"),
    }
    assert set(r.actions) == {0, 1} and set(r.rewards) == {1.0}
    assert not r.dones[-1] and not r.truncations.any()


def test_its_episodes_are_of_clearly_different_lengths_and_the_first_is_an_early_fall():
    lengths = episode_lengths(load_cartpole_rollout().dones)
    assert lengths.tolist() == [20, 40, 83, 24]


def test_it_obeys_the_physics():
    """Each state follows from the one before by the rules, and every episode ends by a fall."""
    r = load_cartpole_rollout()
    states = CartPoleState(*jnp.asarray(r.observations.T), time=jnp.zeros(200, jnp.int32))
    reached, _, terminated, _ = jax.vmap(env.step)(states, jnp.asarray(r.actions))
    np.testing.assert_array_equal(terminated, r.dones)
    inside = ~r.dones[:-1]
    np.testing.assert_allclose(env.observe(reached)[:-1][inside], r.observations[1:][inside], atol=1e-5)
    assert (np.abs(r.observations[1:][~inside]) <= 0.05).all()


def test_next_values_are_the_values_of_the_next_step_inside_an_episode():
    r = load_cartpole_rollout()
    inside = ~r.dones[:-1]
    np.testing.assert_allclose(r.next_values[:-1][inside], r.values[1:][inside], atol=1e-3)
    assert (r.values[1:][~inside] > r.next_values[:-1][~inside] + 10).all(), "a reset is worth more than a fall"


def test_its_critic_is_sensible_and_imperfect():
    r = load_cartpole_rollout()
    returns = compute_discounted_returns(r.rewards, GAMMA, r.dones, last_value=r.next_values[-1])
    assert 0.3 < explained_variance(r.values, np.asarray(returns)) < 0.95
    assert r.values.max() < 1 / (1 - GAMMA), "no state can be worth more than falling never"
    errors = np.asarray(compute_td_errors(r.rewards, r.values, r.dones, GAMMA, r.truncations, r.next_values))
    assert abs(errors.mean()) < 0.5 * errors.std(), "surprises, good and bad, about balance"


def test_its_advantages_blame_the_early_fall_and_praise_the_long_episode():
    r = load_cartpole_rollout()
    advantages = np.asarray(
        compute_gae_advantages(r.rewards, r.values, r.dones, GAMMA, 0.95, r.truncations, r.next_values)
    )
    first, _, longest, *_ = np.split(advantages, np.flatnonzero(r.dones) + 1)
    assert first.mean() < -3 and longest[:30].mean() > 3


def test_every_call_returns_fresh_arrays():
    load_cartpole_rollout().rewards[:] = 7
    assert load_cartpole_rollout().rewards[0] == 1


def test_loading_is_fast_and_needs_neither_flax_nor_optax_nor_gymnasium():
    load_cartpole_rollout()
    start = time.perf_counter()
    load_cartpole_rollout()
    assert time.perf_counter() - start < 0.1
    # What the package itself imports is not this test's business: only what the loader adds.
    code = (
        "import sys, artifex_rl; before = set(sys.modules); import artifex_rl.data as data; "
        "data.load_cartpole_rollout(); new = set(sys.modules) - before; "
        "assert not new & {'flax', 'optax', 'gymnasium', 'matplotlib', 'artifex_rl.models', 'artifex_rl.envs'}, new"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_it_can_be_made_again():
    """The file is the script's output. Values may differ in digits: processors round differently while fitting."""
    stored, made = load_cartpole_rollout(), make_cartpole_rollout()
    assert isinstance(made, CartPoleRollout)
    for name in ("actions", "rewards", "dones", "truncations"):
        np.testing.assert_array_equal(getattr(stored, name), getattr(made, name), err_msg=name)
        assert getattr(stored, name).dtype == getattr(made, name).dtype
    np.testing.assert_allclose(stored.observations, made.observations, atol=1e-3)
    for name in ("values", "next_values"):
        difference = np.abs(getattr(stored, name) - getattr(made, name))
        assert difference.mean() < 1 and np.corrcoef(getattr(stored, name), getattr(made, name))[0, 1] > 0.98


# --- The policy


@pytest.mark.slow
def test_the_demonstration_falls_after_a_while(held_out):
    lengths = np.concatenate([episode_lengths(column) for column in held_out[2].T])
    assert 30 < lengths.mean() < 80 and np.percentile(lengths, 10) < 35 and np.percentile(lengths, 90) > 55
    assert lengths.max() < 500


def test_the_demonstration_pushes_to_the_side_of_the_lean():
    keys = jax.random.split(jax.random.key(0), 4000)
    for theta, probability in ((0.0, 0.5), (np.log(4) / 80, 0.8), (-np.log(4) / 80, 0.2)):
        observation = jnp.array([1.0, -2.0, theta, 3.0], jnp.float32)
        actions, log_probs = jax.vmap(demonstration_policy, in_axes=(None, 0))(observation, keys)
        assert abs(np.mean(actions) - probability) < 0.025
        expected = np.where(actions == 1, np.log(probability), np.log(1 - probability))
        np.testing.assert_allclose(log_probs, expected, rtol=1e-5)


# --- The critic


@pytest.mark.slow
def test_the_critic_explains_most_of_what_it_never_saw(held_out):
    observations, returns, _ = held_out
    for seed in range(3):
        critic = fit_demonstration_critic(jax.random.key(seed))
        assert explained_variance(np.asarray(critic(observations)), returns) > 0.5
        assert abs(np.mean(critic(observations) - returns)) < 3, "about right on average"


@pytest.mark.parametrize("scale, shift", [(1.0, 0.0), (1e4, 1e5), (1e-3, -5.0)])
def test_a_known_function_is_found_whatever_its_unit(scale, shift):
    x = jax.random.normal(jax.random.key(0), (30, 40, 2)) * jnp.array([[[100.0, 0.01]]])
    targets = shift + scale * (jnp.sin(x[..., 0] / 100) + 50 * x[..., 1])
    critic = fit_critic(x, targets, jax.random.key(1))
    assert critic(x).shape == (30, 40) and critic(x[0, 0]).shape == ()
    assert explained_variance(np.asarray(critic(x)), np.asarray(targets)) > 0.99


def test_equal_targets_give_that_value_and_a_constant_input_does_no_harm():
    critic = fit_critic(np.ones((50, 3)), np.full(50, 7.0), jax.random.key(0), num_steps=200)
    np.testing.assert_allclose(critic(np.ones((2, 3))), 7, atol=0.05)


def test_the_critic_is_a_pure_function_of_data_and_key():
    x, y = np.random.default_rng(0).normal(size=(2, 64, 3))[0], np.arange(64.0)
    one, same, other = (fit_critic(x, y, jax.random.key(seed), num_steps=50)(x) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    critic = fit_critic(x, y, jax.random.key(0), num_steps=50)
    np.testing.assert_allclose(jax.jit(critic)(x), one, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(jax.vmap(critic)(jnp.asarray(x, jnp.float32)), one, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "observations, targets, settings, message",
    [
        (np.zeros((5, 2)), np.zeros((5, 1)), {}, "targets"),
        (np.zeros((0, 2)), np.zeros(0), {}, "targets"),
        (np.zeros((5, 2)), np.full(5, np.nan), {}, "NaN"),
        (np.zeros((5, 2)), np.zeros(5), {"num_steps": 0}, "num_steps"),
        (np.zeros((5, 2)), np.zeros(5), {"learning_rate": 0.0}, "learning_rate"),
    ],
)
def test_what_cannot_be_fitted_is_refused(observations, targets, settings, message):
    with pytest.raises(ValueError, match=message):
        fit_critic(observations, targets, jax.random.key(0), **settings)


@pytest.mark.slow
def test_the_mlp_is_linear_maps_with_tanh_between():
    mlp = MLP(3, (5, 4), 2, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (7, 3))
    first, _, second, _, last = mlp.layers.layers
    by_hand = jnp.tanh(jnp.tanh(x @ first.kernel[...]) @ second.kernel[...]) @ last.kernel[...]
    np.testing.assert_allclose(mlp(x), by_hand, atol=1e-6)
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(mlp))) == 3 * 5 + 5 + 5 * 4 + 4 + 4 * 2 + 2
    linear = MLP(3, (), 2, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(linear(2 * x), 2 * linear(x), rtol=1e-5)
    with pytest.raises(ValueError, match="at least 1"):
        MLP(3, (0,), 2, rngs=nnx.Rngs(0))
