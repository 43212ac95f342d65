"""Rollouts: what is recorded at an episode's end, and that streams are deterministic and independent."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifex_rl.data import demonstration_policy
from artifex_rl.envs import CartPole, CartPoleState, rollout
from artifex_rl.rl.returns import compute_gae_advantages

env = CartPole()
collect = jax.jit(rollout, static_argnums=(0, 1, 3, 4))
ARRAYS = ("observations", "actions", "log_probs", "rewards", "dones", "truncations", "next_observations")


class CountingState(NamedTuple):
    count: jax.Array
    start: jax.Array


class Counting:
    """Counts up from a random start and ends after 3 steps, or is cut after 5 where it started at odd numbers."""

    def reset(self, key):
        start = 100 * jax.random.randint(key, (), 1, 1000)
        return CountingState(start, start)

    def observe(self, state):
        return state.count.astype(jnp.float32)[None]

    def step(self, state, action):
        state = state._replace(count=state.count + 1)
        age, odd = state.count - state.start, (state.start // 100) % 2 == 1
        return state, age.astype(jnp.float32), ~odd & (age >= 3), odd & (age >= 5)


def idle(observation, key):
    return jnp.int32(0), jnp.float32(0)


def good_policy(observation, key):
    action = jnp.dot(observation, jnp.array([0.1, 0.3, 1.0, 0.5])) > 0
    return action.astype(jnp.int32), jnp.float32(0)


def assert_equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def column(r, n):
    return r._replace(final_state=None, **{name: getattr(r, name)[:, n] for name in ARRAYS})


@pytest.mark.slow
def test_shapes_are_time_first():
    one = collect(env, demonstration_policy, jax.random.key(0), 7, None)
    many = collect(env, demonstration_policy, jax.random.key(0), 7, 3)
    assert {name: getattr(one, name).shape for name in ARRAYS} == {
        name: (7, 4) if "observations" in name else (7,) for name in ARRAYS
    }
    assert {name: getattr(many, name).shape for name in ARRAYS} == {
        name: (7, 3, 4) if "observations" in name else (7, 3) for name in ARRAYS
    }
    assert one.final_state.x.shape == () and many.final_state.x.shape == (3,)
    assert one.dones.dtype == one.truncations.dtype == bool


@pytest.mark.slow
def test_the_key_decides_everything():
    again = [collect(env, demonstration_policy, jax.random.key(seed), 100, 4) for seed in (5, 5, 6)]
    assert_equal(again[0], again[1])
    assert not np.array_equal(again[0].observations, again[2].observations)
    # Compiled whole or run as it is: the same experience.
    plain = rollout(env, demonstration_policy, jax.random.key(5), 100, 4)
    np.testing.assert_array_equal(plain.actions, again[0].actions)
    np.testing.assert_allclose(plain.observations, again[0].observations, atol=1e-4)


@pytest.mark.slow
def test_a_longer_rollout_begins_with_the_shorter():
    short, long = (collect(env, demonstration_policy, jax.random.key(0), steps, 2) for steps in (20, 60))
    np.testing.assert_array_equal(short.actions, long.actions[:20])
    np.testing.assert_allclose(short.observations, long.observations[:20], atol=1e-5)


@pytest.mark.slow
def test_streams_are_independent():
    key = jax.random.key(2)
    many = collect(env, demonstration_policy, key, 60, 5)
    for n, stream_key in enumerate(jax.random.split(key, 5)):
        one = collect(env, demonstration_policy, stream_key, 60, None)
        np.testing.assert_array_equal(one.actions, many.actions[:, n])
        np.testing.assert_allclose(one.observations, many.observations[:, n], atol=1e-4)
    starts = np.asarray(many.observations[0])
    assert len(np.unique(starts)) == starts.size


def test_an_episode_ends_in_its_last_state_and_the_next_one_starts_fresh():
    r = collect(env, demonstration_policy, jax.random.key(3), 300, 4)
    dones = np.asarray(r.dones)
    reached, seen, following = (np.asarray(x) for x in (r.next_observations, r.observations, r.observations[1:]))
    ends = dones[:-1]
    assert ends.sum() > 10
    np.testing.assert_array_equal(reached[:-1][~ends], following[~ends])
    assert (np.abs(following[ends]) <= 0.05).all(), "a reset state"
    assert (np.abs(reached[:-1][ends][:, 2]) > np.radians(12)).all(), "the pole lies where it fell"
    assert (np.abs(seen[:, :, 2]) <= np.radians(12)).all(), "nobody acts in a fallen state"
    assert len(np.unique(following[ends][:, 0])) == ends.sum(), "every reset has its own random numbers"


def test_every_step_is_the_environments_own():
    r = collect(env, demonstration_policy, jax.random.key(4), 200, None)
    states = CartPoleState(*r.observations.T, time=jnp.zeros(200, jnp.int32))
    reached, rewards, terminated, _ = jax.vmap(env.step)(states, r.actions)
    np.testing.assert_allclose(env.observe(reached), r.next_observations, atol=1e-6)
    np.testing.assert_array_equal(rewards, r.rewards)
    np.testing.assert_array_equal(terminated, r.dones)


@pytest.mark.slow
def test_a_time_limit_is_done_and_truncated_and_a_fall_is_only_done():
    r = collect(env, good_policy, jax.random.key(0), 1100, None)
    assert np.flatnonzero(r.dones).tolist() == np.flatnonzero(r.truncations).tolist() == [499, 999]
    assert (np.abs(r.observations[500]) <= 0.05).all()
    assert int(r.final_state.time) == 100
    fallen = collect(env, demonstration_policy, jax.random.key(0), 300, None)
    assert fallen.dones.any() and not fallen.truncations.any()


def test_a_fall_at_the_limit_is_no_truncation():
    """Both flags of the environment are true there; the state reached is worth nothing."""

    class Both(Counting):
        def step(self, state, action):
            state, reward, _, _ = super().step(state, action)
            return state, reward, jnp.bool_(True), jnp.bool_(True)

    r = rollout(Both(), idle, jax.random.key(0), 3)
    assert r.dones.all() and not r.truncations.any()


@pytest.mark.slow
def test_bookkeeping_in_a_world_that_counts():
    r = jax.tree.map(np.asarray, rollout(Counting(), idle, jax.random.key(1), 200, 3))
    for n in range(3):
        t = 0
        while t + 5 <= 200:
            start = int(r.observations[t, n, 0])
            odd = start // 100 % 2 == 1
            length = 5 if odd else 3
            np.testing.assert_array_equal(r.observations[t : t + length, n, 0], start + np.arange(length))
            np.testing.assert_array_equal(r.next_observations[t : t + length, n, 0], start + 1 + np.arange(length))
            np.testing.assert_array_equal(r.rewards[t : t + length, n], 1 + np.arange(length))
            np.testing.assert_array_equal(r.dones[t : t + length, n], np.arange(length) == length - 1)
            assert bool(r.truncations[t + length - 1, n]) == odd
            t += length
    assert r.truncations.any() and (r.dones & ~r.truncations).any()


@pytest.mark.slow
def test_log_probs_are_those_of_the_actions():
    r = collect(env, demonstration_policy, jax.random.key(6), 200, 4)
    right = 1 / (1 + np.exp(-80.0 * np.asarray(r.observations[..., 2], np.float64)))
    np.testing.assert_allclose(np.exp(r.log_probs), np.where(r.actions == 1, right, 1 - right), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_actions_come_as_often_as_their_probability_says():
    def biased(observation, key):
        return (jax.random.uniform(key) < 0.3).astype(jnp.int32), jnp.float32(0)

    actions = np.asarray(rollout(env, biased, jax.random.key(0), 1000, 10).actions, float)
    np.testing.assert_allclose(actions.mean(), 0.3, atol=0.015)
    assert abs(np.corrcoef(actions[1:].ravel(), actions[:-1].ravel())[0, 1]) < 0.03, "fresh randomness at every step"


def test_it_goes_on_from_where_it_stopped():
    first = collect(env, good_policy, jax.random.key(0), 300, 2)
    second = collect(env, good_policy, jax.random.key(1), 300, 2, first.final_state)
    whole = collect(env, good_policy, jax.random.key(0), 600, 2)
    np.testing.assert_array_equal(second.observations[0], first.next_observations[-1])
    # This policy draws no random numbers, so up to the reset at step 500 the two halves are the whole.
    np.testing.assert_allclose(second.observations[:200], whole.observations[300:500], atol=1e-3)
    np.testing.assert_array_equal(second.truncations[199], [True, True])
    alone = rollout(env, good_policy, jax.random.key(0), 300)
    assert int(rollout(env, good_policy, jax.random.key(1), 5, state=alone.final_state).final_state.time) == 305


def test_gae_of_a_rollout_is_that_of_its_episodes_one_by_one():
    short = CartPole(max_steps=25)  # so that some episodes are cut and others fall
    gamma, lam = 0.97, 0.9
    r = rollout(short, demonstration_policy, jax.random.key(8), 150, 3)

    def critic(observations):
        return 10 - 30 * jnp.abs(observations[..., 2]) + observations[..., 1]

    values, next_values = critic(r.observations), critic(r.next_observations)
    advantages = compute_gae_advantages(
        r.rewards, values, r.dones, gamma, lam, truncations=r.truncations, next_values=next_values
    )
    assert r.truncations.any() and (r.dones & ~r.truncations).any()
    r = jax.tree.map(np.asarray, r)
    advantages = np.asarray(advantages)
    rewards, v, following = (np.asarray(x, np.float64) for x in (r.rewards, values, next_values))
    for n in range(3):
        begin = 0
        for end in [*np.flatnonzero(r.dones[:, n]), 149]:
            falls = bool(r.dones[end, n] and not r.truncations[end, n])
            for t in range(begin, end + 1):
                deltas = rewards[t : end + 1, n] + gamma * following[t : end + 1, n] - v[t : end + 1, n]
                if falls:
                    deltas[-1] = rewards[end, n] - v[end, n]
                expected = sum((gamma * lam) ** k * delta for k, delta in enumerate(deltas))
                np.testing.assert_allclose(advantages[t, n], expected, rtol=1e-4, atol=1e-4)
            begin = end + 1


@pytest.mark.parametrize(
    "arguments, name",
    [
        ({"num_steps": 0}, "num_steps"),
        ({"num_steps": 2.5}, "num_steps"),
        ({"num_steps": 5, "num_envs": 0}, "num_envs"),
        ({"num_steps": 5, "num_envs": 3, "state": env.reset(jax.random.key(0))}, "state"),
        ({"num_steps": 5, "policy": lambda observation, key: (jnp.int32(0), jnp.zeros(1))}, "policy"),
    ],
)
def test_bad_arguments_are_named(arguments, name):
    with pytest.raises(ValueError, match=name):
        rollout(**({"env": env, "policy": good_policy, "key": jax.random.key(0)} | arguments))
