"""CartPole against gymnasium's own CartPole-v1: the same physics, the same flags, the same pictures."""

import os
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifex_rl.envs import CartPole, CartPoleState, render_cartpole

env = CartPole()
step = jax.jit(env.step)


@pytest.fixture
def oracle():
    gymnasium = pytest.importorskip("gymnasium")
    oracle = gymnasium.make("CartPole-v1")
    oracle.reset(seed=0)
    yield oracle
    oracle.close()


def state_of(numbers, time=0):
    return CartPoleState(*jnp.asarray(numbers, jnp.float32), time=jnp.asarray(time, jnp.int32))


def balance(observation):
    """A linear controller that stands for good."""
    return int(observation @ np.array([0.1, 0.3, 1.0, 0.5]) > 0)


def follow(oracle, state, choose):
    """Play one episode in both from the same start, step by step; return its length and last flags."""
    oracle.reset()
    oracle.unwrapped.state = np.asarray(env.observe(state), np.float64)
    for length in range(1, 1000):
        action = choose(np.asarray(env.observe(state)))
        state, reward, terminated, truncated = step(state, action)
        seen, *expected, _ = oracle.step(action)
        np.testing.assert_allclose(env.observe(state), seen, atol=1e-5, rtol=0)
        assert [float(reward), bool(terminated), bool(truncated)] == expected
        # In an unstable system two roundings drift apart, so the oracle goes on from where we are.
        oracle.unwrapped.state = np.asarray(env.observe(state), np.float64)
        if terminated or truncated:
            return length, bool(terminated), bool(truncated)
    raise AssertionError("the episode did not end")


def test_a_thousand_transitions_equal_those_of_gymnasium(oracle):
    rng = np.random.default_rng(0)
    # Wider than the thresholds, so that every way to fail occurs.
    states = rng.uniform(-1, 1, (1000, 4)).astype(np.float32) * np.float32([2.6, 3, 0.25, 3])
    actions = rng.integers(0, 2, 1000)
    nexts, rewards, terminated, truncated = jax.vmap(env.step)(
        CartPoleState(*jnp.asarray(states.T), time=jnp.zeros(1000, jnp.int32)), jnp.asarray(actions)
    )
    ended = set()
    for i in range(1000):
        oracle.reset()
        oracle.unwrapped.state = states[i].astype(np.float64)
        seen, reward, oracle_terminated, oracle_truncated, _ = oracle.step(int(actions[i]))
        np.testing.assert_allclose(env.observe(nexts)[i], seen, atol=1e-5, rtol=0)
        assert (rewards[i], terminated[i], truncated[i]) == (reward, oracle_terminated, oracle_truncated)
        if oracle_terminated:
            ended.add((abs(seen[0]) > 2.4, bool(seen[0] > 0), bool(seen[2] > 0)))
    assert len(ended) == 8, "left and right, track and pole"


def test_whole_random_episodes_equal_those_of_gymnasium(oracle):
    rng = np.random.default_rng(1)
    endings = [
        follow(oracle, env.reset(jax.random.key(seed)), lambda observation: int(rng.integers(0, 2)))
        for seed in range(10)
    ]
    assert all(ending[1:] == (True, False) for ending in endings)
    assert len({length for length, _, _ in endings}) > 3


def test_the_500th_step_truncates_a_pole_that_still_stands(oracle):
    assert follow(oracle, env.reset(jax.random.key(3)), balance) == (500, False, True)


def test_a_pole_that_falls_at_the_limit_is_both_terminated_and_truncated(oracle):
    state = state_of([0, 0, 0.2, 2.0])
    oracle.unwrapped.state = np.asarray(env.observe(state), np.float64)
    limit = oracle
    while not hasattr(limit, "_elapsed_steps"):
        limit = limit.env
    limit._elapsed_steps = 499
    _, _, *expected, _ = oracle.step(0)
    _, _, *flags = step(state._replace(time=jnp.int32(499)), 0)
    assert [bool(flag) for flag in flags] == expected == [True, True]


def test_reset_is_uniform_in_a_twentieth():
    states = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 4000))
    observations = np.asarray(env.observe(states))
    assert observations.shape == (4000, 4) and np.abs(observations).max() <= 0.05
    np.testing.assert_allclose(observations.mean(0), 0, atol=0.002)
    np.testing.assert_allclose(observations.std(0), 0.1 / np.sqrt(12), rtol=0.05)
    np.testing.assert_allclose(np.corrcoef(observations.T), np.eye(4), atol=0.06)
    assert not states.time.any()


@pytest.mark.slow
def test_jit_and_vmap_change_nothing():
    states = jax.vmap(env.reset)(jax.random.split(jax.random.key(1), 16))
    actions = jnp.arange(16) % 2
    together = jax.jit(jax.vmap(env.step))(states, actions)
    for i in range(16):
        alone = env.step(jax.tree.map(lambda field, i=i: field[i], states), int(actions[i]))
        jax.tree.map(
            lambda one, all, i=i: np.testing.assert_allclose(one, all[i], rtol=1e-5, atol=1e-7), alone, together
        )


def test_the_world_has_no_left_or_right():
    """Mirror the state and the action, and the next state is the mirror image."""
    state = state_of([0.3, -0.2, 0.1, 0.7])
    mirror = state_of([-0.3, 0.2, -0.1, -0.7])
    np.testing.assert_allclose(env.observe(step(state, 1)[0]), -env.observe(step(mirror, 0)[0]), atol=1e-6)


def test_another_limit_is_kept_and_a_bad_one_refused():
    short = CartPole(max_steps=2)
    state, _, _, truncated = short.step(state_of([0, 0, 0, 0]), 1)
    assert not truncated and short.step(state, 0)[3]
    with pytest.raises(ValueError, match="max_steps"):
        CartPole(max_steps=0)


# --- Pictures


@pytest.fixture
def drawing():
    pytest.importorskip("gymnasium")
    pytest.importorskip("pygame")


def cart_centre(frame):
    """Mean column of the black pixels just above the rail, which are the cart's."""
    height = frame.shape[0]
    return np.nonzero((frame[height - 112 : height - 104] == 0).all(-1))[1].mean()


def test_the_cart_is_drawn_where_it_is(drawing):
    frames = render_cartpole(np.array([[x, 0, 0, 0] for x in (-1.2, 0.0, 1.2)]))
    assert frames.shape == (3, 400, 600, 3) and frames.dtype == np.uint8
    # The track of 4.8 m is as wide as the picture: 125 pixels a metre.
    np.testing.assert_allclose([cart_centre(frame) for frame in frames], [150, 300, 450], atol=2)


def test_the_pole_is_drawn_as_it_leans(drawing):
    for theta, side in ((0.2, 1), (-0.2, -1)):
        frame = render_cartpole(state_of([0, 0, theta, 0]))
        wood = np.nonzero((frame == (202, 152, 101)).all(-1))[1]
        assert frame.shape == (400, 600, 3) and np.sign(wood.mean() - 300) == side


def test_states_and_observations_give_the_same_picture(drawing):
    states = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 2))
    np.testing.assert_array_equal(render_cartpole(states), render_cartpole(env.observe(states)))


@pytest.mark.slow
def test_drawing_needs_no_display_says_nothing_and_leaves_the_environment_alone():
    pytest.importorskip("pygame")
    code = (
        "import os, sys; import artifex_rl.envs as envs; assert 'gymnasium' not in sys.modules; "
        "before = os.environ.get('SDL_VIDEODRIVER'); envs.render_cartpole([0, 0, 0, 0]); "
        "assert os.environ.get('SDL_VIDEODRIVER') == before"
    )
    bare = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    done = subprocess.run([sys.executable, "-c", code], env=bare, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("missing", ["gymnasium", "pygame"])
def test_without_the_extra_the_message_says_what_to_install(missing, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ImportError, match=r"pip install 'artifex_rl\[envs\]'"):
            render_cartpole(np.zeros(4))


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((2, 2, 4)), np.array([0, 0, np.nan, 0])])
def test_what_cannot_be_drawn_is_refused(bad):
    with pytest.raises(ValueError, match="states_or_observations"):
        render_cartpole(bad)
