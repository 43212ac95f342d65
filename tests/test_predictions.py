"""Predictions of x₀, noise, v and EDM's are one guess in other words; EDM's formulas; ODEs and their orders."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifex_rl.diffusion import (
    PREDICTIONS,
    EDMSchedule,
    add_noise,
    compute_diffusion_loss,
    convert_prediction,
    cosine_schedule,
    denoise_trajectory,
    edm_weight,
    follow_probability_flow,
    linear_schedule,
    min_snr_weight,
    preconditioning,
    predict_x0,
)
from artifex_rl.generative.ode import integrate

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
LEVEL = st.floats(0.01, 0.99)
KIND = st.sampled_from(PREDICTIONS)
X0, NOISE = jnp.array([[0.3, -1.0, 0.8], [-0.7, 0.2, 1.0]]), jnp.array([[1.2, -0.4, 0.1], [0.5, -1.5, 0.9]])

# Conversions


@given(LEVEL, KIND, KIND)
def test_a_prediction_that_is_turned_into_another_and_back_is_itself(alpha_bar, source, target):
    with jax.enable_x64(True):
        x, output = jnp.asarray(X0, jnp.float64), jnp.asarray(NOISE, jnp.float64)
        there = convert_prediction(output, x, alpha_bar, source, target, 0.4)
        back = convert_prediction(there, x, alpha_bar, target, source, 0.4)
        np.testing.assert_allclose(back, output, rtol=1e-9, atol=1e-9)


@given(LEVEL)
def test_the_truth_in_each_prediction_is_its_definition(alpha_bar):
    signal, noise = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
    x = add_noise(X0, NOISE, alpha_bar)
    truth = {kind: convert_prediction(X0, x, alpha_bar, "x0", kind, 0.5) for kind in PREDICTIONS}
    np.testing.assert_array_equal(truth["x0"], X0)
    np.testing.assert_allclose(truth["noise"], NOISE, atol=1e-4)
    np.testing.assert_allclose(truth["v"], signal * NOISE - noise * X0, atol=1e-4)
    sigma, y = noise / signal, X0 + noise / signal * NOISE
    c_skip, c_out = 0.25 / (sigma**2 + 0.25), sigma * 0.5 / math.sqrt(sigma**2 + 0.25)
    np.testing.assert_allclose(truth["edm"], (X0 - c_skip * y) / c_out, atol=1e-3)


@given(LEVEL)
def test_edm_of_data_with_variance_1_is_v_with_the_other_sign(alpha_bar):
    x = add_noise(X0, NOISE, alpha_bar)
    v, edm = (convert_prediction(X0, x, alpha_bar, "x0", kind, 1.0) for kind in ("v", "edm"))
    np.testing.assert_allclose(edm, -v, atol=1e-4)


def test_an_unknown_prediction_is_refused():
    with pytest.raises(ValueError, match="prediction: got 'epsilon', needs 'x0', 'noise', 'v', 'edm'"):
        convert_prediction(X0, X0, 0.5, "x0", "epsilon")


# Weights


@given(LEVEL, st.floats(0.1, 20))
def test_min_snr_weights_are_those_of_the_paper(alpha_bar, gamma):
    snr = alpha_bar / (1 - alpha_bar)
    close(min_snr_weight("x0", alpha_bar, gamma), min(snr, gamma), rtol=1e-4)
    close(min_snr_weight("noise", alpha_bar, gamma), min(snr, gamma) / snr, rtol=1e-4)
    close(min_snr_weight("v", alpha_bar, gamma), min(snr, gamma) / (snr + 1), rtol=1e-4)


def network_that_says(kind, schedule, guess, data_std=0.5):
    """A network whose output, of this kind, stands for x̂₀ = guess(x, alpha_bar)."""

    def network(told, times, labels):
        column = lambda numbers: numbers[:, None]  # noqa: E731
        if kind == "edm":
            sigma = column(jnp.exp(4 * times))
            alpha_bar = 1 / (1 + sigma**2)
            x = told / preconditioning(sigma, data_std).c_in * jnp.sqrt(alpha_bar)
        else:
            alpha_bar, x = column(schedule.alpha_bar_at(times)), told
        return convert_prediction(guess(x, alpha_bar), x, alpha_bar, "x0", kind, data_std)

    return network


def shrink(x, alpha_bar):
    """A guess of x₀, wrong in every row."""
    return 0.3 + 0.5 * x * jnp.sqrt(alpha_bar)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [cosine_schedule(10), EDMSchedule(8)])
def test_one_guess_has_one_min_snr_loss_and_one_error_whatever_it_is_told_as(schedule):
    data = jax.random.normal(jax.random.key(0), (4000, 3))
    losses, errors = [], []
    for kind in PREDICTIONS:
        network = network_that_says(kind, schedule, shrink)
        loss, error = compute_diffusion_loss(network, data, None, schedule, jax.random.key(1), kind, 5.0)
        losses.append(loss), errors.append(error)
    np.testing.assert_allclose(losses, losses[0], rtol=2e-3)
    np.testing.assert_allclose(errors, errors[0], rtol=2e-3)
    plain = [
        float(
            compute_diffusion_loss(
                network_that_says(kind, schedule, shrink), data, None, schedule, jax.random.key(1), kind
            )[0]
        )
        for kind in PREDICTIONS
    ]
    assert len(np.unique(np.round(plain, 3))) == 4, "without it each weighs the levels in its own way"


def test_the_guess_is_read_back_from_every_prediction():
    schedule = cosine_schedule(10)
    x, times = add_noise(X0, NOISE, 0.5), jnp.array([0.3, 0.8])
    expected = shrink(x, schedule.alpha_bar_at(times)[:, None])
    for kind in PREDICTIONS:
        network = network_that_says(kind, schedule, shrink)
        np.testing.assert_allclose(predict_x0(network, x, times, None, schedule, kind), expected, atol=1e-4)


@pytest.mark.parametrize("schedule", [cosine_schedule(7), linear_schedule(12), EDMSchedule(9)])
def test_a_time_says_its_noise_level_and_fewer_steps_begin_and_end_at_the_same(schedule):
    start = 1 if isinstance(schedule, EDMSchedule) else 0
    close(schedule.alpha_bar_at(jnp.array(schedule.times[start:])), schedule.alpha_bars[start:], rtol=1e-4)
    fewer = schedule.respace(3)
    assert fewer.num_steps == 3 and len(fewer.alpha_bars) == 4
    close([fewer.alpha_bars[0], fewer.alpha_bars[-1]], [schedule.alpha_bars[0], schedule.alpha_bars[-1]])
    alpha_bars, times = schedule.draw(jax.random.key(0), 1000)
    close(schedule.alpha_bar_at(times), alpha_bars, rtol=1e-3)


# EDM


@given(st.floats(0.002, 80), st.floats(0.1, 3))
def test_edm_keeps_input_target_and_weight_at_1(sigma, data_std):
    c_skip, c_out, c_in, c_noise = (float(c) for c in preconditioning(sigma, data_std))
    total = sigma**2 + data_std**2
    assert c_in**2 * total == pytest.approx(1, rel=1e-4)  # variance of c_in (x₀ + σ ε)
    target = (1 - c_skip) ** 2 * data_std**2 + c_skip**2 * sigma**2  # of x₀ − c_skip (x₀ + σ ε)
    assert target / c_out**2 == pytest.approx(1, rel=1e-3)
    assert float(edm_weight(sigma, data_std)) == pytest.approx(total / (sigma * data_std) ** 2, rel=1e-4)
    assert float(edm_weight(sigma, data_std)) * c_out**2 == pytest.approx(1, rel=1e-4)
    assert c_noise == pytest.approx(math.log(sigma) / 4, abs=1e-5)


def test_edm_levels_are_equation_5_and_its_training_levels_lognormal():
    schedule = EDMSchedule(18)
    i = np.arange(18)
    sigmas = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(schedule.sigmas[:0:-1], sigmas, rtol=1e-9)
    assert schedule.sigmas[0] == 0 and schedule.alpha_bars[0] == 1
    alpha_bars, _ = schedule.draw(jax.random.key(0), 50000)
    log_sigma = 0.5 * np.log((1 - alpha_bars) / alpha_bars)
    assert log_sigma.mean() == pytest.approx(-1.2, abs=0.02) and log_sigma.std() == pytest.approx(1.2, abs=0.02)
    assert EDMSchedule(1).sigmas == (0.0, pytest.approx(80.0)) and hash(EDMSchedule(3)) == hash(EDMSchedule(3))


@pytest.mark.slow
def test_for_gaussian_data_edm_s_best_network_says_0_and_errs_by_1_at_every_level():
    """E[x₀ | y] = c_skip y, so that nothing is left to say; the effective loss is the target's variance."""
    data = 0.5 * jax.random.normal(jax.random.key(0), (60000, 1))
    silent = lambda x, times, labels: jnp.zeros_like(x)  # noqa: E731
    for log_mean in (-3.0, 0.0, 2.0):
        schedule = EDMSchedule(log_mean=log_mean, log_std=0.1)
        loss, _ = compute_diffusion_loss(silent, data, None, schedule, jax.random.key(1), "edm")
        assert loss == pytest.approx(1, abs=0.03)

    for num_steps, expected in ((18, 0.527666), (72, 0.501465)):  # algorithm 1 in NumPy, from 1; in the limit 0.5
        schedule = EDMSchedule(num_steps)
        denoise = lambda x, t, c: predict_x0(silent, x, t, c, schedule, "edm")  # noqa: B023, E731
        assert follow_probability_flow(denoise, jnp.ones((1, 1)), None, schedule)[0, 0] == pytest.approx(
            expected, 1e-4
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_steps": 0}, "num_steps: got 0"),
        ({"sigma_min": 0.0}, "sigma_min and sigma_max: got 0"),
        ({"sigma_max": 0.001}, "sigma_min and sigma_max"),
        ({"rho": 0.0}, "rho, log_mean and log_std: got 0"),
        ({"log_std": -1.0}, "rho, log_mean and log_std"),
    ],
)
def test_levels_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        EDMSchedule(**arguments)


# ODEs


def test_euler_s_probability_flow_is_ddim_without_noise():
    schedule = cosine_schedule(9)
    guess = lambda x, times, labels: jnp.tanh(x) * (1 - times[:, None])  # noqa: E731
    noise = jax.random.normal(jax.random.key(0), (5, 3))
    ddim = denoise_trajectory(guess, noise, None, schedule, jax.random.key(1), eta=0.0)[:, -1]
    np.testing.assert_allclose(follow_probability_flow(guess, noise, None, schedule, "euler"), ddim, atol=1e-4)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2)])
def test_the_probability_flow_of_a_gaussian_is_followed_with_its_order(method, order):
    """Data from N(m, s²): y(σ) = m + (y_T − m) √((s² + σ²) / (s² + σ_T²))."""
    mean, std, start = 0.6, 0.5, np.array([[-1.5], [0.4], [2.0]])
    with jax.enable_x64(True):

        def error(num_steps):
            schedule = EDMSchedule(num_steps, sigma_min=1e-5, sigma_max=5.0, rho=3.0)

            def denoise(x, times, labels):
                alpha_bar = schedule.alpha_bar_at(times)[:, None]
                sigma_squared, y = (1 - alpha_bar) / alpha_bar, x / jnp.sqrt(alpha_bar)
                return (std**2 * y + sigma_squared * mean) / (std**2 + sigma_squared)

            end = follow_probability_flow(denoise, jnp.asarray(start), None, schedule, method)
            exact = mean + (start * math.sqrt(26) - mean) * std / math.sqrt(std**2 + 25)
            return np.abs(np.asarray(end) - exact).max()

        errors = [error(n) for n in (33, 65, 129)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(orders, order, atol=0.25)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2)])
def test_a_known_field_is_followed_with_its_order_forwards_and_backwards(method, order):
    """dx/dt = x cos t: x = exp(sin t)."""
    with jax.enable_x64(True):
        for ends in ((0.0, 2.0), (2.0, 0.0)):
            first, last = (math.exp(math.sin(t)) for t in ends)
            errors = [
                abs(float(integrate(lambda x, t: x * jnp.cos(t), jnp.float64(first), grid, method)) - last)
                for grid in (np.linspace(*ends, n + 1) for n in (40, 80))
            ]
            assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


@pytest.mark.slow
def test_the_path_of_an_ode_holds_all_its_points_and_a_straight_field_needs_one_step():
    times = np.array([0.0, 0.1, 0.7, 1.0])
    path = integrate(lambda x, t: jnp.full_like(x, 2.0), jnp.zeros(3), times, "euler", path=True)
    close(path, 2 * times[:, None] * np.ones((1, 3)))
    with pytest.raises(ValueError, match="method: got 'rk4', needs 'euler' or 'heun'"):
        integrate(lambda x, t: x, jnp.zeros(3), times, "rk4")
