"""LatentWalkExplorer: the walk that it draws, against one walked by hand, and the sum that telescopes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifex_rl.data.digits import to_pixels
from artifex_rl.envs import LatentWalk
from artifex_rl.lab import LatentWalkExplorer
from artifex_rl.lab.halftone import halftone

GOALS = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
START = jnp.array([0.2, -0.4])


def decode(latents):
    """Pictures whose upper half is as dark as the first latent, and whose lower half as the second."""
    return jnp.repeat(jnp.tanh(latents), 4, axis=1)[:, :, None] * jnp.ones((1, 1, 8))


def score(pictures):
    halves = jnp.stack([pictures[:, :4].mean(axis=(1, 2)), pictures[:, 4:].mean(axis=(1, 2))], axis=1)
    return jax.nn.softmax(4 * halves @ GOALS.T)


WALK = LatentWalk(decode, score, latent_size=2, num_classes=3, max_steps=5)
EXPLORER = LatentWalkExplorer(WALK, START, GOALS)


def moved(**knobs):
    EXPLORER.set(**{"target": 2, "move": 0.6, "cost": 0.01, "noise": 0, **knobs})
    return EXPLORER.curves()


def walk_straight(target, longest):
    """Places of a walk without noise, in NumPy."""
    places = [np.asarray(START, float)]
    for _ in range(5):
        way = np.asarray(GOALS[target]) - places[-1]
        places.append(places[-1] + way * min(1.0, longest / max(np.linalg.norm(way), 1e-9)))
    return np.array(places)


@pytest.mark.parametrize("knobs", [{}, {"target": 1, "move": 0.1}, {"target": 0, "move": 2, "cost": 0.05}])
def test_it_walks_straight_in_moves_of_the_length_and_pays_for_the_probability_won(knobs):
    curves, knobs = moved(**knobs), EXPLORER.knobs
    target = int(knobs["target"])
    places = walk_straight(target, knobs["move"])
    probability = np.asarray(score(decode(jnp.asarray(places, jnp.float32))))[:, target]
    np.testing.assert_allclose(curves["probability"], probability, atol=1e-5)
    lengths = np.linalg.norm(np.diff(places, axis=0), axis=1)
    rewards = np.diff(probability) - knobs["cost"] * lengths**2
    np.testing.assert_allclose(curves["rewards"][1::3], np.stack([np.arange(1, 6), rewards], axis=1), atol=1e-5)
    np.testing.assert_allclose(curves["earned"], np.append(0, np.cumsum(rewards)), atol=1e-5)
    pictures = halftone(to_pixels(decode(jnp.asarray(places, jnp.float32))))
    np.testing.assert_allclose(curves["pictures"], pictures, atol=1e-5)


@pytest.mark.parametrize("noise", [0.0, 0.3, 0.6])
def test_without_a_price_on_moves_the_rewards_add_up_to_the_probability_won(noise):
    curves = moved(cost=0, noise=noise)
    np.testing.assert_allclose(curves["earned"], curves["probability"] - curves["probability"][0], atol=1e-5)


def test_noise_leads_astray_and_never_further_than_the_longest_move():
    straight, noisy = moved(move=0.1), moved(move=0.1, noise=0.6)
    assert noisy["probability"][-1] < straight["probability"][-1]
    # Each move is cut to 0.1 whatever the noise is, so five of them cost at most 5 · 0.05 · 0.1².
    paid = moved(move=0.1, noise=0.6, cost=0.05)
    costs = moved(move=0.1, noise=0.6, cost=0)["earned"] - paid["earned"]
    assert 0 < costs[-1] <= 5 * 0.05 * 0.1**2 * (1 + 1e-4)  # both sums are rounded


def test_the_sentence_says_what_was_won_and_what_it_cost():
    curves = moved(target=0, move=1, cost=0.05)
    won, earned = curves["probability"][-1] - curves["probability"][0], curves["earned"][-1]
    assert f"The rewards add up to {earned:.2f}: {won:.2f} won, less {won - earned:.2f}" in EXPLORER.summary()
    assert EXPLORER.summary().startswith(f"P(0) goes from {curves['probability'][0]:.2f} to")


@pytest.mark.slow
def test_by_default_a_0_becomes_whatever_is_wanted():
    explorer = LatentWalkExplorer()
    for target in range(10):
        explorer.set(target=target, move=1, noise=0)
        probability = explorer.curves()["probability"]
        assert probability[-1] > 0.9
        assert probability[0] > 0.9 if target == 0 else probability[0] < 0.1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((WALK, START, None), "got some of walk, start and goals, needs all three or none"),
        ((WALK, jnp.zeros(3), GOALS), r"start: got shape \(3,\), needs \(2,\)"),
        ((WALK, START, GOALS[:2]), r"goals: got shape \(2, 2\), needs \(3, 2\)"),
        ((WALK, jnp.array([0.0, jnp.nan]), GOALS), "start: got 1 NaN or infinite of 2"),
        ((LatentWalk(decode, score, 2, 3, max_steps=11), START, GOALS), "walk: got 11 steps"),
        ((LatentWalk(lambda z: z[:, None], score, 2, 3), START, GOALS), r"pictures of shape \(1, 2\)"),
    ],
)
def test_what_cannot_be_walked_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        LatentWalkExplorer(*arguments)
