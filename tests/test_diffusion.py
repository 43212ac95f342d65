"""Noise schedules and steps of denoising against the papers' closed forms, and samplers with an exact denoiser."""

import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from artifex_rl.diffusion import (
    NoiseSchedule,
    add_noise,
    compute_x0_loss,
    cosine_schedule,
    denoise_trajectory,
    denoising_step,
    drop_labels,
    guide,
    linear_schedule,
)
from artifex_rl.models import Denoiser

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
steps = st.integers(1, 60)
LEVELS = st.tuples(st.floats(0.02, 0.98), st.floats(0.01, 0.99)).map(lambda x: (x[0], x[0] + x[1] * (0.99 - x[0])))

# Schedules


def test_the_linear_schedule_of_1000_steps_is_that_of_ho_et_al():
    alpha_bars = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    close(linear_schedule(1000).alpha_bars, [1.0, *alpha_bars])
    assert linear_schedule(1000).alpha_bars[-1] == pytest.approx(4.0358e-5, rel=1e-4)  # "close to 0", section 4


def test_fewer_steps_of_the_linear_schedule_go_through_about_the_same_levels():
    many, few = (np.array(linear_schedule(n).alpha_bars) for n in (1000, 100))
    np.testing.assert_allclose(few, many[::10], atol=0.02)


@given(steps)
def test_the_cosine_schedule_is_equation_17_but_for_its_last_step(num_steps):
    t = np.arange(num_steps)
    f = np.cos((t / num_steps + 0.008) / 1.008 * math.pi / 2) ** 2
    close(cosine_schedule(num_steps).alpha_bars[:-1], f / f[0])


@given(steps, st.sampled_from([cosine_schedule, linear_schedule]))
def test_a_schedule_falls_from_1_by_no_more_than_999_in_1000_a_step(num_steps, schedule):
    alpha_bars = np.array(schedule(num_steps).alpha_bars)
    ratios = alpha_bars[1:] / alpha_bars[:-1]
    assert alpha_bars[0] == 1 and len(alpha_bars) == num_steps + 1 == schedule(num_steps).num_steps + 1
    assert (ratios < 1).all() and (ratios > 0.001 - 1e-12).all()
    assert np.allclose(schedule(num_steps).times, np.linspace(0, 1, num_steps + 1))


@given(steps, st.data())
def test_respaced_steps_are_some_of_the_old_ones_from_end_to_end(num_steps, data):
    schedule = cosine_schedule(num_steps)
    fewer = schedule.respace(data.draw(st.integers(1, num_steps)))
    old = list(zip(schedule.alpha_bars, schedule.times, strict=True))
    new = list(zip(fewer.alpha_bars, fewer.times, strict=True))
    assert {*new} <= {*old} and new[0] == old[0] and new[-1] == old[-1]
    gaps = np.diff([old.index(level) for level in new])
    assert gaps.max() - gaps.min() <= 1
    assert schedule.respace(num_steps) == schedule and hash(schedule.respace(num_steps)) == hash(schedule)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cosine_schedule(0), "num_steps: got 0, needs an integer of at least 1"),
        (lambda: linear_schedule(2.5), "num_steps: got 2.5, needs an integer"),
        (lambda: cosine_schedule(5, offset=-1), "offset: got -1"),
        (lambda: linear_schedule(5, 0.02, 0.01), "first and last: got 0.02 and 0.01"),
        (lambda: cosine_schedule(5).respace(6), "num_steps: got 6, needs an integer from 1 to 5"),
        (lambda: NoiseSchedule((1.0,)), "alpha_bars: needs at least two"),
        (lambda: NoiseSchedule((1.0, 0.5, 0.7)), "alpha_bars"),
        (lambda: NoiseSchedule((0.9, 0.5)), "alpha_bars"),
        (lambda: NoiseSchedule((1.0, 0.0)), "alpha_bars"),
        (lambda: NoiseSchedule((1.0, float("nan"))), "alpha_bars"),
        (lambda: NoiseSchedule((1.0, 0.5), times=(0.0, 0.5, 1.0)), "times: needs 2 numbers"),
    ],
)
def test_what_is_no_schedule_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Steps


@given(st.floats(0.01, 1))
def test_noise_keeps_the_variance_of_data_with_variance_1(alpha_bar):
    data, noise = jax.random.normal(jax.random.key(0), (2, 20000))
    x = add_noise(data, noise, alpha_bar)
    assert np.var(x) == pytest.approx(1, abs=0.03)
    assert np.mean(x * data) == pytest.approx(math.sqrt(alpha_bar), abs=0.03)


@given(LEVELS)
def test_eta_1_is_the_posterior_of_ddpm(levels):
    here, there = levels
    x, x0 = jnp.array([[0.3, -2.0], [1.5, 0.0]])
    mean, std = denoising_step(x, x0, here, there, eta=1.0)
    beta = 1 - here / there  # Ho et al., eqs. 6 and 7
    close(mean, (math.sqrt(there) * beta * x0 + math.sqrt(1 - beta) * (1 - there) * x) / (1 - here), rtol=1e-3)
    close(std**2, (1 - there) / (1 - here) * beta, rtol=1e-3)


@given(LEVELS, st.floats(0, 1), st.floats(0, 1))
def test_every_eta_and_floor_leads_to_the_marginal_of_the_lower_level(levels, eta, share):
    here, there = levels
    noise, x0 = jnp.array([[1.0, -0.5], [0.7, 2.0]])
    x = add_noise(x0, noise, here)
    mean, std = denoising_step(x, x0, here, there, eta, min_std=share * math.sqrt(1 - there))
    left = (mean - math.sqrt(there) * x0) / noise  # x_s = √ᾱ_s x₀ + left · ε + std · new noise
    close(left**2 + std**2, np.full(2, 1 - there), rtol=1e-3, atol=1e-5)
    assert std >= share * math.sqrt(1 - there) - 1e-6


def test_eta_0_is_certain_and_the_last_step_is_certain_for_every_eta():
    x, x0 = jnp.array([[0.3, -2.0], [1.5, 0.0]])
    assert denoising_step(x, x0, 0.3, 0.6, eta=0.0)[1] == 0
    for eta in (0.0, 0.5, 1.0):
        mean, std = denoising_step(x, x0, 0.3, 1.0, eta)
        assert std == 0
        close(mean, x0)
    assert denoising_step(x, x0, 0.3, 1.0, 1.0, min_std=0.25)[1] == 0.25


# Samplers, with denoisers that are exact


def draw(denoise, schedule, eta, rows=20000, seed=0, min_std=0.0):
    start, key = jax.random.split(jax.random.key(seed))
    sample = jax.jit(lambda n, k: denoise_trajectory(denoise, n, None, schedule, k, eta, min_std))
    return np.asarray(sample(jax.random.normal(start, (rows, 1)), key))[..., 0]


def gaussian_denoiser(mean, variance, schedule):
    """E[x₀ | x_t] for data from N(mean, variance)."""

    def denoise(x, times, labels):
        level = jnp.interp(times, jnp.array(schedule.times), jnp.array(schedule.alpha_bars))[:, None]
        gain = jnp.sqrt(level) * variance / (level * variance + 1 - level)
        return mean + gain * (x - jnp.sqrt(level) * mean)

    return denoise


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_data_that_is_one_point_is_reached_through_the_right_marginals(eta):
    schedule = cosine_schedule(12)
    path = draw(lambda x, times, labels: jnp.full_like(x, 0.7), schedule, eta)
    alpha_bars = np.array(schedule.alpha_bars[::-1])
    assert path.shape == (20000, 13)
    np.testing.assert_allclose(path.mean(axis=0), np.sqrt(alpha_bars) * 0.7, atol=0.03)
    np.testing.assert_allclose(path.var(axis=0), 1 - alpha_bars, atol=0.03)
    close(path[:, -1], 0.7)


@pytest.mark.parametrize("make", [cosine_schedule, linear_schedule])
@pytest.mark.parametrize("eta", [0.0, 0.5, pytest.param(1.0, marks=pytest.mark.slow)])
def test_gaussian_data_is_reproduced_in_mean_and_variance(make, eta):
    schedule = make(400)
    last = draw(gaussian_denoiser(0.6, 0.25, schedule), schedule, eta)[:, -1]
    assert last.mean() == pytest.approx(0.6, abs=0.02)
    assert last.var() == pytest.approx(0.25, rel=0.05)


@pytest.mark.parametrize(("eta", "min_std"), [(0.0, 0.0), (1.0, 0.0), (0.3, 0.2)])
def test_with_few_steps_the_variance_is_that_of_the_linear_recursion(eta, min_std):
    """Each step is linear in x and noise, so that the variance of every x_t is known, coarse as the steps may be."""
    schedule, variance = cosine_schedule(8), 0.25
    path = draw(gaussian_denoiser(0.0, variance, schedule), schedule, eta, rows=40000, min_std=min_std)
    expected = 1.0
    levels = schedule.alpha_bars[::-1]
    for step, (here, there) in enumerate(itertools.pairwise(levels), start=1):
        gain = math.sqrt(here) * variance / (here * variance + 1 - here)
        std = max(eta * math.sqrt((1 - there) / (1 - here) * (1 - here / there)), min_std)
        left = math.sqrt(max(1 - there - std**2, 0))
        slope = math.sqrt(there) * gain + left * (1 - math.sqrt(here) * gain) / math.sqrt(1 - here)
        expected = slope**2 * expected + std**2
        assert path[:, step].var() == pytest.approx(expected, rel=0.05), step


def test_a_respaced_schedule_tells_the_denoiser_the_times_that_it_was_trained_with():
    schedule = cosine_schedule(20)
    seen = []

    def denoise(x, times, labels):
        jax.debug.callback(lambda t: seen.append(float(t[0])), times, ordered=True)
        return x

    denoise_trajectory(denoise, jnp.zeros((2, 1)), None, schedule.respace(4), jax.random.key(0))
    jax.effects_barrier()
    close(seen, [1.0, 0.75, 0.5, 0.25])


# Training


@pytest.mark.slow
def test_the_loss_of_the_exact_denoiser_is_the_posterior_variance_and_no_other_has_less():
    schedule, variance = cosine_schedule(10), 0.25
    data = 0.6 + 0.5 * jax.random.normal(jax.random.key(0), (100000, 1))
    exact = gaussian_denoiser(0.6, variance, schedule)
    loss = lambda denoise: float(compute_x0_loss(denoise, data, None, schedule, jax.random.key(1)))  # noqa: E731
    levels = np.array(schedule.alpha_bars[1:])
    assert loss(exact) == pytest.approx(np.mean(variance * (1 - levels) / (levels * variance + 1 - levels)), rel=0.02)
    for bias, scale in ((0.1, 1.0), (0.0, 0.9), (0.0, 1.1)):
        assert loss(lambda x, t, c, bias=bias, scale=scale: bias + scale * exact(x, t, c)) > loss(exact)


def test_the_loss_is_averaged_over_all_steps_alike():
    """A denoiser that is off by its time: the mean of its squared error is that of (t / T)² over t = 1 … T."""
    data = jnp.full((50000, 1, 1), 0.3)
    off = lambda x, times, labels: 0.3 + times[:, None, None] + 0 * x  # noqa: E731
    loss = compute_x0_loss(off, data, None, cosine_schedule(4), jax.random.key(0))
    assert loss == pytest.approx(np.mean((np.arange(1, 5) / 4) ** 2), rel=0.01)


def test_labels_are_dropped_at_the_rate_and_guidance_is_linear_in_its_weight():
    labels = jnp.arange(30000) % 3
    dropped = np.asarray(drop_labels(labels, 3, 0.2, jax.random.key(0)))
    assert np.mean(dropped == 3) == pytest.approx(0.2, abs=0.01)
    assert ((dropped == labels) | (dropped == 3)).all()
    np.testing.assert_array_equal(drop_labels(labels, 3, 0.0, jax.random.key(0)), labels)
    with_label, without = jnp.array([1.0, -1.0]), jnp.array([0.5, 0.0])
    close(guide(with_label, without, 0.0), without)
    close(guide(with_label, without, 1.0), with_label)
    close(guide(with_label, without, 3.0), [2.0, -3.0])


# The network


@pytest.mark.slow
def test_a_denoiser_answers_in_the_shape_of_its_input_and_hears_time_and_label():
    denoiser = Denoiser((2, 3), (16, 16), num_classes=4, rngs=nnx.Rngs(0))
    x = jnp.broadcast_to(jax.random.normal(jax.random.key(0), (2, 3)), (5, 2, 3))
    times, labels = jnp.full(5, 0.5), jnp.arange(5)  # 4 is "no label"
    answers = denoiser(x, times, labels)
    assert answers.shape == (5, 2, 3)
    assert len(np.unique(np.asarray(answers)[:, 0, 0])) == 5
    close(denoiser(x, times)[0], answers[4])
    later = denoiser(x, times + 0.05, labels)
    assert (np.abs(later - answers).max(axis=(1, 2)) > 1e-3).all()


@pytest.mark.slow
def test_each_row_is_denoised_for_itself():
    denoiser = Denoiser((3,), (8,), rngs=nnx.Rngs(0))
    x, times = jax.random.normal(jax.random.key(0), (4, 3)), jnp.linspace(0.1, 1, 4)
    close(denoiser(x, times)[2:3], denoiser(x[2:3], times[2:3]))


@pytest.mark.parametrize(
    "arguments", [((0,), (8,)), ((3,), ()), ((3,), (8, 0)), ((3,), (8,), 0), ((3, -1), (8,)), ((3,), (8,), -2)]
)
def test_sizes_below_1_are_refused(arguments):
    with pytest.raises(ValueError, match="Denoiser: got shape="):
        Denoiser(*arguments, rngs=nnx.Rngs(0))
