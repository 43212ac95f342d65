"""When `values` does not say what the last state is worth, and the last step is not done, a warning says so."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifex_rl.rl.returns import compute_gae_advantages, compute_td_errors

REWARDS, VALUES = np.array([1.0, 2.0]), np.array([3.0, 4.0])


def td_errors(dones, rewards=REWARDS, values=VALUES, **more):
    return compute_td_errors(rewards, values, dones, 0.5, **more)


def advantages(dones, rewards=REWARDS, values=VALUES, **more):
    return compute_gae_advantages(rewards, values, dones, 0.5, 0.5, **more)


both = pytest.mark.parametrize(
    ("estimate", "name"), [(td_errors, "compute_td_errors"), (advantages, "compute_gae_advantages")]
)


@both
def test_an_open_end_counts_as_terminal_with_a_warning_that_names_the_function_and_the_line(estimate, name):
    with pytest.warns(UserWarning, match=f"^{name}: the last step is not done") as caught:
        open_end = estimate([0, 0])
    assert caught[0].filename == __file__
    np.testing.assert_allclose(open_end, estimate([0, 1]))


@both
def test_one_open_stream_among_finished_ones_warns(estimate, name):
    with pytest.warns(UserWarning, match=name):
        estimate([[1, 0], [0, 1]], np.ones((2, 2)), np.ones((2, 2)))


@both
@pytest.mark.parametrize("dones", [[1, 1, 1, 0], [1, 0, 1, 0]])
def test_only_the_last_step_matters(estimate, name, dones):
    with pytest.warns(UserWarning, match=name):
        estimate(dones, np.ones(4), np.ones(4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimate([0, 0, 0, 1], np.ones(4), np.ones(4))


@both
@pytest.mark.parametrize(
    ("dones", "more"),
    [
        ([0, 1], {}),
        ([0, 0], {"values": [3.0, 4.0, 5.0]}),
        ([0, 0], {"last_value": 5.0}),
        ([0, 0], {"next_values": [4.0, 5.0]}),
        ([0, 0], {"next_values": [4.0, 5.0], "truncations": [0, 1]}),
        ([[0, 0], [1, 1]], {"rewards": np.ones((2, 2)), "values": np.ones((2, 2))}),
    ],
)
def test_no_warning_where_the_end_is_known(estimate, name, dones, more):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimate(dones, **more)


@both
def test_no_warning_and_no_error_where_dones_are_not_yet_known(estimate, name):
    dones = jnp.array([False, False])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        traced = jax.jit(estimate)(dones)
        mapped = jax.vmap(estimate)(dones[None])[0]
        closed_over = jax.jit(lambda rewards: estimate(dones, rewards))(REWARDS)
    with pytest.warns(UserWarning):
        expected = estimate(dones)
    for actual in (traced, mapped, closed_over):
        np.testing.assert_allclose(actual, expected)
