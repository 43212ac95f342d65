"""FlowNoiseExplorer: exact velocities, the library's steps, and spreads, noise and prices against closed forms."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from artifex_rl.generative.flow import flow_step
from artifex_rl.lab import FlowNoiseExplorer
from artifex_rl.lab.flow_noise_explorer import (
    HEIGHTS,
    KERNEL,
    MOST_STEPS,
    PATHS,
    PRICES,
    mixture_velocity,
    step_price,
)

MEANS, WEIGHTS, STD = np.array([-1.4, 0.2, 1.3]), np.array([0.3, 0.2, 0.5]), 0.15


@functools.cache
def begun():
    """The explorer, and how it stands at first: made by the first test, and not by each worker that reads this."""
    explorer = FlowNoiseExplorer()
    return explorer, explorer.knobs


def moved(**knobs):
    explorer, start = begun()
    explorer.set(**{**start, **knobs})
    return explorer.curves()


def paths(curves, name):
    """Paths `(PATHS, T + 1)` and their times; steps that are not taken stand at the end."""
    points = curves[name].reshape(PATHS, MOST_STEPS + 2, 2)
    assert np.isnan(points[:, -1]).all()
    return points[:, :-1, 1], points[0, :-1, 0]


def spread(density):
    weights = density[:, 0] / density[:, 0].sum()
    return float(np.sqrt(weights @ (density[:, 1] - weights @ density[:, 1]) ** 2 - KERNEL**2))


DATA_STD = float(np.sqrt(WEIGHTS @ (MEANS - WEIGHTS @ MEANS) ** 2 + STD**2))


@pytest.mark.parametrize("time", [0.0, 0.3, 0.8, 0.99])
def test_the_velocity_is_the_mean_of_data_less_noise_given_where_one_is(time):
    """By integrating over the data: p(x₁ | x_t) ∝ p(x₁) N(x_t; t x₁, (1 − t)²)."""
    for x in (-1.0, 0.1, 0.9):

        def joint(data, x=x):
            prior = WEIGHTS @ norm.pdf(data, MEANS, STD)
            return prior * norm.pdf(x, time * data, 1 - time)

        near = dict(points=[m + k * STD for m in MEANS for k in (-3, 0, 3)] + [x / max(time, 0.3)], limit=400)
        mass = quad(joint, -4, 4, **near)[0]
        mean = quad(lambda data: data * joint(data), -4, 4, **near)[0] / mass
        wanted = mean - (x - time * mean) / (1 - time)  # the noise is what is left
        found = mixture_velocity(jnp.array([x]), time, *map(jnp.asarray, (MEANS, WEIGHTS, STD)))
        assert float(found[0]) == pytest.approx(wanted, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize(("noise_level", "steps"), [(0.7, 10), (2.0, 3), (0.05, 20), (1.0, 1)])
def test_paths_are_steps_of_the_library_and_those_of_the_ode_are_eulers(noise_level, steps):
    curves = moved(noise_level=noise_level, steps=steps)
    ode, times = paths(curves, "ode")
    sde, _ = paths(curves, "sde")
    np.testing.assert_allclose(times, np.minimum(np.arange(MOST_STEPS + 1) / steps, 1), atol=1e-6)
    mixture = tuple(map(jnp.asarray, (MEANS, WEIGHTS, STD)))
    for k in range(steps):
        velocity = mixture_velocity(jnp.asarray(ode[:, k]), k / steps, *mixture)
        np.testing.assert_allclose(ode[:, k + 1], ode[:, k] + velocity / steps, atol=1e-4)
    np.testing.assert_array_equal(ode[:, steps], ode[:, -1])
    np.testing.assert_array_equal(sde[:, 0], ode[:, 0])
    assert (np.diff(sde[:, : steps + 1], axis=1) != 0).all()
    for k in range(steps):
        _, std = flow_step(jnp.zeros(()), jnp.zeros(()), k / steps, 1 / steps, noise_level)
        np.testing.assert_allclose(curves["std"][k], [k / steps, std], atol=1e-5)
    np.testing.assert_array_equal(curves["std"][steps:], np.tile(curves["std"][steps - 1], (MOST_STEPS - steps, 1)))


def test_with_steps_enough_both_end_as_the_data_is_spread_and_without_the_score_the_sde_does_not():
    for noise_level in (0.3, 0.7, 1.0):
        curves = moved(noise_level=noise_level, steps=20)
        assert spread(curves["end_ode"]) == pytest.approx(DATA_STD, rel=0.04)
        assert spread(curves["end_sde"]) == pytest.approx(DATA_STD, rel=0.05)
    coarse, fine = (DATA_STD - spread(moved(steps=steps)["end_ode"]) for steps in (10, 20))
    assert 0 < fine < 0.65 * coarse  # Euler's error, of first order
    dropped = [spread(moved(noise_level=a, steps=20, score="dropped")["end_sde"]) for a in (0.3, 0.7, 1.0)]
    assert dropped == sorted(dropped) and dropped[1] > 1.12 * DATA_STD and dropped[2] > 1.25 * DATA_STD


def test_densities_are_densities():
    for name in ("end_ode", "end_sde"):
        density, x = moved()[name].T
        np.testing.assert_array_equal(x, HEIGHTS)
        assert np.trapezoid(density, x) == pytest.approx(1, abs=2e-3) and (density >= 0).all()


@pytest.mark.parametrize("noise_level", [0.1, 0.7, 1.4, 2.0])
def test_a_price_is_that_of_flow_grpo_and_least_at_the_square_root_of_2(noise_level):
    """Flow-GRPO's KL, turned to this direction of time: Δ/2 (1 + a²/2)² / a² · t / (1 − t) ‖Δv‖²."""
    for k in range(1, 10):
        time, duration = k / 10, 0.1
        exact = duration / 2 * (1 + noise_level**2 / 2) ** 2 / noise_level**2 * time / (1 - time)
        assert float(step_price(time, duration, noise_level)) == pytest.approx(exact, rel=1e-4)
        assert float(step_price(time, duration, 2**0.5)) <= exact * (1 + 1e-5)
    drawn = moved(noise_level=noise_level, steps=10)["price"]
    expected = [float(step_price(k / 10, 0.1, noise_level)) for k in range(10)]
    np.testing.assert_allclose(drawn[:10, 1], np.clip(expected, 1e-2, 1e3), rtol=1e-3)
    assert np.unique(drawn[9:, 1]).size == 1


def test_without_noise_a_difference_has_no_price_and_the_sde_is_the_ode():
    curves = moved(noise_level=0)
    np.testing.assert_array_equal(curves["sde"], curves["ode"])
    assert (curves["std"][:, 1] == 0).all() and (curves["price"][:, 1] == PRICES[1]).all()
    assert "no step has a density" in begun()[0].summary()


@pytest.mark.slow
def test_it_takes_a_mixture_of_ones_own():
    curves = FlowNoiseExplorer([-1.0], std=0.5).curves()
    ends, times = curves["end_ode"], np.arange(10) / 10
    slopes = (times * 0.5**2 - (1 - times)) / (times**2 * 0.5**2 + (1 - times) ** 2)
    assert spread(ends) == pytest.approx(np.prod(1 + slopes / 10), rel=0.01)  # Euler's steps are linear in x
    assert ends[:, 0] @ ends[:, 1] / ends[:, 0].sum() == pytest.approx(-1, abs=0.05)
    even = FlowNoiseExplorer([-1.0, 1.0])._curves_function.args[0][1]
    np.testing.assert_allclose(even, 0.5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([],), "means: got shape (0,)"),
        ((np.zeros(7),), "means: got shape (7,)"),
        (([0.0, np.nan],), "means: got 1 NaN"),
        (([0.0, 2.5],), "means: got 2.5, needs numbers from -2 to 2"),
        (([0.0, 1.0], [1.0]), "weights: got shape (1,)"),
        (([0.0, 1.0], [1.0, 0.0]), "weights: got 0, needs positive"),
        (([0.0], None, 0.0), "std: got 0.0, needs a number from 0.02 to 1"),
    ],
)
def test_what_is_no_mixture_is_refused(arguments, said):
    with pytest.raises(ValueError) as caught:
        FlowNoiseExplorer(*arguments)
    assert str(caught.value).startswith(said)
