"""EnergyTiltExplorer: the tilt, the frontier and the policy's way to it, against float64 by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifex_rl.lab import EnergyTiltExplorer
from artifex_rl.lab.energy_tilt_explorer import (
    EVERY,
    GRID,
    MOST_DENSITY,
    MOST_KL,
    MOST_UPDATES,
    REWARDS,
    WIDTH,
    reward_of,
    train,
    two_valleys,
)

ENERGY = np.asarray(two_valleys(GRID.astype(float)))


@pytest.fixture(scope="module")
def explorer():
    return EnergyTiltExplorer()


def moved(explorer, **knobs):
    explorer.set(**({"beta": 0.3, "temperature": 1, "reward": "slope", "updates": MOST_UPDATES} | knobs))
    return explorer.curves()


def law(logits):
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def by_hand(beta, temperature, reward):
    """Reference, tilt and reward on the grid, in float64."""
    x = GRID.astype(float)
    paid = {
        "slope": (x + 3) / 6,
        "hill": np.exp(-0.5 * ((x - 1.2) / 0.4) ** 2),
        "step": 1 / (1 + np.exp(-(x - 1.6) / 0.05)),
    }[reward]
    return law(-ENERGY / temperature), law(-ENERGY / temperature + paid / beta), paid


def trained(kind, beta, temperature=1.0):
    """The policy's energies, update by update."""
    numbers = (jnp.float32(x) for x in (beta, temperature))
    return np.asarray(jax.jit(train)(jnp.asarray(ENERGY, jnp.float32), reward_of(jnp.float32(kind)), *numbers))


def kl(mine, theirs):
    held = mine > 0
    return np.sum(mine[held] * np.log(mine[held] / theirs[held]))


@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize(("beta", "temperature"), [(0.3, 1.0), (0.1, 2.0), (1.0, 0.5)])
def test_the_tilt_is_the_reference_times_exp_of_the_reward_over_beta(explorer, beta, temperature, reward):
    curves = moved(explorer, beta=beta, temperature=temperature, reward=reward)
    reference, tilt, paid = by_hand(beta, temperature, reward)
    np.testing.assert_allclose(curves["paid"], paid, atol=1e-5)
    for name, expected in (("reference", reference), ("tilt", tilt)):
        np.testing.assert_allclose(curves[name], np.minimum(expected / WIDTH, MOST_DENSITY), atol=2e-4)
    at = [min(kl(tilt, reference), MOST_KL), tilt @ paid]
    np.testing.assert_allclose(curves["at_tilt"][0], at, atol=1e-4)


@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_the_policy_arrives_at_the_tilt(explorer, beta, reward):
    curves = moved(explorer, beta=beta, reward=reward)
    away = 0.5 * WIDTH * np.abs(curves["policy"] - curves["tilt"]).sum()
    assert away < 0.05
    start = moved(explorer, beta=beta, reward=reward, updates=0)
    np.testing.assert_allclose(start["policy"], start["reference"], atol=1e-5)
    np.testing.assert_allclose(start["at_policy"][0, 0], 0, atol=1e-5)


def test_what_it_climbs_is_the_reward_less_beta_times_the_kl(explorer):
    reference, _, paid = by_hand(0.2, 1.0, "hill")
    first, second, *_, last = trained(1, 0.2).astype(float)

    def objective(policy):
        return policy @ paid - 0.2 * kl(policy, reference)

    np.testing.assert_allclose(first, ENERGY, atol=1e-4)
    assert objective(law(-second)) > objective(reference) + 1e-3
    optimum = 0.2 * np.log(reference @ np.exp(paid / 0.2))
    assert optimum - 6e-3 < objective(law(-last)) <= optimum + 1e-5


def test_no_law_lies_above_the_frontier_and_every_tilt_on_it(explorer):
    for beta in (0.05, 0.2, 0.6):
        curves = moved(explorer, beta=beta, reward="hill")
        x, y = curves["frontier"][np.isfinite(curves["frontier"][:, 0])].T
        order = np.argsort(x)
        at = np.interp(curves["at_tilt"][0, 0], x[order], y[order])
        np.testing.assert_allclose(curves["at_tilt"][0, 1], at, atol=0.01)
        way = curves["way"][np.isfinite(curves["way"][:, 0])]
        assert len(way) == MOST_UPDATES // EVERY + 1
        assert (way[:, 1] <= np.interp(way[:, 0], x[order], y[order]) + 0.01).all()


def test_a_colder_law_is_not_a_lower_beta(explorer):
    """Cold sharpens the valleys, paid for or not; β moves mass to what is paid for."""
    usual, cold, greedy = (moved(explorer, **k, reward="step") for k in ({}, {"temperature": 0.5}, {"beta": 0.1}))
    assert cold["at_tilt"][0, 1] < usual["at_tilt"][0, 1] < greedy["at_tilt"][0, 1]


def test_only_the_way_so_far_is_drawn_and_the_marker_is_its_end(explorer):
    curves = moved(explorer, updates=5 * EVERY)
    assert np.isfinite(curves["way"][:6]).all() and np.isnan(curves["way"][6:]).all()
    np.testing.assert_allclose(curves["at_policy"][0], curves["way"][5], atol=1e-4)


def test_the_sentence_says_where_the_mass_is(explorer):
    moved(explorer, beta=0.3)
    assert "With β = 0.30 the tilt is paid 0.55 at 0.22 nats" in explorer.summary()
    assert explorer.summary().endswith("0 % of its mass lies elsewhere.")
    moved(explorer, beta=0.05, reward="step")
    assert "4 nats or more" in explorer.summary()


def test_an_energy_of_ones_own_is_taken_and_its_level_does_not_matter():
    one, two = (EnergyTiltExplorer(lambda x, level=level: x**2 + level) for level in (0.0, 300.0))
    np.testing.assert_allclose(one.curves()["tilt"], two.curves()["tilt"], atol=1e-3)
    middle = jnp.sum(jnp.asarray(GRID) * one.curves()["reference"]) * WIDTH
    np.testing.assert_allclose(middle, 0, atol=1e-4)
    for wrong in (lambda x: x[:3], lambda x: x / 0):
        with pytest.raises(ValueError, match=r"^energy: got shape"):
            EnergyTiltExplorer(wrong)
