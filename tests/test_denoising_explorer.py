"""DenoisingExplorer: what it draws of a trajectory's log-probability, against closed forms and the policy itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from artifex_rl import DiffusionPolicy
from artifex_rl.diffusion import cosine_schedule, linear_schedule
from artifex_rl.lab import DenoisingExplorer
from artifex_rl.lab.denoising_explorer import ERROR, PLACES
from artifex_rl.pretrained import pretrained_digits

SCHEDULES = {"cosine": cosine_schedule(20), "linear": linear_schedule(20)}
SETTINGS = [
    {},
    {"steps": 20, "eta": 0.5},
    {"schedule": "linear", "steps": 8, "min_std": 0.02},
    {"steps": 2, "eta": 0.05, "min_std": 0.3},
]
every_setting = pytest.mark.parametrize("setting", SETTINGS, ids=str)


@functools.cache
def begun():
    """The explorer, and how it stands at first: made by the first test, and not by each worker that reads this."""
    explorer = DenoisingExplorer()
    return explorer, explorer.knobs


def moved(**knobs):
    explorer, start = begun()
    explorer.set(**{**start, **knobs})
    return explorer.curves()


def drawn(curves, name):
    """The heights of a curve over time, without the gaps behind its end."""
    heights = curves[name][:, 1]
    return heights[np.isfinite(heights)]


class Constant(nnx.Module):
    """A denoiser that guesses the same for every pixel."""

    def __init__(self, guess):
        self.guess = guess

    def __call__(self, x, times, labels):
        return jnp.full_like(x, self.guess)


def policy(guess, setting):
    knobs = {**begun()[1], **setting}
    schedule = SCHEDULES[setting.get("schedule", "cosine")].respace(int(knobs["steps"]))
    return DiffusionPolicy(Constant(guess), schedule, (8, 8), eta=knobs["eta"], min_std=knobs["min_std"])


@pytest.mark.slow
@every_setting
def test_noise_mean_log_prob_and_price_are_the_policys(setting):
    """Whatever the trajectory is: all of them depend on the noise levels alone."""
    curves, home, away = moved(**setting), policy(0.3, setting), policy(0.3 + ERROR, setting)
    steps = home.schedule.num_steps
    path = np.random.default_rng(0).normal(size=(2, steps + 1, 8, 8)).astype(np.float32)
    seen, other = (one.evaluate(np.zeros(2, int), path) for one in (away, home))
    np.testing.assert_allclose(drawn(curves, "std"), np.exp(seen.distribution.log_std[:, 0, 0]), rtol=1e-4)
    np.testing.assert_allclose(drawn(curves, "log_prob"), -seen.entropy[0], rtol=1e-4, atol=1e-3)
    for price in seen.distribution.kl(other.distribution):
        np.testing.assert_allclose(drawn(curves, "price"), np.maximum(price, 1e-4), rtol=2e-2, atol=1e-3)
    np.testing.assert_allclose(drawn(curves, "alpha_bar"), home.schedule.alpha_bars[-2::-1], rtol=1e-5)


def test_the_band_holds_what_the_pretrained_artist_draws():
    """A policy's own trajectories: log π has this mean, and this deviation, at each step."""
    curves, artist = moved(steps=5), pretrained_digits(5)
    _, log_probs = artist.sample(jnp.full(400, 10), jax.random.key(0))
    deviation = drawn(curves, "log_prob_high") - drawn(curves, "log_prob")
    np.testing.assert_allclose(deviation, np.sqrt(32), rtol=1e-4)
    np.testing.assert_allclose(deviation, drawn(curves, "log_prob") - drawn(curves, "log_prob_low"), rtol=1e-4)
    np.testing.assert_allclose(log_probs.mean(axis=0), drawn(curves, "log_prob"), atol=4 * np.sqrt(32 / 400))
    np.testing.assert_allclose(log_probs.std(axis=0), deviation, rtol=0.15)


@pytest.mark.parametrize("steps", [2, 7, 20])
@pytest.mark.parametrize("name", SCHEDULES)
def test_ddpms_price_is_half_of_what_the_step_adds_to_the_signal_to_noise_ratio(name, steps):
    """Kingma et al. (2021), eq. 14, wherever the floor is not in force."""
    curves = moved(schedule=name, steps=steps, min_std=0.02)
    levels = np.array(SCHEDULES[name].respace(steps).alpha_bars[:0:-1])  # without the step onto the data
    ratio = levels / (1 - levels)
    free = drawn(curves, "std")[:-1] > 0.0201
    expected = 0.5 * 64 * ERROR**2 * np.diff(ratio)[free]
    np.testing.assert_allclose(drawn(curves, "price")[:-1][free], np.maximum(expected, 1e-4), rtol=2e-2, atol=1e-4)
    assert free.sum() >= steps - 2


def test_the_last_step_has_the_noise_of_the_floor_and_its_price():
    for floor in (0.02, 0.1, 0.3):
        curves = moved(min_std=floor)
        np.testing.assert_allclose(drawn(curves, "std")[-1], floor, rtol=1e-5)
        np.testing.assert_allclose(drawn(curves, "price")[-1], 32 * (ERROR / floor) ** 2, rtol=1e-3)


def test_less_noise_raises_the_log_probability_and_the_price_of_every_step():
    noisy, calm = moved(eta=1, steps=10), moved(eta=0.3, steps=10)
    for name in ("log_prob", "price"):
        assert (drawn(calm, name)[:-1] >= drawn(noisy, name)[:-1]).all(), name
        assert drawn(calm, name)[-1] == pytest.approx(drawn(noisy, name)[-1])  # the floor alone


def test_the_marks_stand_on_the_curves_and_never_behind_the_end():
    for step, steps in ((1, 5), (4, 5), (20, 5), (20, 20)):
        curves = moved(step=step, steps=steps)
        i = min(step, steps) - 1
        for name in ("std", "log_prob", "price"):
            np.testing.assert_array_equal(curves[f"here_{name}"][0], curves[name][i])
            assert curves[f"here_{name}"][0, 0] == pytest.approx((i + 1) / steps)


def test_every_moving_line_has_a_path_or_marks():
    """Of a line that has both, the page moves the marks and leaves the path where it was."""
    for name, line in begun()[0]._canvas.lines.items():
        assert (line.get_linestyle() == "None") != (line.get_marker() == "None"), name
    curves = moved(eta=0.3, steps=7)
    for name in ("alpha_bar", "std", "log_prob", "price"):
        np.testing.assert_array_equal(curves[f"dots_{name}"], curves[name])


def test_the_two_densities_are_as_far_apart_as_the_price_says():
    """Between two Gaussians of one width the log-ratio at one's top is minus the KL."""
    curves = moved(steps=5, step=5)
    assert curves["guess"].max() == pytest.approx(1) and PLACES[curves["guess"].argmax()] == pytest.approx(0)
    assert PLACES[curves["moved"].argmax()] == pytest.approx(ERROR, abs=0.01)
    at_the_top = np.log(curves["moved"][np.abs(PLACES).argmin()])
    assert -64 * at_the_top == pytest.approx(curves["here_price"][0, 1], rel=1e-3)


def test_twice_the_pixels_have_twice_the_price():
    """Log-probabilities add up over pixels: a mean over them would not know how large a picture is."""
    small, large = DenoisingExplorer().curves(), DenoisingExplorer(128).curves()
    for name in ("price", "log_prob"):
        np.testing.assert_allclose(drawn(large, name), 2 * drawn(small, name), rtol=1e-3)
    np.testing.assert_array_equal(drawn(large, "std"), drawn(small, "std"))


@pytest.mark.parametrize("dimensions", [0, 2.5, True, "many"])
def test_what_is_no_number_of_pixels_is_refused(dimensions):
    with pytest.raises(ValueError, match=r"^dimensions: got"):
        DenoisingExplorer(dimensions)
